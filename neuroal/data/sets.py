"""The public data sets: their files on the hub, and their folders under ``data.root``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neuroal.errors import UserError, nearest

BUILTIN = Path(__file__).parent / "builtin"
"""Folder of the texts that are part of this package."""


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
        folder: folder under ``data.root`` with files SPLIT.jsonl.gz, SPLIT.jsonl or SPLIT.parquet,
            whose rows have the hub's field names.
        files: split → pattern of its files on the hub, and in `folder` for a copy of the
            repository.
        repo: data set repository on the hub; None: the data set is not on the hub.
        evaluation: split that tasks are evaluated on.
        calibration: split that calibration windows are drawn from; None: not a calibration set.
        revision: revision of `repo`.
    """

    folder: str
    files: Mapping[str, str]
    repo: str | None
    evaluation: str
    calibration: str | None = None
    revision: str = "main"

    def split(self, purpose: str) -> str:
        """Return the split for ``calibration`` or ``evaluation``."""
        split = self.calibration if purpose == "calibration" else self.evaluation
        if split is None:
            raise ValueError(f"{self.folder} has no split for {purpose}")
        return split


def _zero_shot(folder: str, repo: str, config: str, split: str) -> DataSet:
    return DataSet(folder, {split: f"{config}/{split}-*.parquet"}, repo, split)


SETS = {
    "wikitext2": DataSet(
        "wikitext-2-raw-v1",
        {split: f"wikitext-2-raw-v1/{split}-*.parquet" for split in ("train", "test")},
        "Salesforce/wikitext",
        evaluation="test",
        calibration="train",
    ),
    # The repository has only a loading script, and current clients run none. The hub keeps the
    # rows as Parquet files on a separate branch.
    "ptb": DataSet(
        "ptb_text_only",
        {s: f"penn_treebank/{s}/*.parquet" for s in ("train", "validation", "test")},
        "ptb-text-only/ptb_text_only",
        evaluation="test",
        calibration="train",
        revision="refs/convert/parquet",
    ),
    "c4": DataSet(
        "c4",
        {
            "train": "en/c4-train.00000-of-01024.json.gz",
            "validation": "en/c4-validation.00000-of-00008.json.gz",
        },
        "allenai/c4",
        evaluation="validation",
        calibration="train",
    ),
    "c4_sample": DataSet(
        "c4_sample", {"sample": ""}, None, evaluation="sample", calibration="sample"
    ),
    "rte": _zero_shot("glue-rte", "nyu-mll/glue", "rte", "validation"),
    "winogrande": _zero_shot(
        "winogrande-winogrande_xl", "allenai/winogrande", "winogrande_xl", "validation"
    ),
    "boolq": _zero_shot("super_glue-boolq", "aps/super_glue", "boolq", "validation"),
    "hellaswag": _zero_shot("hellaswag", "Rowan/hellaswag", "data", "validation"),
    "arc_easy": _zero_shot("ai2_arc-ARC-Easy", "allenai/ai2_arc", "ARC-Easy", "test"),
    "arc_challenge": _zero_shot(
        "ai2_arc-ARC-Challenge", "allenai/ai2_arc", "ARC-Challenge", "test"
    ),
    "openbookqa": _zero_shot("openbookqa-main", "allenai/openbookqa", "main", "test"),
}
CALIBRATION_SETS = (*(name for name, entry in SETS.items() if entry.calibration), "builtin", "text")
"""Sources of calibration windows; ``text`` is the user's own file."""


def data_set(name: str) -> DataSet:
    """Return the data set called `name`, or raise `UserError`."""
    if name not in SETS:
        raise UserError(f"no data set '{name}'; there are {', '.join(SETS)}{nearest(name, SETS)}")
    return SETS[name]
