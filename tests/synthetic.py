"""Synthetic records: plausible figures from a seeded generator, in the real schema."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neuroal.config.schema import (
    CalibrationConfig,
    ModelConfig,
    RunConfig,
    SparsityConfig,
    conf_dir,
)
from neuroal.records.schema import Record
from neuroal.records.store import save_record

LM = ("wikitext2", "ptb", "c4")
ZERO_SHOT = ("rte", "winogrande", "boolq", "hellaswag", "arc_easy", "arc_challenge", "openbookqa")
MODELS = ("zoo/llama", "zoo/mistral", "zoo/phi", "zoo/opt")
COMPETITORS = ("uniform", "uniform+dsnot", "owl", "alpha", "neuroal")
CANDIDATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
BLOCKS, LINEARS = 8, ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


def method(group: str, name: str) -> dict[str, Any]:
    """Return the configuration that ``GROUP=NAME`` composes to."""
    node = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
    assert isinstance(node, dict)
    return node


def record(
    model: str = "zoo/llama",
    pruner: str = "wanda",
    competitor: str = "uniform",
    sparsity: float = 0.7,
    tasks: Sequence[str] = ("wikitext2",),
    seed: int = 0,
    limit: int | None = None,
    **changes: Any,
) -> Record:
    """Return a synthetic record.

    `changes` replace fields of the configuration, as in ``rules="reference"``.
    """
    topup, _, refine = competitor.partition("+")
    config = RunConfig(
        model=ModelConfig(name=model, source="zoo", path=model.split("/")[-1]),
        sparsity=SparsityConfig(ratio=sparsity),
        calibration=CalibrationConfig(name="c4_sample"),
        pruner=method("pruner", pruner),
        topup=method("topup", topup),
        refine=method("refine", refine or "none"),
        seed=seed,
    )
    config = dataclasses.replace(config, **changes)
    text = repr((model, pruner, competitor, sparsity, seed, sorted(changes.items(), key=str)))
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    generator = np.random.default_rng(int(identity, 16))
    skill = [*COMPETITORS, competitor].index(competitor) / 10
    damage = (sparsity / 0.5) ** (4 - skill) * (1 + 0.05 * generator.random())
    offsets = np.linspace(-0.1, 0.1, BLOCKS) * (skill + 0.1 * generator.random())
    ratios = {f"{b}.{n}": float(sparsity + offsets[b]) for b, n in product(range(BLOCKS), LINEARS)}
    return Record(
        identity=identity,
        config=dataclasses.asdict(config),
        environment={"packages": {}, "python": "3", "commit": None, "device": "CPU, 1 threads"},
        data={},
        costs={
            "seconds": {
                "load": 1.0,
                "allocate": float(100 * skill**2 + generator.random()),
                "prune": float(3 + generator.random()),
                "evaluate": 2.0,
            },
            "peak_bytes": {"allocate": 2**30, "prune": 2**31},
        },
        plan={"sparsity": sparsity, "ratios": ratios, "report": _report(topup, generator)},
        sparsity={"overall": sparsity, "linears": ratios},
        masks={key: hashlib.sha256(key.encode()).hexdigest() for key in ratios},
        metrics={task: _metric(task, damage, limit, generator) for task in tasks},
    )


def _report(topup: str, generator: np.random.Generator) -> dict[str, Any]:
    if topup != "neuroal":
        return {}
    criteria = [abs(math.log(x / 0.08)) + generator.random() / 10 for x in CANDIDATES]
    winner = CANDIDATES[int(np.argmin(criteria))]
    return {
        f"{key}_{step}": value
        for step in ("block", "row")
        for key, value in (
            ("lambda", winner),
            ("candidates", list(CANDIDATES)),
            ("criterion", [float(c) for c in criteria]),
        )
    }


def _metric(
    task: str, damage: float, limit: int | None, generator: np.random.Generator
) -> dict[str, Any]:
    noise = float(1 + 0.02 * generator.standard_normal())
    entry: dict[str, Any] = {"limit": limit, "seqlen": 256, "bos": "stream", "kind": "perplexity"}
    if task not in ZERO_SHOT:
        dense = {"value": 20.0, "stderr": 0.2, "windows": 64}
        return entry | {"dense": dense, "pruned": dense | {"value": 20 * damage * noise}}
    share = 0.3 + 0.3 / damage * noise
    dense = {"acc": 0.6, "acc_stderr": 0.01, "documents": 200, "version": "0.4.13"}
    entry |= {"kind": "zero_shot", "seqlen": None, "bos": None}
    return entry | {"dense": dense, "pruned": dense | {"acc": round(share * 200) / 200}}


def fill(
    folder: Path,
    models: Sequence[str] = MODELS[:2],
    pruners: Sequence[str] = ("magnitude", "wanda"),
    competitors: Sequence[str] = COMPETITORS,
    sparsities: Sequence[float] = (0.6, 0.7, 0.8),
    seeds: Sequence[int] = (0,),
    tasks: Sequence[str] = (*LM, *ZERO_SHOT),
) -> int:
    """Write the records of a grid; return their number. Magnitude has no zero-shot tasks."""
    runs = list(product(models, pruners, competitors, sparsities, seeds))
    for model, pruner, competitor, sparsity, seed in runs:
        names = [task for task in tasks if task in LM or pruner != "magnitude"]
        save_record(record(model, pruner, competitor, sparsity, names, seed), folder)
    return len(runs)
