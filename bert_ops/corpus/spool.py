"""Rows on disk until their fate is decided: written once, read once in order, and by key at random."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ops.corpus.decide import PAIR_ROW, ROW, Rows
from bert_ops.corpus.near import BandFiles, Bands
from bert_ops.corpus.prepare import SCHEMA, Prepared


class Spool:
    """Rows in a folder. Append, then :meth:`finish`, then read; memory holds a few numbers a row.

    Args:
        folder: an empty folder; its files are temporary.
        bands: how signatures are cut, or None.

    """

    def __init__(self, folder: Path, bands: Bands | None) -> None:
        self.folder = folder
        self.bands = None if bands is None else BandFiles(folder, bands)
        self._open = ExitStack()
        self._rows = self._open.enter_context((folder / "rows.bin").open("wb"))
        self._pairs = self._open.enter_context((folder / "pairs.bin").open("wb"))
        self._keys = self._open.enter_context((folder / "keys.bin").open("wb"))
        self._lengths = self._open.enter_context((folder / "lengths.bin").open("wb"))
        sink = self._open.enter_context(pa.OSFile(str(folder / "texts.arrow"), "wb"))
        self._texts = self._open.enter_context(pa.ipc.new_stream(sink, SCHEMA))
        self.count = 0
        self.key_ends = np.zeros(1, np.int64)
        self._reader: int | None = None

    def append(self, prepared: Prepared) -> None:
        """Add the fit rows of a chunk."""
        if not len(prepared.rows):
            return
        self._texts.write_batch(prepared.batch)
        self._rows.write(prepared.rows.tobytes())
        if len(prepared.pairs):
            pairs = prepared.pairs.copy()
            pairs["row"] += self.count
            self._pairs.write(pairs.tobytes())
        self._keys.write(prepared.keys)
        self._lengths.write(prepared.key_bytes.tobytes())
        if self.bands is not None:
            assert prepared.bands is not None
            self.bands.append(prepared.bands)
        self.count += len(prepared.rows)

    def finish(self) -> Rows:
        """End writing; returns the numbers of all rows."""
        self._open.close()
        lengths = np.fromfile(self.folder / "lengths.bin", np.int64)
        self.key_ends = np.concatenate([[0], np.cumsum(lengths)])
        self._reader = os.open(self.folder / "keys.bin", os.O_RDONLY)
        return np.fromfile(self.folder / "rows.bin", ROW)

    def pairs(self) -> Rows:
        """Numbers of the rows that are pairs; call it after :meth:`finish`."""
        return np.fromfile(self.folder / "pairs.bin", PAIR_ROW)

    def close(self) -> None:
        """Let go of the files."""
        self._open.close()
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    def key_of(self, row: int) -> str:
        """Return the key of a row."""
        assert self._reader is not None
        start, end = int(self.key_ends[row]), int(self.key_ends[row + 1])
        return os.pread(self._reader, end - start, start).decode()

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (number of the first row, rows by SCHEMA) in order."""
        first = 0
        # Read, not mapped: mapped pages would count as memory of this process.
        with pa.OSFile(str(self.folder / "texts.arrow"), "rb") as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield first, batch
                first += len(batch)

    def pick(self, rows: set[int]) -> dict[int, dict[str, Any]]:
        """Read some rows, by number; one pass over the file."""
        found: dict[int, dict[str, Any]] = {}
        if not rows:
            return found
        wanted = np.array(sorted(rows))
        for first, batch in self.batches():
            inside = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + len(batch))]
            if len(inside):
                for row, value in zip(inside.tolist(), batch.take(pa.array(inside - first)).to_pylist(), strict=True):
                    found[row] = value
        return found
