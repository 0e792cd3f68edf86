"""The command line: a mistake prints one line with the nearest valid name and exits with code 2."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from neuroal.cli import help as usage
from neuroal.cli import main as cli
from neuroal.cli.compose import check, composed
from neuroal.config import schema
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError

MISTAKES = {
    "topup=neural": "did you mean 'neuroal'",
    "topupp=owl": "did you mean 'topup'",
    "topup.stepp=both": "did you mean 'step'",
    "topup.step=bloc": "block, row, both",
    "topup.block_candidates=[]": "at least one",
    "topup.row_candidates=[0.1,2]": "2",
    "pruner=wonda": "did you mean 'wanda'",
    "model=zoo/lama": "did you mean 'zoo/llama'",
    "model=hf": "model.path",
    "sparsity=s75": "s70",
    "sparsity=s65": "any other: sparsity.ratio=0.65",
    "sparsity=62.5%": "any other: sparsity.ratio=0.625",
    "sparsity=0.3": "any other: sparsity.ratio=0.3",
    "task=ptb": "any other: task.names=[ptb]",
    "hydra/launcher=rey": "no such launcher; there are basic, joblib",
    "sparsity.ratio=1.5": "above 0 and below 1",
    "sparsity.ratio=70": "did you mean 0.7?",
    "sparsity.ratio=0": "above 0 and below 1",
    "calibration.windows=abc": "calibration.windows",
    "calibration.windows=0": "at least 1",
    "calibration.seqlenn=64": "did you mean 'seqlen'",
    "task.names=[wikitext]": "did you mean 'wikitext2'",
    "rules=exakt": "did you mean 'exact'",
    "device=cuda:77": "CUDA",
    "out=/proc/none": "out=/proc/none",
    "--mulirun": "did you mean '--multirun'",
    "wanda": "did you mean 'pruner=wanda'",
    "topup=owl,dlp": "add -m",
    "--config-dir=nowhere": "no such folder",
}


@pytest.fixture
def line_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Return a function that runs the command with a mistake and returns its only line."""

    def line(argument: str) -> str:
        monkeypatch.setattr(sys, "argv", ["neuroal", argument])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert error.count("\n") == 1, error
        return error

    return line


@pytest.mark.parametrize("argument", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    argument: str, line_of: Callable[[str], str]
) -> None:
    assert MISTAKES[argument] in line_of(argument)


@pytest.mark.skipif(
    find_spec("hydra_plugins.hydra_submitit_launcher") is not None,
    reason="the launcher is installed",
)
def test_a_launcher_that_is_not_installed_names_its_extra(line_of: Callable[[str], str]) -> None:
    assert "pip install 'neuroal[slurm]'" in line_of("hydra/launcher=submitit_slurm")


def test_windows_that_no_memory_holds_are_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"calibration.windows=1000000: .* use fewer windows"):
        composed(["calibration.windows=1000000", "calibration.seqlen=1000000"])


def test_an_unknown_model_without_network_is_refused_before_torch_is_imported() -> None:
    script = """
import sys
from neuroal.cli.main import main
sys.argv = ["neuroal", "model=hf", "model.path=some-model-of-the-hub"]
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script]
    finished = subprocess.run(command, capture_output=True, text=True, env=offline)
    assert finished.returncode == 2
    assert finished.stdout == "False\n"
    assert finished.stderr.startswith("neuroal: model.path=some-model-of-the-hub: no such folder")
    assert finished.stderr.count("\n") == 1


def test_the_configuration_of_many_runs_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["neuroal", "-m", "seed=0,1", "--cfg", "job"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "neuroal: --cfg: prints the configuration of one run; leave out -m\n"
    )


def test_a_typo_is_reported_within_five_seconds_without_a_traceback() -> None:
    start = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-m", "neuroal", "topup=neural"], capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("neuroal: topup=neural: no such option")
    assert time.perf_counter() - start < 5


def test_every_choice_of_a_sweep_is_checked_before_the_first_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["neuroal", "-m", "topup=uniform,owll", "sparsity=s60,s70"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "owll: no such option" in capsys.readouterr().err


def test_multirun_runs_every_combination(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[tuple[str, float]] = []

    def recorded(config: RunConfig, **_: object) -> tuple[None, Path]:
        runs.append((str(config.pruner["_target_"]).rpartition(".")[2], config.sparsity.ratio))
        return None, Path(f"{len(runs)}.json")

    monkeypatch.setattr("neuroal.run.run", recorded)
    monkeypatch.setattr(
        "neuroal.records.result_line.result_content",
        lambda *arguments: {"zeros": 0.6, "seconds": 1.0, "record": str(arguments[-1])},
    )
    monkeypatch.setattr(
        "neuroal.records.result_line.line_of", lambda content: f"see {content['record']}"
    )
    monkeypatch.setattr(
        sys, "argv", ["neuroal", "-m", "pruner=wanda,magnitude", "sparsity=s60,s80"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert runs == [("Wanda", 0.6), ("Wanda", 0.8), ("Magnitude", 0.6), ("Magnitude", 0.8)]
    output = capsys.readouterr().out
    assert all(f"see {number}.json\n" in output for number in (1, 2, 3, 4))
    table = output.splitlines()[-5:]
    assert table[0].split() == ["job", "overrides", "zeros", "seconds", "record"]
    assert table[-1].split() == ["3", "pruner=magnitude", "sparsity=s80", "0.6000", "1.0", "4.json"]


def test_an_interrupted_command_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: RunConfig, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neuroal.run.run", interrupt)
    monkeypatch.setattr(sys, "argv", ["neuroal"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


def test_help_lists_every_group_option_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    text = usage.help_text()
    for group, options in usage.options_by_group().items():
        if group == "experiment":
            continue
        assert f"{group}=" in text
        for option, comment in options.items():
            assert comment, f"conf/{group}/{option}.yaml has no first line for --help"
            assert option in text
            assert comment in text
    assert "calibration.search_windows" in text


def test_a_config_folder_of_the_user_adds_options(tmp_path: Path) -> None:
    (tmp_path / "pruner").mkdir()
    (tmp_path / "pruner" / "mine.yaml").write_text(
        "# mine\n_target_: neuroal.pruners.sparsegpt.SparseGPT\nblock_size: 64\n"
    )
    schema.register()
    check(["pruner=mine", "pruner.block_size=32"], str(tmp_path))
    with pytest.raises(UserError, match="did you mean 'mine'"):
        check(["pruner=mime"], str(tmp_path))


def test_scripts_compose_what_the_command_line_composes() -> None:
    config = composed(["pruner=sparsegpt", "sparsity.ratio=0.65", "calibration.seed=3"])
    assert config.sparsity.ratio == 0.65
    assert config.calibration.seed == 3
    assert config.pruner["damping"] == 0.01
