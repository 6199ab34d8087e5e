"""A checkpoint on disk: a folder that is whole or not there, whose every byte is verified when it is read.

A folder holds three files::

    tensors.safetensors   weights, optimiser, best and averaged weights
    state.json            position in the data, schedule, batch size, guard, history
    manifest.json         step, kind, score, identity; size and SHA-256 of the two; SHA-256 of itself (`checksum`)

It is written under a temporary name, flushed file by file, and renamed; no folder ever replaces another, because each
has a number of its own. A reader believes nothing that it has not checked: a truncated file or a flipped bit anywhere,
the manifest included, is an error, and so is a checkpoint of another model, vocabulary or run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import dump_json, file_sha256, storage_errors
from bert_ops.model.tensor_file import save_tensors
from bert_ops.training.identity import check_identity
from bert_ops.training.log_lines import from_json, to_json

#: time: between steps that count, for resuming alone; step and milestone: at steps that follow from the parameters,
#: which a rollback may go back to; final: when a signal ends the run.
Kind = Literal["time", "step", "milestone", "final"]

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"

#: Changes whenever what a checkpoint means does.
_FORMAT = 1

#: Name of a folder: the step, and the number of the checkpoint in its run.
_NAME = re.compile(r"step-(\d{8,})-(\d{6,})")

_BEFORE = "the checkpoint before it is used"


@dataclass(frozen=True)
class Checkpoint:
    """What a training run needs to go on exactly where it was."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the manifest of a checkpoint says.

    Args:
        path: its folder.
        number: its place among the checkpoints of the run, in the order in which they were made.
        step: optimiser steps done.
        kind: why it was made.
        score: held-out loss of its weights; None if they were not measured.
        identity: what it belongs to.
        files: size in bytes and SHA-256 of its files.

    """

    path: Path
    number: int
    step: int
    kind: Kind
    score: float | None
    identity: dict[str, str]
    files: dict[str, dict[str, Any]]


def folders(run: Path) -> list[Path]:
    """Checkpoint folders of a run, in the order in which they were made, damaged ones included."""
    found = [path for path in run.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=number_of)


def number_of(path: Path) -> int:
    """Place of a checkpoint among those of its run."""
    return int(path.name.rpartition("-")[2])


def step_of(path: Path) -> int:
    """Step of a checkpoint."""
    return int(path.name.split("-")[1])


def write(
    run: Path,
    tensors: dict[str, Tensor],
    state: str,
    *,
    step: int,
    number: int,
    kind: Kind,
    score: float | None,
    identity: dict[str, str],
) -> Path:
    """Write one checkpoint and make it durable.

    Args:
        run: the folder that the checkpoint's folder is made in.
        tensors: contiguous tensors in host memory that share no storage.
        state: JSON, as :func:`state_text` makes it.
        step: as in :class:`Entry`, like those that follow.
        number: see there.
        kind: see there.
        score: see there.
        identity: see there.

    Returns:
        Its folder.

    Raises:
        StorageError: the disk is full or not writable; nothing is left behind.

    """
    target = run / f"step-{step:08d}-{number:06d}"
    temporary = run / f".{target.name}.tmp"
    with storage_errors(target):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_tensors(tensors, temporary / TENSORS)
            (temporary / STATE).write_text(state, encoding="utf-8")
            files = {name: _flushed(temporary / name) for name in (TENSORS, STATE)}
            facts = {"format": _FORMAT, "step": step, "kind": kind, "score": to_json(score)}
            (temporary / MANIFEST).write_text(_sealed({**facts, "identity": identity, "files": files}), "utf-8")
            _flushed(temporary / MANIFEST)
            _flush_folder(temporary)
            temporary.rename(target)
            _flush_folder(run)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return target


def remove(path: Path) -> None:
    """Remove a checkpoint; one that is removed by half is none, and is swept by the next trainer."""
    retired = path.with_name(f".{path.name}.old")
    try:
        path.rename(retired)
    except OSError:
        return  # as on a disk that has become read-only; the next checkpoint tries again
    shutil.rmtree(retired, ignore_errors=True)


def sweep(run: Path) -> None:
    """Remove what writers that were killed left behind. Only for the holder of the run's lock."""
    for pattern in (".step-*.tmp", ".step-*.old"):
        for path in run.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def state_text(state: Mapping[str, Any]) -> str:
    """State as strict JSON, names in their order; numbers that JSON lacks (a loss may be NaN) survive as texts."""
    return json.dumps(to_json(state), ensure_ascii=False, allow_nan=False) + "\n"


def inspect(path: Path) -> Entry:
    """Read the manifest of a checkpoint.

    Raises:
        ArtifactError: it is missing, or not as it was written.
        InputError: it must not be read, or another version wrote it.

    """
    manifest = _unsealed(path / MANIFEST)
    if manifest.pop("format", None) != _FORMAT:
        raise InputError(
            f"{path} was written by another version of bert-ops",
            remedy="go on with that version, or move its folder away to begin anew",
        )
    if manifest["step"] != step_of(path):
        raise ArtifactError(f"{path} holds the checkpoint of another step", remedy=_BEFORE)
    return Entry(path=path, number=number_of(path), **from_json(manifest))


def read(path: Path, *, identity: Mapping[str, str] | None = None) -> Checkpoint:
    """Read one checkpoint, every byte of it verified.

    Args:
        path: its folder.
        identity: what it has to belong to, or None for anything.

    Returns:
        The checkpoint, with tensors in memory of their own.

    Raises:
        ArtifactError: a file is missing, cut short or changed.
        InputError: it belongs to something else, or must not be read.

    """
    entry = inspect(path)
    if identity is not None:
        check_identity(identity, found=entry.identity, where=path)
    for name in (TENSORS, STATE):
        _verify(path / name, entry.files[name])
    try:
        # Copies: a mapped file would change under the weights, and its tensors lie unaligned.
        tensors = {name: tensor.clone() for name, tensor in load_file(path / TENSORS).items()}
        state = from_json(json.loads((path / STATE).read_text(encoding="utf-8")))
    except (SafetensorError, ValueError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", remedy=_BEFORE) from error
    return Checkpoint(step=entry.step, tensors=tensors, state=state)


def _flushed(path: Path) -> dict[str, Any]:
    """Flush a file to the disk; its size and checksum."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return {"bytes": os.fstat(handle.fileno()).st_size, "sha256": digest}


def _flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # file systems that know no such thing
            raise
    finally:
        os.close(descriptor)


def _sealed(manifest: dict[str, Any]) -> str:
    """Text of a manifest with its own checksum in it."""
    return dump_json(manifest | {"checksum": hashlib.sha256(dump_json(manifest).encode()).hexdigest()})


def _unsealed(path: Path) -> dict[str, Any]:
    """Undo :func:`_sealed`; the text has to be what it would write, to the last space."""
    with _reading(path):
        text = path.read_bytes()
    try:
        manifest = json.loads(text)
        manifest.pop("checksum")
        whole = _sealed(manifest).encode() == text
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise ArtifactError(f"{path} is not as it was written", remedy=_BEFORE)
    return dict(manifest)


def _verify(path: Path, expected: Mapping[str, Any]) -> None:
    with _reading(path):
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise ArtifactError(f"{path} has {size:,} bytes instead of {expected['bytes']:,}", remedy=_BEFORE)
        if file_sha256(path) != expected["sha256"]:
            raise ArtifactError(f"{path} does not match its checksum", remedy=_BEFORE)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell a file that is damaged from one that is not ours to read: going back to an older one mends only the first.

    Raises:
        ArtifactError: it is missing, or the disk does not give it back.
        InputError: it must not be read.

    """
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing", remedy=_BEFORE) from error
    except PermissionError as error:
        raise InputError(
            f"{path} must not be read by this user", remedy="make it readable, or move its folder away to begin anew"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}", remedy=_BEFORE) from error
