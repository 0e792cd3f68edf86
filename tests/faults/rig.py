"""Do a small run while something fails, then start it again and compare its files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import neuroal.run
from neuroal.cli import main as command
from neuroal.cli.application import exit_with
from neuroal.cli.compose import composed
from neuroal.config.schema import RunConfig
from neuroal.grid.declaration import GridRun
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import status_of
from neuroal.models.location import ZOO
from neuroal.records.contents import FOLDER, Contents
from neuroal.records.identity import identity_of
from tests.grid.small import SAME

SETTINGS = [
    *("model=hf", "device=cpu", "batch=1", "task.batch=1", "calibration.windows=2"),
    *("calibration.search_windows=2", "calibration.seqlen=16", "task.seqlen=16", "task.limit=2"),
    *("save.masks=true", "save.model=model", "save.plan=plan.json"),
]
VARIANTS = {
    "disk": ["pruner=wanda", "topup=owl", "offload=disk"],
    "updates": ["pruner=sparsegpt", "topup=uniform"],
}
"""Runs that the faults are injected into, by name."""
FREE = ("out", "save", "force", "logger")
"""Keys of the configuration that differ between injections."""
REPAIRED, LINE = "finished", "stopped with one line"
"""Ways to survive a fault; after both, a restart has the results of an undisturbed run."""


@dataclass(frozen=True)
class Rig:
    """A small model and the results of its undisturbed runs.

    Attributes:
        root: folder of the model; injections get folders of their own inside it.
        configs: name of a variant → its configuration, with paths relative to an injection.
        expected: name of a variant → `content` of its undisturbed run.
    """

    root: Path
    configs: Mapping[str, RunConfig]
    expected: Mapping[str, Mapping[str, Any]]

    @classmethod
    def build(cls, root: Path) -> Rig:
        """Write the model and do the undisturbed runs."""
        write_model(root / "weights")
        rig = cls(root, {name: _compose(root, more) for name, more in VARIANTS.items()}, {})
        expected = {}
        for name in VARIANTS:
            code, error = rig.call(name, root / name)
            assert code == 0, error
            expected[name] = content(root / name)
        return dataclasses.replace(rig, expected=expected)

    def config(self, variant: str, folder: Path, **changes: Any) -> RunConfig:
        """Return the configuration of a variant whose outputs are in `folder`."""
        config = self.configs[variant]
        save = dataclasses.replace(
            config.save, model=str(folder / "model"), plan=str(folder / "plan.json")
        )
        return dataclasses.replace(config, out=str(folder / "out"), save=save, **changes)

    def call(self, variant: str, folder: Path, **changes: Any) -> tuple[int, str]:
        """Do a run as the command does after composing; return exit code and error output."""
        config = self.config(variant, folder, **changes)

        def work() -> None:
            command._prune(config)

        return captured(lambda: exit_with(work))

    def interrupted(self, variant: str, folder: Path) -> None:
        """Leave a run in `folder` that was interrupted after pruning."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(neuroal.run, "first_record", _interrupt)
            code, error = self.call(variant, folder)
        assert code == 130, error

    def finished(self, variant: str, folder: Path) -> None:
        """Leave a finished run in `folder`."""
        shutil.copytree(self.root / variant, folder, dirs_exist_ok=True)
        config = self.config(variant, folder)
        for record in (folder / "out").glob("*.json"):
            assert identity_of(config, Contents()) == record.stem

    def check_status(self, variant: str, folder: Path) -> None:
        """Ask for the state of the run, which must never fail."""
        config = self.config(variant, folder)
        identity = identity_of(config)
        list(status_of([PlannedRun(GridRun((), ("builtin",)), config, identity)]))

    def check_restart(self, variant: str, folder: Path) -> None:
        """Start the run of `folder` again, and compare its files with the undisturbed run's."""
        code, error = self.call(variant, folder)
        assert code == 0, f"the restart failed: {error}"
        expected, present = self.expected[variant], content(folder)
        changed = [key for key in expected if present[key] != expected[key]]
        assert not changed, f"the restart has other results: {_difference(expected, present)}"
        assert not scratch(folder), f"left: {scratch(folder)}"


def _difference(expected: object, present: object, path: str = "") -> str:
    """Return path and values of the first difference."""
    if not (isinstance(expected, dict) and isinstance(present, dict)):
        return f"{path}: {present!r}, not {expected!r}"
    for key in [*expected, *present]:
        if expected.get(key) != present.get(key):
            return _difference(expected.get(key), present.get(key), f"{path}.{key}")
    return ""


def _compose(root: Path, more: Sequence[str]) -> RunConfig:
    return composed([*SETTINGS, f"model.path={root / 'weights'}", f"out={root}/out", *more])


def _interrupt(**_: Any) -> None:
    raise KeyboardInterrupt


def write_model(folder: Path) -> None:
    """Save a random LLaMA with two blocks and the tokenizer of ``zoo/llama``."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "llama")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, max_position_embeddings=64, **sizes
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data *= 4  # a perplexity that is not that of guessing
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def captured(work: Callable[[], object]) -> tuple[int, str]:
    """Call `work`, which exits; return exit code and error output."""
    error = io.StringIO()
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            work()
    except SystemExit as ended:
        return int(ended.code or 0), error.getvalue()
    raise AssertionError("the command did not exit")


def _digest(path: Path) -> str:
    """Return the digest of a file; model cards, which hold paths and options, have none."""
    text = path.read_bytes()
    if path.name == "README.md":
        return "a model card"
    if path.name == "neuroal.json":
        text = re.sub(rb'"README.md": \d+', b"", text)
    return hashlib.sha256(text).hexdigest()


def content(folder: Path) -> dict[str, Any]:
    """Return what must not depend on faults: record, masks, plan and the saved model."""
    (path,) = (folder / "out").glob("*.json")
    record = json.loads(path.read_text())
    fields = {key: record[key] for key in SAME}
    fields["config"] = {k: v for k, v in record["config"].items() if k not in FREE}
    (masks,) = (folder / "out").glob("*.npz")
    with np.load(masks) as arrays:
        bits = {key: arrays[key].tobytes().hex() for key in arrays}
    files = [folder / "plan.json"]
    files += [path for path in (folder / "model").rglob("*") if path.is_file()]
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    return {**fields, "bits": bits, "files": digests}


def scratch(folder: Path) -> list[str]:
    """Return the temporary files and folders of runs, also those for resuming."""
    lasting = {"inputs", FOLDER}
    hidden = [p.relative_to(folder).as_posix() for p in folder.rglob(".*")]
    state = folder / "out" / "state"
    names = os.listdir(state) if state.is_dir() else []
    return hidden + [n for n in names if n not in lasting and not n.endswith(".summary")]


def temporary(folder: Path) -> list[str]:
    """Return what a run that ended by itself must not leave: locks and temporary files."""
    return [name for name in scratch(folder) if not name.endswith((".plan", ".masks.npz"))]


def judge(code: int, error: str) -> str:
    """Return how a command survived; raise AssertionError unless it printed clear lines."""
    lines = [line for line in error.splitlines() if line.strip() and "%|" not in line]  # no bars
    wrong = [line for line in lines if not line.startswith(("neuroal: ", "wandb: "))]
    assert not wrong, f"exit code {code}: {error[-2000:]}"
    if code == 0:
        return REPAIRED
    assert lines, f"exit code {code} and no line"
    assert len(lines[-1]) < 1500, f"a line of {len(lines[-1])} characters"
    return LINE


@dataclass(frozen=True)
class Injection:
    """One fault in one run.

    Attributes:
        fault: row of the table.
        name: what distinguishes this injection.
        run: injects it into a new folder, checks the restart, and returns how the run survived.
    """

    fault: str
    name: str
    run: Callable[[Rig, Path], str]


def survive(
    rig: Rig,
    variant: str,
    folder: Path,
    fault: Callable[[], AbstractContextManager[object]] = nullcontext,
    remedy: Callable[[], object] = lambda: None,
    foreign: str = "",
) -> str:
    """Do the run of `folder` under `fault`, then `remedy`, then check a restart.

    `remedy` does what the line asks for; it is called only if the run stopped with a line.
    `foreign` is the name of a file of another process, which may stay.
    """
    with fault():
        code, error = rig.call(variant, folder)
    way = judge(code, error)
    left = [name for name in temporary(folder) if name != foreign]
    assert not left, f"left: {', '.join(left)} after {error}"
    rig.check_status(variant, folder)
    if way == LINE:
        remedy()
    rig.check_restart(variant, folder)
    return way


def every(groups: Sequence[Iterator[Injection]]) -> list[Injection]:
    """Return all injections of several kinds."""
    return [injection for group in groups for injection in group]
