"""Checkpoints: whole or not there, never pickled, verified when read.

Layout of a run's folder, which is named by a hash of everything that the run depends on::

    .lock                    held (flock) while a trainer works here; its text names the process
    step-00000500/
        tensors.safetensors  model, optimiser state, best weights, torch's random generator
        state.json           step, history, best score
        manifest.json        sha256 of the two, written last

A checkpoint is written under a temporary name, flushed and renamed; the newest one whose checksums hold wins, and a
damaged newer one is named loudly. A finished run removes its folder: what it made stands in the stage's outputs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bert_ops.errors import ArtifactError, InputError, StorageError
from bert_ops.io import atomic_folder, file_sha256, read_json, write_json
from bert_ops.progress import note

#: Checkpoints that are kept; the one before the newest is there for the case that the newest is damaged.
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a training run needs to go on exactly where it was."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def run_key(**parts: Any) -> str:
    """Name of a run's folder: a hash over parameters and inputs, so that no run resumes from another's weights."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder for one trainer; the lock goes with the process, however it ends.

    Raises:
        InputError: another process holds it; the message names it.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise InputError(
                f"{folder} is in use by process {handle.read().strip() or 'unknown'}",
                remedy="wait until that training ends, or stop it",
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and drop the oldest; a full disk costs the new checkpoint, not the run.

    A failure to store is reported and training goes on with the last whole checkpoint in place.
    """
    try:
        with atomic_folder(folder / f"step-{checkpoint.step:08d}") as temporary:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
            save_file(tensors, temporary / "tensors.safetensors")
            write_json(temporary / "state.json", {"step": checkpoint.step, **checkpoint.state})
            names = ("tensors.safetensors", "state.json")
            write_json(temporary / "manifest.json", {name: file_sha256(temporary / name) for name in names})
    except (StorageError, SafetensorError) as error:
        note(f"checkpoint at step {checkpoint.step} was not written, training goes on: {error}")
        return
    for old in steps(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def steps(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def newest(folder: Path) -> Checkpoint | None:
    """Read the newest whole checkpoint, or None if there is none; damaged ones are reported."""
    for path in reversed(steps(folder)):
        try:
            return read(path)
        except ArtifactError as error:
            note(f"skipping a damaged checkpoint: {error.what}")
    return None


def read(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        ArtifactError: a file is missing or its checksum differs.

    """
    manifest = read_json(path / "manifest.json", made_by="pretrain")
    for name, expected in manifest.items():
        if not (path / name).is_file() or file_sha256(path / name) != expected:
            raise ArtifactError(f"{path / name} does not match its checksum", remedy="the checkpoint before it is used")
    state = read_json(path / "state.json", made_by="pretrain")
    return Checkpoint(step=state.pop("step"), tensors=load_file(path / "tensors.safetensors"), state=state)


def discard(folder: Path) -> None:
    """Remove a finished run's checkpoints."""
    shutil.rmtree(folder, ignore_errors=True)


def pack(model: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Flatten model, optimiser, best weights and random generator into one mapping of tensors."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (best or {}).items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def unpack(tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor] | None:
    """Undo :func:`pack`: restore everything in place and return the best weights, if there were any."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(part("model."))
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("optimizer.").items():
        index, slot = name.split(".", 1)
        states.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return part("best.") or None
