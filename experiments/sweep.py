"""Many prunings of the zoo in few processes: a model is loaded once, and every case is a file.

What `zoo_table.py`, `topups.py` and `dsnot_cycles.py` are made with. A case whose file is there is
not done again, so a sweep that was cut off goes on where it was; nor is one that a file of kept
results has, which is how a long sweep is made in parts, on several machines.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import neuroal
from neuroal.config import CalibrationConfig, ModelConfig
from neuroal.data.text import calibration_windows, evaluation_windows
from neuroal.evaluation.perplexity import perplexity
from neuroal.methods import build, named_method
from neuroal.models.load import LoadedModel, load_model, resolve_device
from neuroal.records.files import write_bytes, write_json
from neuroal.records.identity import environment

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("llama", "mistral", "phi", "opt")
SEQLEN = 512
REPORTED = ("case", "report")
"""Keys of a result that the tables do not need."""
Settings = Mapping[str, Any]
Result = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A top-up and a refinement under the name that the table prints.

    Attributes:
        topup: option of the group ``topup``; `topup_settings` replace its YAML's.
        refine: option of the group ``refine``, or an import path ``module.Class``; None: none.
        search_windows: calibration windows that the top-up searches with.
        pruners: those it is for; empty: all.
    """

    name: str
    topup: str = "uniform"
    topup_settings: Settings = field(default_factory=dict)
    refine: str | None = None
    refine_settings: Settings = field(default_factory=dict)
    search_windows: int = 8
    pruners: tuple[str, ...] = ()


UNIFORM = Method("uniform")


@dataclass(frozen=True)
class Case:
    """One pruning of one model; without a pruner: the dense model."""

    family: str
    pruner: str | None = None
    method: Method = UNIFORM
    sparsity: float = 0.0

    @property
    def file(self) -> str:
        """Name of its result."""
        if self.pruner is None:
            return f"{self.family}-dense.json"
        ratio = round(100 * self.sparsity)
        method = re.sub(r"\W+", "-", self.method.name)
        return f"{self.family}-{self.pruner}-{method}-{ratio}.json"


@dataclass(frozen=True)
class Setting:
    """What is the same for all cases of a sweep."""

    out: Path
    device: str = "auto"
    windows: int = 128
    limit: int | None = None
    seconds: float = math.inf
    kept: Path | None = None

    @property
    def terms(self) -> Settings:
        """What a kept result must have been measured under."""
        return {"calibration": self.windows, "limit": self.limit}


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all sweeps have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "runs")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--windows", type=int, default=128, help="calibration windows")
    parser.add_argument("--limit", type=int, help="windows of the evaluation slice (all)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after that")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    return parser


def setting_of(parsed: argparse.Namespace, name: str, kept: Path | None = None) -> Setting:
    """The sweep's setting; its results go to a folder `name` of their own."""
    return Setting(
        parsed.out / name, parsed.device, parsed.windows, parsed.limit, parsed.seconds, kept
    )


def sweep(cases: Sequence[Case], setting: Setting, jobs: int) -> dict[str, Result]:
    """Do what is not done yet, in the order given; the results by `Case.file`.

    A case that failed, or that time did not suffice for, is missing among them.
    """
    setting.out.mkdir(parents=True, exist_ok=True)
    known = kept(setting)
    todo = [
        case
        for case in cases
        if case.file not in known
        and not (setting.out / case.file).is_file()
        and setting.seconds > 0
    ]
    start = time.perf_counter()
    for count, (case, result) in enumerate(_done(todo, setting, jobs), 1):
        failed = result.get("refused") or result.get("failed")
        shown = failed or f"{result['perplexity']:.3f}"
        print(
            f"{time.perf_counter() - start:5.0f} s  {count}/{len(todo)}  {case.file}: {shown}",
            flush=True,
        )
        if time.perf_counter() - start > setting.seconds:
            print(f"out of time; {len(todo) - count} cases are left for the next call")
            break
    for case in cases:
        path = setting.out / case.file
        if path.is_file():
            known[case.file] = json.loads(path.read_text())
    keep(known, setting)
    return {case.file: known[case.file] for case in cases if case.file in known}


def kept(setting: Setting) -> dict[str, Result]:
    """The results in the file of kept ones that were measured under the same terms."""
    return {
        line["case"]: line["result"] for line in _lines(setting) if line["terms"] == setting.terms
    }


def keep(results: Mapping[str, Result], setting: Setting) -> None:
    """Add to the file of kept results: one line each, without what only a search needs to say."""
    if setting.kept is None:
        return
    others = [line for line in _lines(setting) if line["terms"] != setting.terms]
    results = {**kept(setting), **results}  # another sweep may have added to it meanwhile
    own = [
        {
            "case": name,
            "terms": setting.terms,
            "result": {key: value for key, value in result.items() if key not in REPORTED},
        }
        for name, result in sorted(results.items())
    ]
    text = "".join(json.dumps(line) + "\n" for line in [*others, *own])
    write_bytes(setting.kept, text.encode())


def _lines(setting: Setting) -> list[Any]:
    if setting.kept is None or not setting.kept.is_file():
        return []
    return [json.loads(line) for line in setting.kept.read_text().splitlines()]


def _done(todo: Sequence[Case], setting: Setting, jobs: int) -> Iterator[tuple[Case, Result]]:
    work = partial(_work, setting=setting)
    if jobs == 1:
        yield from map(work, todo)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _one_thread) as pool:
        yield from pool.imap_unordered(work, todo)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _work(case: Case, setting: Setting) -> tuple[Case, Result]:
    try:
        result = measure(case, setting)
    except neuroal.UserError as error:
        result = {"refused": str(error)}
    except Exception as error:  # one case costs no other; it is tried again by the next call
        return case, {"failed": f"FAILED: {error!r}"}
    write_json(setting.out / case.file, {"case": asdict(case), **result})
    return case, result


def measure(case: Case, setting: Setting) -> Result:
    """Prune the dense model by `case` and measure its perplexity on the built-in slice."""
    loaded, dense, tokens, windows = _subject(
        case.family, setting.device, setting.windows, setting.limit
    )
    loaded.model.load_state_dict(dense)
    result: Result = {}
    if case.pruner is not None:
        method = case.method
        found = neuroal.prune(
            loaded.model,
            tokens,
            pruner=case.pruner,
            topup=_method("topup", method.topup, method.topup_settings),
            refine=_method("refine", method.refine, method.refine_settings),
            sparsity=case.sparsity,
            search_windows=method.search_windows,
        )
        result = {
            "sparsity": found.sparsity,
            "seconds": dict(found.seconds),
            "calibration_tokens": dict(found.calibration_tokens),
            "report": dict(found.report),
        }
    figures = perplexity(loaded.model, windows, batch=32)
    where = environment(next(loaded.model.parameters()).device)
    return {
        **result,
        "perplexity": figures.value,
        "stderr": figures.stderr,
        "windows": figures.windows,
        "device": where["device"],
        "packages": where["packages"],
    }


def _method(group: str, name: str | None, settings: Settings) -> Any:
    if name is None:
        return None
    if "." in name:
        return build(group, {"_target_": name, **settings})
    return replace(named_method(group, name), **settings)


@cache
def _subject(
    family: str, device: str, windows: int, limit: int | None
) -> tuple[LoadedModel, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """A model, its dense weights, calibration and evaluation windows; once a process."""
    config = ModelConfig(name=f"zoo/{family}", source="zoo", path=family, dtype="float32")
    loaded = load_model(config, resolve_device(device))
    dense = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    text = CalibrationConfig(name="builtin", windows=windows, search_windows=8)
    tokens = calibration_windows(text, loaded.tokenizer, windows, SEQLEN, 0, None).tokens
    held = evaluation_windows("builtin", loaded.tokenizer, SEQLEN, limit, None).tokens
    return loaded, dense, tokens, held


def rows(cells: Iterable[Iterable[str]]) -> Iterator[str]:
    """Rows of a Markdown table, the first being its head."""
    for index, row in enumerate(cells):
        line = list(row)
        yield f"| {' | '.join(line)} |"
        if index == 0:
            yield f"|{'---|' * len(line)}"


def command_line() -> str:
    """The command that is running."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT)
    return shlex.join(["python", str(script), *sys.argv[1:]])


def footer(results: Iterable[Result]) -> str:
    """How a table was made: command, devices and versions."""
    found, command = [result for result in results if "device" in result], command_line()
    devices = ", ".join(sorted({result["device"] for result in found}))
    versions = ", ".join(f"{k} {v}" for k, v in found[0]["packages"].items())
    return f"Made by `{command}` on {devices}; {versions}."
