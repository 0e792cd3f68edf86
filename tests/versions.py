"""Results of every method on a small model, with the version numbers that they belong to.

``python -m tests.versions`` adds the results of new methods, and of those whose number was raised,
to ``tests/data/golden/versions.json``. It refuses a result that changed under the same number.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

import neuroal
from neuroal.config.instantiate import build
from neuroal.config.schema import conf_dir
from neuroal.errors import UserError
from neuroal.execution.costs import StageCosts
from neuroal.files.atomic import write_json
from neuroal.pipeline import SHARED_VERSION, Recipe, allocate, prune
from neuroal.pruners.settings import PruningSettings
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama
from tests.synthetic import method

PATH = Path(__file__).parent / "data" / "golden" / "versions.json"
MOST_DIFFERENT = 0.001
"""Share of mask entries that rounding may change between machines."""
PLAN_TOLERANCE = 1e-3
FEWER: dict[str, dict[str, Any]] = {
    "topup/evolve": {"passes": 20},
    "topup/marginal": {"linear_iterations": 3, "row_iterations": 3},
}
"""Parameters that make a slow method fast, by option."""
BLOCKS = (0.65, 0.75, 0.6, 0.8)
"""Ratios of the file that ``topup=plan`` reads."""


def options() -> list[str]:
    """Return every pruner, top-up and refinement of ``conf/``, as ``GROUP/OPTION``."""
    return [
        f"{group}/{path.stem}"
        for group in ("pruner", "topup", "refine")
        for path in sorted((conf_dir() / group).glob("*.yaml"))
        if path.stem != "none"
    ]


def _methods(option: str, folder: Path) -> dict[str, Any]:
    """Return the methods of the run that tries `option`: by Wanda and uniform, unless it is one."""
    names = {"pruner": "wanda", "topup": "uniform", "refine": "none"}
    group, _, name = option.partition("/")
    names[group] = name
    nodes = {group: method(group, name) for group, name in names.items()}
    nodes[group] |= FEWER.get(option, {})
    if option == "topup/plan":
        path = folder / "blocks.json"
        path.write_text(json.dumps(BLOCKS))
        nodes[group]["path"] = str(path)
    return {group: build(group, node) for group, node in nodes.items()}


def numbers(option: str) -> dict[str, int]:
    """Return the version numbers that a result of `option` depends on."""
    with tempfile.TemporaryDirectory() as folder:
        methods = _methods(option, Path(folder))
    classes = {f"{group}/{m.name}": m.version for group, m in methods.items() if m is not None}
    return {"shared": SHARED_VERSION, **classes}


def result(option: str) -> dict[str, Any]:
    """Return the packed masks and the means of the plan that `option` gives at 70 %."""
    decoder = tiny_llama()
    tokens = random_tokens(32, 24)
    with tempfile.TemporaryDirectory() as folder:
        methods = _methods(option, Path(folder))
        settings = PruningSettings(methods["pruner"], 0.7, batch=8)
        recipe = Recipe(settings, methods["topup"], methods["refine"])
        recipe.check()
        costs, progress = StageCosts(decoder.device), QuietProgress()
        allocation = allocate(decoder, recipe, tokens, costs, progress)
    masks = prune(decoder, recipe, allocation, tokens, costs, progress)
    bits = np.concatenate([masks[linear.key].numpy().ravel() for linear in decoder])
    means = allocation.plan.means()
    return {
        "masks": base64.b64encode(np.packbits(bits).tobytes()).decode(),
        "plan": [round(means[linear.key], 6) for linear in decoder],
    }


def shared_result() -> list[int]:
    """Return the calibration windows that a seed draws from the text of the package."""
    tokenizer = AutoTokenizer.from_pretrained(Path(neuroal.__file__).parent / "zoo" / "llama")
    tokens = neuroal.calibration_tokens("builtin", tokenizer, windows=4, seqlen=16, seed=3)
    return list(map(int, tokens.flatten()))


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Return how two results differ, or None if they differ by rounding at most."""
    packed = [np.frombuffer(base64.b64decode(r["masks"]), np.uint8) for r in (first, second)]
    if len(packed[0]) != len(packed[1]):
        return "masks of another model"
    bits = [np.unpackbits(entries) for entries in packed]
    share = float(np.mean(bits[0] != bits[1]))
    if share > MOST_DIFFERENT:
        return f"{share:.2%} of the mask entries"
    if not np.allclose(first["plan"], second["plan"], rtol=0, atol=PLAN_TOLERANCE):
        return "the plan"
    return None


def saved() -> dict[str, Any]:
    """Return the content of the file."""
    content: dict[str, Any] = json.loads(PATH.read_text())
    return content


def updated(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with results for new methods and new numbers, and without former methods.

    Raises:
        UserError: a result changed under the same numbers.
    """
    windows, before = shared_result(), content.get("shared", {})
    if before.get("version") == SHARED_VERSION and before["windows"] != windows:
        raise UserError("the calibration windows changed; raise SHARED_VERSION of pipeline.py")
    entries = {}
    for option in options():
        entry = content.get("options", {}).get(option)
        outcome, versions = result(option), numbers(option)
        if entry is not None and entry["numbers"] == versions:
            if changed := difference(entry, outcome):
                raise UserError(
                    f"{option}: {changed} changed; raise the number of the method whose code "
                    "changed, or SHARED_VERSION of pipeline.py"
                )
            entries[option] = entry
        else:
            entries[option] = {"numbers": versions, **outcome}
    return {"shared": {"version": SHARED_VERSION, "windows": windows}, "options": entries}


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        write_json(PATH, updated(saved() if PATH.exists() else {}))
    except UserError as error:
        sys.exit(str(error))
