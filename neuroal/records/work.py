"""Amount of work of a run, from its configuration and the shape of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuroal.config.instantiate import build
from neuroal.config.schema import RunConfig
from neuroal.config.search_windows import search_windows
from neuroal.models.shape import ModelShape

TOKENS = {"wikitext2": 3.0e5, "ptb": 1.1e5, "c4": 5.2e5, "c4_sample": 5.2e5, "builtin": 2.5e5}
"""Text → approximate number of its evaluation tokens."""
DOCUMENTS = {
    **{"rte": (277, 160), "winogrande": (1267, 60), "boolq": (3270, 280)},
    **{"hellaswag": (10042, 400), "arc_easy": (2376, 140), "arc_challenge": (1172, 160)},
    **{"openbookqa": (500, 100)},
}
"""Zero-shot task → number of its documents, and approximate tokens of a document's requests."""
OTHER_TASK = 2000, 200
"""The same for any other task of lm-eval, whose size is not known before it is loaded."""
FORWARD = "evaluate"
"""Stage whose rate is that of plain forward passes."""


def work_of(config: RunConfig, shape: ModelShape) -> dict[str, float]:
    """Return stage → amount of work: mostly floating-point operations.

    A forward pass takes two operations per parameter and token. Stages that depend on methods end
    in their names. The amounts are proportional to seconds only within a stage.
    """
    pruner, topup = build("pruner", config.pruner), build("topup", config.topup)
    calibration, parameters = config.calibration, shape.parameters
    seqlen = calibration.seqlen or min(2048, shape.context)
    update = parameters * pruner.operations_per_weight(float(shape.hidden))
    forward = 2 * parameters * seqlen
    windows = search_windows(config)
    updates = topup.search_prunings(pruner) * update
    methods = f"{topup.name} {pruner.name}" if updates else topup.name
    searched = topup.search_passes(windows) * windows * forward
    return {
        "load": parameters,
        f"calibrate {calibration.name}": 1.0,
        f"allocate {methods}": searched + updates,
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
        if "windows" in figures:
            total += float(seqlen * figures["windows"])
        elif task in TOKENS:
            total += min(TOKENS[task], float(seqlen * limit) if limit else TOKENS[task])
        else:
            documents, tokens = DOCUMENTS.get(task, OTHER_TASK)
            total += tokens * min(documents, figures.get("documents") or limit or documents)
    return total
