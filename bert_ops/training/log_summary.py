"""``bert-ops log``: what the log of a training run says, on one screen; live with ``--follow``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from bert_ops.errors import InputError
from bert_ops.training.log_figures import summarise
from bert_ops.training.log_lines import Record, encode, parse
from bert_ops.training.log_wording import one_line, render
from bert_ops.training.run_log import LOG_NAME, read_log

#: Folders, below the project's root, in which logs of runs lie: live ones beside their checkpoints, and finished ones.
SEARCHED = (".bert_ops/checkpoints", "reports", "models")

_POLL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "run",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="a log, or a folder with one; the newest run of this project if left out",
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the project, for finding the newest run (.)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the figures as JSON")
    shown.add_argument("--follow", action="store_true", help="print new lines as they are written, until the run ends")


def run(arguments: argparse.Namespace) -> None:
    """Print the summary.

    Raises:
        InputError: there is no log, it is empty, or it is no log of a training run.

    """
    path = find(arguments.run, root=arguments.root)
    with ExitStack() as stack:
        live = stack.enter_context(_opened(path)) if arguments.follow else None
        # Read before the summary is: what is written meanwhile is shown after it.
        rest = live.read().rpartition(b"\n")[2] if live is not None else b""
        records = list(read_log(path))
        if not records:
            raise InputError(f"the log {path} is empty", remedy="wait until the run has written its first line")
        figures = summarise(records, now=time.time())
        if arguments.json:
            sys.stdout.write(encode_figures({"log": str(path), **figures}) + "\n")
            return
        sys.stdout.write("\n".join(render(path, figures)) + "\n")
        if live is not None and records[-1]["event"] != "finish":
            sys.stdout.write("\n")
            sys.stdout.flush()
            for record in follow(live, rest):
                sys.stdout.write(one_line(record) + "\n")
                sys.stdout.flush()


def _opened(path: Path) -> BinaryIO:
    """Open a log for following.

    Raises:
        InputError: it cannot be read.

    """
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"the log {path} cannot be read: {error.strerror}", remedy="name the log of a run") from error


def encode_figures(figures: dict[str, Any]) -> str:
    """Strict JSON of figures; numbers that it lacks are texts, as in the log."""
    return json.dumps(json.loads(encode(figures)), indent=2, ensure_ascii=False)


def find(run_path: Path | None, *, root: Path) -> Path:
    """Log of a run: the file itself, the newest in a folder, or the newest of the project.

    Raises:
        InputError: there is none.

    """
    if run_path is not None and not run_path.is_dir():
        return run_path
    folders = [root / name for name in SEARCHED] if run_path is None else [run_path]
    logs = [path for folder in folders for path in folder.rglob(LOG_NAME) if path.is_file()]
    if run_path is not None and not logs and (run_path.parent / LOG_NAME).is_file():
        logs = [run_path.parent / LOG_NAME]  # the folder of one checkpoint: the log lies beside it
    if not logs:
        where = " or ".join(str(folder) for folder in folders)
        raise InputError(
            f"there is no {LOG_NAME} in {where}", remedy="start a run with `dvc repro pretrain`, or name a log"
        )
    return max(logs, key=lambda path: path.stat().st_mtime)


def follow(handle: BinaryIO, rest: bytes = b"", *, poll_s: float = _POLL_S) -> Iterator[Record]:
    """Yield records that are appended to an open log, until one ends the run or the file is gone.

    The folder of a finished run is removed; the open file can be read to its end all the same.

    Args:
        handle: the log, read so far.
        rest: what was read of a line that is not whole yet.
        poll_s: seconds between two looks.

    """
    while True:
        status = os.fstat(handle.fileno())
        if status.st_size < handle.tell():
            # A resumed run cut the file: go on after what is left of it.
            handle.seek(0, os.SEEK_END)
            rest = b""
        *lines, rest = (rest + handle.read()).split(b"\n")
        for record in filter(None, map(parse, lines)):
            yield record
            if record["event"] in {"finish", "stop"}:
                return
        if not lines:
            if status.st_nlink == 0:
                return
            time.sleep(poll_s)
