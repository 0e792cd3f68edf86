"""In a multirun, every run that fails has its line, and the others are done."""

from __future__ import annotations

import sys

import pytest

from neuroal.cli import main as cli
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError

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

    def run(config: RunConfig) -> None:
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
    monkeypatch.setattr("neuroal.cli.main._prune", lambda config: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["neuroal", "seed=1"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
