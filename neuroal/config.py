"""The typed schema of everything in ``conf/``, and its validation before any model is loaded."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.errors import UserError, nearest

PERPLEXITY_SETS = ("builtin", "wikitext2", "ptb", "c4", "c4_sample")
CALIBRATION_SETS = (*PERPLEXITY_SETS, "text")
CHOICES = {
    "rules": ("exact", "reference"),
    "model.dtype": ("auto", "float32", "float16", "bfloat16"),
    "model.source": ("zoo", "hf", "gguf", "package"),
    "calibration.name": CALIBRATION_SETS,
}


@dataclass
class ModelConfig:
    """Where a model comes from, and which of its linears are pruned."""

    name: str | None = None
    source: str = MISSING
    path: str = MISSING
    revision: str | None = None
    dtype: str = "auto"
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    trust_remote_code: bool = False


@dataclass
class SparsityConfig:
    """Share of the prunable weights that go.

    With `keep` and `of`, `keep` of every `of` columns stay and `ratio` follows from them; with `of`
    alone each block keeps a number of its own, so that the total is as near to `ratio` as can be.
    """

    ratio: float = MISSING
    keep: int | None = None
    of: int | None = None


@dataclass
class CalibrationConfig:
    """Which text pruning looks at; `seqlen` null: the lesser of 2048 and the model's context."""

    name: str = MISSING
    path: str | None = None
    windows: int = 128
    search_windows: int = 8
    seqlen: int | None = None
    seed: int | None = None


@dataclass
class TaskConfig:
    """What is measured before and after pruning."""

    names: list[str] = field(default_factory=list)
    seqlen: int | None = None
    limit: int | None = None
    batch: int | None = None


@dataclass
class LoggerConfig:
    """Where metrics go beside the record."""

    name: str = "none"


@dataclass
class DataConfig:
    """Folder of local data sets."""

    root: str | None = None


@dataclass
class SaveConfig:
    """What is kept beside the record."""

    model: str | None = None
    plan: str | None = None
    masks: bool = False


@dataclass
class RunConfig:
    """One run. `pruner`, `topup` and `refine` are methods, built by `build`."""

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
    rules: str = "exact"
    seed: int = 0
    device: str = "auto"
    batch: int | None = None
    out: str = "runs"


def conf_dir() -> Path:
    """The folder ``conf``: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register() -> None:
    """Make the schema known to Hydra, which then checks names and types while it composes."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)


def resolve(composed: DictConfig) -> RunConfig:
    """Typed configuration of a run, checked as far as that goes without a model.

    Raises:
        UserError: names the key, its value and what would be right.
    """
    try:
        missing = sorted(key for key in OmegaConf.missing_keys(composed) if "hydra" not in key)
        if missing:
            raise UserError(f"{missing[0]}: must be given, as in {missing[0]}=VALUE")
        plain = OmegaConf.masked_copy(composed, [f.name for f in dataclasses.fields(RunConfig)])
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), plain))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, RunConfig)
    _check_pattern(config.sparsity)
    _check(config)
    return config


def explain(error: OmegaConfBaseException) -> str:
    """The gist of an OmegaConf error in one line, with the nearest valid name."""
    key = error.full_key or ""
    first = str(error.msg or error).splitlines()[0]
    hint = ""
    if error.parent_node is not None and "not in" in first:
        parent = error.parent_node
        if isinstance(parent, DictConfig):
            hint = nearest(str(error.key), [str(name) for name in parent])
    return f"{key}: {first}{hint}" if key else f"{first}{hint}"


def _check(config: RunConfig) -> None:
    for key, choices in CHOICES.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value not in choices:
            close = nearest(str(value), choices)
            raise UserError(f"{key}={value}: must be one of {', '.join(choices)}{close}")
    for name in config.task.names:
        if name not in PERPLEXITY_SETS:
            known = ", ".join(PERPLEXITY_SETS)
            raise UserError(
                f"task.names: no task '{name}'; known: {known}{nearest(name, PERPLEXITY_SETS)}"
            )
    if not 0 < config.sparsity.ratio < 1:
        raise UserError(f"sparsity.ratio={config.sparsity.ratio}: must be above 0 and below 1")
    at_least = {
        "calibration.windows": (config.calibration.windows, 1),
        "calibration.search_windows": (config.calibration.search_windows, 1),
        "calibration.seqlen": (config.calibration.seqlen, 2),
        "task.seqlen": (config.task.seqlen, 2),
        "task.limit": (config.task.limit, 1),
        "task.batch": (config.task.batch, 1),
        "batch": (config.batch, 1),
    }
    for key, (number, least) in at_least.items():
        if number is not None and number < least:
            raise UserError(f"{key}={number}: must be at least {least}")
    path = config.calibration.path
    if path is not None and not Path(path).is_file():
        raise UserError(f"calibration.path={path}: no such file")


def _check_pattern(sparsity: SparsityConfig) -> None:
    """Check an N:M pattern and let `ratio` say what it comes to."""
    keep, of = sparsity.keep, sparsity.of
    if of is not None and of < 2:
        raise UserError(f"sparsity.of={of}: a pattern has groups of at least 2 columns")
    if keep is None:
        return
    if of is None:
        raise UserError(f"sparsity.keep={keep}: of how many columns? set sparsity.of=M as well")
    if not 0 < keep < of:
        raise UserError(f"sparsity.keep={keep}: must be above 0 and below sparsity.of={of}")
    sparsity.ratio = 1 - keep / of


def build(key: str, node: Any) -> Any:
    """Construct the method that `node` names by the import path ``_target_``.

    A method is a dataclass; its fields are its parameters. Classes from anywhere will do.

    Args:
        key: where the node stands, for messages: ``pruner``, ``topup`` or ``refine``.
        node: mapping with ``_target_`` and parameters; a null target means None.

    Raises:
        UserError: no such class, or a parameter it does not have.
    """
    settings = dict(node or {})
    target = settings.pop("_target_", None)
    if target is None:
        return None
    module, _, name = str(target).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_={target}: cannot be imported ({error})") from error
    names = (
        [f.name for f in dataclasses.fields(cls)]
        if dataclasses.is_dataclass(cls)
        else list(inspect.signature(cls).parameters)
    )
    for setting in settings:
        if setting not in names:
            raise UserError(
                f"{key}.{setting}: {name} has no such parameter; it has: "
                f"{', '.join(names) or 'none'}{nearest(setting, names)}"
            )
    if not dataclasses.is_dataclass(cls):
        return cls(**settings)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(cls), settings)
    except OmegaConfBaseException as error:
        raise UserError(f"{key}.{explain(error)}") from error
    make: Any = cls
    return make(**{name: _value(typed, name) for name in names})


def _value(node: Any, name: str) -> Any:
    value = node[name]
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def named_method(group: str, name: str) -> Any:
    """The method of file ``conf/GROUP/NAME.yaml`` with the settings that stand there."""
    folder = conf_dir() / group
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise UserError(
            f"{group}={name}: no such option; there are {', '.join(known)}{nearest(name, known)}"
        )
    return build(group, OmegaConf.to_container(OmegaConf.load(path)))


__all__ = ["RunConfig", "build", "conf_dir", "explain", "named_method", "register", "resolve"]
