"""Temporarily replace what modules do when they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

from torch import nn


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """Replace the forward of `module` inside the context."""
    original = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if original is None:
            del module.forward  # restores the forward of the class
        else:
            module.forward = original


@contextmanager
def replaced_forwards(modules: Sequence[nn.Module], function: Callable[..., Any]) -> Iterator[None]:
    """Call ``function(module, …)`` in place of the forward of `modules` inside the context."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(replaced_forward(module, MethodType(function, module)))
        yield
