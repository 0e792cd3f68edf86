"""The model card of a saved model: its ``README.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neuroal.config.command import command_of
from neuroal.config.naming import competitor, method_name, model_name, sparsity_name
from neuroal.evaluation.task_table import KINDS
from neuroal.records.schema import Record

CITATION = "https://arxiv.org/abs/2411.07066"


def model_card(record: Record, dtype: str, stored_dtype: str | None) -> str:
    """Return the model card: base model, method, plan, results and command.

    Args:
        record: record of the run.
        dtype: dtype of the saved weights.
        stored_dtype: dtype of the base model's checkpoint; None: unknown, or quantised.
    """
    config = record.config
    parts = [
        *_front_matter(config),
        f"# {model_name(config)}, {sparsity_name(config)} pruned",
        "",
        *_summary(record, dtype, stored_dtype),
        *_loading(config),
        *_plan(record),
        *_results(record),
        "## Command",
        "",
        f"```sh\n{command_of(config)}\n```",
        "",
        f"Run `{record.identity}`, {_versions(record)}. Method: [NeuroAL]({CITATION}).",
    ]
    return "\n".join(parts) + "\n"


def _front_matter(config: Mapping[str, Any]) -> list[str]:
    """Return the metadata that the Hugging Face Hub reads."""
    model = config["model"]
    on_hub = model["source"] == "hf" and not Path(model["path"]).expanduser().is_dir()
    base = [f"base_model: {model['path']}"] if on_hub else []
    tags = ["tags:", *(f"- {tag}" for tag in ("neuroal", "pruning", "sparsity"))]
    lines = ["library_name: transformers", "pipeline_tag: text-generation", *base, *tags]
    return ["---", *lines, "---", ""]


def _summary(record: Record, dtype: str, stored_dtype: str | None) -> list[str]:
    config, zeros = record.config, record.sparsity
    revision = f", revision {config['model']['revision']}" if config["model"]["revision"] else ""
    is_hf = config["model"]["source"] == "hf"
    shares = [f"{zeros[key]:.4f} of the {key}" for key in ("blocks", "model") if key in zeros]
    more = f" ({', '.join(shares)})" if shares else ""
    same = stored_dtype in (None, dtype)
    note = "" if same else f"; the checkpoint of the base model has {stored_dtype}"
    rows = {
        "base model": config["model"]["path"] + revision if is_hf else model_name(config),
        "pruner": method_name("pruner", config["pruner"]),
        "top-up": competitor(config),
        "sparsity": f"{sparsity_name(config)}: {zeros['overall']:.4f} zeros{more}",
        "calibration": config["calibration"]["name"],
        "dtype": f"{dtype}{note}",
        "format": config["save"].get("format", "dense"),
    }
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""]


def _loading(config: Mapping[str, Any]) -> list[str]:
    """Return how to load the model."""
    if config["save"].get("format") != "compressed":
        code = 'AutoModelForCausalLM.from_pretrained("FOLDER")'
        return ["```python", "from transformers import AutoModelForCausalLM", "", code, "```", ""]
    return [
        "The zeros are stored as a bit mask (`sparse-bitmask` of compressed-tensors). Current",
        "releases of vLLM refuse this format, and transformers fills such weights with random",
        "numbers, with a warning. Load or convert the model with",
        "",
        "```python",
        "import neuroal",
        "",
        'model = neuroal.load_compressed("FOLDER")',
        'model.save_pretrained("DENSE")',
        "```",
        "",
    ]


def _plan(record: Record) -> list[str]:
    """Return the density of every block."""
    densities = record.densities()
    header = ["## Plan", "", "Share of the prunable weights that each block keeps:", ""]
    rows = [f"| {block} | {density:.4f} |" for block, density in densities.items()]
    return [*header, "| block | density |", "|---:|---:|", *rows, ""]


def _results(record: Record) -> list[str]:
    if not record.metrics:
        return []
    header = ["## Results", "", "| task | figure | dense | pruned |", "|---|---|---:|---:|"]
    return [*header, *_result_rows(record.metrics), ""]


def _result_rows(metrics: Mapping[str, Any]) -> Iterator[str]:
    for task, entry in metrics.items():
        kind = KINDS[entry["kind"]]
        limit = f", first {entry['limit']}" if entry["limit"] is not None else ""
        dense, pruned = (entry[model][kind.figure] for model in ("dense", "pruned"))
        yield f"| {task}{limit} | {kind.label} | {dense:.5g} | {pruned:.5g} |"


def _versions(record: Record) -> str:
    environment = record.environment
    listed = environment.get("packages", environment)
    names = ("neuroal", "torch", "transformers")
    return ", ".join(f"{name} {listed[name]}" for name in names if name in listed)
