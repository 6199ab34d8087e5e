"""Checkpoints of a run: written beside training, verified when read, the newest whole one wins.

Layout of a run's folder, which is named by a hash of everything that the run depends on::

    .lock                      held (flock) while a trainer works here; its text says who
    log.jsonl                  the run's log
    step-00000500-000007/      a checkpoint: step 500, the seventh that the run wrote
    milestones/                milestones of a finished run

What a checkpoint looks like stands in :mod:`bert_ops.training.checkpoint_files`.

Training waits for a copy of the tensors alone; a thread writes them, flushes them and renames their folder. A trainer
that is killed at any moment leaves whole checkpoints and, at worst, one under a temporary name, which the next holder
of the lock sweeps away. A damaged checkpoint is named loudly and the one before it is used. Every random number is a
function of the seed and of what it is drawn for, so that there is no random state to keep. A finished run removes its
checkpoints: what it made stands in the stage's outputs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bert_ops.errors import ArtifactError, BertOpsError
from bert_ops.progress import note
from bert_ops.training import checkpoint_files as files
from bert_ops.training.checkpoint_files import Checkpoint, Entry, Kind
from bert_ops.training.identity import differences
from bert_ops.training.retention import Retention, surplus
from bert_ops.training.run_folder import discard, lock, run_key

__all__ = ["Checkpoint", "CheckpointStore", "Kind", "Retention", "discard", "lock", "run_key"]

#: Kinds that a rollback may go back to: where a run goes must not depend on how busy the machine was.
_REPRODUCIBLE = frozenset({"step", "milestone"})


class CheckpointStore:
    """Checkpoints of one run, for the process that holds its lock; others of the run may read.

    Args:
        folder: the run's folder.
        retention: what stays.
        identity: what a checkpoint belongs to (architecture, vocabulary, parameters): each a hash, or JSON of values.

    Attributes:
        stall_seconds: how long training was held up by saving.
        saved_step: step of the newest checkpoint that this process wrote or read, None without one.

    """

    def __init__(self, folder: Path, *, retention: Retention, identity: dict[str, str]) -> None:
        self.folder, self.retention, self.identity = folder, retention, identity
        self.stall_seconds = 0.0
        self.saved_step: int | None = None
        self._writer: threading.Thread | None = None
        self._bug: Exception | None = None
        self._host: dict[str, Tensor] = {}
        self._damaged: set[Path] = set()

    def save(self, checkpoint: Checkpoint, *, kind: Kind, score: float | None = None, wait: bool = False) -> bool:
        """Copy a checkpoint's tensors and write them beside training.

        While the one before is still being written, a checkpoint of kind "time" is left out and any other waits. A
        failure to store is reported, and training goes on with the last whole checkpoint in place.

        Args:
            checkpoint: what to save; its tensors and its state may change as soon as this returns.
            kind: why it is made.
            score: held-out loss of these weights, lower is better; None if they were not measured.
            wait: return only when it is written, or has failed to be.

        Returns:
            Whether it is being written; False if it was left out.

        """
        if kind == "time" and self._writer is not None and self._writer.is_alive():
            return False
        started = time.monotonic()
        self.flush()
        # As text: lists of the state grow while the thread writes.
        state = files.state_text(checkpoint.state)
        tensors = self._copied(checkpoint.tensors)
        arguments = (tensors, state, checkpoint.step, kind, score)
        self._writer = threading.Thread(target=self._write, args=arguments, name="checkpoint-writer")
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
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug

    def close(self) -> None:
        """Wait for the writer and give its memory back."""
        self.flush()
        self._host = {}

    def newest(self) -> Checkpoint | None:
        """Read the newest whole checkpoint, or None if there is none; damaged ones are reported.

        Raises:
            InputError: it belongs to another architecture, vocabulary or other parameters, or must not be read.

        """
        self.flush()
        paths = self.steps()
        found = self._first_whole(reversed(paths))
        if found is None and paths:
            note(f"no whole checkpoint is left in {self.folder}: training begins anew")
        elif found is None:
            self._tell_of_others()
        else:
            self.saved_step = found.step
        return found

    def rollback_target(self, *, before: int) -> Checkpoint | None:
        """Read the newest whole checkpoint of a step up to ``before``, made at a step that follows from the parameters.

        Checkpoints by the clock do not count: where a run goes back to must not depend on how busy the machine was.

        Raises:
            InputError: as :meth:`newest`.

        """
        self.flush()
        return self._first_whole(
            entry.path
            for entry in reversed(self._entries(path for path in self.steps() if files.step_of(path) <= before))
            if entry.kind in _REPRODUCIBLE
        )

    def discard_after(self, step: int) -> None:
        """Remove checkpoints of later steps: a rollback has made them history."""
        self.flush()
        for path in self.steps():
            if files.step_of(path) > step:
                files.remove(path)

    def steps(self) -> list[Path]:
        """Checkpoint folders in the order in which they were made, damaged ones included."""
        return files.folders(self.folder)

    def _copied(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors in host buffers of our own, which are used again: one copy, however many checkpoints."""
        copies = {}
        on_gpu = False
        for name, tensor in tensors.items():
            held, source = self._host.get(name), tensor.detach()
            if held is None or held.shape != source.shape or held.dtype != source.dtype:
                held = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            _copy(source, held)
            copies[name] = held
            on_gpu |= source.is_cuda
        if on_gpu:
            torch.cuda.synchronize()
        self._host = copies
        return copies

    def _write(self, tensors: dict[str, Tensor], state: str, step: int, kind: Kind, score: float | None) -> None:
        number = max((files.number_of(path) for path in self.steps()), default=0) + 1
        try:
            files.write(
                self.folder,
                tensors,
                state,
                step=step,
                number=number,
                kind=kind,
                score=score,
                identity=self.identity,
            )
            self.saved_step = step
            self._remove_old()
        except (BertOpsError, OSError, MemoryError) as error:
            why = error.what if isinstance(error, BertOpsError) else str(error) or type(error).__name__
            note(f"the checkpoint of step {step} was not written, training goes on: {why}")
        except Exception as error:  # raised where training sees it
            self._bug = error

    def _remove_old(self) -> None:
        """Apply the retention; known damage goes as well, now that there is a newer checkpoint."""
        for path in self._damaged:
            files.remove(path)
        self._damaged.clear()
        for entry in surplus(self._entries(self.steps()), self.retention):
            files.remove(entry.path)

    def _entries(self, paths: Iterable[Path]) -> list[Entry]:
        found = []
        for path in paths:
            try:
                found.append(files.inspect(path))
            except ArtifactError as error:
                self._skip(path, error)
        return found

    def _first_whole(self, paths: Iterable[Path]) -> Checkpoint | None:
        for path in paths:
            try:
                return files.read(path, identity=self.identity)
            except ArtifactError as error:
                self._skip(path, error)
        return None

    def _skip(self, path: Path, error: ArtifactError) -> None:
        if path not in self._damaged:
            self._damaged.add(path)
            note(f"skipping the damaged checkpoint {path.name}: {error.what}")

    def _tell_of_others(self) -> None:
        """Say so if work of other parameters stands beside: who changed one by accident wants to know before hours."""
        found: list[tuple[Entry, list[str]]] = []
        for run in self.folder.parent.glob("*/"):
            try:
                found += [(entry, differences(entry.identity, self.identity)) for entry in _last(run)]
            except (BertOpsError, OSError):
                continue  # nobody asked for it
        different = [(entry, parts) for entry, parts in found if parts]
        if different:
            entry, parts = min(different, key=lambda pair: (len(pair[1]), -pair[0].path.stat().st_mtime))
            more = f" (and {len(different) - 1} more beside it)" if len(different) > 1 else ""
            note(
                f"{entry.path.parent}{more} holds step {entry.step} of another run, which this one does not go on "
                f"with; they differ in {'; '.join(parts)}"
            )


def _last(run: Path) -> list[Entry]:
    """Newest checkpoint of a run, if it has one."""
    return [files.inspect(path) for path in files.folders(run)[-1:]]


def _copy(source: Tensor, target: Tensor) -> None:
    """Copy to the host; from a GPU all copies are under way at once, and the caller waits for the last one.

    In one thread: torch shares a copy among its threads, which wait for each other, and on a busy machine that took
    many times as long as the copy (docs/LOG.md).
    """
    if source.device.type == "cpu" and source.is_contiguous():
        np.copyto(target.reshape(-1).view(torch.uint8).numpy(), source.reshape(-1).view(torch.uint8).numpy())
    else:
        target.copy_(source, non_blocking=source.is_cuda)
