"""Errors of a GPU are told apart: lack of memory, a failure of the GPU, and all others."""

from __future__ import annotations

import pytest
import torch

from neuroal.files.gpu_errors import is_gpu_failure, is_memory_error, lost_gpu

ATTENTION = (
    "Expected mha_graph.execute(handle, variant_pack, workspace_ptr.get()).is_good() to be true, "
    "but got false. (Could this error message be improved?)"
)
"""Message of cuDNN's attention."""
INITIALISED = "torch.cuda.is_initialized"


def card(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Simulate a GPU with `free` bytes."""
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device=None: (free, 2**36))


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be reported asynchronously",
        "Triton Error [CUDA]: out of memory",
        "DefaultCPUAllocator: can't allocate memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(&handle)`",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
        "CUDA error: CUSOLVER_STATUS_ALLOC_FAILED when calling `cusolverDnSpotrf(handle, n)`",
        "CUDA error: CUSPARSE_STATUS_NOT_INITIALIZED when calling `cusparseCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
def test_an_allocation_that_fails_is_a_memory_error(message: str) -> None:
    assert is_memory_error(RuntimeError(message))
    assert not is_gpu_failure(RuntimeError(message))


def test_exceptions_for_lack_of_memory_count_without_a_message() -> None:
    assert is_memory_error(torch.OutOfMemoryError())
    assert is_memory_error(MemoryError())


@pytest.mark.parametrize(
    "message",
    [
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnSgetrf(handle)`",
        "cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling `cusolverDnXsyevd(handle)`",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle)`",
        "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasLtMatmulDescCreate(&desc)`",
        "linalg.cholesky: The factorization could not be completed: the input is singular",
        "shapes differ",
    ],
)
def test_other_errors_of_the_libraries_are_no_memory_errors(
    message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(monkeypatch, free=0)
    assert not is_memory_error(RuntimeError(message))


@pytest.mark.parametrize(
    "message",
    [
        ATTENTION,
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    ],
)
def test_an_error_of_cudnn_is_a_memory_error_on_a_full_card_only(
    message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(monkeypatch, free=2**28)
    assert is_memory_error(RuntimeError(message))
    card(monkeypatch, free=2**34)
    assert not is_memory_error(RuntimeError(message))


def test_the_free_memory_of_a_card_that_failed_is_not_low(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: object = None) -> None:
        raise torch.AcceleratorError("CUDA error: unknown error")

    monkeypatch.setattr("torch.cuda.mem_get_info", fail)
    assert not is_memory_error(RuntimeError(ATTENTION))


@pytest.mark.parametrize(
    ("message", "failed"),
    [
        ("CUDA error: unknown error", True),
        ("CUDA error: an illegal memory access was encountered", True),
        ("CUDA unknown error - this may be due to an incorrectly set up environment", True),
        ("CUDA error: device-side assert triggered", False),
        ("CUDA error: out of memory", False),
        ("index 7 is out of range", False),
    ],
)
def test_failures_of_the_gpu_are_told_from_those_of_a_kernels_input(
    message: str, failed: bool
) -> None:
    assert is_gpu_failure(torch.AcceleratorError(message)) is failed


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (None, None),
        ("CUDA error: out of memory", None),
        ("CUDA error: unknown error\nCompile with ...", "CUDA error: unknown error"),
    ],
)
def test_a_gpu_is_lost_if_its_driver_answers_every_call_with_an_error(
    fault: str | None, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[object] = []

    def synchronize(device: object = None) -> None:
        devices.append(device)
        if fault:
            raise torch.AcceleratorError(fault)

    assert lost_gpu("auto") is None  # nothing has used a GPU
    monkeypatch.setattr(INITIALISED, lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", synchronize)
    assert lost_gpu("auto") == reason
    assert lost_gpu("cuda:1") == reason
    assert lost_gpu("cpu") is None
    assert devices == [None, "cuda:1"]
