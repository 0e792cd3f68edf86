"""Names of version 0.1 that still work, with a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

MODULES = {
    "neuroal.plan": "neuroal.sparsity.plan",
    "neuroal.statistics": "neuroal.kernels.input_statistics",
    "neuroal.pruners.budget": "neuroal.sparsity.budget",
    "neuroal.pruners.patterns": "neuroal.sparsity.patterns",
    "neuroal.refine.base": "neuroal.pruners.base",
    "neuroal.topups.fixed": "neuroal.topups.plan_file",
    "neuroal.topups.schedule": "neuroal.sparsity.schedule",
}
"""Former module → the module that replaced it."""
CLASSES = {"neuroal.topups.fixed.FixedPlan": "neuroal.topups.plan_file.PlanFile"}
"""Former import path of a method (``_target_``, also in records) → present import path."""
ATTRIBUTES = {
    "neuroal.pruners.budget": {"Allotment": "LinearBudget", "allot": "linear_budgets"},
    "neuroal.refine.base": {"Refine": "MaskRefiner"},
    "neuroal.topups.fixed": {"FixedPlan": "PlanFile"},
}
"""Former module → former name of an attribute → present name."""


FORMER_SETTINGS: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "neuroal.topups.marginal.EqualMarginals": (
        "preset",
        {"preset": "first"},
        {"step": "both", "momentum": 0.8, "second_order": 0.0, "rerank": 0},
    )
}
"""Import path of a method → a parameter that records of version 0.1 lack, the settings that such a
record implies, and the former defaults of parameters whose default is now null."""


def present_settings(target: str, settings: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters of a method in a record, with those of version 0.1 as present ones."""
    lacking, implied, defaults = FORMER_SETTINGS.get(target, ("", {}, {}))
    if not lacking or lacking in settings:
        return dict(settings)
    return implied | {
        key: None if key in defaults and defaults[key] == value else value
        for key, value in settings.items()
    }


def present_target(target: str) -> str:
    """Return the present import path of a method for its present or former import path."""
    return CLASSES.get(target, target)


def warn_former(former: str, present: str, stacklevel: int = 3) -> None:
    """Warn that `former` is deprecated in favour of `present`."""
    message = f"{former} is deprecated; use {present}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


class _FormerModules(MetaPathFinder, Loader):
    """Import former modules as proxies of the modules that replaced them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__
        present = import_module(MODULES[former])
        renamed = ATTRIBUTES.get(former, {})
        warn_former(former, present.__name__)

        def forward(name: str) -> object:
            return getattr(present, renamed.get(name, name))

        module.__getattr__ = forward  # type: ignore[method-assign]


def install() -> None:
    """Make `MODULES` importable."""
    if not any(isinstance(finder, _FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(_FormerModules())
