"""Start of the console scripts; in a multirun, every run that fails has its line."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from neuroal.cli import main as cli
from neuroal.cli.flags import parse_flags
from neuroal.cli.jobs import Result
from neuroal.config.schema import ModelConfig, RunConfig
from neuroal.errors import UserError
from neuroal.models.load import LoadedModel, load_model

LINE = "neuroal: seed={}: {}\n"


def call(
    seeds: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *flags: str,
) -> tuple[int, str, list[int]]:
    """Run ``neuroal -m seed=SEEDS``; return exit code, error output and the seeds that were run.

    Seeds above 20 crash, seeds from 11 to 20 are mistakes of the user.
    """
    started = []

    def run(config: RunConfig, *_: object) -> None:
        started.append(config.seed)
        if config.seed > 20:
            raise RuntimeError(f"no memory {config.seed}\nmore")
        if config.seed > 10:
            raise UserError(f"bad {config.seed}")

    monkeypatch.setattr("neuroal.cli.main._prune", run)
    monkeypatch.setattr(sys, "argv", ["neuroal", *(flags or ("-m",)), f"seed={seeds}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().err, started


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.delenv("HYDRA_FULL_ERROR")


def test_every_crash_has_its_line_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error, started = call("21,1,22,2,23", monkeypatch, capsys)
    assert started == [21, 1, 22, 2, 23]
    assert code == 1
    for seed in (21, 22, 23):
        assert LINE.format(seed, f"RuntimeError: no memory {seed}") in error
    assert error.count("Traceback") == 1


def test_every_crash_has_its_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    _, error, _ = call("21,22", monkeypatch, capsys)
    assert error.count("Traceback") == 2


def test_mistakes_of_the_user_exit_with_2_and_crashes_beside_them_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error, started = call("11,1,12", monkeypatch, capsys)
    assert (code, started) == (2, [11, 1, 12])
    assert error == LINE.format(11, "bad 11") + LINE.format(12, "bad 12")
    code, error, _ = call("11,21", monkeypatch, capsys)
    assert code == 1
    assert LINE.format(11, "bad 11") in error
    assert LINE.format(21, "RuntimeError: no memory 21") in error


def test_a_crash_of_a_single_run_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("neuroal.cli.main._prune", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["neuroal", "seed=1"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


RESULT = {"tasks": {}, "zeros": 0.7, "seconds": 1.0, "record": "a.json", "dense": float("inf")}


def output_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[str, str]:
    """Return what ``neuroal ARGUMENTS`` prints if every run warns, notes, and has `RESULT`."""

    def run(config: RunConfig, *_: object) -> Result:
        logger = logging.getLogger("neuroal.run")
        logger.debug("stage of progress=%s", config.progress)
        logger.info("note")
        logger.warning("warning")
        return Result(RESULT, lambda: print("the line"))

    monkeypatch.setattr("neuroal.cli.main._prune", run)
    monkeypatch.setattr(sys, "argv", ["neuroal", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "neuroal: note\nneuroal: warning\n"),
        (["--quiet"], "neuroal: warning\n"),
        (["-v"], "neuroal: stage of progress=auto\nneuroal: note\nneuroal: warning\n"),
    ],
)
def test_quiet_and_verbose_choose_messages(
    flags: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert output_of(monkeypatch, capsys, *flags) == ("the line\n", expected)


def test_quiet_shows_no_progress_unless_it_is_chosen() -> None:
    assert parse_flags(["-q", "seed=1"])[1] == ["seed=1", "progress=none"]
    assert parse_flags(["progress=lines", "-q"])[1] == ["progress=lines"]


def test_json_is_one_line_per_run_and_nothing_else_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, _ = output_of(monkeypatch, capsys, "--json", "-m", "seed=1,2")
    assert [json.loads(line) for line in output.splitlines()] == [{**RESULT, "dense": None}] * 2


def test_a_closed_pipe_leaves_no_traceback() -> None:
    command = f"{sys.executable} -m neuroal --help | head -n 1"
    finished = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert finished.stdout.startswith("neuroal ")
    assert finished.stderr == ""


def test_status_of_a_grid_does_not_import_torch(tmp_path: Path) -> None:
    work = (
        "import sys; from neuroal.cli.grid import main\n"
        f"sys.argv[1:] = ['status', 'experiment=quick', 'out={tmp_path}']\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", work], capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines()[-1] == "False", ended.stderr


@pytest.mark.parametrize(("overrides", "reads"), [(["-m", "seed=1,2,3"], 1), (["seed=1"], 0)])
def test_the_runs_of_a_multirun_share_the_model(
    overrides: list[str], reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping: list[object] = []

    def load(config: ModelConfig, *rest: object) -> LoadedModel:
        keeping.append(config)
        return load_model(config, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("neuroal.models.load.load_model", load)
    small = ["pruner=magnitude", "topup=uniform", "task=none", f"out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["neuroal", *small, *overrides])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert len(keeping) == reads  # a single run keeps no copy
    assert len([*tmp_path.glob("*.json")]) == max(1, 3 * reads)
