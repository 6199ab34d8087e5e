from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bert_ops.errors import StorageError
from bert_ops.processes import cores, map_in_order

ROOT = Path(__file__).resolve().parents[1]
_FACTOR = 0


def start(factor: int) -> None:
    global _FACTOR  # noqa: PLW0603
    _FACTOR = factor


def times(item: int) -> tuple[int, int]:
    return item * _FACTOR, os.getpid()


def die(item: int) -> int:
    if item == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def fail(item: int) -> int:
    if item == 5:
        raise ValueError("five")
    return item


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_with_their_items(workers: int) -> None:
    results = list(map_in_order(times, range(20), workers=workers, initialise=start, arguments=(3,)))
    assert [(item, result[0]) for item, result in results] == [(n, 3 * n) for n in range(20)]
    processes = {result[1] for _, result in results}
    assert (processes == {os.getpid()}) == (workers == 1)


def test_items_are_read_only_as_results_are_taken() -> None:
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_in_order(times, items(), workers=2, initialise=start, arguments=(1,))
    for _ in range(10):
        next(results)
    assert len(taken) < 20
    results.close()


def test_a_killed_worker_is_reported() -> None:
    with pytest.raises(StorageError, match="a worker process was killed"):
        list(map_in_order(die, range(10), workers=2, initialise=start, arguments=(1,)))


def test_an_error_of_a_worker_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="five"):
        list(map_in_order(fail, range(10), workers=2, initialise=start, arguments=(1,)))


_LATE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from bert_ops.processes import die_with_parent
parent = os.getpid()
child = os.fork()
if child == 0:
    while os.getppid() == parent:  # the parent is gone before it is asked for
        time.sleep(0.001)
    die_with_parent(parent)
    print("alive")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_process_whose_parent_died_before_it_asked_ends() -> None:
    command = [sys.executable, "-c", _LATE, str(ROOT)]
    # Both hold the pipe: the output ends when the child has.
    assert subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True).stdout == b""


def test_there_is_a_core() -> None:
    assert cores() >= 1
