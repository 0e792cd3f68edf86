"""Several devices work on one model: exchanges, errors, processes that end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import pick_devices
from neuroal.models.offload import place_on_host
from neuroal.parallel.group import DeviceGroup
from neuroal.parallel.replicated import copy_to_all, group_of, replicated, starting, together
from neuroal.placement.base import placement_of
from tests.parallel import stages
from tests.small_models import random_tokens, tiny_llama

CPU = torch.device("cpu")


def processes_of(group: DeviceGroup) -> list[int]:
    return group._processes.numbers


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture(scope="module")
def three() -> Iterator[DecoderModel]:
    """Yield a small model on three devices, whose processes start once for all tests."""
    decoder = tiny_llama()
    with replicated(decoder.model, pick_devices(CPU, 3)):
        yield decoder


def test_shares_of_windows_give_the_result_of_all_windows(three: DecoderModel) -> None:
    tokens = random_tokens(5, 8)
    alone = stages.sums_of_logits(three, tokens, progress=None)
    for _ in range(2):
        joined = together(three, stages.sums_of_logits, tokens, progress=None)
        torch.testing.assert_close(joined, alone)


def test_exchanges_add_and_join_in_the_order_of_the_devices(three: DecoderModel) -> None:
    results = together(three, stages.collectives, progress=None)
    total = 3 * torch.arange(15.0).view(5, 3) + 300
    assert torch.equal(results["sum"][0], total)
    assert results["sum"][1].dtype == torch.float16
    assert torch.equal(results["sum"][1], total[0].half())
    assert bool((results["sum"][2] == 6).all())  # too large to be copied
    assert torch.equal(results["sum"][3], total[1])
    assert torch.equal(results["rows"][0], total)
    assert results["rows"][1].tolist() == [1, 1, 2, 2, 3]
    expected = torch.arange(15.0).view(5, 3) + torch.tensor([0, 0, 100, 100, 200])[:, None]
    assert torch.equal(results["rows"][2], expected.half())
    for part, expected in zip(
        results["several rows"], (total, total, total[:, :1], total[:, :1]), strict=True
    ):
        assert part.dtype == torch.float32
        assert bool((part == expected).all())
    assert results["own rows"] == (0, 2)
    assert results["few windows"].tolist() == [[0.0], [10.0]]  # the third device adds nothing
    assert results["few sums"][0].tolist() == [2.0, 2.0]
    assert results["total"] == 1.0
    assert results["copied"].tolist() == [1.0] * 3


def test_one_device_exchanges_nothing() -> None:
    decoder = tiny_llama()
    results = stages.collectives(decoder, progress=None)
    assert torch.equal(results["sum"][0], torch.arange(15.0).view(5, 3))
    assert results["total"] == 0.5


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("kind", [UserError, torch.OutOfMemoryError, ValueError])
def test_an_error_on_any_device_is_raised_as_it_is(
    three: DecoderModel, rank: int, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"^key=1: wrong"):
        together(three, stages.failing, rank, kind("key=1: wrong"), progress=None)
    tokens = random_tokens(2, 8)  # the processes go on
    together(three, stages.sums_of_logits, tokens, progress=None)


def test_other_devices_do_a_posted_call_whose_errors_are_ignored(three: DecoderModel) -> None:
    group = group_of(three.model)
    assert group is not None
    for value in (3, 5, -1):
        group.post(stages.remember, three, (value,))
    assert together(three, stages.remembered, progress=None) == [0.0, 5.0, 5.0]


def test_the_next_free_device_takes_a_piece_of_work(three: DecoderModel) -> None:
    group = group_of(three.model)
    assert group is not None

    def slowly(claim):  # type: ignore[no-untyped-def]
        for piece in stages.pieces(three, claim, 30, -1):
            time.sleep(0.2)
            yield piece

    items = list(group.stream(stages.pieces, three, (30, -1), slowly))
    assert sorted(piece for piece, _ in items) == list(range(30))
    by_first = sum(pid == os.getpid() for _, pid in items)
    assert 1 <= by_first < 15


def test_an_error_in_a_piece_of_work_ends_the_stream_at_once(three: DecoderModel) -> None:
    group = group_of(three.model)
    assert group is not None
    arguments = (10**9, 5)
    begin = time.perf_counter()
    with pytest.raises(UserError, match=r"^piece=5: fails$"):
        list(
            group.stream(
                stages.pieces, three, arguments, lambda c: stages.pieces(three, c, *arguments)
            )
        )
    assert time.perf_counter() - begin < 20
    together(three, stages.sums_of_logits, random_tokens(2, 8), progress=None)


def test_processes_share_the_weights_and_the_number_of_threads(three: DecoderModel) -> None:
    assert together(three, stages.weight_address_is_shared, progress=None) == [True] * 3
    threads = together(three, stages.settings_of_process, progress=None)
    assert threads == [torch.get_num_threads()] * 3


def test_changed_weights_reach_all_devices() -> None:
    decoder = tiny_llama()
    with replicated(decoder.model, pick_devices(CPU, 2)):
        assert together(decoder, stages.zero_first_weight, progress=None) == [False] * 2
        next(iter(decoder)).weight.zero_()
        copy_to_all(decoder.model)
        assert together(decoder, stages.zero_first_weight, progress=None) == [True] * 2


def test_a_killed_process_ends_the_run_in_one_line_and_leaves_no_process() -> None:
    decoder = tiny_llama()
    with replicated(decoder.model, pick_devices(CPU, 3)):
        group = group_of(decoder.model)
        assert group is not None
        together(decoder, stages.sums_of_logits, random_tokens(3, 8), progress=None)
        workers = processes_of(group)
        with pytest.raises(UserError, match=r"^devices=3: the process of cpu ended .*-9\)") as e:
            together(decoder, stages.killed, 1, progress=None)
        assert "\n" not in str(e.value)
        assert not any(map(alive, workers))
        with pytest.raises(UserError, match="have ended"):
            together(decoder, stages.sums_of_logits, random_tokens(3, 8), progress=None)


def test_processes_start_when_needed_and_end_with_the_context() -> None:
    readers = [thread for thread in threading.enumerate() if thread.name == "group reader"]
    decoder = tiny_llama()
    with replicated(decoder.model, pick_devices(CPU, 2)):
        group = group_of(decoder.model)
        assert group is not None
        assert not processes_of(group)
        together(decoder, stages.sums_of_logits, random_tokens(2, 8), progress=None)
        workers = processes_of(group)
        assert len(workers) == 1
        assert set(group.seconds) == {"start", "wait", "copy"}
    assert not any(map(alive, workers))
    assert group_of(decoder.model) is None
    assert [t for t in threading.enumerate() if t.name == "group reader"] == readers


def test_processes_start_while_the_model_is_loaded() -> None:
    devices = pick_devices(CPU, 2)
    with starting(devices) as group:
        assert group is not None
        numbers = processes_of(group)
        assert len(numbers) == 1
        decoder, tokens = tiny_llama(), random_tokens(4, 8)  # the processes start meanwhile
        with replicated(decoder.model, devices, group):
            together(decoder, stages.sums_of_logits, tokens, progress=None)
            assert processes_of(group) == numbers
            assert group.seconds["start"] >= group.seconds["wait"]
    assert not any(alive(number) for number in numbers)


def test_processes_end_with_a_model_that_cannot_be_loaded() -> None:
    with pytest.raises(UserError), starting(pick_devices(CPU, 2)) as group:
        assert group is not None
        numbers = processes_of(group)
        raise UserError("model.path: not a model")
    assert not any(alive(number) for number in numbers)


def test_one_device_starts_no_process() -> None:
    decoder = tiny_llama()
    with replicated(decoder.model, (CPU,)):
        assert group_of(decoder.model) is None


def test_an_offloaded_model_is_refused() -> None:
    model = tiny_llama().model
    place_on_host(model, CPU)
    with (
        pytest.raises(UserError, match=r"^devices=2: .* offloads its blocks; use devices=1$"),
        replicated(model, pick_devices(CPU, 2)),
    ):
        pass
    assert placement_of(model).offloads


def test_a_model_that_cannot_be_sent_is_refused_in_one_line() -> None:
    decoder = tiny_llama()
    decoder.model.hook = lambda: None
    with (
        replicated(decoder.model, pick_devices(CPU, 2)),
        pytest.raises(UserError, match=r"^devices: the model cannot be sent .*use devices=1$"),
    ):
        together(decoder, stages.sums_of_logits, random_tokens(2, 8), progress=None)


SCRIPT = """
import torch
import neuroal
from tests.small_models import random_tokens, tiny_llama
{definition}
model = tiny_llama().model
result = neuroal.prune(
    model, random_tokens(4, 16), pruner={pruner}, topup={topup}, sparsity=0.5, devices=2
)
print("sparsity", result.sparsity)
"""


def run_script(folder: Path, **parts: str) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(**{"definition": "", "pruner": "'wanda'", **parts}))
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=300, check=False
    )


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    ended = run_script(tmp_path, topup="'neuroal'")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "sparsity 0.5\n"  # once: the script itself runs in one process only


def test_a_method_that_a_script_defines_is_refused_in_one_line(tmp_path: Path) -> None:
    definition = "from neuroal.pruners.wanda import Wanda\nclass Own(Wanda): pass"
    ended = run_script(tmp_path, definition=definition, pruner="Own()", topup="'neuroal'")
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("neuroal.errors.UserError: devices: Own is defined in the script itself")


PARENT = """
import signal
import torch
from neuroal.models.devices import pick_devices
from neuroal.models.offload import place_on_host
from neuroal.parallel.replicated import group_of, replicated, starting, together
from tests.parallel import stages
from tests.small_models import random_tokens, tiny_llama
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores SIGINT
decoder = tiny_llama()
with replicated(decoder.model, pick_devices(torch.device("cpu"), 2)):
    together(decoder, stages.sums_of_logits, random_tokens(2, 8), progress=None)
    print(group_of(decoder.model)._processes.numbers[0], flush=True)
    together(decoder, stages.endless, progress=None)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_first_one(sent: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert alive(worker)
    parent.send_signal(sent)
    parent.communicate(timeout=120)
    for _ in range(100):
        if not alive(worker):
            return
        time.sleep(0.1)
    pytest.fail("the process works on without its parent")
