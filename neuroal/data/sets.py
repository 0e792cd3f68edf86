"""The public data sets: their files on the hub, and the folders they have under ``data.root``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuroal.errors import UserError, nearest


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
        folder: its folder under ``data.root``, with files SPLIT.jsonl.gz, SPLIT.jsonl or
            SPLIT.parquet of rows with the hub's field names.
        files: split → pattern of its files on the hub (and under `folder`, for a copy of them).
        repo: data set repository on the hub; None: it has none.
        revision: of `repo`.
    """

    folder: str
    files: Mapping[str, str]
    repo: str | None = None
    revision: str = "main"


def _parquet(folder: str, repo: str, config: str, *splits: str) -> DataSet:
    return DataSet(folder, {split: f"{config}/{split}-*.parquet" for split in splits}, repo)


SETS = {
    "wikitext2": _parquet(
        "wikitext-2-raw-v1", "Salesforce/wikitext", "wikitext-2-raw-v1", "train", "test"
    ),
    # The repository itself holds a loading script, which no current client runs; the hub keeps
    # its rows as Parquet files on a branch of their own.
    "ptb": DataSet(
        "ptb_text_only",
        {s: f"penn_treebank/{s}/*.parquet" for s in ("train", "validation", "test")},
        "ptb-text-only/ptb_text_only",
        "refs/convert/parquet",
    ),
    "c4": DataSet(
        "c4",
        {
            "train": "en/c4-train.00000-of-01024.json.gz",
            "validation": "en/c4-validation.00000-of-00008.json.gz",
        },
        "allenai/c4",
    ),
    "c4_sample": DataSet("c4_sample", {"sample": ""}),
    "rte": _parquet("glue-rte", "nyu-mll/glue", "rte", "validation"),
    "winogrande": _parquet(
        "winogrande-winogrande_xl", "allenai/winogrande", "winogrande_xl", "validation"
    ),
    "boolq": _parquet("super_glue-boolq", "aps/super_glue", "boolq", "validation"),
    "hellaswag": _parquet("hellaswag", "Rowan/hellaswag", "data", "validation"),
    "arc_easy": _parquet("ai2_arc-ARC-Easy", "allenai/ai2_arc", "ARC-Easy", "test"),
    "arc_challenge": _parquet("ai2_arc-ARC-Challenge", "allenai/ai2_arc", "ARC-Challenge", "test"),
    "openbookqa": _parquet("openbookqa-main", "allenai/openbookqa", "main", "test"),
}


def data_set(name: str) -> DataSet:
    """The data set called `name`.

    Raises:
        UserError: there is none.
    """
    if name not in SETS:
        raise UserError(f"no data set '{name}'; there are {', '.join(SETS)}{nearest(name, SETS)}")
    return SETS[name]
