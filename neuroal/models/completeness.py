"""Check that a checkpoint holds exactly the weights of its model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from neuroal.errors import UserError
from neuroal.models.adapter import find_blocks
from neuroal.placement.headers import Header

COMPUTED = re.compile(
    r"(^|\.)(inv_freq|original_inv_freq|position_ids|masked_bias|cos_cached|sin_cached)$"
    r"|\.(attn|attention)\.bias$|^rope_freqs\.weight$"
)
"""Tensors that a model computes itself and that some checkpoints store: rotations, causal masks."""
TASK_HEAD = re.compile(r"For\w*(Classification|QuestionAnswering|MultipleChoice|Regression)$")
AGAIN = "download or save the checkpoint again"


@dataclass(frozen=True)
class Comparison:
    """Differences between a checkpoint and its model, by names in the model.

    Attributes:
        missing: tensors of the model that the checkpoint lacks.
        mismatched: (name, stored shape, shape in the model) where the shapes differ.
        unexpected: stored tensors that the model has no use for.
        remedy: what to do if a tensor is missing.
    """

    missing: Iterable[str] = ()
    mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]] = ()
    unexpected: Iterable[str] = ()
    remedy: str = AGAIN


def check_complete(
    model: nn.Module,
    where: str,
    comparison: Comparison,
    headers: Mapping[str, Header],
    *,
    quantized: bool = False,
) -> None:
    """Require that every tensor of `model` was stored, with its shape and as floats.

    Args:
        model: the model, loaded or empty.
        where: beginning of the error: the key, and the folder or file.
        comparison: differences between the checkpoint and `model`.
        headers: tensors of the checkpoint; empty if unknown.
        quantized: whether loading dequantises, so that stored dtypes and scales differ.

    Raises:
        UserError: a tensor is missing, has another shape or no floating-point values, or belongs
            to a block that `model` does not have.
    """
    check_language_model(model, where)
    _check_missing(model, where, comparison)
    for name, stored, shape in sorted(comparison.mismatched):
        raise _mismatch(where, name, stored, shape)
    unexpected = _without(comparison.unexpected, model, "_keys_to_ignore_on_load_unexpected")
    if not quantized:
        _check_floating(model, where, headers, unexpected)
        _check_unexpected(model, where, unexpected)


def check_language_model(model: Any, where: str) -> None:
    """Raise `UserError` if the checkpoint was saved from a model with another head."""
    for name in getattr(model.config, "architectures", None) or []:
        if TASK_HEAD.search(name):
            raise UserError(
                f"{where}: holds a {name}, which has no language-model head; "
                "use the checkpoint of a causal language model"
            )


def expected_shapes(config: Any, trust_remote_code: bool) -> dict[str, tuple[int, ...]]:
    """Return name → shape of the tensors of the model that `config` describes."""
    with torch.device("meta"):  # allocates nothing
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_layers(config: Any, where: str, headers: Mapping[str, Header]) -> None:
    """Raise `UserError` if `config` has no layer, or more layers than there are tensors.

    Checked before a model is made, which would take endless for a wrong number.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if headers and isinstance(layers, int) and not 1 <= layers <= len(headers):
        raise UserError(
            f"{where}: config.json has {layers} layers, and the checkpoint {len(headers)} tensors; "
            f" {AGAIN}, with the config.json that belongs to it"
        )


def check_shapes(
    config: Any, where: str, headers: Mapping[str, Header], trust_remote_code: bool
) -> None:
    """Raise `UserError` for a stored tensor of another shape than the model of `config` has.

    Checked before loading, which would allocate the model, however large a wrong `config` makes it.
    Tensors that are converted when they are loaded have other names and are not compared.
    """
    for name, shape in expected_shapes(config, trust_remote_code).items() if headers else ():
        stored = headers.get(name)
        if stored is not None and stored.shape != shape:
            raise _mismatch(where, name, stored.shape, shape)


def _mismatch(where: str, name: str, stored: Iterable[int], shape: Iterable[int]) -> UserError:
    return UserError(
        f"{where}: '{name}' has shape {_text(stored)}, but config.json needs {_text(shape)}; "
        f"{AGAIN}, with the config.json that belongs to it"
    )


def _check_missing(model: Any, where: str, comparison: Comparison) -> None:
    names = _without(comparison.missing, model, "_keys_to_ignore_on_load_missing")
    if not names:
        return
    head = model.get_output_embeddings()
    heads = {name for name, module in model.named_modules() if module is head}
    if all(name.rpartition(".")[0] in heads for name in names):
        raise UserError(
            f"{where}: the checkpoint has no tensor '{names[0]}', the model's head, and "
            "config.json does not tie it to the embeddings (tie_word_embeddings); "
            f"{comparison.remedy}"
        )
    raise UserError(f"{where}: the checkpoint has no tensor {_listed(names)}; {comparison.remedy}")


def _check_floating(
    model: nn.Module, where: str, headers: Mapping[str, Header], unexpected: list[str]
) -> None:
    """Raise `UserError` for integers that are stored where the model computes with floats."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    state = model.state_dict()
    unused = {name.removeprefix(prefix) for name in unexpected}
    for name, header in headers.items():
        inner = name.removeprefix(prefix)
        tensor = next((state[key] for key in (name, inner, prefix + name) if key in state), None)
        integers = tensor is not None and not tensor.is_floating_point()
        if header.floating or integers or inner in unused or COMPUTED.search(name):
            continue
        raise UserError(
            f"{where}: '{name}' in {header.file.name} has dtype {header.dtype}, not floating "
            f"point, and config.json has no quantization_config; {AGAIN}"
        )


def _check_unexpected(model: Any, where: str, unexpected: list[str]) -> None:
    """Refuse tensors of blocks and modules of `model` that it does not have; warn about others."""
    blocks, _ = find_blocks(model)
    prefix = f"{model.base_model_prefix}."
    modules = {name for name, _ in model.named_modules()}
    for name in unexpected:
        candidates = {name, name.removeprefix(prefix), prefix + name}
        inside = any(key.startswith(f"{blocks}.") for key in candidates)
        if inside or any(key.rpartition(".")[0] in modules - {""} for key in candidates):
            raise UserError(
                f"{where}: the checkpoint has a tensor '{name}', which the model of config.json "
                f"lacks; {AGAIN}, with the config.json that belongs to it"
            )
    if unexpected:
        warnings.warn(
            f"{where}: ignores tensors that the model does not use: {_listed(unexpected)}",
            stacklevel=2,
        )


def _without(names: Iterable[str], model: Any, patterns: str) -> list[str]:
    """Return `names` sorted, less what the model computes itself or declares as ignorable."""
    ignored = [re.compile(pattern) for pattern in getattr(model, patterns, None) or ()]
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return sorted(
        name
        for name in names
        if not any(pattern.search(name) for pattern in ignored)
        and (name in parameters or not COMPUTED.search(name))
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"'{names[0]}'{more}"


def _text(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"
