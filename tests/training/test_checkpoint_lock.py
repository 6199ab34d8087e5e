"""The folder of a run: one trainer at a time, leftovers swept, emptied when the run is done."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_ops.errors import InputError, StorageError
from bert_ops.training import checkpoint_files as files
from bert_ops.training import run_folder
from bert_ops.training.checkpoint import Checkpoint, CheckpointStore, Kind, Retention, discard, lock, run_key

_HOLDER = (
    "import sys, time; from pathlib import Path; from bert_ops.training.run_folder import lock\n"
    "with lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
)


def fill(folder: Path, *kinds: Kind) -> None:
    store = CheckpointStore(folder, retention=Retention(keep_last=9, keep_best=0), identity={})
    for step, kind in enumerate(kinds, 1):
        store.save(Checkpoint(step=step, tensors={"w": torch.ones(3)}, state={}), kind=kind, wait=True)


def test_a_second_trainer_is_told_who_holds_the_folder_until_that_one_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError) as caught, lock(tmp_path):
            pass
        assert f"{tmp_path} is in use by process {holder.pid} (-c {tmp_path}) since 2" in str(caught.value)
        assert "remedy" in str(caught.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with lock(tmp_path), pytest.raises(InputError, match=f"in use by process {os.getpid()} "), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, "step")
    (tmp_path / ".step-00000009-000002.tmp").mkdir()
    (tmp_path / ".step-00000009-000002.tmp" / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / "log.jsonl").write_text("{}\n")
    shutil.copytree(tmp_path / "step-00000001-000001", tmp_path / ".step-00000001-000000.old")
    with lock(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "log.jsonl", "step-00000001-000001"]


def test_a_run_that_ends_meanwhile_takes_its_folder_along(tmp_path: Path, monkeypatch) -> None:
    """Between opening the lock file and locking it, its holder ends and removes it: both would hold a lock."""
    folder = tmp_path / "run"
    folder.mkdir()
    flock, seen = fcntl.flock, []

    def ending(handle: Any, how: int) -> None:
        if not seen:
            shutil.rmtree(folder)
        seen.append(handle)
        flock(handle, how)

    monkeypatch.setattr(run_folder.fcntl, "flock", ending)
    with lock(folder):
        assert len(seen) == 2
        with pytest.raises(InputError, match="in use"), lock(folder):
            pass


def test_a_file_system_without_locks_is_no_other_trainer(tmp_path: Path, monkeypatch) -> None:
    def unsupported(*_args: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_folder.fcntl, "flock", unsupported)
    with pytest.raises(StorageError, match="cannot be locked: No locks available"), lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path, monkeypatch) -> None:
    def refused(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(StorageError, match="cannot write"), lock(tmp_path / "run"):
        pass


def test_a_finished_run_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock(folder):
        fill(folder, "step", "time", "final")
        (folder / "log.jsonl").write_text("{}\n")
        discard(folder)
    assert not folder.exists()
    with lock(folder):
        pass


def test_milestones_outlive_the_run_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with lock(tmp_path):
            fill(tmp_path, "step", "milestone", "time", "milestone")
            (tmp_path / "log.jsonl").write_text("{}\n")
            discard(tmp_path)
        assert files.folders(tmp_path) == []
        assert [path.name for path in sorted(tmp_path.glob("*"))] == ["milestones"]
        kept = sorted((tmp_path / "milestones").iterdir())
        assert [path.name for path in kept] == ["step-00000002", "step-00000004"]
        assert (kept[0] / "tensors.safetensors").is_file()


def test_a_process_killed_while_it_discards_can_finish_again(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, "step", "time", "final")
    real, removed = files.remove, []

    def killed(path: Path) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(path)
        real(path)

    monkeypatch.setattr(files, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        discard(tmp_path)
    (left,) = files.folders(tmp_path)
    assert files.read(left).step == 3


def test_the_name_of_a_run_follows_from_what_it_depends_on() -> None:
    assert run_key(a="1", b="2") == run_key(b="2", a="1")
    assert len({run_key(a="1"), run_key(a="2"), run_key(b="1"), run_key(a="1", b="1")}) == 4
