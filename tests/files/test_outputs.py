"""Saved models and plans: only what NeuroAL wrote is replaced, and a kill loses nothing."""

from __future__ import annotations

import json
import os
import sys
from itertools import count
from pathlib import Path

import pytest

from neuroal.errors import UserError
from neuroal.files.manifest import MANIFEST, Manifest
from neuroal.files.outputs import ModelFolder, PlanTarget

MINE, OTHER = "a" * 16, "b" * 16


def save(path: Path, identity: str = MINE, overwrite: bool = False, text: str = "new") -> None:
    """Write a folder as a run does: two files, one of them in a folder."""
    with ModelFolder(path, identity, overwrite).replacing() as part:
        (part / "model.safetensors").write_text(text)
        (part / "extra").mkdir()
        (part / "extra" / "code.py").write_text(text)


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def texts(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in ("model.safetensors", "extra/code.py")}


def test_a_saved_folder_names_its_run_and_its_files(tmp_path: Path) -> None:
    save(tmp_path / "X")
    content = json.loads((tmp_path / "X" / MANIFEST).read_text())
    assert content == {
        "identity": MINE,
        "complete": True,
        "files": {"model.safetensors": 3, "extra/code.py": 3},
        "format": "dense",
    }
    assert ModelFolder(tmp_path / "X", MINE).is_complete()
    assert not ModelFolder(tmp_path / "X", OTHER).is_complete()
    assert os.listdir(tmp_path) == ["X"]


def test_the_model_of_another_run_needs_the_key(tmp_path: Path) -> None:
    save(tmp_path / "X", OTHER, text="old")
    with pytest.raises(UserError, match=rf"another run \({OTHER}\); set save.overwrite=true"):
        save(tmp_path / "X")
    assert texts(tmp_path / "X") == {"old"}
    save(tmp_path / "X", overwrite=True)
    assert texts(tmp_path / "X") == {"new"}
    assert os.listdir(tmp_path) == ["X"]


def test_a_partial_model_of_the_same_run_is_replaced(tmp_path: Path) -> None:
    save(tmp_path / "X", text="old")
    (tmp_path / "X" / "model.safetensors").unlink()
    target = ModelFolder(tmp_path / "X", MINE)
    assert not target.is_complete()
    target.check()
    save(tmp_path / "X")
    assert texts(tmp_path / "X") == {"new"}
    Manifest(MINE).write(tmp_path / "X")
    assert not target.is_complete()
    save(tmp_path / "X")
    assert target.is_complete()
    assert os.listdir(tmp_path) == ["X"]


@pytest.mark.parametrize("identity", [MINE, OTHER])
def test_files_of_the_user_in_a_saved_folder_are_never_deleted(
    identity: str, tmp_path: Path
) -> None:
    save(tmp_path / "X", identity)
    (tmp_path / "X" / "extra" / "notes.txt").write_text("mine")
    (tmp_path / "X" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"extra/notes\.txt, which NeuroAL did not write"):
        save(tmp_path / "X", overwrite=True)
    assert (tmp_path / "X" / "extra" / "notes.txt").read_text() == "mine"


def test_a_complete_model_of_the_same_run_is_accepted_with_files_beside(tmp_path: Path) -> None:
    save(tmp_path / "X")
    (tmp_path / "X" / "notes.txt").write_text("mine")
    target = ModelFolder(tmp_path / "X", MINE)
    target.check()
    assert target.is_complete()
    with pytest.raises(UserError, match=r"notes\.txt"):
        target.check(again=True)


def test_a_model_that_was_changed_is_not_overwritten(tmp_path: Path) -> None:
    save(tmp_path / "X")
    (tmp_path / "X" / "model.safetensors").write_text("trained further")
    with pytest.raises(UserError, match=r"model\.safetensors was changed"):
        save(tmp_path / "X")
    save(tmp_path / "X", overwrite=True)


def test_other_folders_files_and_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "data.csv").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "former").mkdir()
    for name in ("plan.json", "config.json"):
        (tmp_path / "former" / name).write_text("{}")
    refused = {"user": "did not write", "link": "symbolic link", "former": r"NeuroAL 0\.1"}
    for name, message in refused.items():
        with pytest.raises(UserError, match=message):
            save(tmp_path / name, overwrite=True)
    with pytest.raises(UserError, match="mount point"):
        save(Path("/proc"))
    assert sorted(os.listdir(tmp_path)) == ["former", "link", "user"]


def test_an_empty_folder_is_used_and_neighbours_stay(tmp_path: Path) -> None:
    for name in ("X", "X.part", ".X", f".X.{MINE}"):
        (tmp_path / name).mkdir()
    (tmp_path / "X.part" / "mine").write_text("1")
    save(tmp_path / "X")
    assert sorted(os.listdir(tmp_path)) == [".X", f".X.{MINE}", "X", "X.part"]
    assert (tmp_path / "X.part" / "mine").is_file()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_previous_folder(error: BaseException, tmp_path: Path) -> None:
    save(tmp_path / "X", OTHER, text="old")
    with (
        pytest.raises(type(error)),
        ModelFolder(tmp_path / "X", MINE, overwrite=True).replacing() as part,
    ):
        (part / "model.safetensors").write_text("half")
        raise error
    assert texts(tmp_path / "X") == {"old"}
    assert os.listdir(tmp_path) == ["X"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_keeps_the_previous_folder(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "X", OTHER, text="old")
    rename, calls = os.rename, count(1)

    def fail(source: Path, target: Path) -> None:
        if next(calls) == failing:
            raise OSError("stale file handle")
        rename(source, target)

    monkeypatch.setattr("os.rename", fail)
    with pytest.raises(OSError, match="stale"):
        save(tmp_path / "X", overwrite=True)
    assert texts(tmp_path / "X") == {"old"}
    assert os.listdir(tmp_path) == ["X"]


EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "open", "shutil.rmtree")


def killed_at(step: int, folder: Path) -> bool:
    """Save in a child process that dies before file operation `step`; return whether it died."""
    child = os.fork()
    if child == 0:
        steps = count(1)

        def die(event: str, arguments: tuple[object, ...]) -> None:
            if event in EVENTS and next(steps) == step:
                os._exit(9)

        sys.addaudithook(die)
        try:
            save(folder / "X", overwrite=True)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("before", ["nothing", "another run", "partial"])
def test_a_kill_at_any_step_loses_nothing(before: str, tmp_path: Path) -> None:
    for step in count(1):
        folder = tmp_path / str(step)
        folder.mkdir()
        if before != "nothing":
            save(folder / "X", MINE if before == "partial" else OTHER, text="old")
        if before == "partial":
            (folder / "X" / "model.safetensors").unlink()
        died = killed_at(step, folder)
        complete = [
            path
            for path in folder.iterdir()
            if (manifest := Manifest.read(path)) and manifest.is_complete(path)
        ]
        assert complete or before != "another run", step
        target = ModelFolder(folder / "X", MINE, overwrite=True)
        target.recover()
        if not target.is_complete():
            target.check()
            save(folder / "X", overwrite=True)
        assert texts(folder / "X") == {"new"}, step
        assert os.listdir(folder) == ["X"], step
        if not died:
            break
    assert step > 10


def test_a_plan_names_its_run_and_is_accepted_by_it(tmp_path: Path) -> None:
    path = tmp_path / "plans" / "plan.json"
    target, plan = PlanTarget(path, MINE), {"sparsity": 0.5, "ratios": {}}
    target.check()
    target.write(plan)
    assert json.loads(path.read_text()) == {"identity": MINE, **plan}
    assert target.holds(plan)
    target.check()
    with pytest.raises(UserError, match=rf"another run \({MINE}\); set save.overwrite=true"):
        PlanTarget(path, OTHER).write(plan)
    PlanTarget(path, OTHER, overwrite=True).write(plan)
    assert not target.holds(plan)


def test_a_plan_of_version_0_1_is_one_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"sparsity": 0.5, "ratios": {}}')
    with pytest.raises(UserError, match=r"another run; set save.overwrite=true"):
        PlanTarget(path, MINE).check()
    PlanTarget(path, MINE, overwrite=True).check()


@pytest.mark.parametrize("content", ["", "my notes", "[1]", '{"a": 1}'])
def test_a_file_that_is_no_plan_is_never_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text(content)
    with pytest.raises(UserError, match="is not a saved plan"):
        PlanTarget(path, MINE, overwrite=True).write({"sparsity": 0.5, "ratios": {}})
    assert path.read_text() == content


def test_a_link_is_not_replaced_by_a_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(UserError, match="symbolic link"):
        PlanTarget(tmp_path / "plan.json", MINE).check()


@pytest.mark.parametrize("name", ["../notes.txt", "/etc/hostname", "a/../../notes.txt"])
def test_a_manifest_that_reaches_out_of_its_folder_deletes_nothing(
    name: str, tmp_path: Path
) -> None:
    save(tmp_path / "P", "other")
    (tmp_path / "notes.txt").write_text("mine")
    content = json.loads((tmp_path / "P" / MANIFEST).read_text())
    content["files"][name] = 4
    (tmp_path / "P" / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(UserError, match="NeuroAL did not write"):
        save(tmp_path / "P", MINE, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_plan_that_was_changed_is_named_and_replaced_only_by_overwriting(tmp_path: Path) -> None:
    path, plan = tmp_path / "plan.json", {"sparsity": 0.5, "ratios": {"0.q": 0.25}}
    target = PlanTarget(path, MINE)
    target.write(plan)
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(UserError, match=r"plan.json: was changed after .*save.overwrite=true"):
        target.holds(plan)
    assert not PlanTarget(path, MINE, overwrite=True).holds(plan)


def test_saved_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with ModelFolder(tmp_path / "X", MINE).replacing() as part:
            (part / "model.safetensors").touch(mode=0o600)  # as safetensors creates its files
            (part / "extra").mkdir()
            (part / "extra" / "plan.json").touch(mode=0o600)
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "X").rglob("*") if p.is_file()}
    assert set(modes.values()) == {0o640}
