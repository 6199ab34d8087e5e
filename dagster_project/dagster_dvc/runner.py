"""Runs one stage, or another command of DVC, and tells how it went.

DVC stays the authority: it decides whether the stage has to run, restores it from the run-cache if it can, and writes
``dvc.lock``. Before it starts and after it ended, what killed processes left broken is mended (:mod:`.lock_repair`),
and :mod:`.process` sees to it that nothing outlives a cancel or a crash. Messages of the stage (progress) come over
Dagster Pipes' file protocol, whose environment reaches the stage through ``dvc``; they are read while the stage runs,
which ``PipesSubprocessClient`` does not do.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StageFailed, remedy_for
from .lock_repair import mend, running
from .process import run_supervised

EXECUTED, RESTORED, UNCHANGED = "executed", "restored from the run-cache", "unchanged"

#: What DVC says when another process uses the same files, and when it held one of DVC's own short locks for too long.
_BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")


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
        stage=stage,
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
    stage: str | None = None,
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
        stage: the stage that the command runs, if it is one: nobody else runs it meanwhile.

    Raises:
        StageFailed: it ended with an error; the message holds command, exit code and last lines.
    """
    deadline = time.monotonic() + patience_s
    pause = 0.5
    while True:
        try:
            code, lines = _run_once(
                command,
                root=root,
                on_line=on_line,
                on_message=on_message,
                pipes=pipes,
                stage=stage,
                patience_s=max(0.0, deadline - time.monotonic()),
            )
        except BaseException:
            # Cancelled, or a callback failed: everything has ended, perhaps while DVC wrote its files.
            mend(root, killed=True)
            raise
        mended = mend(root, killed=code < 0)
        for sentence in mended:
            on_line(sentence)
        if code == 0:
            return lines
        busy = code > 0 and any(words in line for words in _BUSY for line in lines)
        if not (busy or (mended and code > 0)) or time.monotonic() > deadline:
            raise _failure(subject, command, code, lines, remedy)
        if busy:
            on_line(f"another process holds files of {subject}: waiting")
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def reproduce(root: Path, arguments: Sequence[str]) -> int:
    """Run ``dvc repro`` for a terminal: print what it says, return its exit code.

    Unlike ``dvc repro`` itself it waits if Dagster, or somebody else, is running a stage that it needs.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *arguments]
    try:
        run_command(command, root=root, subject="dvc repro", remedy="", on_line=lambda line: print(line, flush=True))
    except StageFailed as error:
        return error.exit_code if error.exit_code >= 0 else 128 - error.exit_code
    return 0


def _run_once(
    command: list[str],
    *,
    root: Path,
    on_line: Callable[[str], None],
    on_message: Callable[[Mapping[str, Any]], None],
    pipes: Callable[[Path], Mapping[str, str]],
    stage: str | None,
    patience_s: float,
) -> tuple[int, list[str]]:
    """Run the command once; return its exit code, negative for a signal, and its last lines."""
    with contextlib.ExitStack() as stack:
        messages = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dvc-stage-"))) / "messages"
        messages.touch()
        inbox = stack.enter_context(messages.open("r", encoding="utf-8"))
        held = None
        if stage is not None:
            waiting = f"another process runs stage {stage}: waiting"
            held = stack.enter_context(running(root, stage, patience_s=patience_s, on_wait=lambda: on_line(waiting)))
        for sentence in mend(root):
            on_line(sentence)
        return run_supervised(
            command,
            root=root,
            environment=stage_environment(pipes(messages)),
            on_line=on_line,
            on_tick=lambda: _deliver(inbox, on_message),
            held=[] if held is None else [held],
        )


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


def _how(stage: str, lines: list[str]) -> str:
    """Tell from DVC's own words how the stage came to its result."""
    text = "\n".join(lines)
    if f"Stage '{stage}' is cached - skipping run" in text:
        return RESTORED
    if f"Stage '{stage}' didn't change, skipping" in text:
        return UNCHANGED
    return EXECUTED


def _failure(subject: str, command: list[str], code: int, lines: list[str], remedy: str) -> StageFailed:
    shown = " ".join(["dvc", *command[3:]])
    how = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
    cause = "\n    ".join(lines[-12:]) or "(no output)"
    remedy = remedy_for(cause, otherwise=remedy)
    return StageFailed(f"{subject}: `{shown}` {how}\n    {cause}", remedy=remedy, exit_code=code)
