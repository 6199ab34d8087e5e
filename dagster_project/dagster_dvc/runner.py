"""Runs one stage through DVC, passes on what it says, and ends all of it when asked to.

DVC stays the authority: it decides whether the stage has to run, restores it from the run-cache if it can, and writes
``dvc.lock``. The process gets a session of its own, because a signal to ``dvc`` alone would leave the training that
it started running. Messages of the stage (progress) come over Dagster Pipes' file protocol, whose environment reaches
the stage through ``dvc``; they are read while the stage runs, which ``PipesSubprocessClient`` does not do.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StageFailed

EXECUTED, RESTORED, UNCHANGED = "executed", "restored from the run-cache", "unchanged"

_BUSY_EXIT_CODE = 255
_TAIL_LINES = 30
_POLL_S = 0.1
#: On cancel the group is asked twice, politely and firmly, before it is killed; a slot must be free after two seconds.
_GRACE_S = ((signal.SIGINT, 1.0), (signal.SIGTERM, 0.7), (signal.SIGKILL, 5.0))
_BAR = re.compile(r"[━█▏▎▍▌▋▊▉|]{3,}|\d+%\|")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Outcome:
    """How a stage came to its result, and in how many seconds."""

    how: str
    seconds: float


def stage_command(stage: str, *, force: bool) -> list[str]:
    """Command line that runs one stage; ``--wait-for-lock`` belongs to ``dvc``, not to ``repro``."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    return [*command, "--force"] if force else command


def stage_environment(pipes: Mapping[str, str]) -> dict[str, str]:
    """Environment of the stage: ``python`` is this interpreter, output arrives line by line, nothing phones home."""
    folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([folder, os.environ.get("PATH", "")]),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        **pipes,
    }


def run_stage(
    stage: str,
    *,
    root: Path,
    force: bool,
    on_line: Callable[[str], None],
    on_message: Callable[[Mapping[str, Any]], None],
    pipes: Callable[[Path], Mapping[str, str]] = lambda _: {},
    patience_s: float = 24 * 3600.0,
) -> Outcome:
    """Run a stage and wait for it.

    Args:
        stage: name as ``dvc stage list`` shows it.
        root: the project.
        force: run even if nothing changed.
        on_line: receives each line that DVC or the stage prints.
        on_message: receives each custom message that the stage sends.
        pipes: given the file for messages, the environment that opens Dagster Pipes in the stage.
        patience_s: how long to wait for another process that holds the stage's files.

    Raises:
        StageFailed: it ended with an error; the message holds command, exit code and last lines.
    """
    start = time.monotonic()
    lines = run_command(
        stage_command(stage, force=force),
        root=root,
        subject=f"stage {stage}",
        remedy=f"correct what the last lines name, then materialize again; on a terminal: `dvc repro {stage}`",
        on_line=on_line,
        on_message=on_message,
        pipes=pipes,
        patience_s=patience_s,
    )
    return Outcome(how=_how(stage, lines), seconds=time.monotonic() - start)


def run_command(
    command: list[str],
    *,
    root: Path,
    subject: str,
    remedy: str,
    on_line: Callable[[str], None],
    on_message: Callable[[Mapping[str, Any]], None] = lambda _: None,
    pipes: Callable[[Path], Mapping[str, str]] = lambda _: {},
    patience_s: float = 24 * 3600.0,
) -> list[str]:
    """Run a command of DVC (``python -m dvc ...``) as :func:`run_stage` does, and return its last lines.

    Args:
        command: program and arguments.
        root: the working folder.
        subject: what is run, for messages.
        remedy: what to do if it fails.
        on_line: receives each line of output.
        on_message: receives each custom message of the stages that it runs.
        pipes: given the file for messages, the environment that opens Dagster Pipes.
        patience_s: how long to wait for another process that holds the same files.

    Raises:
        StageFailed: it ended with an error; the message holds command, exit code and last lines.
    """
    start = time.monotonic()
    pause = 0.5
    while True:
        with tempfile.TemporaryDirectory(prefix="dvc-stage-") as folder:
            messages = Path(folder) / "messages"
            messages.touch()
            environment = stage_environment(pipes(messages))
            code, lines = _run_once(
                command, root=root, environment=environment, messages=messages, on_line=on_line, on_message=on_message
            )
        if code == 0:
            return lines
        if not (_is_busy(code, lines) and time.monotonic() - start < patience_s):
            raise _failure(subject, command, code, lines, remedy)
        on_line(f"another process holds files of {subject}: waiting")
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def _run_once(
    command: list[str],
    *,
    root: Path,
    environment: Mapping[str, str],
    messages: Path,
    on_line: Callable[[str], None],
    on_message: Callable[[Mapping[str, Any]], None],
) -> tuple[int, list[str]]:
    process = subprocess.Popen(
        command,
        cwd=root,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
    try:
        with messages.open("r", encoding="utf-8") as inbox:
            finished = False
            while not finished:
                finished = _drain(lines, tail, on_line)
                _deliver(inbox, on_message)
            code = process.wait()
            _deliver(inbox, on_message)
    except BaseException:
        # Cancelled (Dagster raises in this thread), or a callback failed: nothing may go on running.
        end_group(process)
        raise
    return code, list(tail)


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
    """Pass on the lines that have come; tell whether the output has ended."""
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


def _deliver(inbox: Any, on_message: Callable[[Mapping[str, Any]], None]) -> None:
    """Read whole lines of the messages file; a line that is still being written is left for the next time."""
    while True:
        position = inbox.tell()
        line = inbox.readline()
        if not line.endswith("\n"):
            inbox.seek(position)
            return
        message = json.loads(line)
        if message.get("method") == "report_custom_message":
            on_message(message["params"]["payload"])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, harder each time."""
    for number, grace_s in _GRACE_S:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            process.poll()
            if not _group_lives(process.pid):
                break
            time.sleep(0.02)
        else:
            continue
        break
    process.wait()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _how(stage: str, lines: list[str]) -> str:
    """Tell from DVC's own words how the stage came to its result."""
    text = "\n".join(lines)
    if f"Stage '{stage}' is cached - skipping run" in text:
        return RESTORED
    if f"Stage '{stage}' didn't change, skipping" in text:
        return UNCHANGED
    return EXECUTED


def _is_busy(code: int, lines: list[str]) -> bool:
    return code == _BUSY_EXIT_CODE and any("is busy, it is being blocked by" in line for line in lines)


def _failure(subject: str, command: list[str], code: int, lines: list[str], remedy: str) -> StageFailed:
    shown = " ".join(["dvc", *command[3:]])
    cause = "\n    ".join(lines[-12:]) or "(no output)"
    return StageFailed(f"{subject}: `{shown}` ended with exit code {code}\n    {cause}", remedy=remedy, exit_code=code)
