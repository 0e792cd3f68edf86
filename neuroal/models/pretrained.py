"""Read whole models by `transformers`, with its errors as one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import LogRecord
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from neuroal.errors import UserError, first_line, shortened
from neuroal.files.gpu_errors import is_gpu_failure, is_memory_error
from neuroal.files.machine import MachineError, line_of
from neuroal.models.completeness import (
    AGAIN,
    Comparison,
    check_complete,
    check_layers,
    check_shapes,
    expected_shapes,
)
from neuroal.models.compressed import from_compressed, is_compressed, without_format
from neuroal.placement.gguf_header import WITHOUT_WEIGHTS, read_header
from neuroal.placement.headers import read_headers

QUANTISATION = re.compile("gptq|awq|bitsandbytes|compressed.tensors|quant", re.IGNORECASE)
FAILED = re.compile(r"^(\S+)[^\n]*CONVERSION", re.MULTILINE)
"""Row of the report of `transformers` for a tensor that is combined from several stored ones."""


def read_whole(folder: str, options: dict[str, Any], dtype: Any, model_config: Any) -> Any:
    """Return the model in host memory, with every tensor read from the checkpoint.

    Args:
        folder: folder or hub name of the model; the folder if the checkpoint is compressed.
        options: keyword arguments of ``from_pretrained``.
        dtype: dtype of the weights, or ``auto``.
        model_config: configuration of the model, as stored.

    Raises:
        UserError: see `check_complete`.
    """
    gguf = options.get("gguf_file")
    where = f"model.path={Path(folder) / gguf if gguf else folder}"
    files = Path(folder) if Path(folder).is_dir() else _cached(folder, options)
    headers = {} if gguf else read_headers(files)
    quantized = bool(gguf) or is_quantized(model_config)
    check_layers(model_config, where, headers)
    if not quantized:
        check_shapes(model_config, where, headers, options["trust_remote_code"])
    report = _Report()
    with report.collected():
        try:
            model, info = _from_pretrained(folder, options, dtype, model_config)
        except NotImplementedError as error:
            raise UserError(f"{where}: {_unreadable(folder, gguf, error)}; {AGAIN}") from error
        except RuntimeError as error:
            if (row := FAILED.search(report.text)) is None:
                raise
            raise UserError(
                f"{where}: '{row[1]}' cannot be combined from the tensors of the checkpoint, "
                f"because one is missing or has another shape; {AGAIN}"
            ) from error
    mismatched = list(info["mismatched_keys"])
    if quantized:
        mismatched += _reshaped(model, model_config, options["trust_remote_code"])
    check_complete(
        model,
        where,
        Comparison(info["missing_keys"], mismatched, info["unexpected_keys"]),
        headers,
        quantized=quantized,
    )
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.element_size() == 1:
            raise UserError(
                f"{where}: '{name}' stays quantised ({parameter.dtype}); "
                "use an unquantised checkpoint"
            )
    return model


def _from_pretrained(
    folder: str, options: dict[str, Any], dtype: Any, model_config: Any
) -> tuple[Any, dict[str, Any]]:
    """Return the model, and how it differs from the checkpoint."""
    if is_compressed(model_config):
        dense = without_format(model_config)
        return from_compressed(Path(folder), dense, dtype, options["trust_remote_code"])
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **options,
    )
    return model, info


def _unreadable(folder: str, gguf: str | None, error: Exception) -> str:
    """Return which tensor of a GGUF file has a type that is not for weights, or the error."""
    types = read_header(Path(folder, gguf)).types if gguf else {}
    for name, kind in types.items():
        if kind in WITHOUT_WEIGHTS:
            return f"'{name}' has dtype {WITHOUT_WEIGHTS[kind]}, which is not for weights"
    return first_line(error)


def is_quantized(model_config: Any) -> bool:
    """Return whether loading the checkpoint dequantises its weights."""
    stored = getattr(model_config, "quantization_config", None)
    return stored is not None and not is_compressed(model_config)


def _reshaped(model: Any, model_config: Any, trust_remote_code: bool) -> list[tuple[str, Any, Any]]:
    """Return name, shape and expected shape of wrong tensors.

    `transformers` compares no shapes when it dequantises.
    """
    expected = expected_shapes(model_config, trust_remote_code)
    return [
        (name, tensor.shape, expected[name])
        for name, tensor in model.state_dict().items()
        if tuple(tensor.shape) != expected.get(name, tuple(tensor.shape))
    ]


def _cached(name: str, options: dict[str, Any]) -> Path:
    """Return the folder of the cache that holds the files of the hub's model `name`."""
    config = try_to_load_from_cache(name, "config.json", revision=options.get("revision"))
    return Path(str(config)).parent


class _Report:
    """Keeps the table of missing tensors that `transformers` logs; `check_complete` names them."""

    def __init__(self) -> None:
        self.text = ""

    def filter(self, line: LogRecord) -> bool:
        """Return whether `line` is to be logged."""
        if "LOAD REPORT" not in line.getMessage():
            return True
        self.text = line.getMessage()
        return False

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the table inside the context instead of logging it."""
        logger = transformers_logging.get_logger("transformers.modeling_utils")
        logger.addFilter(self.filter)
        try:
            yield
        finally:
            logger.removeFilter(self.filter)


@contextmanager
def reading(path: str, problem: str) -> Iterator[None]:
    """Silence the progress bars of `transformers`, and raise errors of the files as `UserError`.

    Args:
        path: folder, file or hub name that is read.
        problem: what is not possible, for the message.

    Raises:
        UserError: the files at `path` cannot be used.
        MachineError: the memory of the machine or the GPU does not suffice.
    """
    try:
        with without_bars():
            yield
    except UserError:
        raise
    except Exception as error:  # of many packages, and mostly due to the files at `path`
        if is_memory_error(error):
            raise MachineError(f"model.path={path}: {line_of(error)}") from error
        if is_gpu_failure(error):
            raise
        raise UserError(f"model.path={path}: {problem} ({_cause(error)})") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Disable the progress bars of `transformers` inside the context; a run has its own."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


def _cause(error: Exception) -> str:
    """Return the first line of `error`, with a remedy for common errors of `transformers`."""
    text, first = str(error), first_line(error)
    if first.endswith(":"):  # the reason follows in the next line
        first = shortened(text, most=500)
    if "trust_remote_code" in text:
        return f"{first}; if you trust the code, set model.trust_remote_code=true"
    if "instantiate the backend tokenizer" in text:
        return "its files, such as tokenizer.json, are missing; copy those of the model there"
    if "gated repo" in text or "401" in text or "403" in text:
        return f"{first}; request access on the model's page and set HF_TOKEN to your token"
    if "flash_attn" in text or "FlashAttention" in text:
        return f"{first}; remove the attention implementation from config.json"
    if isinstance(error, ImportError) and QUANTISATION.search(text):
        return f"{first}; use the checkpoint that is not quantised, or install that package"
    name = type(error).__name__
    is_clear = isinstance(error, OSError | ImportError | UserError | ValueError)
    return first if is_clear else f"{name}: {first}; {AGAIN}"
