"""How many swaps DSnoT should do on narrow rows, and what walking past a side's end costs.

    python experiments/dsnot_cycles.py

A row of the zoo's models has 160 to 576 columns. DSnoT's authors swap up to 50 times a row and
walk on into candidates of the wrong sign where those of the right sign are used up (on rows too
narrow their code ends in an index error); ours stops there outside `rules=reference`. Both are
run, on Wanda and SparseGPT at 60 %, over numbers of cycles, at the same budget. Writes
`results/dsnot.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sweep import FAMILIES, ROOT, Case, Method, Result, arguments, footer, rows, setting_of, sweep
from torch import Tensor

from neuroal.pruners.budget import Rules
from neuroal.refine.dsnot import DSnoT
from neuroal.statistics import InputStatistics

PRUNERS = ("wanda", "sparsegpt")
CYCLES = (1, 3, 10, 50)
SPARSITY = 0.6
ENDS = {"stops": "dsnot", "walks on": "dsnot_cycles.WalksOn"}


@dataclass(frozen=True)
class WalksOn(DSnoT):
    """DSnoT as its authors swap, whatever the rules of the budget."""

    def refine(
        self, weight: Tensor, mask: Tensor, statistics: InputStatistics, rules: Rules
    ) -> Tensor:
        return super().refine(weight, mask, statistics, Rules.REFERENCE)


def method(end: str, cycles: int) -> Method:
    settings = {"max_cycle_time": cycles}
    return Method(f"dsnot {end} {cycles}", refine=ENDS[end], refine_settings=settings)


def main() -> None:
    parsed = arguments(__doc__.partition("\n")[0]).parse_args()
    cases = [Case(family) for family in parsed.families]
    for family in parsed.families:
        for pruner in PRUNERS:
            cases.append(Case(family, pruner, sparsity=SPARSITY))
            cases += [
                Case(family, pruner, method(end, cycles), SPARSITY)
                for end in ENDS
                for cycles in CYCLES
            ]
    results = sweep(cases, setting_of(parsed, "dsnot"), parsed.jobs)
    shown = page(results, parsed.families, parsed.windows)
    text = "\n".join([*shown, footer(results.values()), ""])
    print(text)
    if tuple(parsed.families) == FAMILIES:
        (ROOT / "results" / "dsnot.md").write_text(text)


def page(results: dict[str, Result], families: list[str], calibration: int) -> Iterator[str]:
    windows = results[Case(families[0]).file]["windows"]
    yield "# DSnoT on narrow rows\n"
    yield (
        f"Perplexity at {SPARSITY:.0%} uniform sparsity on the built-in evaluation slice "
        f"({windows} windows of 512 tokens; {calibration} calibration windows), after at most so "
        "many swaps a row. *stops*: a row whose candidates of the wanted sign are used up is done "
        "(`rules=exact`); *walks on*: it goes on into those of the other sign, as the authors' "
        "code does where it does not fail with an index error. The pruner's own column has no "
        "DSnoT; for SparseGPT DSnoT starts from the mask w²/d² per row on unchanged weights.\n"
    )
    yield from rows(_cells(results, families))
    yield f"\n{_finding(results, families)}\n"


def _cells(results: dict[str, Result], families: list[str]) -> Iterator[list[str]]:
    yield ["model", "pruner", "alone", *(f"{end}, {n}" for end in ENDS for n in CYCLES)]
    for family in families:
        for pruner in PRUNERS:
            alone = results[Case(family, pruner, sparsity=SPARSITY).file]["perplexity"]
            found = (_value(results, family, pruner, end, n) for end in ENDS for n in CYCLES)
            cells = (f"{value:.2f}" for value in found)
            yield [f"zoo/{family}", pruner, f"{alone:.2f}", *cells]


def _finding(results: dict[str, Result], families: list[str]) -> str:
    most = CYCLES[-1]
    changes = [
        _value(results, family, pruner, "stops", most)
        / _value(results, family, pruner, "walks on", most)
        - 1
        for family in families
        for pruner in PRUNERS
    ]
    return (
        f"With {most} cycles, stopping instead of walking on changes the perplexity by "
        f"{min(changes):+.1%} to {max(changes):+.1%}."
    )


def _value(results: dict[str, Result], family: str, pruner: str, end: str, cycles: int) -> float:
    return float(results[Case(family, pruner, method(end, cycles), SPARSITY).file]["perplexity"])


if __name__ == "__main__":
    main()
