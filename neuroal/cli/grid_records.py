"""The records of a declared grid: which they are, and packing them into one file."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroal.cli.compose import check
from neuroal.cli.declared import planned
from neuroal.cli.selecting import select
from neuroal.config.schema import value_at
from neuroal.errors import UserError
from neuroal.grid.planning import PlannedRun
from neuroal.records.identity import DECIDING
from neuroal.tables.selection import OF_RESULTS, Selection

if TYPE_CHECKING:
    from neuroal.records.schema import Record
    from neuroal.tables.cases import Expected

ANYWHERE = {"out": "runs", "data.root": "DATA"}
"""Key that names a folder of this machine → its value in a published command."""


def grid_selection(
    overrides: Sequence[str], limited: bool, records: Sequence[Record] | None = None
) -> tuple[Selection, Expected]:
    """Return selection and expected cases of the records of a declared grid.

    Records are recognised by the identities of the grid's runs or, if `records` are passed, by
    their settings, for which neither the models nor the version that made them is needed.
    """
    from neuroal.tables.declared import DeclaredRun, competitor_names, expected_from_runs

    declaration, runs = planned(overrides)
    parts = declaration.parts
    configs = [dataclasses.asdict(run.config) for run in runs]
    pruners = [dict(run.run.choices)["pruner"] for run in runs]
    tasks = [[t for part in parts if p in part.pruners for t in part.tasks] for p in pruners]
    counted = {task for part in parts if not part.beside for task in part.tasks}
    beside = {task for part in parts for task in part.tasks} - counted
    choices = [tuple(c for c in run.run.choices if c[0] not in declaration.axes) for run in runs]
    identities = _identities(runs, configs, records)
    declared = list(map(DeclaredRun, identities, configs, tasks, choices))
    expected = expected_from_runs(declared, declaration.missing, beside)
    set_terms = [
        {key: value for key in OF_RESULTS if (value := value_at(config, key)) is not None}
        for config in configs
    ]
    selection = Selection(
        identities=frozenset(identities),
        limited=limited,
        text="is of this grid; see neuroal-grid status",
        names=competitor_names(declared),
        terms=dict(zip(identities, set_terms, strict=True)),
    )
    return selection, expected


def _identities(
    runs: Sequence[PlannedRun],
    configs: Sequence[Mapping[str, Any]],
    records: Sequence[Record] | None,
) -> list[str]:
    """Return the identity of each run, or that of the record with its settings."""
    identities: dict[str, str] = {}
    for record in records or ():
        settings = _settings(record.config)
        if settings in identities:
            pair = f"{identities[settings]} and {record.identity}"
            raise UserError(f"records {pair} have the same settings; move one away")
        identities[settings] = record.identity
    return [
        identities.get(_settings(config), run.identity)
        for run, config in zip(runs, configs, strict=True)
    ]


def _settings(config: Mapping[str, Any]) -> str:
    return json.dumps({key: config.get(key) for key in DECIDING}, sort_keys=True, default=str)


def pack_records(overrides: Sequence[str], packed: Path | None, path: Path | None) -> str:
    """Pack the records that `overrides` select into the file `path`; return a line to print.

    `packed` is a file of packed records to read in place of the folder ``out``.
    """
    from neuroal.tables.packed import Origin, is_packed, pack
    from neuroal.tables.reading import all_records

    if path is None or not is_packed(path):
        raise UserError(f"pack: writes one file; name it as in --to zoo.parquet, not {path}")
    configs, is_grid = check(overrides)
    out = packed or Path(configs[0].out)
    records = all_records(out)
    expected, selection = None, select(overrides, True)
    if is_grid:
        selection, expected = grid_selection(overrides, True, records)
    selected = [
        record
        for record in records
        if selection.identities is None or record.identity in selection.identities
        if selection.matches(record.config)
    ]
    if not selected:
        raise UserError(f"out={out}: none of its records {selection.text}")
    names = {record.identity: selection.names.get(record.identity, "") for record in selected}
    named = {identity: name for identity, name in names.items() if name}
    origin = Origin(published(overrides), expected.to_dict(), named) if expected else Origin()
    size = pack(selected, path, origin)
    return f"{path}: {len(selected):,} records, {size / 2**20:.2f} MiB"


def published(overrides: Sequence[str]) -> str:
    """Return the command that runs the grid of `overrides`, without folders of this machine."""
    arguments = ["neuroal-grid", "run"]
    for override in overrides:
        key = override.partition("=")[0]
        arguments.append(f"{key}={ANYWHERE[key]}" if key in ANYWHERE else override)
    return shlex.join(arguments)
