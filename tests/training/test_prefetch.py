"""The loader's thread: order, errors, bounds, and a quiet end in every case."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bert_ops.training.prefetch import Prefetch


def eventually(condition, seconds: float = 20.0) -> bool:
    """Whether it becomes true; waits no longer than it must."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


def threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_items_come_in_order(depth: int) -> None:
    with_thread = Prefetch(iter(range(50)), depth=depth)
    assert list(with_thread) == list(range(50))
    assert next(with_thread, None) is None
    with_thread.close()


def test_what_the_source_raises_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield from (1, 2)
        raise KeyError("damaged")

    items = Prefetch(source())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(KeyError, match="damaged") as error:
        next(items)
    assert any(frame.name == "source" for frame in error.traceback)
    assert next(items, "ended") == "ended"
    items.close()


def test_the_thread_works_beside_its_consumer_and_not_too_far_ahead() -> None:
    made: list[tuple[int, int]] = []

    def source() -> Iterator[int]:
        for number in itertools.count():
            made.append((number, threading.get_ident()))
            yield number

    items = Prefetch(source(), depth=4)
    assert eventually(lambda: len(made) == 5)
    time.sleep(0.05)
    assert len(made) == 5, "four are ready, and one more is made"
    assert next(items) == 0 and eventually(lambda: len(made) == 6)
    assert {thread for _, thread in made} != {threading.get_ident()}
    items.close()


def test_closing_ends_thread_and_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    before = threads()
    items = Prefetch(source(), depth=2)
    next(items)
    assert threads() == before + 1
    items.close()
    items.close()
    assert threads() == before and closed.is_set()
    assert next(items, "ended") == "ended"


def test_a_forgotten_one_ends() -> None:
    before = threads()
    items = Prefetch(itertools.count(), depth=2)
    next(items)
    del items
    gc.collect()
    assert eventually(lambda: threads() == before)


def test_waiting_is_measured() -> None:
    gate = threading.Event()

    def source() -> Iterator[int]:
        gate.wait()
        yield 1

    items = Prefetch(source())
    threading.Timer(0.1, gate.set).start()
    assert next(items) == 1 and items.waited_s > 0.05
    ready = Prefetch(iter([1, 2]))
    assert eventually(lambda: len(ready._shared.ready) == 2)
    assert list(ready) == [1, 2] and ready.waited_s < items.waited_s


def test_a_signal_reaches_a_consumer_that_waits() -> None:
    class Asked(Exception):
        pass

    def handler(*_: object) -> None:
        raise Asked

    never = threading.Event()
    items = Prefetch(iter(lambda: never.wait(30), None))
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Asked):
            next(items)
    finally:
        signal.signal(signal.SIGUSR1, old)
        never.set()
        items.close()


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "end",
    ["", "raise SystemExit(0)", "items.close()", "del items", "import threading; threading.main_thread()"],
)
def test_the_interpreter_exits_while_the_thread_works(end: str) -> None:
    """Numpy at full speed in an endless source; an exit that hangs runs into the time limit."""
    found = run_python(
        "import itertools\n"
        "import numpy as np\n"
        "from bert_ops.training.prefetch import Prefetch\n"
        "items = Prefetch((np.random.default_rng(n).permutation(10**5).sum() for n in itertools.count()), depth=50)\n"
        f"next(items)\nprint('begun', flush=True)\n{end}\n"
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "begun\n", "")


def test_a_forked_child_is_told_and_not_stuck() -> None:
    found = run_python(
        "import itertools, os\n"
        "from bert_ops.training.prefetch import Prefetch\n"
        "items = Prefetch(itertools.count(), depth=2)\n"
        "first = next(items)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        next(items)\n"
        "    except RuntimeError as error:\n"
        "        print('child:', 'lives in process' in str(error), flush=True)\n"
        "    items.close()\n"
        "    raise SystemExit(3)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "print(os.waitstatus_to_exitcode(status), [next(items) for _ in range(3)])\n"
    )
    assert found.stdout == "child: True\n3 [1, 2, 3]\n" and found.returncode == 0
