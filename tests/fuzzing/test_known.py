"""Command lines and files that once ended in a traceback, a hang or a value read as another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neuroal.cli import main, tables
from tests.fuzzing.command import call
from tests.fuzzing.inputs import command

LONG = "y" * 300
HUGE = "x" * 5000
COMMANDS = {
    "=": "'=': write GROUP=OPTION or KEY=VALUE",
    "+=1": "'+=1': write GROUP=OPTION or KEY=VALUE",
    "pruner._target_=../../etc": "must be MODULE.CLASS",
    "pruner._target_=null": "names no method",
    "sparsity=[[1],[2]]": "takes one option, not a list",
    "task=[1,2]": "list the tasks in task.names",
    "task.names=[[1],[2]]": "must be a list of texts",
    "task.names=builtin": "write task.names='[builtin]'",
    "topup=neuroal topup.row_candidates=[[1],[2]]": "must be a list of single values",
    "hydra.sweeper.params={seed:1}": "hydra.sweeper.params={seed:1}: cannot be composed",
    "hydra.run.dir=/proc/x": "Hydra cannot start the run ([Errno 2]",
    "-m hydra.launcher._target_=foo": "Hydra cannot start the run (Invalid plugin",
    "hydra.searchpath=[nowhere]": "hydra.searchpath: no folder 'nowhere'",
    "--info=foo": "invalid choice: 'foo'",
    "-m seed=range(1,1000000000)": "asks for more than 100000 runs",
    "seed=99999999999999999999": "must be at most 9223372036854775807",
    "calibration.windows=99999999999": "must be at most 1048576",
    "save.model=.": "overlaps out=runs",
    "save.plan=/dev/zero": "is a device",
    f"out={LONG}": "is no valid path (File name too long)",
    f"save.model={LONG}": "is no valid path",
    f"save.plan={LONG}": "is no valid path",
    f"data.root={LONG}": "is no valid path",
    f"model.path={LONG}": "is no valid path",
    f"calibration=text calibration.path={LONG}": "is no valid path",
    f"topup=plan topup.path={LONG}": "is no valid path",
    "topup=plan topup.path=/dev/zero": "no such file",
    "model.path=-5": "no name of a model on the hub",
    "model.path=x/epoch=3": "write model.path='\"x/epoch=3\"'",
    "model.path=./Größe": "write model.path='\"./Größe\"'",
    "model.path=[a]": "model.path=[a]: is read as ['a'], not as a path",
    "model.revision=1e10": "is read as 10000000000.0, not as text; write model.revision='\"1e10\"'",
    "logger.tags=['']": "the tag '' must have 1 to 64 characters",
    f"model={HUGE}": "no such option",
    f"seed={HUGE}": "could not be converted to Integer",
    f"rules={HUGE}": "must be one of exact, reference",
    f"{HUGE}=1": "no such group or key",
    f"--{HUGE}": "no such flag",
    HUGE: "write GROUP=OPTION or KEY=VALUE",
}


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line[:40])
def test_a_wrong_command_line_gives_one_short_line(line: str, folder: Path) -> None:
    outcome = call(main.main, command(*line.split(" ")), folder)
    assert outcome.problem is None
    assert outcome.code == 2
    assert COMMANDS[line] in outcome.stderr


def test_a_path_with_brackets_or_an_equals_sign_must_be_quoted(folder: Path) -> None:
    outcome = call(main.main, command("model.path=my model"), folder)
    assert outcome.problem is None
    assert outcome.stderr.startswith("neuroal: model.path=my model: no such folder")
    for path in ("model [1]", "a=b", "(model)"):
        outcome = call(main.main, command(f"model.path={path}"), folder)
        assert outcome.problem is None
        assert f"write model.path='\"{path}\"'" in outcome.stderr


def test_an_argument_that_is_not_utf8_is_refused(folder: Path) -> None:
    outcome = call(main.main, command("model.name=\udcff"), folder)
    assert outcome.problem is None
    assert "is not UTF-8" in outcome.stderr


def test_a_folder_that_is_gone_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    here = os.getcwd()
    os.chdir(tmp_path / "gone")
    try:
        (tmp_path / "gone").rmdir()
        with pytest.raises(SystemExit) as ended:
            main.main()
    finally:
        os.chdir(here)
    assert ended.value.code == 2


PLANS = {
    "block;ratio\n0;0.7\n1;0.7\n": "its header is 'block;ratio'",
    "block,ratio;\n0,0.7\n1,0.7\n": "its header is 'block,ratio;'",
    "block,ratio\n0,0.7,1\n1,0.7\n": "line 2 has not 2 columns",
    "block,ratio\n0,0.7\n1\n": "line 3 has not 2 columns",
    "block,ratio\n0,7_0\n": "'7_0' is not a number",
    "block,ratio\n1_0,0.7\n": "'1_0' is not the number of a block or row",
    "[" * 100_000: "it is nested too deeply",
    '{"sparsity":0.7,"ratios":' + '{"a":' * 100_000: "it is nested too deeply",
    '{"sparsity":0.5,"sparsity":0.7,"ratios":{}}': "'sparsity' is there twice",
    '{"sparsity":0.7,"ratios":{}}': "lacks '0.mlp.down_proj'",
    "": "not a list or table of ratios",
}


@pytest.mark.parametrize("text", PLANS, ids=lambda text: text[:20])
def test_a_wrong_plan_gives_one_line(text: str, folder: Path) -> None:
    (folder / "wrong.csv").write_text(text)
    outcome = call(main.main, command("topup=plan", "topup.path=wrong.csv"), folder)
    assert outcome.problem is None
    assert outcome.code == 2
    assert PLANS[text] in outcome.stderr


def test_every_run_of_a_sweep_that_fails_is_named(folder: Path) -> None:
    arguments = command("-m", "model.path=nothing/a,nothing/b,model")
    outcome = call(main.main, arguments, folder)
    assert outcome.code == 2
    assert "Traceback" not in outcome.stderr
    for name in ("nothing/a", "nothing/b"):
        assert f"neuroal: model=hf model.path={name}" in outcome.stderr


def test_a_folder_that_is_no_record_gives_one_line(folder: Path) -> None:
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / f"{'0' * 16}.json").write_text("[" * 100_000)
    outcome = call(tables.main, ["paper", "out=other"], folder)
    assert outcome.problem is None
    assert "cannot be read" in outcome.stderr
