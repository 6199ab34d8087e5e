"""Contenders of the pretraining benchmark: each a process of its own that trains when it is told to.

A contender has its own environment and its own global settings of torch, and one trains at a time. Its clock and its
count of tokens hang on the model's forward call, so that they are the same for every loop: a round of N steps is the
time from the beginning of a forward pass to the beginning of the one N steps later, everything between them included.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

#: Steps that a contender trains before anything is timed, and at the start of each round before its clock starts.
WARM_UP, LEAD_IN = 3, 1

#: How long the threads of a pool spin before they sleep, for all contenders. With the library's own setting, a machine
#: that has anything else to do slows those down that leave it as it is, and not us (bert_ops.__main__ sets it).
SPIN = {"GOMP_SPINCOUNT": "1500"}

#: What a contender's process runs: it gets the gate, and what it was started with.
Body = Callable[..., None]


@dataclass(frozen=True)
class Round:
    """A measurement: seconds, and real (non-padding) tokens trained on in them."""

    seconds: float
    tokens: int
    steps: int

    @property
    def rate(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds


class Gate:
    """Stands in a model's forward pass and lets training through, a round at a time."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.lead_in = self.steps = self.done = 0
        self.tokens: list[Tensor | int] = []
        self.started = 0.0
        self.facts: dict[str, Any] = {}

    def watch(
        self, model: nn.Module, real_tokens: Callable[[dict[str, Any]], Tensor | int], *, passes: int = 1
    ) -> None:
        """Begin with the next forward pass in training mode.

        Args:
            model: that is trained.
            real_tokens: counts those of the forward pass's arguments.
            passes: forward passes of a step.

        """
        number = count()

        @torch.compiler.disable
        def hook(module: nn.Module, _: tuple[Any, ...], named: dict[str, Any]) -> None:
            if module.training:
                if next(number) % passes == 0:
                    self.step()
                self.tokens.append(real_tokens(named))

        model.register_forward_pre_hook(hook, with_kwargs=True)

    def step(self) -> None:
        """A step begins: end the round if it is over, and wait for the next."""
        if self.done == self.lead_in + self.steps:
            if self.done:
                seconds = _now() - self.started
                _give_back_memory()
                self.pipe.send(Round(seconds, sum(int(n) for n in self.tokens), self.steps))
            else:
                self.pipe.send(self.facts)
            self.lead_in, self.steps = self.pipe.recv() or _end()
            self.done = 0
        if self.done == self.lead_in:
            self.tokens.clear()
            self.started = _now()
        self.done += 1


def _give_back_memory() -> None:
    """Leave to the others what this process does not need while it waits; the first step of a round takes it again."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _end() -> tuple[int, int]:
    raise SystemExit


@dataclass
class Contender:
    """A process that trains, seen from the benchmark."""

    name: str
    process: Any
    pipe: Connection
    rounds: list[Round] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def ready(self) -> None:
        """Wait until its first forward pass stands at the gate."""
        self.facts = self._answer()

    def measure(self, steps: int, *, lead_in: int = LEAD_IN) -> Round:
        """Let it train so many steps."""
        self.pipe.send((lead_in, steps))
        return self._answer()

    def run_round(self, steps: int) -> None:
        """Measure and remember."""
        self.rounds.append(self.measure(steps))

    def _answer(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            raise SystemExit(f"{self.name}: its process ended with code {self.process.exitcode}") from None

    def median(self) -> float:
        """Median rate of its rounds, real tokens a second."""
        return statistics.median(one.rate for one in self.rounds)

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()


def start(name: str, body: Body, *arguments: Any, environment: dict[str, str] | None = None) -> Contender:
    """Start a contender; it is there when :meth:`Contender.ready` returns."""
    here, there = multiprocessing.Pipe()
    with environment_of(SPIN if environment is None else environment):
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(body, there, arguments), name=name)
        process.start()
    there.close()
    return Contender(name, process, here)


def _serve(body: Body, pipe: Connection, arguments: tuple[Any, ...]) -> None:
    try:
        body(Gate(pipe), *arguments)
    except (EOFError, BrokenPipeError):  # the benchmark is gone
        raise SystemExit(1) from None


@contextmanager
def environment_of(values: dict[str, str]) -> Iterator[None]:
    """Add environment variables for the processes that are started in the block."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
