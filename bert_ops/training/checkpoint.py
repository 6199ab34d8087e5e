"""Checkpoints: whole or not there, never pickled, verified when read, written beside training.

Layout of a run's folder, which is named by a hash of everything that the run depends on::

    .lock                    held (flock) while a trainer works here; its text says who
    log.jsonl                the run's log
    step-00000500/
        tensors.safetensors  weights, optimiser, best and averaged weights
        state.json           position in the data, schedule, batch size, guard, history
        manifest.json        identity, kind, score, and sha256 of the two; its own sha256 in `checksum`

A checkpoint is written under a temporary name, flushed and renamed. The newest one whose checksums hold wins; a damaged
newer one is named loudly. Every random number is a function of the seed and of what it is drawn for, so that there is
no random state to keep. A finished run removes its folder: what it made stands in the stage's outputs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bert_ops.errors import ArtifactError, BertOpsError, InputError, StorageError
from bert_ops.io import atomic_folder, dump_json, file_sha256, read_json, write_json
from bert_ops.progress import note

#: time: between steps that count, for resuming alone; step and milestone: at steps that follow from the parameters,
#: which a rollback may go back to; final: when a signal ends the run.
Kind = Literal["time", "step", "milestone", "final"]

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"

#: Newest checkpoints of kind "step" that stay in any case: the last may hold weights that are about to break.
KEPT_STEPS = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a training run needs to go on exactly where it was."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True)
class Retention:
    """What stays: the newest, and those with the lowest held-out loss; milestones always do."""

    keep_last: int
    keep_best: int


def run_key(**parts: Any) -> str:
    """Name of a run's folder: a hash over parameters and inputs, so that no run resumes from another's weights."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder for one trainer; the lock goes with the process, however it ends.

    Raises:
        InputError: another process holds it; the message says which, and since when.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise InputError(
                f"{folder} is in use by {handle.read().strip() or 'another process'}",
                remedy="wait until that training ends, or stop it",
            ) from error
        handle.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        handle.write(f"process {os.getpid()} ({' '.join(sys.argv)[:200]}) since {since}")
        handle.flush()
        yield


def discard(folder: Path) -> None:
    """Remove a finished run's checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)


class CheckpointStore:
    """Checkpoints of one run.

    Args:
        folder: the run's folder.
        retention: what stays.
        identity: what a checkpoint belongs to (architecture, vocabulary, parameters), each as a hash or a text.

    Attributes:
        stall_seconds: how long training was held up by saving.

    """

    def __init__(self, folder: Path, *, retention: Retention, identity: dict[str, str]) -> None:
        self.folder, self.retention, self.identity = folder, retention, identity
        self.stall_seconds = 0.0
        self._writer: threading.Thread | None = None
        self._host: dict[str, Tensor] = {}

    def save(self, checkpoint: Checkpoint, *, kind: Kind, score: float | None = None, wait: bool = False) -> bool:
        """Copy a checkpoint's tensors and write them beside training.

        While the one before is still being written, a checkpoint of kind "time" is left out and any other waits. A
        failure to store is reported, and training goes on with the last whole checkpoint in place.

        Args:
            checkpoint: what to save; its tensors may change as soon as this returns.
            kind: why it is made.
            score: held-out loss of these weights, lower is better; None if they were not measured.
            wait: return only when it is written.

        Returns:
            Whether it is being written; False if it was left out.

        """
        started = time.monotonic()
        if self._writer is not None and self._writer.is_alive() and kind == "time":
            return False
        self.flush()
        content = Checkpoint(checkpoint.step, self._copied(checkpoint.tensors), checkpoint.state)
        self._writer = threading.Thread(target=self._write, args=(content, kind, score), name="checkpoint-writer")
        self._writer.start()
        if wait:
            self.flush()
        self.stall_seconds += time.monotonic() - started
        return True

    def flush(self) -> None:
        """Wait until what was saved is written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def close(self) -> None:
        """Wait for the writer."""
        self.flush()

    def newest(self) -> Checkpoint | None:
        """Read the newest whole checkpoint, or None if there is none; damaged ones are reported.

        Raises:
            InputError: it belongs to another architecture, vocabulary or other parameters.

        """
        self.flush()
        return self._first_whole(reversed(self.steps()))

    def rollback_target(self, *, before: int) -> Checkpoint | None:
        """Read the newest whole checkpoint of a step up to ``before``, made at a step that follows from the parameters.

        Checkpoints by the clock do not count: where a run goes back to must not depend on how busy the machine was.
        """
        self.flush()
        return self._first_whole(
            path
            for path in reversed(self.steps())
            if _step_of(path) <= before and _kind_of(path) in {"step", "milestone"}
        )

    def discard_after(self, step: int) -> None:
        """Remove checkpoints of later steps: a rollback has made them history."""
        self.flush()
        for path in self.steps():
            if _step_of(path) > step:
                shutil.rmtree(path, ignore_errors=True)

    def steps(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _copied(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors in buffers of our own, which are used again; a copy is all that training waits for."""
        copies = {}
        for name, tensor in tensors.items():
            held = self._host.get(name)
            if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
                held = torch.empty_like(tensor, device="cpu", memory_format=torch.contiguous_format)
            copies[name] = held.copy_(tensor.detach())
        self._host = copies
        return copies

    def _write(self, checkpoint: Checkpoint, kind: Kind, score: float | None) -> None:
        target = self.folder / f"step-{checkpoint.step:08d}"
        try:
            if kind == "time" and target.exists():
                return  # of this very step there is one that counts for more
            with atomic_folder(target) as temporary:
                save_file(checkpoint.tensors, temporary / TENSORS)
                write_json(temporary / STATE, checkpoint.state)
                manifest = {
                    "step": checkpoint.step,
                    "kind": kind,
                    "score": score,
                    "identity": self.identity,
                    "files": {name: file_sha256(temporary / name) for name in (TENSORS, STATE)},
                }
                write_json(temporary / MANIFEST, manifest | {"checksum": _checksum(manifest)})
            _sync(self.folder)
            self._remove_old()
        except (StorageError, SafetensorError, OSError, ValueError) as error:
            note(f"checkpoint at step {checkpoint.step} was not written, training goes on: {error}")

    def _remove_old(self) -> None:
        manifests = {path: _manifest_or_none(path) for path in self.steps()}
        whole = [path for path, manifest in manifests.items() if manifest is not None]
        scored = sorted(
            (path for path in whole if manifests[path]["score"] is not None),  # type: ignore[index]
            key=lambda path: manifests[path]["score"],  # type: ignore[index]
        )
        kept = set(list(manifests)[-self.retention.keep_last :]) | set(scored[: self.retention.keep_best])
        kept |= {path for path in whole if manifests[path]["kind"] == "milestone"}  # type: ignore[index]
        kept |= set([path for path in whole if manifests[path]["kind"] == "step"][-KEPT_STEPS:])  # type: ignore[index]
        for path in set(manifests) - kept:
            shutil.rmtree(path, ignore_errors=True)

    def _first_whole(self, paths: Iterator[Path]) -> Checkpoint | None:
        for path in paths:
            try:
                return read(path, identity=self.identity)
            except ArtifactError as error:
                note(f"skipping a damaged checkpoint: {error.what}")
        return None


def read(path: Path, *, identity: dict[str, str] | None = None) -> Checkpoint:
    """Read one checkpoint.

    Args:
        path: its folder.
        identity: what it has to belong to, or None for anything.

    Raises:
        ArtifactError: a file is missing or its checksum differs.
        InputError: it belongs to something else.

    """
    manifest = _manifest(path)
    if identity is not None:
        _check_identity(path, manifest["identity"], identity)
    for name, expected in manifest["files"].items():
        if name not in {TENSORS, STATE} or not (path / name).is_file() or file_sha256(path / name) != expected:
            raise ArtifactError(f"{path / name} does not match its checksum", remedy="the checkpoint before it is used")
    try:
        tensors = load_file(path / TENSORS)
    except SafetensorError as error:
        raise ArtifactError(
            f"{path / TENSORS} is damaged: {error}", remedy="the checkpoint before it is used"
        ) from error
    return Checkpoint(step=manifest["step"], tensors=tensors, state=read_json(path / STATE, made_by="pretrain"))


def _check_identity(path: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if differing:
        parts = "; ".join(f"{name}: {found.get(name)} there, {wanted.get(name)} here" for name in differing)
        raise InputError(
            f"the checkpoint {path} belongs to another run ({parts})",
            remedy="give this run another --checkpoints folder, or bring back the parameters of that one",
        )


def _manifest(path: Path) -> dict[str, Any]:
    """Manifest of a checkpoint.

    Raises:
        ArtifactError: it is missing, or not as it was written.

    """
    manifest = read_json(path / MANIFEST, made_by="pretrain")
    expected = manifest.pop("checksum", None) if isinstance(manifest, dict) else None
    if expected is None or _checksum(manifest) != expected or f"step-{manifest['step']:08d}" != path.name:
        raise ArtifactError(f"{path / MANIFEST} is damaged", remedy="the checkpoint before it is used")
    return dict(manifest)


def _manifest_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return _manifest(path)
    except (BertOpsError, OSError):
        return None


def _kind_of(path: Path) -> str | None:
    manifest = _manifest_or_none(path)
    return None if manifest is None else str(manifest["kind"])


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(dump_json(manifest).encode()).hexdigest()


def _sync(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
