"""Checkpoints on bad ground: damaged files, full and read-only disks, writers that are killed."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_ops.errors import ArtifactError, InputError
from bert_ops.training import checkpoint_files as files
from bert_ops.training.checkpoint import Checkpoint, CheckpointStore, Retention

FILES = ["tensors.safetensors", "state.json", "manifest.json"]


def store_in(folder: Path, *, last: int = 5) -> CheckpointStore:
    return CheckpointStore(folder, retention=Retention(keep_last=last, keep_best=0), identity={"vocabulary": "ab12"})


def content(step: int, *, size: int = 20) -> Checkpoint:
    return Checkpoint(step=step, tensors={"weight": torch.full((size,), float(step))}, state={"at": step})


def newest_step(folder: Path) -> int | None:
    found = store_in(folder).newest()
    if found is None:
        return None
    assert found.state == {"at": found.step}
    assert found.tensors["weight"].unique().tolist() == [float(found.step)]
    return found.step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = store_in(tmp_path / "run")
    for step in (5, 6, 7):
        store.save(content(step), kind="step", wait=True)
    return store.folder


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "remove":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        changed = {
            "empty": b"",
            "truncate": whole[: len(whole) // 2],
            "last byte": whole[:-1],
            "longer": whole + b"\n",
            "zeros": bytes(len(whole)),
            "other": b'{"step": 7}',
        }
        path.write_bytes(changed[how])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["remove", "folder", "empty", "truncate", "last byte", "longer", "zeros", "other"])
def test_a_damaged_newest_one_falls_back_to_the_one_before_loudly(folder: Path, name: str, how: str, capsys) -> None:
    path = store_in(folder).steps()[-1]
    damage(path / name, how)
    assert newest_step(folder) == 6
    said = capsys.readouterr().err
    assert f"skipping the damaged checkpoint {path.name}: " in said and name in said


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_noticed_wherever_it_is(folder: Path, name: str) -> None:
    path = store_in(folder).steps()[-1]
    whole = (path / name).read_bytes()
    assert len(whole) >= 10
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        (path / name).write_bytes(changed)
        with pytest.raises(ArtifactError):
            files.read(path)
    (path / name).write_bytes(whole)
    assert files.read(path).step == 7


def test_files_of_another_checkpoint_are_noticed(folder: Path) -> None:
    """Each whole by itself: a copy that was broken off, or a person who helped."""
    before, path = store_in(folder).steps()[-2:]
    for name in FILES:
        own = (path / name).read_bytes()
        (path / name).write_bytes((before / name).read_bytes())
        with pytest.raises(ArtifactError):
            files.read(path)
        (path / name).write_bytes(own)
    before.rename(folder / "step-00000009-000009")
    with pytest.raises(ArtifactError, match="holds the checkpoint of another step"):
        files.read(folder / "step-00000009-000009")


def test_if_all_are_damaged_training_begins_anew_and_says_so(folder: Path, capsys) -> None:
    for path in store_in(folder).steps():
        damage(path / "state.json", "truncate")
    assert newest_step(folder) is None
    said = capsys.readouterr().err
    assert said.count("skipping the damaged checkpoint") == 3 and "training begins anew" in said


def test_damaged_ones_do_not_count_for_the_retention_and_go_when_a_newer_one_stands(folder: Path) -> None:
    damage(folder / "step-00000007-000003" / "tensors.safetensors", "truncate")
    store = store_in(folder, last=2)
    assert store.newest() is not None
    store.save(Checkpoint(step=8, tensors=content(8).tensors, state={"at": 8}), kind="time", wait=True)
    assert [path.name for path in store.steps()] == [
        "step-00000005-000001",
        "step-00000006-000002",
        "step-00000008-000004",
    ]
    assert newest_step(folder) == 8


def test_a_checkpoint_of_another_version_is_refused(folder: Path) -> None:
    path = store_in(folder).steps()[-1] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("checksum")
    path.write_text(files._sealed({**manifest, "format": 2, "new": True}))
    with pytest.raises(InputError, match="written by another version"):
        store_in(folder).newest()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, for whom no file is closed."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def let_everyone_in(folder: Path) -> None:
    """Open the folders that pytest made, so that the one in question is all that refuses."""
    for path in (folder, *folder.parents) if os.geteuid() == 0 else ():
        if "pytest" in str(path):
            path.chmod(0o755)


def test_files_that_must_not_be_read_stop_the_run_instead_of_beginning_anew(folder: Path) -> None:
    path = store_in(folder).steps()[-1]
    let_everyone_in(path)
    (path / "state.json").chmod(0)
    with as_nobody(), pytest.raises(InputError, match="must not be read by this user"):
        store_in(folder).newest()


class TestFullDisk:
    @pytest.fixture
    def limit(self) -> Iterator[None]:
        """Let the system refuse files above 40 kB; Python ignores the signal that comes with it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_a_file_that_the_system_refuses_costs_the_checkpoint_alone(self, folder: Path, limit: None, capsys) -> None:
        store = store_in(folder)
        assert store.save(content(8, size=100_000), kind="step", wait=True)
        assert "the checkpoint of step 8 was not written, training goes on: " in capsys.readouterr().err
        assert store.saved_step is None
        assert newest_step(folder) == 7
        assert store.save(content(9), kind="step", wait=True)
        assert newest_step(folder) == 9
        assert not list(folder.glob(".step*"))

    @pytest.mark.parametrize("call", range(6))
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
    def test_a_disk_that_fails_at_any_point_leaves_whole_checkpoints(
        self, folder: Path, call: int, number: int, monkeypatch: pytest.MonkeyPatch, capsys
    ) -> None:
        count = 0

        def failing(real: Any) -> Any:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == call + 1:
                    raise OSError(number, os.strerror(number))
                return real(*args, **kwargs)

            return wrapper

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync))
            patch.setattr(Path, "rename", failing(Path.rename))
            store_in(folder).save(content(8), kind="step", wait=True)
        said = capsys.readouterr().err
        assert "the checkpoint of step 8 was not written, training goes on: cannot write" in said
        assert not list(folder.glob(".step*"))
        # The last call flushes the name: the checkpoint is whole by then, whether or not it would outlive a power cut.
        assert newest_step(folder) == (8 if call == 5 else 7)

    def test_a_real_full_file_system(self, tmp_path: Path, capsys) -> None:
        mounted = tmp_path / "small"
        mounted.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mounted)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
        try:
            store = store_in(mounted, last=2)
            for step in range(5):
                store.save(content(step, size=300_000), kind="step", wait=True)  # 1.2 MB: one fits
                assert newest_step(mounted) == 0
            assert capsys.readouterr().err.count("the disk is full") == 4
        finally:
            subprocess.run(["umount", str(mounted)], check=True)

    def test_a_folder_that_must_not_be_written(self, folder: Path, capsys) -> None:
        let_everyone_in(folder)
        store = store_in(folder)
        folder.chmod(0o555)
        try:
            with as_nobody():
                store.save(content(8), kind="step", wait=True)
        finally:
            folder.chmod(0o755)
        assert "training goes on: cannot write" in capsys.readouterr().err
        assert newest_step(folder) == 7

    def test_a_folder_that_is_gone_is_made_again(self, folder: Path) -> None:
        store = store_in(folder)
        for path in store.steps():
            files.remove(path)
        folder.rmdir()
        store.save(content(8), kind="step", wait=True)
        assert newest_step(folder) == 8


#: Saves without end in child after child, each killed at a random moment; prints what the folder then holds.
_KILLED_WRITERS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from bert_ops.training import checkpoint_files as files
from bert_ops.training.checkpoint import Checkpoint, CheckpointStore, Retention, lock

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(5)
torch.set_num_threads(1)
for kill in range(kills):
    before = set(folder.iterdir())
    child = os.fork()
    if child == 0:
        with lock(folder):
            store = CheckpointStore(folder, retention=Retention(keep_last=2, keep_best=0), identity={})
            found = store.newest()
            step = 0 if found is None else found.step
            while True:
                step += 1
                weight = torch.full((100_000,), float(step))
                store.save(Checkpoint(step=step, tensors={"w": weight}, state={"at": step}), kind="step")
    # On a busy machine a writer may need long to begin; two of three are killed in the midst of their work.
    deadline = time.monotonic() + 30
    while kill % 3 and not set(folder.glob("*step*")) - before and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.07))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    whole = 0
    for path in files.folders(folder):
        found = files.read(path)
        assert found.state == {"at": found.step} and found.tensors["w"].unique().tolist() == [found.step], path
        whole += 1
    print(kill, whole, len(list(folder.glob(".step*"))), flush=True)
with lock(folder):
    store = CheckpointStore(folder, retention=Retention(keep_last=2, keep_best=0), identity={})
    step = store.newest().step + 1
    store.save(Checkpoint(step=step, tensors={"w": torch.full((9,), float(step))}, state={}), kind="step", wait=True)
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_whole_checkpoints(tmp_path: Path) -> None:
    kills = int(os.environ.get("TRAINER_KILLS", "15"))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_WRITERS, str(tmp_path), str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [[int(figure) for figure in line.split()] for line in done.stdout.splitlines()]
    assert len(rows) == kills and max(whole for _, whole, _ in rows) >= 2 and "damaged" not in done.stderr
    assert max(left for _, _, left in rows) >= 1, "no writer was killed while it wrote"
    # Whatever the killed ones left, the next whole one clears it away.
    assert len(list(tmp_path.iterdir())) == 3, list(tmp_path.iterdir())  # two checkpoints and the lock
