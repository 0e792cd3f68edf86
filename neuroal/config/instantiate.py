"""Instantiate pruners, top-ups and refinements from the configuration."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import schema
from neuroal.config.former_names import present_target, warn_former
from neuroal.config.imports import import_module_of
from neuroal.config.validation import check_finite, explain
from neuroal.errors import UserError, first_line, nearest, shortened


def build(key: str, node: Any) -> Any:
    """Instantiate the method that `node` names by the import path ``_target_``.

    A method is a dataclass; its fields are its parameters. Its class may come from any importable
    module. If the target is null, the method is None.

    Args:
        key: group of the method, for messages: ``pruner``, ``topup`` or ``refine``.
        node: mapping of ``_target_`` and parameters.
    """
    settings = dict(node or {})
    target = settings.pop("_target_", None)
    if target is None:
        if key != "refine" or settings:
            raise UserError(f"{key}._target_=null: names no method; choose an option of {key}")
        return None
    cls = locate(key, str(target))
    _check_method(key, str(target), cls)
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
    typed = _typed(key, cls, settings)
    check_finite(typed, key)
    for name, value in typed.items():
        _check_value(f"{key}.{name}", settings[name], value)
    try:
        return cls(**typed)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{key}._target_={target}: does not accept its parameters {shortened(typed)} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


def _check_method(key: str, target: str, cls: Any) -> None:
    """Raise `UserError` unless `cls` is a complete class of methods of the group `key`."""
    from neuroal.pruners.method import Method  # late: imports torch

    if not (inspect.isclass(cls) and issubclass(cls, Method) and cls.group == key):
        raise UserError(
            f"{key}._target_={target}: is no class of a {key}, as docs/extending.md describes"
        )
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UserError(
            f"{key}._target_={target}: {cls.__name__} lacks the method "
            f"{missing[0]}{inspect.signature(getattr(cls, missing[0]))}"
        )


def _check_value(key: str, value: Any, typed: Any) -> None:
    """Raise `UserError` if conversion to the type of a parameter changed the kind of its value."""
    if isinstance(typed, bool) and not isinstance(value, bool):
        raise UserError(f"{key}={value}: must be true or false")
    is_number = isinstance(typed, int | float) and not isinstance(typed, bool)
    if is_number and isinstance(value, bool):
        raise UserError(f"{key}={value}: must be a number")
    if isinstance(typed, list) and any(isinstance(item, list | dict) for item in typed):
        raise UserError(f"{key}={value}: must be a list of single values")


def locate(key: str, target: str) -> Any:
    """Return the class of the group `key` with the present or former import path `target`."""
    present = present_target(target)
    if present != target:
        warn_former(f"{key}._target_={target}", present)
    module, _, name = present.rpartition(".")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UserError(f"{key}._target_={target}: must be MODULE.CLASS, an import path")
    try:
        imported = import_module_of(module)
    except (Exception, SystemExit) as error:  # whatever the code of a user's module raises
        raise UserError(
            f"{key}._target_={target}: cannot be imported "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    cls = getattr(imported, name, None)
    if not callable(cls):
        close = nearest(name, vars(imported))
        raise UserError(f"{key}._target_={target}: {module} has no class '{name}'{close}")
    return cls


def _typed(key: str, cls: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Convert `settings` to the types of the fields of `cls`."""
    if not dataclasses.is_dataclass(cls):
        return settings
    try:
        typed_fields = OmegaConf.structured(cls)
    except OmegaConfBaseException:  # types unknown to OmegaConf: the class checks its own
        return settings
    try:
        typed = OmegaConf.to_container(OmegaConf.merge(typed_fields, settings))
    except OmegaConfBaseException as error:
        raise UserError(f"{key}.{explain(error)}") from error
    assert isinstance(typed, dict)
    return {setting: typed[setting] for setting in settings}


def named_method(group: str, name: str) -> Any:
    """Instantiate the method of ``conf/GROUP/NAME.yaml`` with the parameters set there."""
    folder = schema.conf_dir() / group
    path = folder / f"{name}.yaml"
    if not path.is_file():
        options = sorted(p.stem for p in folder.glob("*.yaml"))
        raise UserError(
            f"{group}={name}: no such option; there are {', '.join(options)}"
            f"{nearest(name, options)}"
        )
    return build(group, OmegaConf.to_container(OmegaConf.load(path)))
