"""Making batches beside the training step: a thread that stays a few items ahead."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds that :meth:`Prefetch.close` gives an item that is being made.
PATIENCE_S = 5.0


class _Shared(Generic[T]):
    """What the thread and its consumer share; apart from both, so that a forgotten consumer can be collected."""

    def __init__(self, source: Iterator[T], depth: int) -> None:
        self.source, self.depth = source, depth
        self.ready: deque[T] = deque()
        self.error: BaseException | None = None
        self.ended = self.closed = False
        self.changed = threading.Condition()
        self.process = os.getpid()


class Prefetch(Iterator[T]):
    """The items of an iterator, in its order, made by a thread that is up to ``depth`` items ahead.

    What the iterator raises is raised here, after the items before it; then iteration has ended. The thread ends with
    the iterator, with :meth:`close`, when nobody holds this object any more, and when the interpreter exits; it never
    keeps a process alive. A forked child has no such thread: there, asking for an item is an error and closing does
    nothing.

    Args:
        source: iterator; nobody else may use it from now on.
        depth: items kept ready.

    Attributes:
        waited_s: seconds that the consumer spent waiting for items; near zero if the loader keeps up.

    """

    def __init__(self, source: Iterator[T], *, depth: int = 8) -> None:
        self.waited_s = 0.0
        self._shared = _Shared(source, depth)
        self._thread = threading.Thread(target=_fill, args=(self._shared,), name="prefetch", daemon=True)
        self._thread.start()
        # Runs when this object is collected and, at the latest, before the interpreter takes threads down.
        self._finalizer = weakref.finalize(self, _close, self._shared, self._thread)

    def __next__(self) -> T:
        shared = self._shared
        if shared.process != os.getpid():
            raise RuntimeError(f"process {os.getpid()} uses a Prefetch whose thread lives in process {shared.process}")
        with shared.changed:
            if not shared.ready and not shared.ended:
                started = time.perf_counter()
                shared.changed.wait_for(lambda: shared.ready or shared.ended)
                self.waited_s += time.perf_counter() - started
            if shared.ready and not shared.closed:
                item = shared.ready.popleft()
                shared.changed.notify_all()
                return item
            error, shared.error = shared.error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the thread and drop what is ready; iteration has ended then. Closing twice does no harm."""
        self._finalizer()


def _fill(shared: _Shared[T]) -> None:
    """Body of the thread."""
    try:
        for item in shared.source:
            with shared.changed:
                shared.changed.wait_for(lambda: shared.closed or len(shared.ready) < shared.depth)
                if shared.closed:
                    break
                shared.ready.append(item)
                shared.changed.notify_all()
            del item  # not kept alive while the next one is made
    except BaseException as error:  # it belongs to the consumer, whatever it is
        shared.error = error
    finally:
        if shared.closed and hasattr(shared.source, "close"):
            shared.source.close()
        with shared.changed:
            shared.ended = True
            shared.changed.notify_all()


def _close(shared: _Shared[T], thread: threading.Thread) -> None:
    if shared.process != os.getpid():
        return
    with shared.changed:
        shared.closed = shared.ended = True
        shared.ready.clear()
        shared.changed.notify_all()
    if thread is not threading.current_thread():
        thread.join(PATIENCE_S)
