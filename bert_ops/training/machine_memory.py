"""Memory that this process uses and may still take: of a GPU, or of the machine within the limits that hold for us."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bert_ops.errors import InputError

#: Seconds between two looks at the memory of the process, where the kernel does not keep the peak.
_LOOK_S = 0.002

_CGROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

#: Files of a control group (folder of the hierarchy, limit, usage), version 2 and version 1.
_V2 = ("", "memory.max", "memory.current")
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken.

    On a GPU what its driver has left; on a CPU the least of what the machine, the control groups that we are in and
    the limit on our address space (``ulimit -v``) leave.

    Raises:
        InputError: this system does not say.

    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return max(0, min([_available(), *control_group_bytes(), *_address_space()]))


def used_bytes(device: torch.device) -> int:
    """Memory that this process has now: tensors on a GPU, the resident set on a CPU."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return int(torch.cuda.memory_allocated(device))
    _give_back_heap()
    return _statm(1)


def peak_bytes(work: Callable[[], None], device: torch.device) -> int:
    """The most memory that this process has while a piece of work runs, with what it had before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the kernel's peak begins anew
    except OSError:
        with _highest_resident() as highest:
            work()
        return highest[0]
    work()
    return _kib("/proc/self/status", "VmHWM:") * 1024


def control_group_bytes(*, groups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> Iterator[int]:
    """What the limits of our control groups leave, of each that has one.

    The cache of files counts as free: the kernel gives it up before it refuses memory.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            hierarchy, limit, usage = _V1 if controllers else _V2
            top = groups / hierarchy
            own = top / path.lstrip("/")
            for folder in (own, *own.parents):
                yield from _left(folder, limit, usage)
                if folder == top:
                    break


def _left(folder: Path, limit: str, usage: str) -> Iterator[int]:
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return
    if most.isdigit():
        # Version 1 counts those of the groups below under names of their own.
        cache = sum(int(facts.get(f"total_{name}", facts.get(name, 0))) for name in ("inactive_file", "active_file"))
        yield int(most) - used + cache


def _address_space() -> Iterator[int]:
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        yield most - _statm(0)


def _available() -> int:
    return _kib("/proc/meminfo", "MemAvailable:") * 1024


def _kib(path: str, key: str) -> int:
    """KiB of a line of a file of the kernel."""
    return next((int(line.split()[1]) for line in _read(path).splitlines() if line.startswith(key)), 0)


def _statm(field: int) -> int:
    """Bytes of our address space (0) or resident set (1)."""
    return int(_read("/proc/self/statm").split()[field]) * os.sysconf("SC_PAGE_SIZE")


def _read(path: str) -> str:
    """Read a file of the kernel.

    Raises:
        InputError: there is none.

    """
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise InputError(
            "batch.micro_tokens is auto, and this system does not say how much memory is free",
            allowed="auto on Linux or with a GPU",
            remedy="set batch.micro_tokens to a number",
        ) from error


def _give_back_heap() -> None:
    """Let the C library return what was freed, so that it does not pass for memory in use (glibc only)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def _highest_resident() -> Iterator[list[int]]:
    """The largest resident set inside the block, by a thread that looks every other millisecond."""
    highest, over = [_statm(1)], threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            highest[0] = max(highest[0], _statm(1))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        highest[0] = max(highest[0], _statm(1))
        over.set()
        thread.join()
