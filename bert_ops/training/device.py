"""Where and how arithmetic runs: device, threads, precision, memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bert_ops.errors import InputError
from bert_ops.model.encoder import Encoder
from bert_ops.seeding import derive
from bert_ops.training.params import Precision

_DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pick_device(*, local_rank: int = 0) -> torch.device:
    """Return the GPU of this process if there is one, else the CPU."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def prepare(*, threads: int, seed: int) -> None:
    """Fix what a result depends on: the number of threads (sums are ordered by it) and the global generator.

    Deterministic kernels are required where they exist; an operation without one warns instead of failing.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory is a debugging aid of deterministic mode and costs several per cent of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(derive(seed, "torch"))


def resolve(precision: Precision, device: torch.device) -> Precision:
    """Turn ``auto`` into the fastest arithmetic of the device that trains as float32 does.

    Raises:
        InputError: ``tf32`` is asked for on a CPU, which has none.

    """
    if precision == "tf32" and device.type != "cuda":
        raise InputError(
            "`precision` is tf32, which only NVIDIA GPUs from Ampere on have",
            allowed="auto, float32, bfloat16, float16",
            remedy="set it to auto",
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32"


def check_compiler(device: torch.device) -> None:
    """Refuse ``torch.compile`` where it would fail in the midst of the first step.

    Raises:
        InputError: the machine has no compiler for the code that it writes, C++ on a CPU and C for Triton on a GPU.

    """
    variable, names = ("CC", ("cc", "gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++", "c++"))
    chosen = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((chosen,) if chosen else names)):
        raise InputError(
            f"`compile` is true, and there is no {chosen or ' or '.join(names)} on this machine to compile with",
            allowed=f"a machine with a compiler, named by the variable {variable} or on the PATH",
            remedy="set pretrain.compile to false, or install a compiler (Debian: g++)",
        )


@contextmanager
def arithmetic(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Compute in ``precision`` inside the block; weights, optimiser and normalisation stay float32."""
    device = next(model.parameters()).device
    resolved = resolve(precision, device)
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    before = [encoder.compute_dtype for encoder in encoders]
    products = torch.get_float32_matmul_precision()
    try:
        for encoder in encoders:
            encoder.compute_dtype = _DTYPES[resolved]
        torch.set_float32_matmul_precision("high" if resolved == "tf32" else "highest")
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        for encoder, dtype in zip(encoders, before, strict=True):
            encoder.compute_dtype = dtype
