"""The tables of results/benchmark.md: columns, and rows from the measurements' JSON files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.common import Store
from bench.page import CARD, Column, Part, Results, Row, Table, blank, fill, named
from bench.tables_memory import FISHER, MARGINAL, OFFLOAD
from bench.tables_parts import DEVICES, GRID, PROFILE, draw_profile, starts
from bench.tables_search import SEARCH, search_differences

PRUNE_TARGETS = {
    "magnitude": (0.5, 18.0),
    "wanda": (10.5, 18.0),
    "multiflow": (10.5, 18.0),
    "sparsegpt": (30.0, 24.0),
    "alps": (240.0, None),
}
"""Pruner → seconds and GiB."""
CPU_EQUIVALENTS = 1.6
MATRIX_SHARE = 0.5


def main(store: Store) -> None:
    """Fill the page beside the folder of the files, or a new one, and print it."""
    folder = store.folder.resolve()
    path = folder.parent / f"{folder.name}.md"
    results = store.results()
    text = fill(path.read_text() if path.exists() else blank(PARTS), PARTS, results)
    draw_profile(results, path.with_name(f"{folder.name}-parts.svg"))
    path.write_text(text)
    print(text)


def prune_rows(results: Results) -> Iterator[Row]:
    for subject, result in named(results, "prune-"):
        floor = result["floor_seconds"]
        whole = result["blocks"] == 32
        target, gib = PRUNE_TARGETS[subject.split(", ")[0]] if whole else (None, None)
        yield {
            **result,
            "subject": subject,
            "target": target,
            "gib": gib,
            "floor": floor and result["seconds"] / floor,
        }


PRUNE = Table(
    (
        Column("pruner, shape, dtype", "subject"),
        Column("windows", "windows"),
        CARD,
        Column("target s", "target"),
        Column("s", "seconds", ".2f", target="target"),
        Column("÷ floor", "floor", ".2f"),
        Column("masks to the host, s", "masks_seconds", ".2f"),
        Column("target GiB", "gib", ".0f"),
        Column("GiB", "peak_gib", target="gib"),
        Column("batch", "batch"),
    ),
    prune_rows,
)


def evaluate_rows(results: Results) -> Iterator[Row]:
    for subject, result in named(results, "evaluate-"):
        yield {
            **result,
            "subject": subject.partition(", ")[2],
            "speed": result["windows"] / result["seconds"],
            "rates": f"{result['rate'] / 1e12:.0f} of {result['matrix_rate'] / 1e12:.0f}",
            "shown": f"{result['share']:.0%}"
            + ("" if result["share"] >= MATRIX_SHARE else " (missed)"),
        }


EVALUATE = Table(
    (
        Column("shape, dtype", "subject"),
        Column("batch", "batch"),
        Column("windows/s", "speed", ".1f"),
        Column("TFLOP/s", "rates"),
        Column("share of the matrix rate", "shown"),
        Column("GiB", "peak_gib"),
    ),
    evaluate_rows,
)


def kernel_rows(results: Results) -> Iterator[Row]:
    for subject, result in named(results, "kernels-"):
        yield {**result, "subject": subject, "same": "yes" if result["equal"] else "NO"}


KERNELS = Table(
    (
        Column("matrix, dtype", "subject"),
        Column("kernel", "kernel_ms", ".3f"),
        Column("sort (its twin)", "twin_ms", ".3f"),
        Column("stable sort alone", "stable_sort_ms", ".3f"),
        Column("same weights", "same"),
    ),
    kernel_rows,
)


def semi_structured_rows(results: Results) -> Iterator[Row]:
    for subject, dense in named(results, "semi-structured-dense-"):
        sparse = results.get(f"semi-structured-cusparselt-{subject.replace(', ', '-')}")
        for size in dense["linears_ms"] if sparse else ():
            assert sparse is not None
            row: dict[str, Any] = {**sparse, "subject": subject, "size": size.replace("x", " × ")}
            for part in ("linears_ms", "forward_ms"):
                before, after = dense[part][size], sparse[part][size]
                row[part] = f"{before:.3g} → {after:.3g}"
                row[f"{part}_ratio"] = f"{before / after:.2f} ×"
            yield {**row, "gib": f"{dense['gib']:.1f} → {sparse['gib']:.1f}"}


def expert_rows(results: Results) -> Iterator[Row]:
    """Yield for each size a block of experts, compared with its dense block."""
    for name, routed in sorted(results.items()):
        dense = results.get(f"{name.removesuffix('-routed')}-dense")
        if not name.startswith("experts-") or not name.endswith("-routed") or dense is None:
            continue
        yield {
            **routed,
            "subject": f"{routed['pruner']}, {routed['size']}, {routed['dtype']}",
            "speed": routed["weights_per_second"] / 1e9,
            "speed_of_dense": dense["weights_per_second"] / 1e9,
            "dense_seconds": dense["seconds"],
            "ratio": routed["weights_per_second"] / dense["weights_per_second"],
        }


EXPERTS = Table(
    (
        Column("pruner, experts × inner × hidden, dtype", "subject"),
        Column("windows", "windows"),
        CARD,
        Column("s", "seconds", ".3f"),
        Column("s, dense block", "dense_seconds", ".3f"),
        Column("10⁹ weights/s", "speed", ".1f"),
        Column("10⁹ weights/s, dense block", "speed_of_dense", ".1f"),
        Column("ratio (target 0.5)", "ratio", ".2f"),
        Column("GiB", "peak_gib", ".2f"),
    ),
    expert_rows,
)


SEMI_STRUCTURED = Table(
    (
        Column("shape, dtype", "subject"),
        Column("windows × tokens", "size"),
        CARD,
        Column("linears of a block, ms", "linears_ms"),
        Column("speed-up", "linears_ms_ratio"),
        Column("forward pass, eager `transformers`, ms", "forward_ms"),
        Column("speed-up", "forward_ms_ratio"),
        Column("weights, GiB", "gib"),
    ),
    semi_structured_rows,
)


def cpu_rows(results: Results) -> Iterator[Row]:
    for _, result in named(results, "cpu-"):
        low, high = result["forward_range"]
        yield {
            **result,
            "target": CPU_EQUIVALENTS,
            "forward": f"{result['forward_seconds']:.3f} ({low:.3f} … {high:.3f})",
            "lambdas": f"{result['lambda_block']}, {result['lambda_row']}",
        }


CPU = Table(
    (
        Column("model", "model"),
        Column("windows", "windows"),
        Column("pruner", "pruner"),
        Column("threads", "threads"),
        Column("candidates", "candidates"),
        Column("search s", "seconds", ".1f"),
        Column("dense pass s", "forward"),
        Column("forward eq.", "equivalents", ".2f", target="target"),
        Column("forward eq., processor time", "processor_equivalents", ".2f"),
        Column("λ, λ_r", "lambdas"),
    ),
    cpu_rows,
)


def machines(results: Results) -> Iterator[str]:
    """Yield the devices, versions and dates, each with the parts that were measured there."""
    parts: dict[str, set[str]] = {}
    for name, result in results.items():
        packages = ", ".join(f"{key} {value}" for key, value in result["packages"].items())
        machine = f"{result['device']}; {packages}; {result['date']}"
        parts.setdefault(machine, set()).add(name.split("-")[0])
    for machine, names in parts.items():
        yield f"- {machine}: {', '.join(sorted(names))}"


PARTS: dict[str, Part] = {
    "search": SEARCH,
    "search-differences": search_differences,
    "prune": PRUNE,
    "evaluate": EVALUATE,
    "kernels": KERNELS,
    "experts": EXPERTS,
    "semi-structured": SEMI_STRUCTURED,
    "offload": OFFLOAD,
    "marginal": MARGINAL,
    "fisher": FISHER,
    "cpu": CPU,
    "devices": DEVICES,
    "devices-start": starts,
    "grid": GRID,
    "profile": PROFILE,
    "machines": machines,
}
"""Mark of the page → its content."""
