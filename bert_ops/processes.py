"""Worker processes: bounded, in order, and gone when the one that started them is."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from bert_ops.errors import StorageError

_PR_SET_PDEATHSIG = 1

#: Items that are done in this process before others are started: small work ends before a process would have begun.
_ALONE = 2

T = TypeVar("T")
R = TypeVar("R")

#: A step of training makes and drops a hundred MiB of temporary tensors. glibc gives such memory back to the system and
#: asks for it again, page by page: 25,000 page faults and 8% of the time of a step. These settings keep it, in pages of
#: 2 MiB where the system offers them (docs/LOG.md). Other C libraries ignore the variable.
TRAINING_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=4294967296"
    ":glibc.malloc.mmap_threshold=1073741824:glibc.malloc.hugetlb=1"
}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent(parent: int | None = None) -> None:
    """Ask Linux to end this process when its parent dies, so that a killed ``dvc`` leaves no stage running.

    A request that comes too late is noticed by the parent's id.

    Args:
        parent: id of the process that started this one, where it is known; else the one that is the parent now (the
            shell that DVC starts).

    """
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(143)


def _start(parent: int, initialise: Callable[..., None], arguments: tuple[object, ...]) -> None:
    die_with_parent(parent)  # it may have died since: a worker takes a second to get here
    # Ctrl-C reaches the whole group; the parent stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    initialise(*arguments)


def map_in_order(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    initialise: Callable[..., None],
    arguments: tuple[object, ...],
) -> Iterator[tuple[T, R]]:
    """Apply a function to items in several processes; results come in the order of the items.

    At most two items a worker are under way, so memory is bounded however long ``items`` is. With one worker, and for
    the first few items, the work is done here.

    Args:
        function: a function of a module, so that it can be sent to a process.
        items: read as results are taken.
        workers: processes.
        initialise: called with ``arguments`` once in each process, this one included.
        arguments: see above.

    Raises:
        StorageError: a process was killed, most likely because memory ran out.

    """
    initialise(*arguments)
    pending: deque[tuple[T, Future[R]]] = deque()
    pool: ProcessPoolExecutor | None = None
    try:
        for number, item in enumerate(items):
            if workers == 1 or number < _ALONE:
                yield item, function(item)
                continue
            if pool is None:
                pool = ProcessPoolExecutor(
                    workers,
                    mp_context=get_context("spawn"),
                    initializer=_start,
                    initargs=(os.getpid(), initialise, arguments),
                )
            pending.append((item, pool.submit(function, item)))
            if len(pending) >= 2 * workers:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    except BrokenProcessPool as error:
        raise StorageError(
            "a worker process was killed", remedy="free some memory, or use fewer processes with --workers"
        ) from error
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
