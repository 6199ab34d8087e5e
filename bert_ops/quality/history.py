"""The verdicts of earlier runs, so that a report can show how the data moved.

The file stands outside the outputs of the stages, which DVC deletes and restores. A record says what the data and the
thresholds were (by hash) and what came of it, and no time: the same data leaves one record however often it is checked,
and its report always shows the same history, the one up to that record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bert_ops.io import dump_json, file_sha256, write_text
from bert_ops.progress import note


def data_hash(files: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def values_hash(values: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(dump_json(values).encode()).hexdigest()


def remember(path: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a record, unless one with the same ``data`` and ``params`` stands there, which it then replaces.

    Returns:
        The records up to this one, oldest first.

    Raises:
        StorageError: the file could not be written.

    """
    records = read(path)
    key = (record["data"], record["params"])
    place = next((i for i, old in enumerate(records) if (old["data"], old["params"]) == key), len(records))
    if records[place : place + 1] != [record]:
        records[place : place + 1] = [record]
        lines = (json.dumps(entry, ensure_ascii=False, sort_keys=True) for entry in records)
        write_text(path, "".join(f"{line}\n" for line in lines))
    return records[: place + 1]


def read(path: Path) -> list[dict[str, Any]]:
    """Read the records; a line that is none is left out with a message."""
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and {"data", "params", "evaluated", "failed", "warned", "counts"} <= record.keys():
            records.append(record)
        else:
            note(f"{path}:{number} is no record of an earlier validation and is left out")
    return records
