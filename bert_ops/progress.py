"""Progress of long work: on a terminal, in a log and, when launched under Dagster, in its run view.

A terminal gets one line that is rewritten; anything else (a log file, DVC, CI) gets a whole line now and then, so
that logs stay readable. ``dagster_pipes`` is used only if Dagster launched the process.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

#: Set by Dagster Pipes in the environment of the processes that it launches.
_PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"

#: Reports to Dagster over a whole piece of work, about: its plots show the last hundred, which should be all of them.
_REPORTS = 100


class Progress:
    """Reports how far a piece of work is.

    Args:
        what: the work, as a participle phrase ("pretraining").
        total: units of work in all, or None if that is not known before the end.
        unit: name of a unit, plural.
        stream: where lines go.
        every_s: seconds between two lines where the stream is no terminal.

    """

    def __init__(
        self, what: str, *, total: int | None, unit: str, stream: TextIO | None = None, every_s: float = 10.0
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.stream = stream if stream is not None else sys.stderr
        self.every_s = 0.2 if self.stream.isatty() else every_s
        self.start = time.monotonic()
        self.first_done: int | None = None
        self.last_line = -1e9
        self.last_report = -1e9

    def update(self, done: int, *, also: Mapping[str, Any] | None = None, **figures: float | str) -> None:
        """Report ``done`` units. Cheap: most calls print nothing.

        Args:
            done: units so far.
            also: further figures for Dagster, for which a line has no room; what is no number or text is left out.
            figures: what is shown beside (loss, tokens/s).

        """
        now = time.monotonic()
        if self.first_done is None:
            # Work that was resumed did not happen in this process and must not flatter the estimate.
            self.first_done, self.start = done, now
        if self.total is None:
            self._update_open(done, now, figures, also or {})
            return
        if done < self.total and now - self.last_line < self.every_s:
            return
        self.last_line = now
        made, seconds = done - self.first_done, now - self.start
        # A rollback takes the count back, below where it began even.
        remaining = (self.total - done) * seconds / made if made > 0 else float("nan")
        parts = [f"{self.what}: {done:,}/{self.total:,} {self.unit} ({done / max(self.total, 1):.0%})"]
        parts += _named(figures)
        if made > 0 and done < self.total:
            parts.append(f"{duration(remaining)} left")
        self._write(" · ".join(parts), final=done >= self.total)
        pause = (seconds + remaining) / _REPORTS if made > 0 else 0.0
        if done >= self.total or now - self.last_report >= pause:
            self.last_report = now
            counts = {"done": done, "total": self.total, "unit": self.unit, "what": self.what}
            report_to_dagster({**_plain(also or {}), **counts, **figures})

    def _update_open(self, done: int, now: float, figures: dict[str, float | str], also: Mapping[str, Any]) -> None:
        """Report work of unknown size: what is done, and how fast."""
        if now - max(self.last_line, self.start) < self.every_s:
            return
        self.last_line = now
        made, seconds = done - (self.first_done or 0), now - self.start
        parts = [f"{self.what}: {done:,} {self.unit}", f"{made / seconds:,.4g} {self.unit}/s", *_named(figures)]
        self._write(" · ".join(parts), final=False)
        report_to_dagster({**_plain(also), "done": done, "unit": self.unit, "what": self.what, **figures})

    def close(self) -> None:
        """End the line of a terminal, where the total was not known."""
        if self.total is None and self.stream.isatty() and self.last_line > 0:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()

    def _write(self, line: str, *, final: bool) -> None:
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[2K{line}" + ("\n" if final else ""))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def _named(figures: dict[str, float | str]) -> list[str]:
    return [f"{name} {_short(value) if isinstance(value, float) else value}" for name, value in figures.items()]


def _short(value: float) -> str:
    """Four digits; from a thousand on, whole numbers without an exponent."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:,.4g}"


def _plain(figures: Mapping[str, Any]) -> dict[str, float | str]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float | str)}


def note(text: str) -> None:
    """Print one line about what a stage did."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """Seconds as a person says them: "45 s", "3 min 20 s", "2 h 5 min"."""
    if not math.isfinite(seconds):
        return "unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def dagster_session() -> Iterator[None]:
    """Open the channel to Dagster for the life of a stage, if Dagster launched this process."""
    if _PIPES_VARIABLE not in os.environ:
        yield
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes():
        yield


def report_to_dagster(payload: dict[str, Any]) -> None:
    """Send figures to Dagster as a custom message; does nothing outside Dagster."""
    if _PIPES_VARIABLE not in os.environ:
        return
    from dagster_pipes import PipesContext

    if PipesContext.is_initialized():
        PipesContext.get().report_custom_message(payload)
