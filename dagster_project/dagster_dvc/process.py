"""Starts a command under the supervisor, passes on what it prints, and ends all of it on an interrupt."""

from __future__ import annotations

import multiprocessing
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import supervisor

_TAIL_LINES = 30
_POLL_S = 0.1
#: A background process that a successful command left may hold its output open: it is not waited for longer than this.
_OUTPUT_GRACE_S = 1.0
#: Time in which the supervisor must have ended everything before the group is killed from here.
_PATIENCE_S = sum(grace_s for _, grace_s in supervisor.GRACE_S) + 0.7
#: Processes that were killed may take some milliseconds to vanish.
_KILL_GRACE_S = 1.0
_BAR = re.compile(r"[━█▏▎▍▌▋▊▉|]{3,}|\d+%\|")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class ParentDied(Exception):
    """The process that started this step worker is gone; nobody waits for the result."""


def run_supervised(
    command: Sequence[str],
    *,
    root: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    on_tick: Callable[[], None] = lambda: None,
    held: Sequence[int] = (),
) -> tuple[int, list[str]]:
    """Run a command and all that it starts as one unit.

    Args:
        command: program and arguments.
        root: working folder.
        environment: of the command, complete.
        on_line: receives each line that is printed, without colours and progress bars.
        on_tick: called some ten times a second while the command runs, and once after it.
        held: descriptors of file locks that must stay held until the last process has ended, even if this one dies.

    Returns:
        The exit code, negative for a signal, and the last lines.

    Raises:
        ParentDied: the run to which this step belongs was killed.
        BaseException: what the callbacks raise, or what Dagster raises here on a cancel; everything is ended first.
    """
    lifeline_read, lifeline_write = os.pipe()
    process = None
    try:
        descriptors = [lifeline_read, *held]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, *map(str, descriptors), "--", *command],
            cwd=root,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=descriptors,
        )
        return _follow(process, on_line=on_line, on_tick=on_tick)
    finally:
        # However this ends: without its lifeline the supervisor ends the group, even if an interrupt comes right here.
        os.close(lifeline_write)
        os.close(lifeline_read)
        if process is not None:
            _await_end(process)


def _follow(
    process: subprocess.Popen[bytes], *, on_line: Callable[[str], None], on_tick: Callable[[], None]
) -> tuple[int, list[str]]:
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
    ended_at: float | None = None
    while not _drain(lines, tail, on_line):
        on_tick()
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise ParentDied("the process of the run was killed; the stage was ended")
        if ended_at is None and _has_ended(process):
            ended_at = time.monotonic()
        if ended_at is not None and time.monotonic() - ended_at > _OUTPUT_GRACE_S and lines.empty():
            break
    _await_end(process)
    on_tick()
    return process.returncode, list(tail)


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the supervisor; if it is gone or stuck, kill its group.

    The group is killed before the supervisor is reaped: until then no other process can get its id.
    """
    if process.returncode is not None:
        return
    deadline = time.monotonic() + _PATIENCE_S
    while not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed = not _has_ended(process) or _died_of_signal(process)
    if killed:
        _signal_group(process, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + _KILL_GRACE_S
    while killed and _signal_group(process, 0) and time.monotonic() < deadline:
        time.sleep(0.01)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the supervisor's group; tell whether it still has members."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether the process has ended, without reaping it."""
    if process.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _died_of_signal(process: subprocess.Popen[bytes]) -> bool:
    try:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return found is not None and found.si_code != os.CLD_EXITED


def _read_lines(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    """Cut the output into lines; a carriage return, with which progress bars begin anew, ends one as well."""
    assert process.stdout is not None
    rest = b""
    while chunk := process.stdout.read1(65536):  # type: ignore[attr-defined]
        *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
        for line in whole:
            lines.put(line.decode("utf-8", "replace"))
    lines.put(rest.decode("utf-8", "replace"))
    lines.put(None)


def _drain(lines: queue.SimpleQueue[str | None], tail: deque[str], on_line: Callable[[str], None]) -> bool:
    """Pass on a line that has come; tell whether the output has ended."""
    try:
        line = lines.get(timeout=_POLL_S)
    except queue.Empty:
        return False
    if line is None:
        return True
    text = _ANSI.sub("", line).rstrip()
    if text and not _BAR.search(text):
        tail.append(text)
        on_line(text)
    return False
