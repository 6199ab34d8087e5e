"""Ending a run when the system asks: finish the step, write a checkpoint, exit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from bert_ops.errors import BertOpsError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BertOpsError):
    """A signal ended the run; ``exit_code`` is the shell's for that signal."""

    def __init__(self, what: str, *, number: int, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.exit_code = 128 + number  # type: ignore[misc]


class Interruption:
    """Inside the block, SIGTERM and SIGINT ask instead of killing; a second one kills.

    Signals reach the main thread alone, so that in any other thread this does nothing.

    Attributes:
        requested: name of the signal that came, or None.

    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._number = int(signal.SIGTERM)
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._number = number
        self.requested = signal.Signals(number).name
        if self._at_once:
            self._at_once = False
            raise Stopped(f"stopped by {self.requested}", number=number)

    @contextmanager
    def raise_inside(self) -> Iterator[None]:
        """Inside the block a signal raises :class:`Stopped` at once: for work that is done again at no loss."""
        if self.requested is not None:
            raise Stopped(f"stopped by {self.requested}", number=self._number)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def stopped(self, what: str, *, step: int, saved: bool) -> Stopped:
        """The error to end the run with, after its checkpoint was written."""
        if not saved:
            return Stopped(f"{what}: stopped by {self.requested} at step {step}", number=self._number)
        return Stopped(
            f"{what}: stopped by {self.requested}; the checkpoint of step {step} is written",
            number=self._number,
            remedy="run the same command again to go on from there",
        )
