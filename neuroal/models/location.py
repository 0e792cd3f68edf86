"""Find the files of a model: in the zoo, a folder, a GGUF file, a package or the hub's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuroal.config.schema import ModelConfig
from neuroal.data.hub import unreachable
from neuroal.errors import UserError, nearest
from neuroal.models.packaged import packaged_gguf

ZOO = Path(__file__).parents[1] / "zoo"


@dataclass(frozen=True)
class Location:
    """The folder or hub name of a model, and the name of its GGUF file in the folder, if any."""

    folder: str
    gguf: str | None = None

    def __str__(self) -> str:
        return str(Path(self.folder) / self.gguf) if self.gguf else self.folder

    @property
    def on_hub(self) -> bool:
        return self.gguf is None and not Path(self.folder).is_dir()


def locate_model(config: ModelConfig) -> Location:
    """Return the location of the model that `config` names.

    Raises:
        UserError: there is no such model, or the hub that has it cannot be reached.
    """
    if config.source == "zoo":
        folder = ZOO / config.path
        if not folder.is_dir():
            names = sorted(path.name for path in ZOO.glob("*/"))
            raise UserError(
                f"model.path={config.path}: not in the zoo{nearest(config.path, names)}"
            )
        return Location(str(folder))
    if config.source == "package":
        path = packaged_gguf(config.path)
        return Location(str(path.parent), path.name)
    path = Path(config.path).expanduser()
    if config.source == "gguf":
        if not path.is_file():
            raise UserError(f"model.path={config.path}: no such GGUF file")
        return Location(str(path.parent), path.name)
    if path.is_dir():
        _check_folder(path)
        return Location(str(path))
    if path.is_absolute() or config.path.startswith(".") or config.path.count("/") > 1:
        raise UserError(f"model.path={config.path}: no such folder")
    try:
        _check_hub(config.path, config.revision)
    except ValueError as error:  # no valid name
        raise UserError(
            f"model.path={config.path}: no such folder, and no name of a model on the hub"
        ) from error
    return Location(config.path)


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise UserError(f"model.path={path}: the folder has no config.json")
    weights = ("*.safetensors", "*.bin", "*.safetensors.index.json")
    if not any(any(path.glob(pattern)) for pattern in weights):
        raise UserError(f"model.path={path}: the folder has no weights (*.safetensors, *.bin)")


def _check_hub(name: str, revision: str | None) -> None:
    """Require a cached model or a reachable hub, whose client would otherwise retry for minutes."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    if why := unreachable():
        target = f"{name} --revision {revision}" if revision else name
        raise UserError(
            f"model.path={name}: no such folder, not in the Hugging Face cache, and the hub cannot "
            f"be reached ({why}); with network access, run: hf download {target}"
        )
