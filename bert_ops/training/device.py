"""Where and how arithmetic runs: device, threads, precision, and the attention kernel that is fastest there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bert_ops.seeding import derive
from bert_ops.training.params import Precision


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare(*, threads: int, seed: int) -> None:
    """Fix what a result depends on: the number of threads (sums are ordered by it) and the global generator.

    Deterministic kernels are required where they exist; an operation without one warns instead of failing.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory is a debugging aid of deterministic mode and costs several per cent of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(derive(seed, "torch"))


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Matrix products in ``precision``; weights, sums and normalisation stay float32.

    On a CPU the plain attention kernel is chosen: at 128 tokens the backward pass of the flash kernel took 31 ms a
    layer where the plain one took 8 (2 cores, AVX-512, 16 × 128 tokens; docs/LOG.md).
    """
    backends = (
        [SDPBackend.MATH]
        if device.type == "cpu"
        else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    with (
        sdpa_kernel(backends),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield
