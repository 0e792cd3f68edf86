"""The flag ``--dry-run``: say what a run would do, read, write and need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroal.cli.jobs import Result
from neuroal.config.instantiate import build
from neuroal.config.naming import tags_of
from neuroal.config.schema import RunConfig


def dry_run(config: RunConfig) -> Result:
    """Return what `config` would do; loads no model and writes nothing.

    Raises:
        UserError: methods that cannot be combined, on any device.
    """
    from neuroal.grid.estimate import estimate  # late: imports torch
    from neuroal.pipeline import make_recipe
    from neuroal.records.contents import Contents
    from neuroal.records.identity import identity_of
    from neuroal.records.summary import read_summary

    make_recipe(dataclasses.replace(config, device="cpu", devices=1, offload="none"))
    contents = Contents()
    identity = identity_of(config, contents)
    record = Path(config.out) / f"{identity}.json"
    summary = None if config.force else read_summary(record)
    data = contents.tasks(config)
    due = config.task.names if summary is None else summary.lacks(config.task, data)
    steps = list(_steps(config, due, is_pruned=summary is not None))
    left = dataclasses.replace(config, task=dataclasses.replace(config.task, names=list(due)))
    needs = estimate([left]).to_dict() if steps else {"seconds": 0.0, "peak_bytes": 0.0}
    content = {
        "run": ", ".join(tags_of(config)),
        "identity": identity,
        "does": steps,
        "reads": dict(_reads(config)),
        "lacks": list(contents.absent(config)),
        "writes": list(_writes(config, record)) if steps else [],
        "needs": needs,
    }
    return Result(content, lambda: print(text_of(content)), in_table=False)


def _steps(config: RunConfig, due: list[str], *, is_pruned: bool) -> Iterator[str]:
    """Yield the steps of a run; none if it is done."""
    if is_pruned and not due:
        return
    if is_pruned:
        yield "restore the pruned model, or prune it again"
    else:
        topup, calibration = build("topup", config.topup), config.calibration
        search = f", {calibration.search_windows} for the search" if topup.searches else ""
        yield f"draw {calibration.windows} windows{search}"
        yield f"allocate by topup={tags_of(config)[2]}"
        yield f"prune by {build('pruner', config.pruner).setting}"
    if due:
        yield f"evaluate dense and pruned: {', '.join(due)}"


def _reads(config: RunConfig) -> Iterator[tuple[str, str]]:
    yield "model", f"{config.model.source}: {config.model.path}"
    yield "calibration", config.calibration.path or config.calibration.name
    yield "tasks", ", ".join(config.task.names) or "none"
    if config.data.root:
        yield "data.root", config.data.root


def _writes(config: RunConfig, record: Path) -> Iterator[str]:
    yield str(record)
    yield str(record.with_suffix(".log"))
    if config.save.masks:
        yield str(record.with_suffix(".masks.npz"))
    yield from (path for path in (config.save.model, config.save.plan) if path)
    if config.logger.name != "none":
        yield str(record.parent / config.logger.name)


def text_of(content: dict[str, Any]) -> str:
    """Return the content of `dry_run` as text."""
    from neuroal.grid.report import duration, gibibytes

    needs = content["needs"]
    lines = [content["run"]]
    lines += [f"  {step}" for step in content["does"] or ["already done; force=true does it again"]]
    lines += [f"reads    {key}: {value}" for key, value in content["reads"].items()]
    lines += [f"lacks    {name}: not on this machine" for name in content["lacks"]]
    lines += [f"writes   {path}" for path in content["writes"]]
    seconds = "unknown" if needs["seconds"] is None else f"about {duration(needs['seconds'])}"
    where = f" on {needs['device']}" if needs.get("device") else ""
    lines.append(f"needs    {seconds}{where}, memory {gibibytes(needs['peak_bytes'])}")
    return "\n".join(lines)
