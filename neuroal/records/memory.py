"""Peak memory of a run, from its configuration and the shape of its model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neuroal.config.instantiate import build
from neuroal.config.schema import RunConfig
from neuroal.config.search_windows import search_windows
from neuroal.evaluation.batching import MOST_ON_CPU
from neuroal.execution.memory import ENOUGH_TOKENS, SHARE, TENSORS_ALIVE, free_memory
from neuroal.kernels.input_statistics import Need
from neuroal.models.shape import ModelShape

PROCESS = 6.0e8
"""Bytes of a process that has imported PyTorch and `transformers`."""
HELD = 1.3
"""Memory of a process that its allocator holds, divided by what is in use."""
ALIVE = 3
"""Activations of the widest linear that are alive at once; batches are chosen for more."""


def memory_of(config: RunConfig, shape: ModelShape, on_gpu: bool) -> float:
    """Return the approximate peak bytes of a run: of a GPU, or of the process on a CPU."""
    return _Memory(config, shape, on_gpu).peak


@dataclass(frozen=True)
class _Memory:
    """Bytes of the parts of a run."""

    config: RunConfig
    shape: ModelShape
    on_gpu: bool

    @property
    def peak(self) -> float:
        used = self.weights + max(self.pruning, self.search, self.evaluation)
        return used if self.on_gpu else PROCESS + HELD * used

    @property
    def itemsize(self) -> int:
        return 2 if self.on_gpu and self.config.model.dtype != "float32" else 4

    @property
    def seqlen(self) -> int:
        return self.config.calibration.seqlen or min(2048, self.shape.context)

    @property
    def weights(self) -> float:
        """Bytes of the weights on the device, which follow from the placement."""
        config, shape = self.config, self.shape
        numel = shape.parameters
        if config.offload in ("blocks", "disk"):
            numel = shape.parameters - shape.in_blocks + 3 * shape.in_blocks / shape.blocks
        elif config.offload == "devices":
            numel /= config.devices
        return self.itemsize * numel

    @property
    def pruning(self) -> float:
        gram = Need.GRAM in build("pruner", self.config.pruner).needs
        more = 8.0 * self.shape.widest**2 if gram else 0.0
        if self.on_gpu:
            more += self.shape.in_blocks / 8  # masks, one bit per weight
        return self._states_and_batch(self.config.calibration.windows, copies=1) + more

    @property
    def search(self) -> float:
        topup, windows = build("topup", self.config.topup), search_windows(self.config)
        if not topup.searches:
            return 0.0
        states = self.shape.blocks * self._batch(windows) * self.shape.hidden
        sizes = self.itemsize * self.shape.in_blocks, self.itemsize * states
        more: float = topup.search_bytes(*sizes)
        return more + self._states_and_batch(windows, copies=2)

    @property
    def evaluation(self) -> float:
        """Bytes of the logits of a batch, and of those of one window in float32."""
        seqlen = self.config.task.seqlen or min(2048, self.shape.context)
        windows = self.config.task.batch or MOST_ON_CPU
        tokens = ENOUGH_TOKENS if self.on_gpu else windows * seqlen
        return self.shape.vocabulary * (self.itemsize * tokens + 8.0 * seqlen)

    def _states_and_batch(self, windows: int, copies: int) -> float:
        """Return the bytes of `copies` of the hidden states of all windows, and of a batch."""
        on_host = self.on_gpu and self.config.offload != "none"
        states = 0 if on_host else copies * windows * self.seqlen * self.shape.hidden
        return self.itemsize * (states + ALIVE * self._batch(windows) * self.shape.widest)

    def _batch(self, windows: int) -> float:
        """Return the number of tokens in a forward pass of a stage."""
        most = float(windows * self.seqlen)
        if self.config.batch is not None:
            return min(most, self.config.batch * self.seqlen)
        if self.on_gpu:
            return min(most, ENOUGH_TOKENS)
        free = SHARE * free_memory(torch.device("cpu"))
        return min(most, free / (4 * TENSORS_ALIVE * self.shape.widest))
