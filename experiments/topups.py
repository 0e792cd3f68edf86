"""All top-ups under all pruners on the zoo: perplexity and seconds.

    python experiments/topups.py --jobs 2

Top-ups × {magnitude, wanda, multiflow, sparsegpt} × {60, 70, 80 %} × the four models, on the
first half of the built-in evaluation slice. Writes `results/topups.md`, and the figures to
`results/topups.jsonl`; what is there is not measured again. Cut off and started again it goes on;
`--so-far` measures nothing and shows what is there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sweep import (
    FAMILIES,
    ROOT,
    UNIFORM,
    Case,
    Method,
    Result,
    arguments,
    footer,
    rows,
    setting_of,
    sweep,
)

PRUNERS = ("magnitude", "wanda", "multiflow", "sparsegpt")
RATIOS = (0.6, 0.7, 0.8)
UPDATING = ("sparsegpt",)
OPTIONAL = ("marginal", "evolve")
"""Top-ups that take part where their YAML is there; made for 64 search windows."""
KEPT = ROOT / "results" / "topups.jsonl"


def methods() -> list[Method]:
    """The rows of the table."""
    there = {path.stem for path in (ROOT / "conf" / "topup").glob("*.yaml")}
    return [
        UNIFORM,
        Method("uniform + dsnot", refine="dsnot"),
        *(Method(name, name) for name in ("owl", "alpha", "dlp", "atp")),
        Method("neuroal", "neuroal"),
        Method("neuroal, 64 windows", "neuroal", search_windows=64),
        Method("neuroal, block step", "neuroal", {"step": "block"}),
        Method("neuroal, output_kl", "neuroal", {"criterion": "output_kl"}),
        Method("neuroal, perplexity", "neuroal", {"criterion": "perplexity"}),
        Method("neuroal, rows too", "neuroal", {"rows_with_updates": True}, pruners=UPDATING),
        *(Method(name, name, search_windows=64) for name in OPTIONAL if name in there),
    ]


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.set_defaults(limit=256)
    parser.add_argument("--so-far", action="store_true", help="measure nothing")
    parser.add_argument("--kept", type=Path, default=KEPT, help="file of the figures")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="rows of the table (all)")
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=PRUNERS)
    parsed = parser.parse_args()
    chosen = [method for method in methods() if method.name in (parsed.methods or [method.name])]
    # Uniform first, as all is compared with it; then what takes longest.
    order = sorted(chosen, key=lambda method: (method != UNIFORM, -chosen.index(method)))
    cases = [
        Case(family, pruner, method, ratio)
        for pruner in reversed(parsed.pruners)
        for method in order
        if pruner in (method.pruners or PRUNERS)
        for ratio in RATIOS
        for family in parsed.families
    ]
    dense = [Case(family) for family in parsed.families]
    setting = setting_of(parsed, "topups", parsed.kept)
    if parsed.so_far:
        setting = replace(setting, seconds=0)
    results = sweep([*dense, *cases], setting, parsed.jobs)
    shown = [*page(results, chosen, parsed.families, parsed.pruners, parsed.windows)]
    lacking = len(cases) + len(dense) - len(results)
    if lacking:
        shown += [f"{lacking} of {len(cases)} cases have not been measured yet (n/a).", ""]
    text = "\n".join([*shown, footer(results.values()), ""])
    print(text)
    asked = (tuple(parsed.families), tuple(parsed.pruners), parsed.methods)
    if asked == (FAMILIES, PRUNERS, None) and parsed.kept == KEPT:
        (ROOT / "results" / "topups.md").write_text(text)


def page(
    results: dict[str, Result],
    chosen: Sequence[Method],
    families: Sequence[str],
    pruners: Sequence[str],
    calibration: int,
) -> Iterator[str]:
    """The summary, then the perplexities of each model."""
    windows = results[Case(families[0]).file]["windows"]
    yield "# Top-ups on the zoo\n"
    yield (
        f"Perplexity on the built-in evaluation slice ({windows} windows of 512 tokens), "
        f"`rules=exact`, the YAMLs' settings; {calibration} calibration windows of 512 "
        "tokens, 8 of them for the search; 64 for marginal, evolve and where the row says so.\n"
    )
    yield (
        "## Summary\n\nPerplexity ÷ that of uniform, geometric mean over models and ratios; "
        "cases in which it is better than uniform, and the best of all; calibration tokens and "
        "mean seconds that the top-up took, on each device over the cases that were done there, "
        "several beside each other. Settings are those of the papers, found on models of billions "
        "of weights: DSnoT's 50 cycles are too many for rows as short as these "
        "([dsnot.md](dsnot.md)), and AlphaPruning's ε = 0.3 is LLaMA-7B's.\n"
    )
    yield from rows(_summary(results, chosen, families, pruners))
    for family in families:
        yield f"\n## zoo/{family}, dense {results[Case(family).file]['perplexity']:.2f}\n"
        yield from rows(_perplexities(results, chosen, family, pruners))
    yield ""


def _summary(
    results: dict[str, Result],
    chosen: Sequence[Method],
    families: Sequence[str],
    pruners: Sequence[str],
) -> Iterator[list[str]]:
    devices = sorted({found["device"] for found in results.values() if "seconds" in found})
    clocks = [f"s, {device}" for device in devices]
    yield ["top-up", *pruners, "all", "better", "best", "tokens", *clocks]
    wins = Counter(
        _best(results, chosen, (family, pruner, ratio))
        for family in families
        for pruner in pruners
        for ratio in RATIOS
    )
    for method in chosen:
        cells = []
        for group in (*((pruner,) for pruner in pruners), tuple(pruners)):
            cases = [(f, p, s) for f in families for p in group for s in RATIOS]
            ratios = [_over_uniform(results, method, *case) for case in cases]
            known = [ratio for ratio in ratios if ratio is not None]
            mean = math.exp(sum(map(math.log, known)) / len(known)) if known else math.nan
            cells.append(f"{mean:.3f}" if known else "n/a")
        better = sum(ratio < 1 for ratio in known)
        found = [results.get(Case(f, p, method, s).file, {}) for f, p, s in cases]
        done = [result for result in found if "seconds" in result]
        spent = [
            [result["seconds"]["allocate"] for result in done if result["device"] == device]
            for device in devices
        ]
        tokens = max((result["calibration_tokens"]["allocate"] for result in done), default=0)
        counts = f"{better} of {len(known)}"
        means = [f"{sum(each) / len(each):.1f}" if each else "n/a" for each in spent]
        yield [method.name, *cells, counts, str(wins[method.name]), f"{tokens:,}", *means]


def _best(
    results: dict[str, Result], chosen: Sequence[Method], case: tuple[str, str, float]
) -> str | None:
    """The top-up of the lowest perplexity, the first of several; None if no case is there."""
    family, pruner, ratio = case
    found = {m.name: results.get(Case(family, pruner, m, ratio).file, {}) for m in chosen}
    known = {name: result["perplexity"] for name, result in found.items() if "perplexity" in result}
    return min(known, key=lambda name: known[name], default=None)


def _over_uniform(
    results: dict[str, Result], method: Method, family: str, pruner: str, sparsity: float
) -> float | None:
    found = results.get(Case(family, pruner, method, sparsity).file, {})
    base = results.get(Case(family, pruner, UNIFORM, sparsity).file, {})
    if "perplexity" not in found or "perplexity" not in base:
        return None
    return float(found["perplexity"] / base["perplexity"])


def _perplexities(
    results: dict[str, Result], chosen: Sequence[Method], family: str, pruners: Sequence[str]
) -> Iterator[list[str]]:
    columns = [(pruner, ratio) for pruner in pruners for ratio in RATIOS]
    yield ["top-up", *(f"{pruner} {ratio:.0%}" for pruner, ratio in columns)]
    best = {column: _best(results, chosen, (family, *column)) for column in columns}
    for method in chosen:
        cells = []
        for pruner, ratio in columns:
            result = results.get(Case(family, pruner, method, ratio).file, {})
            shown = f"{result['perplexity']:.2f}" if "perplexity" in result else "n/a"
            cells.append(f"**{shown}**" if method.name == best[pruner, ratio] else shown)
        yield [method.name, *cells]


if __name__ == "__main__":
    main()
