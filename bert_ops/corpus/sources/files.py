"""The files of a source: found in a fixed order, inside the stage's inputs, or in what the snapshot stage copied."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import is_url
from bert_ops.corpus.sources.reading import REMEDIES, FileFacts, Reading, Stop
from bert_ops.corpus.sources.snapshots import snapshot_files
from bert_ops.errors import InputError

#: A file in a content-addressed cache, to which files are linked where `cache.type` is `symlink`; it never changes.
_CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    Attributes:
        path: where it stands on this machine.
        shown: how messages and locations name it: the path as given, or the URL that it was copied from.

    """

    path: Path
    shown: str


#: Reads one file; what it raises as Stop becomes a rejection.
FileReader = Callable[[Reading, SourceFile, FileFacts], Iterator[Row | Rejection]]


def contained(path: Path, *, what: str, inputs: Sequence[Path]) -> Path:
    """Return ``path`` if it exists and lies, links resolved, in one of the input folders.

    Raises:
        InputError: it does not exist, or lies elsewhere, where DVC would not notice that it changes.

    """
    if not path.exists():
        raise InputError(
            f"{what}: {path} does not exist" + (" (a link that leads nowhere)" if path.is_symlink() else ""),
            remedy="check the path; bring own data as data/raw/README.md says, or fetch it with `dvc pull`",
        )
    resolved = path.resolve()
    inside = any(resolved.is_relative_to(folder.resolve()) for folder in inputs)
    if not inside and not _CACHED.search(resolved.as_posix()):
        raise InputError(
            f"{what}: {path} lies outside the stage's inputs"
            + ("" if resolved == path.absolute() else f" (it leads to {resolved})")
            + ", where a change would go unnoticed",
            allowed=f"a path in {' or '.join(map(str, inputs))}",
            remedy="copy the file there, or add its folder to `deps` and `--input` of the ingest stage in dvc.yaml",
        )
    return path


def read_files(reading: Reading, read: FileReader) -> Iterator[Row | Rejection]:
    """Yield what ``read`` makes of each file; a file that breaks or holds nothing is one rejection.

    Raises:
        InputError: nothing is there to read, by what params.yaml says, or a file lies outside the inputs.

    """
    source = reading.source
    assert not hasattr(source, "query")
    if is_url(source.path):
        yield from read_each(reading, (SourceFile(path, url) for path, url in snapshot_files(reading)), read)
        return
    key = f"`ingest.sources.{reading.name}.path`"
    paths, alone = _find(Path(source.path), getattr(source, "pattern", None), key=key, inputs=reading.inputs)
    for path in paths:
        problem = None if alone else _problem(path)
        if problem is not None:
            yield reading.reject(path.as_posix(), *problem)
            continue
        contained(path, what=key if alone else "link", inputs=reading.inputs)
        yield from read_each(reading, [SourceFile(path, path.as_posix())], read, alone=alone)


def read_each(
    reading: Reading, files: Iterable[SourceFile], read: FileReader, *, alone: bool = False
) -> Iterator[Row | Rejection]:
    """Read files one after the other.

    Raises:
        InputError: the file that params.yaml itself names (``alone``) cannot be opened.

    """
    for file in files:
        try:
            yield from _read_one(reading, file, read)
        except OSError as error:
            why = error.strerror or str(error)
            if alone:
                raise InputError(f"{file.shown} cannot be read: {why}", remedy=REMEDIES["unreadable_file"]) from error
            yield reading.reject(file.shown, "unreadable_file", f"cannot be read: {why}")


def _read_one(reading: Reading, file: SourceFile, read: FileReader) -> Iterator[Row | Rejection]:
    facts = FileFacts(file.shown, bytes=file.path.stat().st_size)
    reading.report.files.append(facts)
    try:
        for item in read(reading, file, facts):
            if isinstance(item, Rejection):
                facts.rejected += 1
            else:
                facts.rows += 1
            yield item
    except Stop as stop:
        facts.rejected += 1
        yield reading.reject(stop.location or file.shown, stop.reason, stop.detail)
    if not facts.rows and not facts.rejected:
        facts.rejected = 1
        yield reading.reject(file.shown, "empty_file", f"it holds no row ({facts.bytes:,} bytes)")


def _find(path: Path, pattern: str | None, *, key: str, inputs: Sequence[Path]) -> tuple[list[Path], bool]:
    """Files in the order of their names, and whether params.yaml names one file itself."""
    if not path.exists() and not path.is_symlink() and _GLOB.search(path.as_posix()):
        if pattern is not None:
            raise InputError(
                f"{key} is a glob, so the pattern {pattern!r} would do nothing", remedy="remove one of them"
            )
        return _matching(*_cut_glob(path), key=key, inputs=inputs), False
    contained(path, what=key, inputs=inputs)
    if path.is_dir():
        if pattern is None:
            raise InputError(
                f"{path} is a folder, so the source needs a `pattern`", remedy="add pattern: '*.txt' to the source"
            )
        return _matching(path, pattern, key=key, inputs=inputs), False
    if pattern is not None:
        raise InputError(
            f"{path} is a file, so the pattern {pattern!r} of the source would do nothing",
            remedy="remove the pattern, or name the folder in path",
        )
    if not path.is_file():
        raise InputError(f"{key}: {path} is neither a file nor a folder", remedy="name a file in the source's path")
    return [path], True


def _cut_glob(path: Path) -> tuple[Path, str]:
    """Folder before the first wildcard, and the pattern from there."""
    parts = path.parts
    first = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    return Path(*parts[:first]), "/".join(parts[first:])


def _matching(folder: Path, pattern: str, *, key: str, inputs: Sequence[Path]) -> list[Path]:
    contained(folder, what=key, inputs=inputs)
    try:
        found = sorted(
            (path for path in folder.glob(pattern) if not path.is_dir()),
            key=lambda path: path.relative_to(folder).as_posix(),
        )
    except (ValueError, NotImplementedError, OSError, RecursionError) as error:
        raise InputError(f"{key}: {pattern!r} in {folder} cannot be listed: {error}", remedy="correct it") from error
    if not found:
        raise InputError(f"no file in {folder} matches the pattern {pattern!r}", remedy="correct path or pattern")
    return found


def _problem(path: Path) -> tuple[str, str] | None:
    """Why a file that a pattern found is not opened."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return "unreadable_file", f"it cannot be read: {error.strerror}"
    if not stat.S_ISREG(mode):
        return "special_file", "it is a pipe, a socket or a device"
    return None
