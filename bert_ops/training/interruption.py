"""Ending a run when the system asks: finish the step, write a checkpoint, exit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from bert_ops.errors import BertOpsError

#: SIGTERM: the system, a scheduler or `dvc` ends the process; SIGINT: a person does, with Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BertOpsError):
    """A signal ended the run; ``exit_code`` is the shell's for that signal (143 for SIGTERM, 130 for SIGINT)."""

    def __init__(self, what: str, *, number: int, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.exit_code = 128 + number  # type: ignore[misc]


class Interruption:
    """Inside the block, SIGTERM and SIGINT ask instead of killing; a second one kills.

    Who trains looks at :attr:`requested` between two steps, writes a checkpoint and raises :meth:`stopped`. What takes
    longer than a step runs inside :meth:`raise_inside`. Python gives signals to the main thread alone, so that in any
    other thread this does nothing. A signal that comes when all the work is done changes nothing any more.

    Attributes:
        requested: name of the signal that came, or None.

    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._number = int(signal.SIGTERM)
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # None: a handler that was set outside Python and cannot be set again from here.
                self._before[number] = signal.signal(number, self._handle) or signal.SIG_DFL
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

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
        """Inside the block a signal raises :class:`Stopped` at once: for work that is done again at no loss.

        Whatever has to be put right again (averaged weights, modes) belongs outside the block: in it, an exception may
        come between any two lines.
        """
        self._at_once = True
        try:
            if self.requested is not None:
                raise Stopped(f"stopped by {self.requested}", number=self._number)
            yield
        finally:
            self._at_once = False

    def stopped(self, what: str, *, step: int, saved_step: int | None) -> Stopped:
        """The error to end the run with.

        Args:
            what: the run.
            step: where it stands.
            saved_step: step of its newest checkpoint that is written, None without one.

        """
        where = f"{what}: stopped by {self.requested} at step {step}"
        if saved_step is None:
            return Stopped(f"{where}; no checkpoint is written", number=self._number)
        which = "its checkpoint is written" if saved_step == step else f"the checkpoint of step {saved_step} is written"
        return Stopped(
            f"{where}; {which}", number=self._number, remedy="run the same command again to go on from there"
        )
