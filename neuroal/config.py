"""The typed schema of everything in ``conf/``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from neuroal.errors import UserError


def _key(help_line: str, default: Any = MISSING) -> Any:
    """A key with the line that ``neuroal --help`` shows for it."""
    return field(default=default, metadata={"help": help_line})


@dataclass
class ModelConfig:
    """Where a model comes from, and which of its linears are pruned."""

    name: str | None = _key("the name results are printed under (null: the path)", None)
    source: str = _key("zoo | hf | gguf | package: what kind of thing the path is")
    path: str = _key("folder or hub name, GGUF file, Python package")
    revision: str | None = _key("branch, tag or commit on the hub", None)
    dtype: str = _key(
        "auto | float32 | float16 | bfloat16; auto: the checkpoint's on a GPU, float32 on a CPU",
        "auto",
    )
    include: list[str] = field(
        default_factory=list,
        metadata={"help": "patterns of linears to prune ([]: all), as in ['*.q_proj']"},
    )
    exclude: list[str] = field(
        default_factory=list,
        metadata={"help": "patterns of linears that stay dense, as in ['0.*']"},
    )
    trust_remote_code: bool = _key("run code that comes with the checkpoint", False)


@dataclass
class SparsityConfig:
    """Share of the prunable weights that go.

    With `keep` and `of`, `keep` of every `of` columns stay and `ratio` follows from them; with `of`
    alone each block keeps a number of its own, so that the total is as near to `ratio` as can be.
    """

    ratio: float = _key("share of the prunable weights that go, above 0 and below 1")
    keep: int | None = _key("pattern: weights that stay in every group (sets the ratio)", None)
    of: int | None = _key("pattern: columns in a group", None)


@dataclass
class CalibrationConfig:
    """Which text pruning looks at."""

    name: str = _key("the text: c4 | c4_sample | wikitext2 | ptb | builtin | text")
    path: str | None = _key("file of calibration=text: .txt, .jsonl or .jsonl.gz", None)
    windows: int = _key("windows for the pruner's statistics", 128)
    search_windows: int = _key("windows for the top-up's search", 8)
    seqlen: int | None = _key("tokens a window (null: 2048, or the model's context if less)", None)
    seed: int | None = _key("seed of the draw (null: seed)", None)


@dataclass
class TaskConfig:
    """What is measured before and after pruning."""

    names: list[str] = field(
        default_factory=list,
        metadata={"help": "texts (perplexity) and zero-shot tasks: see conf/task"},
    )
    seqlen: int | None = _key("tokens a window (null: 2048, or the model's context if less)", None)
    limit: int | None = _key("windows of each text, documents of each task (null: all)", None)
    batch: int | None = _key("windows or requests in one forward pass (null: by memory)", None)


@dataclass
class LoggerConfig:
    """Where metrics go beside the record."""

    name: str = _key("none | wandb", "none")
    mode: str = _key("offline | online", "offline")
    project: str = _key("project of W&B", "neuroal")
    entity: str | None = _key("user or team of W&B (null: yours)", None)
    group: str | None = _key("what runs are grouped by, such as a grid's name", None)
    tags: list[str] = field(
        default_factory=list,
        metadata={"help": "besides model, pruner, top-up, refinement and sparsity"},
    )
    timeout: float = _key("seconds that a dead or slow server may cost, at either end", 30.0)


@dataclass
class DataConfig:
    """Where data sets are."""

    root: str | None = _key("folder of local data sets, NAME/SPLIT.jsonl.gz", None)


@dataclass
class SaveConfig:
    """What is kept beside the record."""

    model: str | None = _key("folder for the pruned model and its plan.json", None)
    plan: str | None = _key("file for the plan", None)
    masks: bool = _key("keep packed masks beside the record", False)


@dataclass
class RunConfig:
    """One run. `pruner`, `topup` and `refine` are methods, built by `methods.build`."""

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
    rules: str = _key("exact: equal budgets | reference: the authors' roundings", "exact")
    seed: int = _key("of everything drawn at random", 0)
    device: str = _key("auto | cpu | cuda | cuda:N", "auto")
    devices: int = _key(
        "GPUs that share the candidates of an exact search, a copy of the model each", 1
    )
    offload: str = _key("none | blocks | disk: where blocks wait that are not at work", "none")
    batch: int | None = _key("windows in one forward pass (null: by memory)", None)
    out: str = _key("folder for records", "runs")


def default_seqlen(given: int | None, context: int, key: str) -> int:
    """The window length: `given`, or the lesser of 2048 and the model's context."""
    if given is not None and given > context:
        raise UserError(f"{key}={given}: longer than the model's context of {context}")
    return given or min(2048, context)


def conf_dir() -> Path:
    """The folder ``conf``: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register() -> None:
    """Make the schema known to Hydra, which then checks names and types while it composes."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
