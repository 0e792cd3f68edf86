"""What pruning costs the models of the zoo: perplexities by ratio, for magnitude and Wanda.

    python experiments/zoo_table.py

Dense, 50, 60, 70 and 80 % with uniform sparsity, on the built-in evaluation slice, beside the
dense models' held-out perplexity and that of n-gram models, from the cards. Writes
`results/zoo.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from sweep import FAMILIES, ROOT, Case, Result, arguments, footer, rows, setting_of, sweep

PRUNERS = ("magnitude", "wanda")
RATIOS = (0.5, 0.6, 0.7, 0.8)


def main() -> None:
    parsed = arguments(__doc__.partition("\n")[0]).parse_args()
    dense = [Case(family) for family in parsed.families]
    pruned = [
        Case(family, pruner, sparsity=ratio)
        for family in parsed.families
        for pruner in PRUNERS
        for ratio in RATIOS
    ]
    results = sweep([*dense, *pruned], setting_of(parsed, "zoo"), parsed.jobs)
    text = "\n".join(
        [*page(results, parsed.families, parsed.windows), footer(results.values()), ""]
    )
    print(text)
    if tuple(parsed.families) == FAMILIES:
        (ROOT / "results" / "zoo.md").write_text(text)


def page(results: dict[str, Result], families: list[str], calibration: int) -> Iterator[str]:
    yield "# The zoo: what is trained, and what pruning costs it\n"
    yield "Held-out perplexity as the cards define it (documents separated by `<|endoftext|>`):\n"
    yield from rows(_yardsticks(families))
    first = results[Case(families[0]).file]
    yield (
        f"\nPerplexity on the built-in evaluation slice ({first['windows']} windows of 512 tokens, "
        f"documents joined by blank lines), uniform sparsity, `rules=exact`, {calibration} "
        "calibration windows of 512 tokens; in brackets: times the dense perplexity.\n"
    )
    yield from rows(_ladder(results, families))
    yield ""


def _yardsticks(families: list[str]) -> Iterator[list[str]]:
    yield ["model", "dense", "Kneser-Ney trigram", "unigram", "dense ÷ trigram", "tokens seen"]
    for family in families:
        card = json.loads((ROOT / "neuroal" / "zoo" / family / "training.json").read_text())
        share = card["heldout_ppl"] / card["trigram_ppl"]
        yield [
            f"zoo/{family}",
            f"{card['heldout_ppl']:.2f}",
            f"{card['trigram_ppl']:.2f}",
            f"{card['unigram_ppl']:.1f}",
            f"{share:.2f}",
            f"{card['tokens_seen']:,}",
        ]


def _ladder(results: dict[str, Result], families: list[str]) -> Iterator[list[str]]:
    yield ["model", "pruner", "dense", *(f"{ratio:.0%}" for ratio in RATIOS)]
    for family in families:
        dense = results[Case(family).file]["perplexity"]
        for pruner in PRUNERS:
            found = (
                results[Case(family, pruner, sparsity=ratio).file]["perplexity"] for ratio in RATIOS
            )
            cells = (f"{value:.2f} ({value / dense:.2f})" for value in found)
            yield [f"zoo/{family}", pruner, f"{dense:.2f}", *cells]


if __name__ == "__main__":
    main()
