"""The record of a run: configuration, results and costs."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuroal.errors import UserError
from neuroal.files.sealed import SEAL

if TYPE_CHECKING:
    from neuroal.models.totals import Totals
    from neuroal.pruners.packed import PackedMasks
    from neuroal.sparsity.allocation import Allocation

SCHEMA_VERSION = 2
READABLE = (1, 2)
"""Versions of records that can be read; 1 is that of version 0.1 of this package."""


@dataclass(frozen=True)
class Record:
    """Configuration, results and costs of one run, in JSON types only.

    Attributes:
        identity: digest of the settings that determine the pruned model (see `records.identity`).
        config: the composed configuration.
        environment: package versions, commit, device, Python.
        data: source, origin and fingerprint of every data set that was used.
        costs: seconds and peak device memory in bytes of each stage; calibration tokens used.
        plan: sparsity ratios, and the top-up's report (λ values, criterion of every candidate).
        sparsity: achieved sparsity of the prunable weights, overall and of each linear, and share
            of these zeros in all matrices of the ``blocks`` and in the whole ``model``.
        masks: SHA-256 of each packed mask.
        metrics: task → ``kind``, ``limit``, ``seqlen``, ``bos``, ``content`` of the data, and the
            figures of the ``dense`` and the ``pruned`` model. Every evaluated task adds an entry.
            An infinite perplexity is null in JSON.
        version: version of this schema.
        context: maximum number of tokens of the model, from which ``task.seqlen=null`` derives.
        samples: for each text of ``task.samples``, its ``prompt`` and the continuations of the
            ``dense`` and the ``pruned`` model.
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
    samples: Sequence[Mapping[str, str]] = ()

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))  # not a deep copy: the plan of a large model has a million numbers

    def densities(self) -> dict[int, float]:
        """Return block index → mean achieved density of the block's linears."""
        blocks: dict[int, list[float]] = {}
        for linear, sparsity in self.sparsity["linears"].items():
            blocks.setdefault(int(linear.partition(".")[0]), []).append(1 - sparsity)
        return {block: sum(shares) / len(shares) for block, shares in sorted(blocks.items())}

    def with_config(self, config: Mapping[str, Any]) -> Record:
        """Return a copy of this record with the configuration of a later start of the run."""
        return dataclasses.replace(self, config=config)

    def with_data(self, **data: Mapping[str, Any]) -> Record:
        """Return a copy of this record with additional descriptions of data."""
        return dataclasses.replace(self, data={**self.data, **data})

    def with_task(
        self,
        task: str,
        data: Mapping[str, Any],
        metrics: Mapping[str, Any],
        costs: Mapping[str, Any],
    ) -> Record:
        """Return a copy of this record with an additional task and the total costs so far."""
        metrics = {**self.metrics, task: metrics}
        return dataclasses.replace(self.with_data(**{task: data}), metrics=metrics, costs=costs)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Return the record with the fields `data`; the digest of a file does not count."""
        if not isinstance(data, Mapping):
            raise UserError(f"record: is a {type(data).__name__}, must be an object")
        data = {key: value for key, value in data.items() if key != SEAL}
        if data.get("version") not in READABLE:
            readable = " or ".join(map(str, READABLE))
            raise UserError(f"record: schema {data.get('version')}, must be {readable}")
        fields = dataclasses.fields(cls)
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if wrong := (needed - data.keys()) | (data.keys() - {field.name for field in fields}):
            raise UserError(f"record: field '{min(wrong)}' is missing or unknown")
        for name in needed - {"identity"}:
            if not isinstance(data[name], Mapping):
                raise UserError(f"record: field '{name}' is no object")
        samples = tuple(data.get("samples", ()))
        return cls(**{**data, "metrics": _with_infinity(data["metrics"]), "samples": samples})


def _with_infinity(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return `metrics` with infinite perplexities, which JSON holds as null."""
    entries = copy.deepcopy(dict(metrics))
    for entry in entries.values():
        for figures in (entry.get("dense"), entry.get("pruned")):
            if isinstance(figures, dict) and figures.get("value", 0.0) is None:
                figures["value"] = math.inf
    return entries


def first_record(
    *,
    identity: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    costs: Mapping[str, Any],
    allocation: Allocation,
    masks: PackedMasks,
    totals: Totals,
    context: int,
) -> Record:
    """Return the record of a pruned model that has not been evaluated yet."""
    shares = totals.shares(masks.sparsity)
    return Record(
        identity=identity,
        config=config,
        environment=environment,
        data={},
        costs=costs,
        plan=allocation.to_dict(),
        sparsity={
            "overall": shares["prunable"],
            "blocks": shares["blocks"],
            "model": shares["model"],
            "linears": masks.sparsities(),
        },
        masks=masks.digests(),
        metrics={},
        context=context,
    )
