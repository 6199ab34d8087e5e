"""Datasets that Hugging Face `datasets` saved to disk: Arrow streams, memory-mapped, read without that package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import HuggingFaceSource, is_url
from bert_ops.corpus.sources.files import SourceFile, contained, read_each
from bert_ops.corpus.sources.parquet import rows_of, wanted_columns
from bert_ops.corpus.sources.reading import FileFacts, Reading, Stop
from bert_ops.corpus.sources.rows import row_maker
from bert_ops.corpus.sources.snapshots import snapshot_files, snapshot_folder
from bert_ops.errors import InputError

#: What ends a stream of Arrow; without it, the stream was cut.
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_SLICE_ROWS = 256


def read_huggingface(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the rows of a dataset in the order in which it was saved.

    Raises:
        InputError: the folder is no saved dataset, or holds no such subset.

    """
    source = reading.source
    assert isinstance(source, HuggingFaceSource)
    folder, inputs = Path(source.path), reading.inputs
    if is_url(source.path):
        copied = {url: path for path, url in snapshot_files(reading)}
        folder = snapshot_folder(reading) / "files"
        inputs = [folder]
        shown = {path: url for url, path in copied.items()}
    else:
        contained(folder, what=f"`ingest.sources.{reading.name}.path`", inputs=inputs)
        shown = {}
    paths = data_files(folder, source.subset, name=reading.name)
    for path in paths:
        contained(path, what="file of the dataset", inputs=inputs)
    make = row_maker(reading)

    def read(reading: Reading, file: SourceFile, _: FileFacts) -> Iterator[Row | Rejection]:
        file.path.open("rb").close()
        first = 1
        try:
            with pa.memory_map(str(file.path)) as mapped, pa.ipc.open_stream(mapped) as stream:
                columns = wanted_columns(reading, stream.schema.names, where=file.shown)
                for batch in stream:
                    for start in range(0, batch.num_rows, _SLICE_ROWS):
                        part = batch.select(columns).slice(start, _SLICE_ROWS)
                        yield from _checked_rows(reading, part, make, where=file.shown, first=first + start)
                    first += batch.num_rows
                if mapped.size() < len(_END) or mapped.read_at(len(_END), mapped.size() - len(_END)) != _END:
                    raise Stop("broken_file", f"the Arrow stream ends too early, after row {first - 1}")
        except (pa.ArrowException, OSError) as error:
            detail = (str(error) or type(error).__name__).splitlines()[0]
            raise Stop("broken_file", f"no Arrow stream from row {first} on: {detail}") from error

    yield from read_each(reading, [SourceFile(path, shown.get(path, path.as_posix())) for path in paths], read)


def _checked_rows(
    reading: Reading, part: pa.RecordBatch, make: Any, *, where: str, first: int
) -> Iterator[Row | Rejection]:
    """Rows of a batch that came from a file unchecked: offsets outside of it would end the process."""
    try:
        part.validate(full=True)
    except pa.ArrowInvalid:
        for place in range(part.num_rows):
            row = part.slice(place, 1)
            try:
                row.validate(full=True)
            except pa.ArrowInvalid as error:
                yield reading.reject(f"{where} row {first + place}", "bad_bytes", f"a value cannot be decoded: {error}")
            else:
                yield from rows_of(reading, row, make, where=where, first=first + place)
        return
    yield from rows_of(reading, part, make, where=where, first=first)


def data_files(folder: Path, subset: str | None, *, name: str) -> list[Path]:
    """Arrow files of a saved dataset, in order.

    Raises:
        InputError: the folder is no saved dataset, or the subset is missing, unknown or superfluous.

    """
    key = f"ingest.sources.{name}.subset"
    together = folder / "dataset_dict.json"
    if together.is_file():
        subsets = _read(together).get("splits")
        known = [str(one) for one in subsets] if isinstance(subsets, list) else []
        if subset not in known:
            raise InputError(
                f"{folder} holds several datasets, and `{key}` is {subset!r}",
                allowed=", ".join(known) or "none: it holds no dataset",
                remedy=f"set {key}; name a source for each dataset to use several",
            )
        folder = folder / subset
    elif subset is not None:
        raise InputError(
            f"{folder} holds a single dataset, so `{key}`: {subset!r} would do nothing", remedy=f"remove {key}"
        )
    state = folder / "state.json"
    if not state.is_file():
        raise InputError(
            f"{folder} is no dataset saved to disk: it holds no state.json",
            allowed="a folder written by save_to_disk of Hugging Face datasets",
            remedy="save the dataset with `dataset.save_to_disk(folder)`",
        )
    files = _read(state).get("_data_files")
    names = (
        [file.get("filename") if isinstance(file, dict) else None for file in files]
        if isinstance(files, list)
        else [None]
    )
    if any(not isinstance(one, str) or Path(one).name != one for one in names):
        raise InputError(f"{state} is damaged: `_data_files` names no files of its folder", remedy="save it again")
    return [folder / str(one) for one in names]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="save the dataset again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: it holds no object", remedy="save the dataset again")
    return value
