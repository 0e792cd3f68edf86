"""Faults of a model's files: truncated weights, wrong shapes, values of wrong types."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.damage import KINDS
from tests.faults.rig import LINE, Injection, Rig, judge, temporary

FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
VALUES: tuple[Any, ...] = (None, "text", -1, 0, [], {}, 1e9, True)


def damaged_checkpoints(seed: int) -> Iterator[Injection]:
    """Yield damaged files of a model, and its JSON files with values of other types."""
    generator = random.Random(seed)
    for file in FILES:
        for kind in ("truncated", "emptied", "noise"):
            for number in range(5 if kind == "truncated" else 1):
                yield Injection(
                    f"damaged checkpoint: {file}",
                    kind,
                    partial(_damaged, file=file, kind=kind, seed=number),
                )
    for file in ("config.json", "tokenizer.json"):
        for number in range(40):
            run = partial(_changed, file=file, seed=generator.randrange(2**32))
            yield Injection(f"value of another type: {file}", str(number), run)


def _survive(rig: Rig, folder: Path, model: Path, variant: str) -> str:
    """Do the run with the files in `model`; after a line, do it with the undamaged files."""
    config = dataclasses.replace(rig.configs[variant].model, path=str(model))
    code, error = rig.call(variant, folder, model=config)
    way = judge(code, error)
    assert not temporary(folder), f"left: {temporary(folder)}"
    if way == LINE:
        rig.check_restart(variant, folder)
    return way


def _damaged(rig: Rig, folder: Path, file: str, kind: str, seed: int) -> str:
    model = Path(shutil.copytree(rig.root / "weights", folder / "weights"))
    path = model / file
    path.write_bytes(KINDS[kind][0](path.read_bytes(), random.Random(f"{file} {kind} {seed}")))
    return _survive(rig, folder, model, ("disk", "updates")[seed % 2])


def _changed(rig: Rig, folder: Path, file: str, seed: int) -> str:
    generator = random.Random(seed)
    model = Path(shutil.copytree(rig.root / "weights", folder / "weights"))
    fields = json.loads((model / file).read_text())
    node, key = fields, generator.choice(list(fields))
    while isinstance(node[key], dict) and node[key] and generator.random() < 0.7:
        node = node[key]
        key = generator.choice(list(node))
    node[key] = generator.choice([v for v in VALUES if v != node[key]])
    (model / file).write_text(json.dumps(fields))
    return _survive(rig, folder, model, ("disk", "updates")[seed % 2])
