"""The folder of a run: named by what it depends on, held by one trainer at a time, emptied when the run is done."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bert_ops.errors import BertOpsError, InputError, StorageError
from bert_ops.io import storage_errors
from bert_ops.progress import note
from bert_ops.training import checkpoint_files as files


def run_key(**parts: Any) -> str:
    """Name of a run's folder: a hash over parameters and inputs, so that no run resumes from another's weights."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder for one trainer; the lock goes with the process, however it ends.

    What a writer that was killed left under a temporary name is removed.

    Raises:
        InputError: another process holds it; the message says which, and since when.
        StorageError: the folder cannot be written, or its file system has no locks.

    """
    with _held(folder) as handle:
        handle.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        handle.write(f"process {os.getpid()} ({' '.join(sys.argv)[:200]}) since {since}")
        handle.flush()
        files.sweep(folder)
        yield


@contextmanager
def _held(folder: Path) -> Iterator[IO[str]]:
    path = folder / ".lock"
    while True:
        with storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = path.open("a+", encoding="utf-8")
            except FileNotFoundError:  # the run that was here has just ended and removed its folder
                continue
        with handle:
            _take(handle, folder)
            if _is_same(handle, path):
                yield handle
                return


def _take(handle: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.seek(0)
        raise InputError(
            f"{folder} is in use by {handle.read().strip() or 'another process'}",
            remedy="wait until that training ends, or stop it",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be locked: {error.strerror or error}",
            remedy="use a --checkpoints folder on a file system that has locks, such as a local disk",
        ) from error


def _is_same(handle: IO[str], path: Path) -> bool:
    """Whether the file that is locked is still the one of that name: a run that ends removes it."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def discard(folder: Path) -> None:
    """Remove a finished run's checkpoints; its milestones move to ``milestones``. For the holder of the lock.

    The newest goes last: a process that is killed in the middle leaves a run that can be finished again.
    """
    for path in files.folders(folder):
        try:
            is_milestone = files.inspect(path).kind == "milestone"
        except BertOpsError:
            is_milestone = False
        if is_milestone:
            _keep_milestone(path)
        else:
            files.remove(path)
    for path in sorted(folder.glob("*")) if (folder / "milestones").is_dir() else [folder]:
        if path.name != "milestones":
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _keep_milestone(path: Path) -> None:
    target = path.parent / "milestones" / f"step-{files.step_of(path):08d}"
    try:
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        path.rename(target)
    except OSError as error:
        note(f"the milestone {path} stays where it is: {error.strerror or error}")
