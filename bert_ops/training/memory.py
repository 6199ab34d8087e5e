"""The largest pass that fits into memory, found without running out of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bert_ops.errors import InputError

#: Share of the free memory that a pass may take; the rest is for the loader, checkpoints and other processes.
SHARE = 0.8

#: Seconds between two looks at the memory of the process.
_LOOK_S = 0.002


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator: can't allocate memory" in text
        or "DefaultCPUAllocator: not enough memory" in text
        or "could not create a memory object" in text
    )


def largest_micro_batch(
    probe: Callable[[int], None],
    *,
    low: int,
    high: int,
    device: torch.device,
    share: float = SHARE,
    free: Callable[[], int] | None = None,
    peak: Callable[[Callable[[], None]], int] | None = None,
) -> int:
    """Find the largest size that fits.

    Memory grows in a line with the size of a pass. It is measured at small sizes, doubled each time, and a size is
    tried only if the line through the last two says that it takes no more than ``share`` of what is free. So memory
    never runs out, which matters on a CPU: there the system kills the process instead of raising an error.

    Args:
        probe: runs a pass of a size.
        low: smallest size; it has to fit.
        high: largest size of interest.
        device: where the pass runs.
        share: of the free memory that may be taken.
        free: bytes that are free, before a pass; measured by default.
        peak: bytes that a piece of work takes at its peak, beyond what was in use before; measured by default.

    Returns:
        A size between ``low`` and ``high``.

    Raises:
        InputError: not even the smallest size fits.

    """
    free = free or (lambda: free_bytes(device))
    peak = peak or (lambda work: peak_bytes(work, device))
    budget = share * free()
    try:
        probe(low)  # the first pass allocates what stays: kernels, caches
        taken = [(low, peak(lambda: probe(low)))]
        while taken[-1][0] < high:
            size = min(2 * taken[-1][0], high)
            if _line(taken, size) > budget:
                break
            taken.append((size, peak(lambda size=size: probe(size))))  # type: ignore[misc]
    except RuntimeError as error:
        if not is_out_of_memory(error) or "taken" not in locals() or not taken:
            raise _does_not_fit(low) if is_out_of_memory(error) else error from error
        return int(taken[-1][0])
    if taken[0][1] > budget:
        raise _does_not_fit(low)
    largest = taken[-1][0]
    if largest < high and len(taken) > 1:
        slope = max((taken[-1][1] - taken[-2][1]) / (taken[-1][0] - taken[-2][0]), 1e-9)
        largest = min(high, largest + max(0, int((budget - taken[-1][1]) / slope)))
    return int(largest)


def _line(taken: list[tuple[int, int]], size: int) -> float:
    """Bytes that a size will take: on the line through the last two, or in proportion to the only one."""
    (last, bytes_last) = taken[-1]
    if len(taken) == 1:
        return bytes_last * size / last
    before, bytes_before = taken[-2]
    return bytes_last + max(0, bytes_last - bytes_before) * (size - last) / (last - before)


def _does_not_fit(size: int) -> InputError:
    return InputError(
        f"a pass over the smallest batch ({size} row) does not fit into memory",
        remedy="use a smaller model or shorter sequences, set recompute_layers, or free memory",
    )


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken: on the GPU, or of the machine and of the control group that limits us."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    figures = [_available(), *_control_group()]
    return max(0, min(figures))


def _available() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**62


def _control_group() -> Iterator[int]:
    """What the limits of control groups (version 2, then 1) leave; none where there is no limit."""
    pairs = (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    )
    for limit, usage in pairs:
        try:
            most, used = Path(limit).read_text().strip(), int(Path(usage).read_text())
        except (OSError, ValueError):
            continue
        if most.isdigit():
            yield int(most) - used


def peak_bytes(work: Callable[[], None], device: torch.device) -> int:
    """Bytes that a piece of work takes at its peak, beyond what was in use before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    gc.collect()
    with _highest_resident() as highest:
        before = _resident()
        work()
    return max(0, highest[0] - before)


@contextmanager
def _highest_resident() -> Iterator[list[int]]:
    """The largest resident set inside the block, by a thread that looks every other millisecond."""
    highest, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            highest[0] = max(highest[0], _resident())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        highest[0] = max(highest[0], _resident())
        over.set()
        thread.join()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
