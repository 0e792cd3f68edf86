"""The folder of a trained zoo model: weights in bf16, tokenizer, loss curve, model card."""

from __future__ import annotations

import csv
import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from neuroal.files.atomic import write_bytes

CARD = """---
license: other
library_name: transformers
pipeline_tag: text-generation
language: en
---
# NeuroAL zoo: {name}

A {family} of {parameters:,} parameters ({blocks} blocks, width {width}, context {context},
{vocab} byte-level BPE tokens, tied embeddings), trained from scratch for
experiments without network access. It does not generate useful text, and its zero-shot accuracy is
at chance level.

| | |
|---|---|
| training text | {train_documents} documents, {train_tokens:,} tokens |
| steps | {steps} of {batch} windows of {context} tokens, AdamW, cosine; checkpoint: step {kept} |
| tokens seen | {tokens_seen:,} ({epochs:.1f} passes) |
| targeted dropout | probability {rate:.0%} for the smallest {share:.0%} of the weights of a row |
| held-out perplexity | **{heldout_ppl:.3f}** |
| perplexity of a Kneser-Ney trigram, of a unigram | {trigram_ppl}, {unigram_ppl} |
| seed | {seed} |
| precision | bf16 autocast over float32 weights; stored as bf16 |
| trained on | {device}, {seconds:.0f} s, {date} |
| versions | PyTorch {torch}, transformers {transformers} |

Held-out perplexity is computed with the stored weights in float32. The {heldout_documents}
held-out documents (shipped as `neuroal/data/builtin/evaluation.jsonl.gz`), each followed by
`<|endoftext|>`, form one stream, cut into {heldout_windows} windows of {context} tokens; the
remainder is dropped. The perplexity is exp of the mean negative log-likelihood of all tokens but
the first of each window. Held-out documents exclude copies of training text, and the
checkpoint was selected on other documents. `loss.csv` contains the loss curve.
`experiments/train_zoo` trains the model.

## Data and licences
State of the Union addresses 1790-2016 (US government work, public domain); Moby-Dick by Herman
Melville (public domain); the PostgreSQL manual (PostgreSQL licence, copyright The PostgreSQL Global
Development Group); the Python documentation (PSF licence, copyright Python Software Foundation);
the SQLite documentation (public domain); the Rust books (MIT or Apache-2.0, copyright the Rust
project developers). The manuals were reduced to prose. The weights may be redistributed with this
attribution.
"""


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of equal keys as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_model(
    folder: Path, cache: Path, model: transformers.PreTrainedModel, log: list[dict[str, float]]
) -> None:
    """Write weights (bf16), config, generation config, tokenizer and `loss.csv` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = transformers.GenerationConfig.from_model_config(model.config)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    # Copied last, because save_pretrained can write a tokenizer_config of its own.
    for file in (cache / "tokenizer").iterdir():
        shutil.copyfile(file, folder / file.name)
    write_csv(folder / "loss.csv", log)


def write_card(folder: Path, cache: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write `README.md` and `training.json` from the figures of the run; return all figures."""
    data = json.loads((cache / "facts.json").read_text())
    baseline = cache / "ngram.json"
    grams = json.loads(baseline.read_text()) if baseline.exists() else {}
    tokens_seen = facts["steps"] * facts["batch"] * data["context"]
    figures = {
        **facts,
        "tokens_seen": tokens_seen,
        "epochs": tokens_seen / data["train"]["tokens"],
        "trigram_ppl": round(grams["trigram_ppl"], 2) if grams else None,
        "unigram_ppl": round(grams["unigram_ppl"], 1) if grams else None,
        "train_documents": data["train"]["documents"],
        "train_tokens": data["train"]["tokens"],
        "heldout_documents": data["heldout"]["documents"],
        "heldout_windows": data["heldout"]["tokens"] // data["context"],
        "context": data["context"],
        "vocab": data["vocab"],
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    (folder / "README.md").write_text(CARD.format(**figures))
    write_json(folder / "training.json", figures)
    return figures


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, in the format of the zoo's files."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
