"""Reading what the snapshot stage copied: its files and rows, checked against what it wrote down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_ops.corpus.source_params import public_url
from bert_ops.corpus.sources.reading import Reading
from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import file_sha256, read_json, rerun

STAGE = "snapshot"
RECORD = "snapshot.json"


def snapshot_folder(reading: Reading) -> Path:
    """Folder of the snapshot of a source.

    Raises:
        InputError: no folder of snapshots was given.

    """
    if reading.snapshots is None:
        raise InputError(
            f"the source {reading.name} is read from a snapshot, and no folder of snapshots was given",
            remedy="run the snapshot stage and give its folder with --snapshots",
        )
    return reading.snapshots / reading.name


def snapshot_record(reading: Reading, **expected: Any) -> dict[str, Any]:
    """What the snapshot stage wrote down of a source.

    Raises:
        ArtifactError: the snapshot is missing, damaged, or was made of something else than ``expected``.

    """
    path = snapshot_folder(reading) / RECORD
    record = read_json(path, made_by=STAGE)
    if not isinstance(record, dict):
        raise ArtifactError(f"{path} is damaged: it holds no object", remedy=rerun(STAGE))
    for name, value in expected.items():
        if record.get(name) != value:
            raise ArtifactError(
                f"{path} is a snapshot of another source: {name} is {record.get(name)!r} there and {value!r} in "
                "params.yaml",
                remedy=rerun(STAGE),
            )
    return record


def checked(path: Path, sha256: object) -> Path:
    """Return a copied file if its bytes are those that were copied.

    Raises:
        ArtifactError: it is missing or has changed.

    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", remedy=rerun(STAGE))
    if file_sha256(path) != sha256:
        raise ArtifactError(f"{path} is damaged: it is not what the snapshot stage wrote", remedy=rerun(STAGE))
    return path


def snapshot_files(reading: Reading) -> Iterator[tuple[Path, str]]:
    """Yield (copied file, URL that it came from) in the order of the URLs.

    Raises:
        ArtifactError: the snapshot is missing, damaged or of another source.

    """
    source: Any = reading.source
    record = snapshot_record(
        reading, kind="files", path=public_url(source.path), pattern=getattr(source, "pattern", None)
    )
    folder = snapshot_folder(reading) / "files"
    for file in record["files"]:
        yield checked(folder / file["name"], file["sha256"]), file["url"]
