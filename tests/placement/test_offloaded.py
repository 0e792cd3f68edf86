"""Two slots: which blocks are on the device, when they are read, and when writes are kept."""

from __future__ import annotations

from pathlib import Path
from weakref import ref

import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.models.offload import open_on_disk, place_on_host
from neuroal.placement.hidden_states import DeviceHiddenStates, HostHiddenStates
from neuroal.placement.host import HostBlocks
from neuroal.placement.offloaded import Offloaded
from tests.small_models import random_tokens, tiny_llama

CPU = torch.device("cpu")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the blocks in the order in which they are read from the host."""
    blocks_read: list[int] = []
    read = HostBlocks.read

    def recorded_read(self: HostBlocks, index: int) -> torch.Tensor:
        blocks_read.append(index)
        return read(self, index)

    monkeypatch.setattr(HostBlocks, "read", recorded_read)
    return blocks_read


def offloaded() -> tuple[DecoderModel, Offloaded]:
    model = tiny_llama().model
    placement = place_on_host(model, CPU)
    return DecoderModel(model), placement


def test_the_next_block_is_read_while_one_is_present(reads: list[int]) -> None:
    decoder, _ = offloaded()
    seen = [(index, list(reads)) for index, _ in decoder.walk()]
    assert seen == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2, 3]), (3, [0, 1, 2, 3, 0])]


def test_backward_walks_read_the_preceding_block(reads: list[int]) -> None:
    decoder, _ = offloaded()
    list(decoder.walk())
    reads.clear()
    seen = [(index, list(reads)) for index, _ in decoder.walk(backwards=True)]
    assert seen == [(3, []), (2, [2, 1]), (1, [2, 1, 0]), (0, [2, 1, 0, 3])]


def test_changes_are_kept_only_with_writes() -> None:
    decoder, _ = offloaded()
    weight = decoder.linears[1][0].module.weight
    before = weight.clone()
    with decoder.present(1):
        weight.data.zero_()
    list(decoder.walk())
    assert torch.equal(weight, before)
    with decoder.present(1, writes=True):
        weight.data.zero_()
    list(decoder.walk())
    assert not weight.any()


def test_a_block_in_use_keeps_its_slot(reads: list[int]) -> None:
    decoder, _ = offloaded()
    weight = decoder.linears[2][0].module.weight
    with decoder.present(2):
        address = weight.data_ptr()
        decoder.model(random_tokens(1, 8))
        assert weight.data_ptr() == address
    with decoder.present(0), decoder.present(1), pytest.raises(RuntimeError, match="no free slot"):
        decoder.model(random_tokens(1, 8))


def test_blocks_on_disk_take_no_memory_and_hold_nan(tmp_path: Path) -> None:
    tiny_llama().model.save_pretrained(tmp_path)
    model = open_on_disk(tmp_path, AutoConfig.from_pretrained(tmp_path), None, CPU, tmp_path)
    weight = DecoderModel(model).linears[0][0].module.weight
    assert weight.untyped_storage().nbytes() == weight.element_size()
    assert bool(weight.isnan().all())


def test_weights_of_another_dtype_are_converted(tmp_path: Path) -> None:
    tiny_llama().model.half().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    model = open_on_disk(tmp_path, config, torch.float32, CPU, tmp_path)
    resident = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = random_tokens(1, 8)
    assert model.dtype == torch.float32
    assert torch.equal(model(tokens).logits, resident(tokens).logits)
    model = open_on_disk(tmp_path, config, None, CPU, tmp_path)
    resident = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float16)
    assert model.dtype == torch.float16
    assert torch.equal(model(tokens).logits, resident(tokens).logits)


def test_checkpoints_that_cannot_be_read_block_by_block_are_refused(tmp_path: Path) -> None:
    model = tiny_llama().model
    config = model.config
    with pytest.raises(UserError, match="use offload=blocks"):
        open_on_disk(tmp_path, config, None, CPU)
    state = {name.replace("q_proj", "query"): weight for name, weight in model.state_dict().items()}
    from safetensors.torch import save_file

    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no tensor 'model\.layers\.0\.self_attn\.q_proj\.weight'"):
        open_on_disk(tmp_path, config, None, CPU)


@pytest.mark.parametrize("kind", [DeviceHiddenStates, lambda parts: HostHiddenStates(parts, CPU)])
def test_hidden_states_are_replaced_split_and_read_from_any_batch(
    kind: type[DeviceHiddenStates],
) -> None:
    parts = list(torch.arange(24.0).view(6, 2, 2).split(2))
    states = kind(parts)
    states.put(1, list(states)[1] + 100)
    states.split(1)
    assert [len(part) for part in states] == [1] * 6
    expected = torch.cat([parts[0], parts[1] + 100, parts[2]])
    assert torch.equal(torch.cat(list(states)), expected)
    assert torch.equal(torch.cat(list(states.starting(3))), expected[3:])


def test_a_present_block_has_its_own_forward() -> None:
    """So `torch.compile` can trace it."""
    decoder, placement = offloaded()
    block = decoder.blocks[1]
    assert "forward" in vars(block)
    for _ in range(2):
        with decoder.present(1), decoder.present(1):
            assert "forward" not in vars(block)
        assert "forward" in vars(block)
    placement.release()
    assert "forward" not in vars(block)


def test_an_unused_model_is_freed_at_once() -> None:
    decoder, placement = offloaded()
    model_ref, placement_ref = ref(decoder.model), ref(placement)
    del decoder, placement
    assert model_ref() is None
    assert placement_ref() is None


def test_compiled_blocks_use_the_present_weights() -> None:
    decoder, _ = offloaded()
    hidden = torch.randn(1, 8, 32)
    positions = torch.arange(8)[None]
    rotary = decoder.model.model.rotary_emb(hidden, positions)

    @torch.compile(backend="eager", fullgraph=True)
    def run(block: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = block(hidden, position_embeddings=rotary)
        return output

    resident = tiny_llama()
    for index, _ in decoder.walk():
        expected = resident.blocks[index](hidden, position_embeddings=rotary)
        assert torch.equal(run(decoder.blocks[index], hidden), expected)
