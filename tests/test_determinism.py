"""The same configuration gives the same bytes, for every method.

Masks, plan and figures are equal with one worker or several, and fresh or resumed. The batch size
of the first attempt is recorded, because the rounding of sums depends on it.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import neuroal.run
from neuroal.cli.compose import composed
from neuroal.config.schema import RunConfig, conf_dir
from neuroal.grid.declaration import GridRun
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState
from neuroal.grid.worker import work_off
from neuroal.records.identity import identity_of
from neuroal.tracking import QuietProgress
from tests.faults.rig import write_model

SETTINGS = [
    *("model=hf", "device=cpu", "batch=2", "task.batch=2", "calibration.windows=4"),
    *("calibration.search_windows=8", "calibration.seqlen=16", "task.seqlen=16", "task.limit=2"),
    *("save.masks=true", "task.names=[builtin]"),
]
SHORT: Mapping[str, Sequence[str]] = {
    "neuroal": ("topup.block_candidates=[0.1,0.2]", "topup.row_candidates=[0.0,0.1]"),
    "alps": ("pruner.stages=1", "pruner.cg_steps=3"),
    "plan": ("topup.path=plan.json",),
}
"""Parameters that make a method take less time."""
METHODS = [
    (group, path.stem)
    for group in ("pruner", "topup", "refine")
    for path in sorted((conf_dir() / group).glob("*.yaml"))
    if path.stem != "none" and (group, path.stem) != ("topup", "uniform")  # that of every pruner
]
QUICK = (("pruner", "wanda"), ("pruner", "sparsegpt"), ("topup", "owl"), ("refine", "dsnot"))
"""Methods of the quick tests; `make test-full` tries all."""
CONTEXT = multiprocessing.get_context("fork")
SAME = ("plan", "sparsity", "masks", "metrics", "data")
"""Fields of a record that must be the same bytes."""


def config_of(method: tuple[str, str], out: Path, root: Path) -> RunConfig:
    group, name = method
    settings = {"topup": "uniform", "refine": "none", **{group: name}}
    chosen = [f"{key}={value}" for key, value in settings.items()]
    more = [text.replace("plan.json", str(root / "plan.json")) for text in SHORT.get(name, ())]
    return composed([*SETTINGS, *chosen, *more, f"model.path={root / 'model'}", f"out={out}"])


def planned(config: RunConfig) -> PlannedRun:
    return PlannedRun(GridRun((), ("builtin",)), config, identity_of(config))


def bytes_of(config: RunConfig) -> tuple[bytes, bytes]:
    """Return the record's fields `SAME` and the masks of a finished run."""
    path = planned(config).record_path
    record: dict[str, Any] = json.loads(path.read_text())
    fields = json.dumps({key: record[key] for key in SAME}, sort_keys=True)
    return fields.encode(), path.with_suffix(".masks.npz").read_bytes()


def marked(method: tuple[str, str]) -> Any:
    """Return a parameter of a test, which is slow unless it is one of `QUICK`."""
    marks = () if method in QUICK else (pytest.mark.slow,)
    return pytest.param(method, marks=marks, id=":".join(method))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and a plan."""
    folder = tmp_path_factory.mktemp("determinism")
    write_model(folder / "model")
    config = config_of(("topup", "owl"), folder / "plans", folder)
    save = dataclasses.replace(config.save, plan=str(folder / "plan.json"))
    neuroal.run.run(dataclasses.replace(config, save=save), QuietProgress())
    return folder


def fresh(method: tuple[str, str], root: Path) -> tuple[bytes, bytes]:
    """Return the bytes of an undisturbed run in this process."""
    config = config_of(method, root / "fresh", root)
    neuroal.run.run(config, QuietProgress())
    return bytes_of(config)


def _worker(configs: list[RunConfig]) -> None:
    torch.set_num_threads(1)
    tally = work_off([planned(config) for config in configs], lambda line: None, wait=0.05)
    assert tally.own[RunState.DONE] + tally.others[RunState.DONE] == len(configs)


@pytest.mark.slow
def test_several_workers_write_the_bytes_of_one(root: Path) -> None:
    configs = {method: config_of(method, root / "workers", root) for method in METHODS}
    processes = [CONTEXT.Process(target=_worker, args=(list(configs.values()),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    for method, config in configs.items():
        assert bytes_of(config) == fresh(method, root), method


@pytest.mark.parametrize("method", [*map(marked, METHODS)])
def test_a_resumed_run_writes_the_bytes_of_a_fresh_one(
    method: tuple[str, str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    config = config_of(method, root / "resumed", root)
    for stage in ("prune", "first_record", "_evaluate_pruned"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(neuroal.run, stage, stop)
            neuroal.run.run(config, QuietProgress())
    neuroal.run.run(config, QuietProgress())
    assert bytes_of(config) == fresh(method, root)
