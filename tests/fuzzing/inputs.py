"""A small model, plans and texts on disk, and the command line that reads them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from neuroal.models.location import ZOO

EXAMPLES = int(os.environ.get("NEUROAL_FUZZ", "0"))
"""Number of random inputs of ``make fuzz``; 0: the few, always the same, of ``make test``."""
SHORT = ("calibration.windows=2", "calibration.seqlen=16", "task=none", "topup=uniform")
TABLE = "".join(f"{block},0.7\n" for block in range(2))


def examples(share: float, few: int) -> hypothesis.settings:
    """Return the settings of a test with a share of all random inputs, or with a `few`."""
    return hypothesis.settings(
        max_examples=max(1, round(share * EXAMPLES)) if EXAMPLES else few,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def write_model(folder: Path, **changes: Any) -> None:
    """Write a random LLaMA with two blocks and the tokenizer of a zoo model.

    `changes` update its configuration.
    """
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 4096,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ZOO / "llama" / name, folder / name)


def write_inputs(folder: Path) -> None:
    """Write a model, plans, tables, texts and options of a user's own into `folder`."""
    write_model(folder / "model")
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    linears = (*names, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ratios = {f"{block}.{name}": 0.7 for block in range(2) for name in linears}
    (folder / "plan.json").write_text(json.dumps({"sparsity": 0.7, "ratios": ratios}))
    (folder / "list.json").write_text("[0.7, 0.7]")
    (folder / "table.csv").write_text(f"block,ratio\n{TABLE}")
    np.save(folder / "list.npy", np.array([0.7, 0.7]))
    rows = "".join(
        json.dumps({"text": f"The ship {n} sails at dawn. " * 30}) + "\n" for n in (1, 2)
    )
    (folder / "text.txt").write_text("The ship sails at dawn. " * 60)
    (folder / "text.jsonl").write_text(rows)
    with gzip.open(folder / "text.jsonl.gz", "wt") as file:
        file.write(rows)
    (folder / "conf" / "pruner").mkdir(parents=True)
    option = "# mine\n_target_: neuroal.pruners.sparsegpt.SparseGPT\ndamping: 0.01\n"
    (folder / "conf" / "pruner" / "mine.yaml").write_text(option)


READ = {
    "model/config.json": (),
    "model/tokenizer.json": (),
    "model/tokenizer_config.json": (),
    "model/generation_config.json": (),
    "model/model.safetensors": (),
    "plan.json": ("topup=plan", "topup.path=plan.json"),
    "list.json": ("topup=plan", "topup.path=list.json"),
    "table.csv": ("topup=plan", "topup.path=table.csv"),
    "list.npy": ("topup=plan", "topup.path=list.npy"),
    "text.txt": ("calibration=text", "calibration.path=text.txt"),
    "text.jsonl": ("calibration=text", "calibration.path=text.jsonl"),
    "text.jsonl.gz": ("calibration=text", "calibration.path=text.jsonl.gz"),
    "conf/pruner/mine.yaml": ("--config-dir=conf", "pruner=mine"),
}
"""File → the overrides of a run that reads it, beside those of `command`."""


def command(*arguments: str) -> list[str]:
    """Return the arguments of a run on the small model in the current folder."""
    return ["model=hf", "model.path=model", "pruner=magnitude", *SHORT, "out=runs", *arguments]
