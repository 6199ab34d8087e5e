"""Decides whether something that a sensor watches calls for a run. Knows nothing of Dagster.

A decision is made from what is there now and from a memory of the last look, which Dagster keeps between ticks and
over restarts. A run is called for if what is there differs from what was run on, and was not asked for already since
it last changed. So a run that fails is not asked for again and again, and data that come back after others did are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .checks import look_up
from .errors import SourceError
from .lock_file import read_lock
from .pipeline import read_pipeline
from .settings import Drift, NewFiles, readers
from .status import MISSING, read_status
from .workspace import digest

Memory = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What to remember, why, and, if a run is called for, the version of the data that call for it."""

    memory: Memory
    reason: str
    data: str | None = None
    stage: str | None = field(default=None, kw_only=True)


def new_files(root: Path, settings: NewFiles, memory: Memory) -> Decision:
    """Compare a folder with what ``dvc.lock`` says that its readers last ran on.

    Cheap while nothing changes: files are listed each time and hashed only when the listing or ``dvc.lock`` changed.
    A listing must be the same at two looks, so that a file that is being copied is not taken half.

    Raises:
        BridgeError: the folder is missing or empty, or the project's state cannot be read.
    """
    listed = _listing(root / settings.folder, settings.folder)
    if listed != memory.get("listing"):
        return Decision(
            {**memory, "listing": listed, "judged": None}, f"{settings.folder} has changed: waiting until it settles"
        )
    judged = digest([listed, _content(root / "dvc.lock"), _content(root / "dvc.yaml")])
    if judged == memory.get("judged"):
        return Decision(memory, f"nothing has changed since: {memory.get('reason')}")
    pipeline, lock = read_pipeline(root), read_lock(root)
    reading = readers(pipeline, settings.folder)
    hashes = read_status(pipeline, lock, stages=[], also=reading).hashes
    wanting: list[str] = []
    current: dict[str, str] = {}
    for name, paths in reading.items():
        now = {path: hashes.get(path, MISSING) for path in paths}
        current |= now
        if name not in lock or any(lock[name].dependencies.get(path) != version for path, version in now.items()):
            wanting.append(name)
    if not current:
        raise SourceError(
            f"no stage of dvc.yaml depends on {settings.folder}",
            remedy="set automation.new_files.folder in params.yaml to a folder that a stage reads",
        )
    data, before = digest(current), memory.get("requested")
    memory = {**memory, "judged": judged, "requested": data if wanting else None}
    if not wanting:
        reason = f"dvc.lock is of {settings.folder} as it is"
        return Decision({**memory, "reason": reason}, reason)
    reason = f"a run on {settings.folder} as it is was requested already; materialize by hand to try again"
    decision = Decision({**memory, "reason": reason}, reason)
    if data == before:
        return decision
    return replace(decision, reason=f"{', '.join(wanting)} must run on {settings.folder}", data=data)


def drift(root: Path, settings: Drift, memory: Memory) -> Decision:
    """Look for the value that means drift in a metrics file; a content of the file calls for one run at most.

    Raises:
        SourceError: the file or the key is missing, or the file is not JSON.
    """
    path = root / settings.file
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        problem = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise SourceError(
            f"{path} {problem}", remedy="run the stage that writes it, or correct automation.drift.file in params.yaml"
        ) from error
    value = look_up(content, settings.key)
    if value is None:
        raise SourceError(f"{path} has no `{settings.key}`", remedy="correct automation.drift.key in params.yaml")
    shown = f"{settings.file}: {settings.key} is {json.dumps(value, ensure_ascii=False)}"
    # 1 == True in Python, but a count of 1 is not a verdict.
    if value != settings.value or isinstance(value, bool) != isinstance(settings.value, bool):
        return Decision({**memory, "requested": None}, f"no drift: {shown}")
    data = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    if data == memory.get("requested"):
        return Decision(memory, f"a run was requested for this already: {shown}")
    return Decision({**memory, "requested": data}, f"drift: {shown}", data, stage=settings.stage)


def _listing(path: Path, shown: str) -> str:
    """Digest of names, sizes and times of modification of all files below ``path``."""
    try:
        files = (
            [path] if path.is_file() else [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
        )
        entries = []
        for file in sorted(files):
            state = file.stat()
            entries.append([file.relative_to(path).as_posix(), state.st_size, state.st_mtime_ns])
    except OSError as error:
        # Gone between two calls, or a broken link: somebody is at work, or must be.
        raise SourceError(
            f"{error.filename}: {error.strerror}", remedy="remove or mend it; the next look tries again"
        ) from error
    if not entries:
        problem = "is empty" if path.is_dir() else "does not exist"
        raise SourceError(
            f"{shown} {problem}: nothing is started",
            remedy="put the files back (is something not mounted?), or materialize by hand if this is meant",
        )
    return digest(entries)


def _content(path: Path) -> str:
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except FileNotFoundError:
        return MISSING
