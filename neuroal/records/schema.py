"""The record of a run: what was asked for, what came of it, and what it cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroal.errors import UserError

SCHEMA_VERSION = 1
HEADLINES = {"perplexity": ("value", "stderr"), "zero_shot": ("acc", "acc_stderr")}
"""Kind of a task → the figure to show of it, and its standard error."""


@dataclass(frozen=True)
class Record:
    """Everything about one run; JSON types only.

    Attributes:
        identity: digest of what decides the result (see `identity`).
        config: the composed configuration.
        environment: package versions, commit, device, Python.
        data: source and fingerprint of every set of windows.
        costs: seconds and peak device memory of each stage; calibration tokens looked at.
        plan: ratios, and the top-up's report (λ's, every candidate's criterion).
        sparsity: achieved: overall and for each linear.
        masks: SHA-256 of each packed mask.
        metrics: task → ``kind``, ``limit``, ``seqlen``, and the figures of ``dense`` and ``pruned``
            weights. It grows: a task is added when it has been measured.
        version: of this schema.
        context: tokens the model takes at most, which ``task.seqlen=null`` is to be read against.
    """

    identity: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    costs: Mapping[str, Any]
    plan: Mapping[str, Any]
    sparsity: Mapping[str, Any]
    masks: Mapping[str, str]
    metrics: Mapping[str, Any]
    version: int = SCHEMA_VERSION
    context: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def densities(self) -> dict[int, float]:
        """Mean density of the linears of each block, as achieved."""
        blocks: dict[int, list[float]] = {}
        for linear, sparsity in self.sparsity["linears"].items():
            blocks.setdefault(int(linear.partition(".")[0]), []).append(1 - sparsity)
        return {block: sum(found) / len(found) for block, found in sorted(blocks.items())}

    def grown(
        self,
        task: str,
        data: Mapping[str, Any],
        metrics: Mapping[str, Any],
        costs: Mapping[str, Any],
    ) -> Record:
        """This record with one more task: its data and figures, and what all has cost by now."""
        return dataclasses.replace(
            self,
            data={**self.data, task: data},
            metrics={**self.metrics, task: metrics},
            costs=costs,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Read `to_dict`'s form.

        Raises:
            UserError: another schema version, or a field is missing or unknown.
        """
        if data.get("version") != SCHEMA_VERSION:
            raise UserError(f"record: schema {data.get('version')}, this is {SCHEMA_VERSION}")
        fields = dataclasses.fields(cls)
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if wrong := (needed - data.keys()) | (data.keys() - {field.name for field in fields}):
            raise UserError(f"record: field '{min(wrong)}' is missing or unknown")
        return cls(**data)
