"""The largest pass that fits into memory, found without running out of it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from itertools import pairwise

import torch

from bert_ops.errors import InputError
from bert_ops.training.machine_memory import free_bytes, peak_bytes, used_bytes

#: Share of the free memory that a pass may take; the rest is for the loader, checkpoints and other processes.
SHARE = 0.8

#: What allocators say, beside the exceptions of their own that they raise.
_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "could not create a memory object",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def largest_micro_batch(
    probe: Callable[[int], None],
    *,
    low: int,
    high: int,
    device: torch.device,
    reserved: int = 0,
    share: float = SHARE,
    free: Callable[[], int] | None = None,
    used: Callable[[], int] | None = None,
    peak: Callable[[Callable[[], None]], int] | None = None,
) -> int:
    """Find the largest size that fits.

    A size is tried only if what was measured at smaller ones says that it stays below ``share`` of the free memory,
    and only a size that was tried is returned. So memory never runs out, which matters on a CPU: there the system
    kills the process instead of raising an error.

    Args:
        probe: runs a pass of a size; what it allocates for good (gradients, caches) may stay.
        low: smallest size; it has to fit.
        high: largest size of interest.
        device: where the pass runs.
        reserved: bytes that will be taken beside a pass later (moments of the optimiser).
        share: of the free memory that may be taken.
        free: bytes that are free; measured by default.
        used: bytes that are in use; measured by default.
        peak: the most bytes in use while a piece of work runs; measured by default.

    Returns:
        A size between ``low`` and ``high``.

    Raises:
        InputError: not even the smallest size fits.

    """
    free = free or (lambda: free_bytes(device))
    used = used or (lambda: used_bytes(device))
    peak = peak or (lambda work: peak_bytes(work, device))
    limit = used() + share * free() - reserved

    def taken(size: int) -> float:
        try:
            return peak(lambda: probe(size))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: a traceback keeps the tensors of the failed pass alive.
        gc.collect()
        return math.inf

    first = taken(low)  # allocates what stays: kernels, caches, gradients
    points = [(0, float(used())), (low, taken(low) if first <= limit else first)]
    if points[-1][1] > limit:
        raise InputError(
            f"a pass over the smallest batch ({low} row{'s' if low > 1 else ''}) does not fit into the free memory",
            remedy="use a smaller model or shorter sequences, set recompute_layers, or free memory; a number for "
            "batch.micro_tokens skips this check",
        )
    while (size := _next_size(points, limit=limit, high=high)) > points[-1][0]:
        points.append((size, taken(size)))
        if points[-1][1] > limit:
            return points[-2][0]
    return points[-1][0]


def _next_size(points: list[tuple[int, float]], *, limit: float, high: int) -> int:
    """Next size to try: at most twice the last one, and surely below the limit; the last one if there is none.

    Memory of a pass is taken to be c + b·n + a·n² with no term negative: b for activations, a for whatever grows
    faster. Of all such curves through the last two points the steepest has b = 0, and with the slope s between them

        m(N) = m₂ + s (N² - n₂²) / (n₁ + n₂)

    which is solved for N at the limit. The slope is the largest so far, because a small one can be noise.
    """
    (n1, _), (n2, m2) = points[-2:]
    # The slope from nothing to the first pass holds what every pass takes once; later pairs know better.
    pairs = list(pairwise(points))[1:] or [(points[0], points[1])]
    slope = max((later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairs)
    size = min(2 * n2, high)
    if slope > 0:
        size = min(size, math.isqrt(int(n2**2 + (limit - m2) * (n1 + n2) / slope)))
    # Not worth a pass, unless it is the end.
    return n2 if size < high and size - n2 < n2 / 16 else size
