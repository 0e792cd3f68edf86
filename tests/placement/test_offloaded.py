"""Two slots: which blocks are on the device, when they are read, and what becomes of writes."""

from __future__ import annotations

from pathlib import Path
from weakref import ref

import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.models.place import open_on_disk, place_on_host
from neuroal.placement.host import HostBlocks
from neuroal.placement.offloaded import Offloaded
from neuroal.placement.states import DeviceStates, HostStates
from tests.tiny import random_tokens, tiny_llama

CPU = torch.device("cpu")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks in the order in which they are read from the host."""
    seen: list[int] = []
    read = HostBlocks.read

    def noted(self: HostBlocks, index: int) -> torch.Tensor:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(HostBlocks, "read", noted)
    return seen


def offloaded() -> tuple[DecoderModel, Offloaded]:
    model = tiny_llama().model
    placement = place_on_host(model, CPU)
    return DecoderModel(model), placement


def test_the_next_block_is_on_its_way_while_one_computes(reads: list[int]) -> None:
    subject, _ = offloaded()
    seen = [(index, list(reads)) for index, _ in subject.walk()]
    assert seen == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2, 3]), (3, [0, 1, 2, 3, 0])]


def test_backwards_too(reads: list[int]) -> None:
    subject, _ = offloaded()
    list(subject.walk())
    reads.clear()
    seen = [(index, list(reads)) for index, _ in subject.walk(backwards=True)]
    assert seen == [(3, []), (2, [2, 1]), (1, [2, 1, 0]), (0, [2, 1, 0, 3])]


def test_the_host_is_changed_by_those_who_say_so() -> None:
    subject, _ = offloaded()
    weight = subject.linears[1][0].module.weight
    before = weight.clone()
    with subject.present(1):
        weight.data.zero_()
    list(subject.walk())
    assert torch.equal(weight, before)
    with subject.present(1, writes=True):
        weight.data.zero_()
    list(subject.walk())
    assert not weight.any()


def test_a_block_in_use_keeps_its_slot(reads: list[int]) -> None:
    subject, _ = offloaded()
    weight = subject.linears[2][0].module.weight
    with subject.present(2):
        there = weight.data_ptr()
        subject.model(random_tokens(1, 8))
        assert weight.data_ptr() == there
    with subject.present(0), subject.present(1), pytest.raises(RuntimeError, match="no room"):
        subject.model(random_tokens(1, 8))


def test_what_waits_on_disk_takes_no_memory_and_cannot_be_used(tmp_path: Path) -> None:
    tiny_llama().model.save_pretrained(tmp_path)
    model = open_on_disk(tmp_path, AutoConfig.from_pretrained(tmp_path), None, CPU, tmp_path)
    weight = DecoderModel(model).linears[0][0].module.weight
    assert weight.untyped_storage().nbytes() == weight.element_size()
    assert bool(weight.isnan().all())


def test_weights_of_another_type_are_converted(tmp_path: Path) -> None:
    tiny_llama().model.half().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    model = open_on_disk(tmp_path, config, torch.float32, CPU, tmp_path)
    wanted = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = random_tokens(1, 8)
    assert model.dtype == torch.float32
    assert torch.equal(model(tokens).logits, wanted(tokens).logits)
    model = open_on_disk(tmp_path, config, None, CPU, tmp_path)
    wanted = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float16)
    assert model.dtype == torch.float16
    assert torch.equal(model(tokens).logits, wanted(tokens).logits)


def test_checkpoints_that_cannot_be_read_block_by_block_are_refused(tmp_path: Path) -> None:
    model = tiny_llama().model
    config = model.config
    with pytest.raises(UserError, match="use offload=blocks"):
        open_on_disk(tmp_path, config, None, CPU)
    state = {name.replace("q_proj", "query"): part for name, part in model.state_dict().items()}
    from safetensors.torch import save_file

    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no tensor 'model\.layers\.0\.self_attn\.q_proj\.weight'"):
        open_on_disk(tmp_path, config, None, CPU)


@pytest.mark.parametrize("kind", [DeviceStates, lambda parts: HostStates(parts, CPU)])
def test_states_are_replaced_cut_and_read_from_anywhere(kind: type[DeviceStates]) -> None:
    parts = list(torch.arange(24.0).view(6, 2, 2).split(2))
    states = kind(parts)
    states.put(1, states[1] + 100)
    states.split(1)
    assert [len(part) for part in states] == [1] * 6
    wanted = torch.cat([parts[0], parts[1] + 100, parts[2]])
    assert torch.equal(torch.cat(list(states)), wanted)
    assert torch.equal(torch.cat(list(states.starting(3))), wanted[3:])
    assert torch.equal(torch.cat(list(states[1:3])), wanted[1:3])


def test_a_present_block_is_an_ordinary_one() -> None:
    """Compilers look into it."""
    subject, placement = offloaded()
    block = subject.blocks[1]
    assert "forward" in vars(block)
    for _ in range(2):
        with subject.present(1), subject.present(1):
            assert "forward" not in vars(block)
        assert "forward" in vars(block)
    placement.release()
    assert "forward" not in vars(block)


def test_nothing_keeps_a_model_that_is_no_longer_used() -> None:
    subject, placement = offloaded()
    model, there = ref(subject.model), ref(placement)
    del subject, placement
    assert model() is None
    assert there() is None


def test_compiled_blocks_read_the_weights_that_are_present() -> None:
    subject, _ = offloaded()
    hidden = torch.randn(1, 8, 32)
    places = torch.arange(8)[None]
    turned = subject.model.model.rotary_emb(hidden, places)

    @torch.compile(backend="eager", fullgraph=True)
    def run(block: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = block(hidden, position_embeddings=turned)
        return output

    wanted = tiny_llama()
    for index, _ in subject.walk():
        expected = wanted.blocks[index](hidden, position_embeddings=turned)
        assert torch.equal(run(subject.blocks[index], hidden), expected)
