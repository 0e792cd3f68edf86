"""Amount of work and memory of a run, from its configuration and the shape of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuroal.config.instantiate import build
from neuroal.config.schema import RunConfig
from neuroal.config.search_windows import search_windows
from neuroal.evaluation.task_table import ZERO_SHOT
from neuroal.kernels.input_statistics import Need
from neuroal.models.shape import ModelShape

TOKENS = {"wikitext2": 3.0e5, "ptb": 1.1e5, "c4": 5.2e5, "c4_sample": 5.2e5, "builtin": 2.5e5}
"""Text → approximate number of its evaluation tokens."""
DOCUMENTS = {
    **{"rte": (277, 160), "winogrande": (1267, 60), "boolq": (3270, 280)},
    **{"hellaswag": (10042, 400), "arc_easy": (2376, 140), "arc_challenge": (1172, 160)},
    **{"openbookqa": (500, 100)},
}
"""Zero-shot task → number of its documents, and approximate tokens of a document's requests."""
FORWARD = "evaluate"
"""Stage whose rate is that of plain forward passes."""
PROCESS = 6.5e8
"""Bytes of a process that has imported PyTorch and `transformers`."""
ENOUGH_TOKENS, ALIVE = 16 * 1024, 8
"""Tokens of a batch on a GPU, and activations of the widest linear that are alive at once."""


def work_of(config: RunConfig, shape: ModelShape) -> dict[str, float]:
    """Return stage → amount of work: mostly floating-point operations.

    A forward pass takes two operations per parameter and token. Stages that depend on a method end
    in its name. The amounts are proportional to seconds only within a stage.
    """
    pruner, topup = build("pruner", config.pruner), build("topup", config.topup)
    calibration, parameters = config.calibration, shape.parameters
    seqlen = calibration.seqlen or min(2048, shape.context)
    update = parameters * pruner.operations_per_weight(float(shape.hidden))
    forward = 2 * parameters * seqlen
    searched = topup.search_passes() * search_windows(config) * forward
    return {
        "load": parameters,
        f"calibrate {calibration.name}": 1.0,
        f"allocate {topup.name}": searched + topup.search_prunings(pruner) * update,
        f"prune {pruner.name}": 2 * calibration.windows * forward + update,
        FORWARD: 2 * parameters * evaluated_tokens(config, shape),
    }


def evaluated_tokens(
    config: RunConfig, shape: ModelShape, metrics: Mapping[str, Any] | None = None
) -> float:
    """Return the number of tokens of all tasks; exact for those with results in `metrics`."""
    total, seqlen = 0.0, config.task.seqlen or min(2048, shape.context)
    for task in config.task.names:
        figures = (metrics or {}).get(task, {}).get("dense") or {}
        limit = config.task.limit
        if task in ZERO_SHOT:
            documents, tokens = DOCUMENTS[task]
            total += tokens * min(documents, figures.get("documents") or limit or documents)
        elif "windows" in figures:
            total += float(seqlen * figures["windows"])
        else:
            total += min(TOKENS[task], float(seqlen * limit) if limit else TOKENS[task])
    return total


def memory_of(config: RunConfig, shape: ModelShape, on_gpu: bool) -> float:
    """Return the approximate peak bytes of a run: of a GPU, or of the process on a CPU.

    It follows the placement: a resident model has all weights there, an offloaded one has its
    embeddings and a few blocks, and its hidden states are on the host.
    """
    itemsize = 2 if on_gpu and config.model.dtype != "float32" else 4
    seqlen = config.calibration.seqlen or min(2048, shape.context)
    weights = itemsize * shape.parameters
    if config.offload in ("blocks", "disk"):
        block = max(0.0, shape.parameters - shape.embeddings) / shape.blocks
        weights = itemsize * (shape.embeddings + 3 * block)
    elif config.offload == "devices":
        weights /= config.devices
    windows = max(config.calibration.windows, search_windows(config))
    hidden = 2.0 * windows * seqlen * shape.hidden * itemsize
    if on_gpu and config.offload != "none":
        hidden = 0.0
    tokens = ENOUGH_TOKENS if on_gpu else 4 * seqlen
    batch = 4.0 * ALIVE * min(tokens, windows * seqlen) * shape.widest
    rows = 4 * (config.task.seqlen or min(2048, shape.context))
    logits = 12.0 * rows * shape.vocabulary
    needs_gram = Need.GRAM in build("pruner", config.pruner).needs
    gram = 8.0 * shape.widest**2 if needs_gram else 0.0
    process = 0.0 if on_gpu else PROCESS
    return process + weights + hidden + max(batch + gram, logits)
