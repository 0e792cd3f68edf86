"""results/benchmark.md: targets, what was measured, and ratios, from the JSON files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.cells import Results, row, verdict
from bench.common import Store
from bench.missed import MISSED
from bench.table_memory import marginal, offload

SEARCH_TARGETS = {"exact": 20.0, "exact-uncompiled": None, "early_out": 17.0, "adaptive": 8.0}
PRUNE_TARGETS = {"magnitude": 1.0, "wanda": 11.0, "multiflow": 11.0, "sparsegpt": 180.0}
SEARCH_GIB, PRUNE_GIB = 17.0, 18.0


def main(store: Store) -> None:
    """Print the tables and write them, beside the folder of the files and under its name."""
    results = {found["name"]: found for found in store.all()}
    text = "\n".join(lines(results)) + "\n"
    folder = store.folder.resolve()
    (folder.parent / f"{folder.name}.md").write_text(text)
    print(text)


def lines(results: Results) -> Iterator[str]:
    yield "# What it costs"
    yield ""
    yield (
        "Made by `python experiments/benchmark.py table` from the files in `results/benchmark/`; "
        "each of them says the command that made it. LLaMA shapes have random weights; 7b: 32 "
        "blocks, 4096, 11008, 32 heads. *Forward equivalents*: seconds ÷ (candidates × 2 × one "
        "dense pass by plain eager `transformers`). *Authors' way*: one window at a time, two "
        "whole passes a candidate, a stable sort, timed for two candidates in the same process and "
        "extrapolated to 29. *Floor*: all matrix products and attention of 29 candidates at the "
        "card's measured matrix rate, no selection. Compiling (once; kept on disk) is timed apart."
    )
    for part in (
        search,
        ideas,
        prune,
        evaluate,
        kernels,
        semi_structured,
        offload,
        marginal,
        adaptive,
        cpu,
    ):
        table = list(part(results))
        if len(table) > 4:
            yield ""
            yield from table
    yield ""
    yield from MISSED
    yield ""
    yield from machines(results)


def search(results: Results) -> Iterator[str]:
    yield "## Search, 8 × 2048 tokens, both steps, 29 candidates, 70 %"
    yield ""
    yield (
        "| shape, pruner, dtype | search | target s | s | forward eq. | × authors' | ÷ floor "
        "| GiB (target 17) | λ, λ_r | criteria measured | compiling s |"
    )
    yield "|---" * 11 + "|"
    for name in sorted(results):
        if not name.startswith("dense-"):
            continue
        what, dense = name.removeprefix("dense-"), results[name]
        authors = results.get(f"search-authors-{what}")
        for variant, target in SEARCH_TARGETS.items():
            found = results.get(f"search-{variant}-{what}")
            if found is None:
                continue
            forward = found["seconds"] / (found["candidates"] * 2 * dense["forward_seconds"])
            faster = authors["extrapolated_seconds"] / found["seconds"] if authors else None
            yield row(
                what.replace("-", ", "),
                variant + ("" if found["compiled"] or "uncompiled" in variant else " (uncompiled)"),
                target,
                verdict(found["seconds"], target),
                f"{forward:.2f}",
                faster and f"{faster:.1f}",
                f"{found['seconds'] / dense['floor_seconds']:.2f}",
                found["peak_gib"],
                f"{found['lambda_block']}, {found['lambda_row']}",
                f"{found['complete']} of {found['candidates']}",
                f"{found['compile_seconds']:.1f}",
            )
        if authors:
            spent = authors["extrapolated_seconds"]
            yield row(what.replace("-", ", "), "authors' way", None, f"{spent:.0f}",
                      f"{spent / (58 * dense['forward_seconds']):.2f}", "1",
                      f"{spent / dense['floor_seconds']:.2f}", authors["peak_gib"], None, None,
                      None)  # fmt: skip
    yield ""
    for name in sorted(results):
        if name.startswith("search-exact-uncompiled-"):
            other = results.get(name.replace("-uncompiled", ""))
            if other:
                yield difference(results[name], other)


def difference(plain: dict[str, Any], compiled: dict[str, Any]) -> str:
    """How far apart the criteria of compiled and uncompiled blocks are."""
    first, second = plain["report"], compiled["report"]
    apart = {
        step: max(
            abs(a / b - 1)
            for a, b in zip(first[f"criterion_{step}"], second[f"criterion_{step}"], strict=True)
        )
        for step in ("block", "row")
    }
    same = all(plain[key] == compiled[key] for key in ("lambda_block", "lambda_row"))
    if first["lambda_block"] == second["lambda_block"]:
        rows = f"{apart['row']:.1e} in the row step, where each ranks rows by its own δ"
    else:
        rows = "the row steps start from different blocks"
    return (
        f"- {plain['name'].removeprefix('search-exact-uncompiled-')}: criteria of compiled and "
        f"uncompiled blocks differ by at most {apart['block']:.1e} in the block step (target "
        f"1e-3); {rows}; λ's {'the same' if same else 'differ'}."
    )


def ideas(results: Results) -> Iterator[str]:
    yield "## What each idea gives: a block of one candidate, with all ideas and one taken back"
    yield ""
    yield "| shape, dtype | how | ms a block | × all |"
    yield "|---" * 4 + "|"
    for name in sorted(results, key=lambda name: results[name].get("ms_a_block", 0.0)):
        if not name.startswith("idea-"):
            continue
        what = "-".join(name.split("-")[-2:])
        best = results.get(f"idea-all-{what}")
        each = results[name]["ms_a_block"]
        ratio = f"{each / best['ms_a_block']:.2f}" if best else None
        yield row(what.replace("-", ", "), results[name]["what"], f"{each:.2f}", ratio)


def prune(results: Results) -> Iterator[str]:
    yield "## Pruning, uniform plan, 70 %"
    yield ""
    yield "| pruner, shape, dtype | windows | target s | s | ÷ floor | GiB (target 18) | batch |"
    yield "|---" * 7 + "|"
    for name, found in results.items():
        if name.startswith("prune-"):
            target = PRUNE_TARGETS[name.split("-")[1]] if found["blocks"] == 32 else None
            floor = found["floor_seconds"]
            yield row(
                name.removeprefix("prune-").replace("-", ", "),
                found["windows"],
                target,
                verdict(found["seconds"], target),
                floor and f"{found['seconds'] / floor:.2f}",
                found["peak_gib"],
                found["batch"],
            )


def evaluate(results: Results) -> Iterator[str]:
    yield "## Perplexity, windows of 2048 (target: half of the matrix rate)"
    yield ""
    yield "| shape, dtype | batch | windows/s | TFLOP/s | share of the matrix rate | GiB |"
    yield "|---" * 6 + "|"
    for name, found in results.items():
        if name.startswith("evaluate-"):
            yield row(
                ", ".join(name.split("-")[2:]),
                found["batch"],
                f"{found['windows'] / found['seconds']:.1f}",
                f"{found['rate'] / 1e12:.0f} of {found['matrix_rate'] / 1e12:.0f}",
                f"{found['share']:.0%}" + ("" if found["share"] >= 0.5 else " (missed)"),
                found["peak_gib"],
            )


def kernels(results: Results) -> Iterator[str]:
    yield "## Selection of the lowest scores of every row (Wanda, 70 %), ms"
    yield ""
    yield "| matrix, dtype | kernel | sort (its twin) | stable sort alone | same weights |"
    yield "|---" * 5 + "|"
    for name, found in results.items():
        if name.startswith("kernels-") and "kernel_ms" in found:
            yield row(
                name.removeprefix("kernels-").replace("-", ", "),
                *(f"{found[key]:.3f}" for key in ("kernel_ms", "twin_ms", "stable_sort_ms")),
                "yes" if found["equal"] else "NO",
            )
    fuzz = results.get("kernels-fuzz")
    if fuzz:
        yield ""
        yield (
            f"Fuzzed on {fuzz['device']}: {len(fuzz['different'])} of {fuzz['trials']} random "
            "selections (ties, zeros, infinities, all counts) differ from the twin."
        )


def semi_structured(results: Results) -> Iterator[str]:
    yield "## 2:4 through the card's sparse kernels (cuSPARSELt, by `torch.sparse`), dense → 2:4"
    yield ""
    yield (
        "| shape, dtype | windows × tokens | linears of a block, ms | speed-up "
        "| forward pass, eager `transformers`, ms | speed-up | weights, GiB |"
    )
    yield "|---" * 7 + "|"
    for name, dense in results.items():
        if not name.startswith("semi-structured-dense-"):
            continue
        sparse = results.get(name.replace("-dense-", "-cusparselt-"))
        for size in dense["linears_ms"] if sparse else ():
            both = [
                (dense[part][size], sparse[part][size]) for part in ("linears_ms", "forward_ms")
            ]
            timed = [(f"{a:.3g} → {b:.3g}", f"{a / b:.2f} ×") for a, b in both]
            yield row(
                name.removeprefix("semi-structured-dense-").replace("-", ", "),
                size.replace("x", " × "),
                *timed[0],
                *timed[1],
                f"{dense['gib']:.1f} → {sparse['gib']:.1f}",
            )


def adaptive(results: Results) -> Iterator[str]:
    cases = [found for name, found in results.items() if name.startswith("adaptive-")]
    same = sum(found["same"] for found in cases)
    yield "## Adaptive search: the λ's of the exact search?"
    yield ""
    if not cases:
        return
    yield (
        f"The same in {same} of {len(cases)} cases ({same / len(cases):.0%}; target 95 %); the "
        f"criterion of the chosen is at most {max(c['loss'] for c in cases):.2%} above the best "
        f"(target 1 %). The cases in which they differ:"
    )
    yield ""
    yield "| case | exact λ, λ_r | adaptive λ, λ_r | criterion above the best |"
    yield "|---" * 4 + "|"
    for found in cases:
        if not found["same"]:
            shown = [", ".join(map(str, found["lambdas"][key])) for key in ("exact", "adaptive")]
            yield row(found["name"].removeprefix("adaptive-"), *shown, f"{found['loss']:.2%}")


def cpu(results: Results) -> Iterator[str]:
    yield "## Search on a CPU (target: 1.6 forward equivalents)"
    yield ""
    yield (
        "| model | windows | pruner | threads | candidates | search s | dense pass s | forward eq. "
        "| forward eq., processor time | λ, λ_r |"
    )
    yield "|---" * 10 + "|"
    for name, found in results.items():
        if name.startswith("cpu-"):
            low, high = found["forward_range"]
            yield row(
                found["model"],
                found["windows"],
                found["pruner"],
                found["threads"],
                found["candidates"],
                f"{found['seconds']:.1f}",
                f"{found['forward_seconds']:.3f} ({low:.3f} … {high:.3f})",
                verdict(found["equivalents"], 1.6),
                f"{found['processor_equivalents']:.2f}",
                f"{found['lambda_block']}, {found['lambda_row']}",
            )


def machines(results: Results) -> Iterator[str]:
    yield "## Where and when"
    yield ""
    seen: dict[str, list[str]] = {}
    for name, found in results.items():
        packages = ", ".join(f"{key} {value}" for key, value in found["packages"].items())
        seen.setdefault(f"{found['device']}; {packages}; {found['date']}", []).append(
            name.split("-")[0]
        )
    for where, parts in seen.items():
        yield f"- {where}: {', '.join(sorted(set(parts)))}"
