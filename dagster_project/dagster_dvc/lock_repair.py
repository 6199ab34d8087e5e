"""Keeps ``dvc.lock`` whole, and tells whether a stage is still running, whoever was killed and when.

DVC rewrites ``dvc.lock`` in place, so a process that is killed meanwhile leaves it empty or cut. DVC takes an empty
file for a pipeline that never ran, and forgets every entry. A good copy is therefore kept in ``.dvc/tmp``. DVC writes
the file only while it holds its repository lock, which the kernel frees when a process dies: a file that is broken
while *we* hold that lock is nobody's work in progress, not even a user's own ``dvc repro``, and may be mended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_FOLDER = "dagster_dvc"
_PAUSE_S = 0.05
#: A DVC process may hold the repository's lock while it saves large outputs; it has read dvc.lock by then.
_PATIENCE_S = 10.0
_RUNNING, _CONFLICT = b"running\n", b"<<<<<<<"


def mend(root: Path, *, killed: bool = False) -> list[str]:
    """Mend what killed processes left broken, and keep a good copy of ``dvc.lock``.

    Cheap if nothing is broken and nothing changed. What cannot be mended is left to its reader to complain about.

    Args:
        root: folder that holds ``dvc.yaml``.
        killed: a DVC process of this project is known to have died by a signal.

    Returns:
        What was mended, a sentence each.
    """
    temporary = _dvc_temporary(root)
    if temporary is None:
        return []
    done = _mend_rwlock(temporary)
    path, kept = root / "dvc.lock", _folder(root, temporary) / "dvc.lock"
    with _marks_of_the_dead(kept.parent) as marks:
        killed = killed or bool(marks)
        content = _bytes(path)
        if not killed and (content is None or content == _bytes(kept)):
            return done
        patience_s = _PATIENCE_S if killed or _stages(content or b"") is None else 0.0
        with _exclusive(temporary / "lock", patience_s=patience_s) as locked:
            if locked:
                done += _mend_lock_file(path, kept, incomplete=killed)
                for mark in marks:
                    os.ftruncate(mark, 0)
    return done


@contextlib.contextmanager
def running(root: Path, stage: str, *, patience_s: float, on_wait: Callable[[], None]) -> Iterator[int | None]:
    """Hold the right to run a stage: nobody else runs it through this package meanwhile, killed remains included.

    The descriptor that it gives is to be handed to the supervisor, which keeps the right until its last process ended.
    A mark that outlives its holders tells :func:`mend` that they were killed.

    Args:
        root: the project.
        stage: name of the stage.
        patience_s: how long to wait for whoever runs it; then it goes on and leaves the answer to DVC.
        on_wait: called once if it has to wait.
    """
    temporary = _dvc_temporary(root)
    if temporary is None:
        yield None
        return
    folder = _folder(root, temporary)
    folder.mkdir(parents=True, exist_ok=True)
    deadline, told = time.monotonic() + patience_s, False
    descriptor = os.open(folder / f"{stage.replace('/', '%')}.running", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not (free := try_lock(descriptor)) and time.monotonic() < deadline:
            if not told:
                on_wait()
            told = True
            time.sleep(_PAUSE_S)
        if not free:
            yield None
            return
        mend(root, killed=os.fstat(descriptor).st_size > 0)
        os.pwrite(descriptor, _RUNNING, 0)
        yield descriptor
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _mend_lock_file(path: Path, kept: Path, *, incomplete: bool) -> list[str]:
    """With DVC's lock held: restore a broken file, add what a killed process cut off, or keep a copy of a good one."""
    content, copy = _bytes(path), _bytes(kept) or b""
    if content is None:
        return []
    now, before = _stages(content), _stages(copy)
    if now is None:
        return _restore(path, kept, content=content, copy=copy if before is not None else None)
    lost = [name for name in before or {} if name not in now] if incomplete else []
    if lost:
        _write(path, _with_entries(content, copy, lost), by=kept.parent)
        return [f"{path} had lost entries when a process was killed; added again: {', '.join(lost)}"]
    if content != copy:
        _write(kept, content)
    return []


def _restore(path: Path, kept: Path, *, content: bytes, copy: bytes | None) -> list[str]:
    """Put the copy in the place of a broken file; without one, only an empty file can be dealt with: it holds none."""
    if copy is not None and _CONFLICT not in content:
        _write(kept.with_name("dvc.lock.broken"), content)
        _write(path, copy, by=kept.parent)
        return [f"{path} was left broken by a process that was killed; restored as it was before the last step"]
    if content.strip():
        return []
    path.unlink()
    return [f"{path} was empty and is removed: no copy of it was ever kept"]


def _with_entries(content: bytes, copy: bytes, names: list[str]) -> bytes:
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    merged, source = (parse_yaml_for_update(text.decode(), "dvc.lock") for text in (content, copy))
    for name in names:
        merged["stages"][name] = source["stages"][name]
    return str(dumps_yaml(merged)).encode()


def _stages(content: bytes) -> Mapping[str, Any] | None:
    """Entries of a whole ``dvc.lock``; ``None`` for one that is empty, cut or damaged."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    try:
        found = COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode(), "dvc.lock"))
    except (YAMLFileCorruptedError, UnicodeDecodeError, Invalid):
        return None
    stages = found.get("stages")
    if not isinstance(stages, Mapping) or not content.endswith(b"\n"):
        return None
    # A hash that was cut still is a text: MD5 has 32 digits, and ".dir" is added for a folder.
    items = [item for entry in stages.values() for kind in ("deps", "outs") for item in entry.get(kind) or ()]
    whole = all(len(item["md5"].removesuffix(".dir")) == 32 for item in items if "md5" in item)
    return stages if whole else None


def _mend_rwlock(temporary: Path) -> list[str]:
    """Mend DVC's table of paths in use.

    DVC rewrites it in place as well, and then refuses to run. It removes entries of dead processes by itself, but
    not if another process has got the same id since (usual after a container was restarted).
    """
    import psutil

    path = temporary / "rwlock"
    content = _bytes(path)
    if content is None or (b'"pid"' not in content and content.endswith(b"}")):
        return []
    with _exclusive(temporary / "rwlock.lock", patience_s=2.0) as locked:
        content = _bytes(path)
        if not locked or content is None:
            return []
        try:
            table = json.loads(content)
        except ValueError:
            _write(path, b"{}")
            return [f"{path} was left broken by a process that was killed; emptied"]
        written_at = path.stat().st_mtime

        def is_of_another(entry: Mapping[str, Any]) -> bool:
            try:
                return bool(psutil.Process(entry["pid"]).create_time() > written_at + 1.0)
            except psutil.Error:
                return False

        read = {p: [e for e in entries if not is_of_another(e)] for p, entries in table.get("read", {}).items()}
        write = {p: e for p, e in table.get("write", {}).items() if not is_of_another(e)}
        mended = {"read": {p: entries for p, entries in read.items() if entries}, "write": write}
        mended = {mode: entries for mode, entries in mended.items() if entries}
        if mended == {mode: entries for mode, entries in table.items() if entries}:
            return []
        _write(path, json.dumps(mended).encode())
    return [f"{path} named processes that are gone, whose ids others have now; removed them"]


@contextlib.contextmanager
def _exclusive(path: Path, *, patience_s: float) -> Iterator[bool]:
    """Take one of DVC's file locks as DVC does; gives whether it was free in time.

    ``core.hardlink_lock`` (for file systems without working locks) is not followed: such a project is not mended.
    """
    from dvc.config import Config

    if Config(str(path.parent.parent), validate=False)["core"].get("hardlink_lock"):
        yield False
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + patience_s
        while not (free := try_lock(descriptor)) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        yield free
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take a file lock; tell whether nobody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _marks_of_the_dead(folder: Path) -> Iterator[list[int]]:
    """Marks of stages that were running when all who watched over them were killed; held, so that none is run now."""
    with contextlib.ExitStack() as stack:
        found = []
        for path in folder.glob("*.running"):
            if path.stat().st_size:
                descriptor = os.open(path, os.O_RDWR)
                stack.callback(os.close, descriptor)
                if try_lock(descriptor):
                    found.append(descriptor)
        yield found


def _dvc_temporary(root: Path) -> Path | None:
    """``.dvc/tmp`` of the repository that the project lies in."""
    for folder in (root, *root.parents):
        if (folder / ".dvc").is_dir():
            temporary = folder / ".dvc" / "tmp"
            temporary.mkdir(exist_ok=True)
            return temporary
    return None


def _folder(root: Path, temporary: Path) -> Path:
    inner = root.relative_to(temporary.parent.parent).as_posix()
    return temporary / _FOLDER / inner.replace("/", "%")


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes, *, by: Path | None = None) -> None:
    """Replace a file in one step; ``by`` is where the new one is written first."""
    folder = by or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{path.name}.{os.getpid()}.new"
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        temporary.chmod(path.stat().st_mode)
    temporary.replace(path)
