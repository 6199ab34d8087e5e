"""Reading and writing artifacts so that nothing half-written ever stands in place of something whole.

Every writer here follows one rule: write beside the target under a temporary name, flush to disk, rename. A rename
within a file system is atomic (POSIX ``rename(2)``), so a reader sees the old file or the new one and never a part.
Every reader turns a missing or damaged file into an :class:`~bert_ops.errors.ArtifactError` that names the file.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_ops.errors import ArtifactError, InputError, StorageError

if TYPE_CHECKING:
    import pandas as pd

#: ``errno`` values that mean "the machine cannot store this", not "the program is wrong".
_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Translate failures of the disk into :class:`StorageError`.

    Arrow raises ``OSError`` with the ``errno`` only in its text, so the text is consulted too.
    """
    try:
        yield
    except OSError as error:
        text = str(error)
        full = error.errno in {errno.ENOSPC, errno.EDQUOT} or "No space left" in text
        if full or error.errno in _STORAGE_ERRNOS:
            raise StorageError(
                f"cannot write {target}: {'the disk is full' if full else text}",
                remedy="free some space, or check the folder's permissions; what stood there before is untouched",
            ) from error
        raise


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it replaces ``target``, on failure it is removed.

    Raises:
        StorageError: the disk is full or not writable; ``target`` is left as it was.

    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        try:
            yield temporary
            with temporary.open("rb+") as handle:
                os.fsync(handle.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; on success it replaces ``target`` as a whole.

    ``rename`` cannot replace a folder that holds files, so the old one steps aside first and is removed last.

    Raises:
        StorageError: the disk is full or not writable; ``target`` is left as it was.

    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    with storage_errors(target):
        _sweep(target)
        _remove(temporary)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    with path.open("rb+") as handle:
                        os.fsync(handle.fileno())
            if target.exists():
                target.replace(retired)
            try:
                temporary.replace(target)
            except OSError:
                if retired.exists():
                    retired.replace(target)
                raise
        finally:
            _remove(temporary)
            _remove(retired)


def _sweep(target: Path) -> None:
    """Clear away what killed processes left beside ``target``; one killed between two renames gets its old one back."""
    for kind in ("old", "tmp"):
        for path in target.parent.glob(f".{escape(target.name)}.*.{kind}"):
            number = path.name.removesuffix(f".{kind}").rpartition(".")[2]
            if not number.isdigit() or _is_alive(int(number)):
                continue
            if kind == "old" and not target.exists():
                path.replace(target)
            else:
                _remove(path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write JSON atomically: sorted keys and fixed layout, so that equal values are equal bytes.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot hold.

    """
    write_text(target, dump_json(value))


def write_tsv(target: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as tab-separated values with a header, as ``dvc plots`` reads them; a missing figure is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.DictWriter(text, columns, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(target, text.getvalue())


def dump_json(value: Any) -> str:
    """JSON as :func:`write_json` writes it."""
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path, *, made_by: str | None) -> Any:
    """Read a JSON artifact.

    Args:
        path: the file.
        made_by: the stage that writes it, for the remedy in the message; None if it comes from elsewhere.

    Raises:
        ArtifactError: the file is missing or not valid JSON.

    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing(path, made_by=made_by) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise damaged(path, str(error), made_by=made_by) from error


def write_parquet(target: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically and without timestamps, so that equal tables are equal bytes."""
    with atomic_file(target) as temporary:
        frame.to_parquet(temporary, engine="pyarrow", compression="zstd", index=False)


def read_parquet(path: Path, *, columns: list[str], made_by: str) -> pd.DataFrame:
    """Read the named columns of a Parquet artifact.

    Raises:
        ArtifactError: the file is missing, truncated, or lacks a column.

    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        present = pq.read_schema(path).names
        absent = [column for column in columns if column not in present]
        if absent:
            raise ArtifactError(
                f"{path} has no column {', '.join(absent)} (it has {', '.join(present)})", remedy=rerun(made_by)
            )
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError as error:
        raise missing(path, made_by=made_by) from error
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, (str(error) or type(error).__name__).splitlines()[0], made_by=made_by) from error


def missing(path: Path, *, made_by: str | None) -> ArtifactError:
    """Build the error for an artifact that is not there."""
    return ArtifactError(f"{path} does not exist", remedy=rerun(made_by))


def damaged(path: Path, why: str, *, made_by: str | None) -> ArtifactError:
    """Build the error for an artifact that is there but cannot be read."""
    return ArtifactError(f"{path} is damaged: {why}", remedy=rerun(made_by))


def rerun(stage: str | None) -> str:
    """Say how to make an artifact again, or what to do about one that no stage makes."""
    if stage is None:
        return "check that all files are there and whole, or get them again from where they come"
    return f"make it again with `dvc repro --force --single-item {stage}`"


def require_folder(path: Path, *, what: str) -> Path:
    """Return ``path`` if it is a folder.

    Raises:
        InputError: it is missing or is a file.

    """
    if not path.is_dir():
        raise InputError(f"{what} {path} is not a folder", remedy="check the path, or create the folder")
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; constant memory."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder``, independent of order and times."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
