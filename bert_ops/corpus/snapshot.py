"""Stage ``snapshot``: copies what DVC cannot see change, databases and remote files, so that a run can be repeated.

Each SQL source becomes ``NAME/rows.parquet``, each source whose path is a URL becomes ``NAME/files/``; beside it stands
``NAME/snapshot.json`` with what was asked, the number of rows or bytes, and their hash. ``ingest`` reads these copies
and nothing else. To take a new snapshot of a changed table: ``dvc repro --force --single-item snapshot``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.snapshot_sql import copy_rows
from bert_ops.corpus.snapshot_urls import copy_files
from bert_ops.corpus.source_params import Source, SqlSource, is_url
from bert_ops.corpus.sources.snapshots import RECORD
from bert_ops.io import atomic_folder, require_folder, write_json
from bert_ops.progress import note
from bert_ops.schema import load_section


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bert-ops snapshot``."""
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        action="append",
        metavar="FOLDER",
        help="folder that database files may lie in; give it once for each folder that the stage depends on",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the copies; replaced as a whole")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for row counts, sizes and hashes")


def run(arguments: argparse.Namespace) -> None:
    """Copy the rows of each SQL source and the files of each source with a URL.

    Raises:
        InputError: params.yaml is wrong, or a database or a remote file cannot be read; no message holds a password.
        StorageError: the disk is full; earlier copies are left as they were.

    """
    params = load_section(arguments.params, "ingest", IngestParams)
    for folder in arguments.input:
        require_folder(folder, what="the input")
    facts: dict[str, dict[str, Any]] = {}
    with atomic_folder(arguments.out) as out:
        for name, source in params.sources.items():
            if needs_snapshot(source):
                facts[name] = _copy(name, source, out=out / name, inputs=arguments.input)
        write_json(out / RECORD, sorted(facts))
    write_json(arguments.metrics, {"sources": facts})
    if not facts:
        note("no source is a database or a URL: nothing to copy")


def needs_snapshot(source: Source) -> bool:
    """Whether DVC cannot see a source change: a database, or files behind a URL."""
    return isinstance(source, SqlSource) or is_url(source.path)


def _copy(name: str, source: Source, *, out: Path, inputs: list[Path]) -> dict[str, Any]:
    """Copy a source to a folder of its own and write down what it was; returns its metrics."""
    out.mkdir()
    if isinstance(source, SqlSource):
        record = copy_rows(name, source, out=out, inputs=inputs)
        note(f"{name}: {record['rows']:,} rows from {record['url']}")
        metrics = {key: record[key] for key in ("rows", "content_hash")}
    else:
        record = copy_files(name, source, out=out)
        note(f"{name}: {len(record['files']):,} files, {record['bytes']:,} bytes from {record['path']}")
        metrics = {"files": len(record["files"]), **{key: record[key] for key in ("bytes", "content_hash")}}
    write_json(out / RECORD, record)
    return metrics
