"""Pruners, top-ups and refinements, built from what ``conf/`` or the command line says of them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import conf_dir
from neuroal.errors import UserError, nearest
from neuroal.validation import explain


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
    cls = _locate(key, str(target))
    parameters = inspect.signature(cls).parameters
    for setting in settings:
        if setting not in parameters:
            raise UserError(
                f"{key}.{setting}: {cls.__name__} has no such parameter; it has: "
                f"{', '.join(parameters) or 'none'}{nearest(setting, parameters)}"
            )
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic and name not in settings:
            raise UserError(f"{key}.{name}: must be given, as in {key}.{name}=VALUE")
    return cls(**_typed(key, cls, settings))


def _locate(key: str, target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        home = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise UserError(f"{key}._target_={target}: cannot be imported ({error})") from error
    if not callable(found := getattr(home, name, None)):
        close = nearest(name, vars(home))
        raise UserError(f"{key}._target_={target}: {module} has no class '{name}'{close}")
    return found


def _typed(key: str, cls: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` converted to the types that the fields of `cls` have."""
    if not dataclasses.is_dataclass(cls):
        return settings
    try:
        schema = OmegaConf.structured(cls)
    except OmegaConfBaseException:  # types that OmegaConf does not know: the class checks its own
        return settings
    try:
        typed = OmegaConf.to_container(OmegaConf.merge(schema, settings))
    except OmegaConfBaseException as error:
        raise UserError(f"{key}.{explain(error)}") from error
    assert isinstance(typed, dict)
    return {setting: typed[setting] for setting in settings}


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
