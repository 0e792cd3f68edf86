"""Typed schema of the configuration in ``conf/``, with the help line of every key."""
# ruff: noqa: RUF009 (defaults are calls of `_key`, which returns a field)

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from neuroal.errors import UserError


class Rules(StrEnum):
    """Rounding of budgets: equal budgets, or those of the NeuroAL authors' code."""

    EXACT = "exact"
    REFERENCE = "reference"


def _key(help_line: str, default: Any = MISSING, choices: Sequence[str] = ()) -> Any:
    """Return a field with its line of ``neuroal --help`` and its valid values, if listed."""
    listed = f"{' | '.join(choices)}: {help_line}" if choices else help_line
    metadata = {"help": listed, "choices": tuple(choices)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


OFFLOADS = ("none", "blocks", "devices", "disk")
"""Where idle blocks are kept: on the device, in host memory, on several devices, or on disk."""
PROGRESS = ("auto", "bar", "lines", "none")
"""How progress is shown: ``auto`` is a bar on a terminal, and lines elsewhere."""
FORMATS = ("dense", "compressed")
"""Layouts of a saved model's matrices."""
BOS = ("stream", "window")
"""What a window begins with: the next token of the text, or BOS in its place."""
BOS_HELP = "windows begin with the text's next token, or with BOS in its place"
SEQLEN_HELP = "tokens per window (null: 2048, or the model's context if shorter)"


@dataclass
class ModelConfig:
    """Origin of a model, and its linears to prune."""

    name: str | None = _key("name printed in results (null: the path)", None)
    source: str = _key("origin of the model", choices=("zoo", "hf", "gguf", "package"))
    path: str = _key("folder, Hub name, GGUF file, zoo model or Python package")
    revision: str | None = _key("branch, tag or commit on the Hub", None)
    dtype: str = _key(
        "on a GPU, auto is the checkpoint's type; on a CPU, float32",
        "auto",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    include: list[str] = _key("patterns of linears to prune ([]: all), as in ['*.q_proj']", [])
    exclude: list[str] = _key("patterns of linears to leave dense, as in ['0.*']", [])
    trust_remote_code: bool = _key("run Python code from the checkpoint", False)


@dataclass
class SparsityConfig:
    """Share of the prunable weights to set to zero.

    With `keep` and `of`, masks keep `keep` of every `of` columns (on average over the blocks, if
    the top-up varies their sparsity), and `ratio` is derived from the two. With `of` alone, each
    block keeps its own number of columns per group, with a total as close to `ratio` as possible.
    """

    ratio: float = _key("share of the prunable weights to prune, above 0 and below 1")
    keep: int | None = _key("N:M pattern: N, the weights kept per group (sets the ratio)", None)
    of: int | None = _key("N:M pattern: M, the columns per group", None)


@dataclass
class CalibrationConfig:
    """Calibration text, and the windows drawn from it."""

    name: str = _key("calibration text: c4 | c4_sample | wikitext2 | ptb | builtin | text")
    path: str | None = _key("file for calibration=text: .txt, .jsonl, .jsonl.gz, …", None)
    windows: int = _key("windows used by the pruner", 128)
    search_windows: int | None = _key(
        "windows used by the top-up (null: 64 for fisher and marginal, 8 for the others)", None
    )
    seqlen: int | None = _key(SEQLEN_HELP, None)
    bos: str = _key(BOS_HELP, "stream", choices=BOS)
    seed: int | None = _key("seed for drawing windows (null: seed)", None)


@dataclass
class TaskConfig:
    """Evaluation of the dense and the pruned model."""

    names: list[str] = _key("texts (perplexity), and tasks of lm-eval; see conf/task", [])
    seqlen: int | None = _key(SEQLEN_HELP, None)
    bos: str = _key(BOS_HELP, "stream", choices=BOS)
    limit: int | None = _key(
        "most windows per text, documents per zero-shot task (null: all)", None
    )
    batch: int | None = _key(
        "windows per forward pass, or requests of 1024 tokens (null: as memory allows)", None
    )
    samples: int = _key("built-in texts to continue before and after pruning", 0)
    fewshot: int | None = _key(
        "examples in the prompts of lm-eval (null: as the task says; 0 for task=zero_shot)", None
    )
    chat_template: bool = _key("apply the tokenizer's chat template in tasks of lm-eval", False)
    log_samples: bool = _key("write every prompt and answer of lm-eval's tasks", False)
    speed: bool = _key("neuroal-eval: measure speed and memory of the model", False)

    @property
    def prompt(self) -> str:
        """Name of the prompts' form: ``stock``, ``5-shot``, ``chat`` or ``5-shot, chat``."""
        fewshot = [] if self.fewshot is None else [f"{self.fewshot}-shot"]
        return ", ".join([*fewshot, *(["chat"] if self.chat_template else [])]) or "stock"


MOST_SAMPLES = 64
"""Maximum of ``task.samples``: more texts would make records long."""
LOGGERS = ("none", "wandb", "tensorboard", "mlflow", "csv")
LONGEST_TAG = 64
"""Maximum length of a tag in W&B, in characters."""
LONGEST_NAME = 128
"""Maximum length of the name of a run, project or group in W&B, in characters."""


@dataclass
class LoggerConfig:
    """Destination of metrics besides the record."""

    name: str = _key("destination of metrics besides the record", "none", choices=LOGGERS)
    mode: str = _key(
        "write files for `wandb sync`, or upload live", "offline", choices=("offline", "online")
    )
    project: str = _key("W&B project, or MLflow experiment", "neuroal")
    entity: str | None = _key("W&B user or team (null: your default)", None)
    group: str | None = _key("W&B group of the run, such as the name of a grid", None)
    tags: list[str] = _key("W&B tags besides model, pruner, top-up, refinement and sparsity", [])
    timeout: float = _key("seconds to wait for the server, at start and at end of a run", 30.0)


@dataclass
class DataConfig:
    """Location of data sets."""

    root: str | None = _key("folder of local data sets, with files NAME/SPLIT.jsonl.gz", None)


@dataclass
class SaveConfig:
    """Output besides the record."""

    model: str | None = _key("folder for the pruned model, its plan.json and README.md", None)
    format: str = _key(
        "Hugging Face format, or zeros as a bit mask (docs/saving.md)", "dense", choices=FORMATS
    )
    plan: str | None = _key("file for the plan", None)
    masks: bool = _key("write packed masks next to the record", False)
    overwrite: bool = _key("replace the saved model or plan of another run", False)


@dataclass
class RunConfig:
    """Configuration of one run.

    `pruner`, `topup` and `refine` are mappings from which `instantiate.build` makes methods.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    pruner: Any = MISSING
    topup: Any = MISSING
    refine: Any = None
    rules: str = _key("equal budgets, or the authors' rounding", "exact", choices=tuple(Rules))
    seed: int = _key("random seed", 0)
    device: str = _key("compute device: auto | cpu | cuda | cuda:N", "auto")
    devices: int = _key("GPUs that share all stages, each with a copy of the model", 1)
    offload: str = _key("where idle blocks are kept", "none", choices=OFFLOADS)
    batch: int | None = _key("windows per forward pass (null: as memory allows)", None)
    progress: str = _key("how progress is shown", "auto", choices=PROGRESS)
    out: str = _key("folder of records", "runs")
    force: bool = _key("do a finished run again and replace its record", False)


def default_seqlen(seqlen: int | None, context: int, key: str) -> int:
    """Return the window length in tokens: `seqlen`, or the smaller of 2048 and `context` if None.

    Raises:
        UserError: `seqlen`, the value of `key`, exceeds `context`.
    """
    if seqlen is not None and seqlen > context:
        raise UserError(f"{key}={seqlen}: longer than the model's context of {context}")
    return seqlen or min(2048, context)


def conf_dir() -> Path:
    """Return the folder ``conf``: next to the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def leaves(schema: Any = RunConfig, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Yield dotted name and field of every key with a line in ``neuroal --help``."""
    types = get_type_hints(schema)
    for leaf in fields(schema):
        if is_dataclass(types[leaf.name]):
            yield from leaves(types[leaf.name], f"{prefix}{leaf.name}.")
        elif "help" in leaf.metadata:
            yield f"{prefix}{leaf.name}", leaf


def value_at(config: Any, dotted: str) -> Any:
    """Return the value at a dotted key of a configuration of dataclasses or dicts."""
    for part in dotted.split("."):
        node = config if isinstance(config, Mapping) else vars(config)
        config = node[part]
    return config


def register() -> None:
    """Register the schema with Hydra, which then checks names and types during composition."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
