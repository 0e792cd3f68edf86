"""The tables of what has targets for memory: offloading and equal marginals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.cells import Results, row, verdict

Targets = dict[str, tuple[float | None, float | None]]

OFFLOAD_TARGETS: dict[str, Targets] = {  # peak GiB, seconds as a multiple of those without
    "7b-none": {"search": (17, None), "prune": (18, None)},
    "7b-blocks": {"search": (5, 1.3), "prune": (5, 1.3), "perplexity": (5, 1.3)},
    "7b-disk": {"search": (5, None), "prune": (5, None), "perplexity": (5, None)},
    "30b-blocks": {"search": (24, None), "prune": (24, None), "perplexity": (24, None)},
}
STAGES = ("search", "perplexity", "prune")
PLACES = ("none", "blocks", "disk")
MARGINAL_SECONDS = 200.0
MARGINAL_GIB = {"none": 60.0, "blocks": 24.0}


def offload(results: Results) -> Iterator[str]:
    yield "## Offloading: Wanda, 70 %, float16; beside the same with all weights on the GPU"
    yield ""
    yield (
        "| weights | stage | windows × tokens | s | target × none | × none | target GiB | GiB "
        "| host GiB | same result |"
    )
    yield "|---" * 10 + "|"
    shapes = sorted({name.split("-")[1] for name in results if name.startswith("offload-")})
    for shape in shapes:
        for place in PLACES:
            for stage in STAGES:
                found = results.get(f"offload-{shape}-{place}-{stage}")
                if found is not None:
                    plain = results.get(f"offload-{shape}-none-{stage}")
                    yield offload_row(f"{shape}-{place}", stage, found, plain)


def offload_row(name: str, stage: str, found: dict[str, Any], plain: dict[str, Any] | None) -> str:
    """One stage, beside the one without offloading if that had the same windows."""
    size = (found["windows"], found["seqlen"])
    gib, slowest = OFFLOAD_TARGETS.get(name, {}).get(stage, (None, None))
    ratio, same = None, None
    if plain is not None and plain is not found and (plain["windows"], plain["seqlen"]) == size:
        ratio = verdict(found["seconds"] / plain["seconds"], slowest)
        same = alike(found["found"], plain["found"])
    return row(
        name,
        stage,
        f"{size[0]} × {size[1]}",
        f"{found['seconds']:.1f}",
        slowest,
        ratio,
        gib,
        found["peak_gib"] and verdict(found["peak_gib"], gib),
        f"{found['host_gib']:.1f}",
        same,
    )


def alike(found: Any, wanted: Any) -> str:
    """``yes`` if equal, else by how much numbers differ."""
    if found == wanted:
        return "yes"
    if isinstance(found, float):
        return f"to {abs(found / wanted - 1):.0e}"
    if isinstance(found, str):
        return "NO"
    pairs = [pair for a, b in zip(found, wanted, strict=True) for pair in zip(a, b, strict=True)]
    return f"to {max(abs(a / b - 1) for a, b in pairs):.0e}"


def marginal(results: Results) -> Iterator[str]:
    yield "## Equal marginals, Wanda, 70 %: 25 iterations of linears and 60 of rows, projected"
    yield ""
    yield (
        "| shape, dtype, offload | windows × tokens, batch | s an iteration, linear / row "
        "| s before | target s | 25 + 60, s | target GiB | GiB |"
    )
    yield "|---" * 8 + "|"
    for name in sorted(results):
        if not name.startswith("marginal-"):
            continue
        found = results[name]
        whole = found["shape"] == "7b" and found["blocks"] == 32
        seconds = MARGINAL_SECONDS if whole else None
        gib = MARGINAL_GIB[found["offload"]] if whole else None
        each = found["seconds_an_iteration"]
        yield row(
            name.removeprefix("marginal-").replace("-", ", "),
            f"{found['windows']} × {found['seqlen']}, {found['batch']}",
            f"{each['linear']:.2f} / {each['row']:.2f}",
            f"{found['seconds_before_iterations']:.1f}",
            seconds,
            verdict(found["projected_25_60"], seconds),
            gib,
            found["peak_gib"] and verdict(found["peak_gib"], gib),
        )
