"""Tables of the texts that runs continued before and after pruning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from neuroal.tables.labels import label
from neuroal.tables.study import Study
from neuroal.tables.table import MISSING, Cell, Table, label_cells, rules_between


def sample_tables(study: Study) -> Iterator[tuple[str, Table]]:
    """Yield a heading and a table for each model and prompt, with the runs of the first seed."""
    runs = study.costs[study.costs["seed"] == study.expected.seeds[0]]
    for model in study.expected.axis("model"):
        of_model = _in_order(runs[runs["model"] == model], study)
        texts = [(row, sample) for _, row in of_model.iterrows() for sample in row["samples"]]
        prompts = dict.fromkeys(sample["prompt"] for _, sample in texts)
        for number, prompt in enumerate(prompts, 1):
            of_prompt = [(row, sample) for row, sample in texts if sample["prompt"] == prompt]
            yield f"{label(model)}, text {number}", _table(prompt, of_prompt, f"{model}-{number}")


def _table(prompt: str, texts: Sequence[tuple[pd.Series, Mapping[str, str]]], name: str) -> Table:
    """Return the continuations of one prompt: of the dense model, then of each run."""
    dense = dict.fromkeys(sample["dense"] for _, sample in texts)
    none = Cell(MISSING)
    rows = [
        *((none, Cell("0 %", 0.0), Cell("dense"), Cell(text)) for text in dense),
        *(
            (
                *label_cells(run["pruner"], run["sparsity"], run["competitor"]),
                Cell(sample["pruned"], records=(str(run["identity"]),)),
            )
            for run, sample in texts
        ),
    ]
    return Table(
        name=f"sample-{re.sub('[^a-z0-9]+', '-', name.lower())}",
        title=f"{' '.join(prompt.split())} …",
        heads=("Pruner", "Sparsity", "Top-up", "Continuation"),
        labels=4,
        rows=tuple(rows),
        data=pd.DataFrame([dict(sample) for _, sample in texts]),
        groups=rules_between(rows, 2),
    )


def _in_order(runs: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return `runs` in the order of the tables: pruner, sparsity, competitor."""
    axes = {
        "pruner": study.expected.axis("pruner"),
        "sparsity": study.expected.axis("sparsity"),
        "competitor": list(study.expected.competitors),
    }
    ordered = runs.assign(**{name: runs[name].map(axes[name].index) for name in axes})
    return runs.loc[ordered.sort_values(list(axes), kind="stable").index]
