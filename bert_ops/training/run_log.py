"""Structured log of a training run: JSON Lines, one event a line, written at once.

The log is part of what a checkpoint restores: a checkpoint stores :meth:`RunLog.position`, and a resumed run cuts the
file there (:meth:`RunLog.truncate`), so that it ends as the log of a run that was never interrupted, but for what
depends on the clock or the machine (:data:`CLOCK_KEYS`, :data:`CLOCK_EVENTS`; :func:`deterministic` leaves them out).

Events, each with ``event`` and ``time`` (seconds since 1970):

=============  =====================================================================================================
start          what (name of the work), steps (of the whole run), params, model (preset, parameters, flops_per_token),
               data (tokens), machine (versions, device, threads, cores, processes, peak: GEMM FLOP/s)
step           step (from 1), tokens (seen so far), loss (sum of the objectives) and one ``<objective>_loss`` each
               (``mlm_loss``, ``nsp_loss``; nats, mean of the step), learning_rate, gradient_norm (before clipping),
               clip_share (of the steps since the last line), batch_tokens, noise_scale (tokens), skipped (so far),
               tokens_per_second, utilisation (share of the machine's GEMM peak), memory_mib (peak)
evaluation     step, tokens, and the row of figures (``train_mlm_loss``, ``validation_mlm_loss``, …)
skip           step, loss, gradient_norm, reason: the step was left out
rollback       step, to_step, rate_scale, reason: weights of an earlier checkpoint, at a lower rate
batch_size     step, batch_tokens, from_tokens, reason: the batch grew or shrank
micro_batch    step, passes, reason: a unit is read in so many passes from here on, because a whole one does not fit
checkpoint     step, kind (step, time, milestone, final), bytes, stall_seconds (that training waited)
resume         step, lost_steps, lost_seconds (work of the killed process that is done again), machine
stop           step, reason: a signal, or a diagnosis
early_stop     step, best_step: the last evaluations were none the better
finish         step, tokens, seconds
=============  =====================================================================================================

NaN and infinity, for which JSON has no number, stand as texts (:mod:`bert_ops.training.log_lines`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_ops.errors import InputError
from bert_ops.progress import note
from bert_ops.training.log_lines import Record, encode, parse

#: Name of a run's log in its checkpoint folder, and in the stage's output.
LOG_NAME = "log.jsonl"

#: Figures that two runs of one seed need not share: they depend on the clock or on the machine.
CLOCK_KEYS = frozenset(
    {
        "time",
        "seconds",
        "stall_seconds",
        "lost_seconds",
        "tokens_per_second",
        "utilisation",
        "memory_mib",
        "machine",
        "bytes",
    }
)

#: Events that another run of the same seed does not have, or has at other steps.
CLOCK_EVENTS = frozenset({"checkpoint", "resume", "stop", "micro_batch"})

#: Events that outlive a cut: they tell of processes, not of the training.
_KEPT_EVENTS = frozenset({"checkpoint", "resume", "stop"})


@dataclass(frozen=True)
class Cut:
    """What :meth:`RunLog.truncate` cut off: work that was done and has to be done again.

    Args:
        steps: optimiser steps between the position and the last step that was logged.
        seconds: time between the last record that stays and the last one that was cut.

    """

    steps: int
    seconds: float


class RunLog:
    """Log of a run, open for appending.

    A line that a killed process left half-written is cut when the file is opened. A failure to write costs the line,
    not the run: it is reported once, and what was written before stays whole.

    Args:
        path: the file, made if it is not there; None writes nothing (ranks above 0).

    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lost_lines = 0
        self._file: int | None = None
        self._end = 0
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._end = _end_of_last_line(self._file, os.fstat(self._file).st_size)
            os.ftruncate(self._file, self._end)
        except OSError as error:
            self._failed(error)

    def write(self, event: str, **figures: Any) -> None:
        """Append one event; figures are JSON values or scalars with ``item()`` (NumPy, torch).

        Raises:
            TypeError: a figure is none of these.

        """
        if self._file is None:
            return
        self._append({"event": event, "time": round(time.time(), 3), **figures})

    def position(self) -> int:
        """Bytes that are written, made durable first: what a checkpoint stores (0 without a file)."""
        if self._file is None:
            return 0
        try:
            os.fsync(self._file)
        except OSError as error:
            self._failed(error)
        return self._end

    def truncate(self, position: int) -> Cut:
        """Cut the file at a position that a checkpoint stored; 0 empties it for a run that begins anew.

        Events about processes (``checkpoint``, ``resume``, ``stop``) in the part that is cut are appended again, so
        that the log keeps the whole story of its interruptions. A position beyond the end, or one that is not the end
        of a line, belongs to another file or to one that a crash of the machine shortened: what is whole up to there
        stays.
        """
        if self._file is None:
            return Cut(steps=0, seconds=0.0)
        end = _end_of_last_line(self._file, min(position, self._end))
        if end != position:
            note(f"{self.path} does not reach to where the checkpoint was taken: lines of some steps are missing")
        before = max(0, end - 65536)
        stays = list(_parse_lines(os.pread(self._file, end - before, before)))
        cut = list(_parse_lines(os.pread(self._file, self._end - end, end)))
        try:
            os.ftruncate(self._file, end)
            self._end = end
        except OSError as error:
            self._failed(error)
        for record in cut if position else ():
            if record["event"] in _KEPT_EVENTS:
                self._append(record)
        return _cut(stays, cut)

    def close(self) -> None:
        """Make the lines durable and close the file; later calls of :meth:`write` do nothing."""
        if self._file is not None:
            self.position()
            os.close(self._file)
            self._file = None

    def _append(self, record: Mapping[str, Any]) -> None:
        assert self._file is not None
        line = (encode(record) + "\n").encode()
        try:
            written = os.pwrite(self._file, line, self._end)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._failed(error)
            return
        self._end += len(line)

    def _failed(self, error: OSError) -> None:
        """Report the first failure and leave whole lines behind."""
        self.lost_lines += 1
        if self.lost_lines == 1:
            note(f"the log {self.path} cannot be written, training goes on: {error.strerror or error}")
        if self._file is not None:
            try:
                os.ftruncate(self._file, self._end)
            except OSError:
                # The next line is written over the torn one, and a reader skips a torn last line.
                return


def read_log(path: Path) -> Iterator[Record]:
    """Yield the records of a log; a torn last line (the process was killed, or is writing) is left out.

    Raises:
        InputError: there is no such file, or a line of it is no record of a run; the message names the line.

    """
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                record = parse(line)
                if record is not None:
                    yield record
                elif line.endswith(b"\n"):
                    raise InputError(
                        f"{path}, line {number} is no record of a training run: {_excerpt(line)}",
                        allowed='JSON Lines, each an object with "event" and "time"',
                        remedy=f"name a {LOG_NAME} that `bert-ops pretrain` wrote",
                    )
    except OSError as error:
        raise InputError(
            f"the log {path} cannot be read: {error.strerror}", remedy="name the log, or the folder, of a training run"
        ) from error


def _excerpt(line: bytes) -> str:
    text = line[:60].decode("utf-8", errors="replace").strip()
    return repr(text) + ("…" if len(line) > 60 else "")


def deterministic(records: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Records without what depends on clock and machine: what two runs of one seed share, interrupted or not."""

    def without(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: without(item) for name, item in value.items() if name not in CLOCK_KEYS}
        return value

    return [without(record) for record in records if record["event"] not in CLOCK_EVENTS]


def _parse_lines(content: bytes) -> Iterator[Record]:
    for line in content.splitlines():
        record = parse(line)
        if record is not None:
            yield record


def _cut(stays: list[Record], cut: list[Record]) -> Cut:
    def last_step(records: list[Record]) -> int:
        # Not the largest: a rollback takes the count back.
        return next((int(r["step"]) for r in reversed(records) if isinstance(r.get("step"), int)), 0)

    if not cut:
        return Cut(steps=0, seconds=0.0)
    since = stays[-1]["time"] if stays else cut[0]["time"]
    done = [record for record in cut if record["event"] not in _KEPT_EVENTS]
    until = done[-1]["time"] if done else since
    return Cut(steps=max(0, last_step(done) - last_step(stays)), seconds=round(max(0.0, until - since), 3))


def _end_of_last_line(file: int, size: int) -> int:
    """Position after the last line break before ``size``; reads backwards, whatever the size of the log."""
    end = size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
