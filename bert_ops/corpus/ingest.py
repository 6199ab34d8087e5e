"""Stage ``ingest``: sources to documents, sentences and labelled examples, larger than memory.

First pass: chunks of rows are cleaned, checked, cut into sentences and hashed by worker processes
(:mod:`~bert_ops.corpus.prepare`) and spooled to disk. Then copies, contradicting labels, near-duplicates and splits
are decided from some sixty bytes a row (:mod:`~bert_ops.corpus.decide`, :mod:`~bert_ops.corpus.near`). Second pass: the
rows become the tables of the corpus (:mod:`~bert_ops.corpus.assemble`). What is not used stands in a quarantine table
or in the table of duplicates, and the counts must add up.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ops.corpus import card, near
from bert_ops.corpus.assemble import Assembler
from bert_ops.corpus.conflicts import settle_conflicts
from bert_ops.corpus.decide import (
    KEPT,
    Decision,
    Rows,
    assign_splits,
    meaning,
    preference,
    remove_near,
    resolve_copies,
)
from bert_ops.corpus.facts import Tally, card_facts, count, listing, summarise
from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.prepare import Chunk, Refused, Settings, initialise, prepare, prepare_with
from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import Source
from bert_ops.corpus.sources import REMEDIES, SourceReport, read_source
from bert_ops.corpus.spool import Spool
from bert_ops.corpus.tables import TableWriter
from bert_ops.errors import InputError
from bert_ops.io import atomic_folder, require_folder, write_json
from bert_ops.processes import cores, map_in_order
from bert_ops.progress import Progress, note
from bert_ops.schema import load_section

QUARANTINE = pa.schema([(name, pa.string()) for name in ("source", "location", "step", "reason", "detail", "excerpt")])

#: A chunk ends after this many rows or characters, whichever comes first.
_CHUNK_ROWS = 4_000
_CHUNK_CHARACTERS = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bert-ops ingest``."""
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        action="append",
        metavar="FOLDER",
        help="folder that sources may lie in; give it once for each folder that the stage depends on in dvc.yaml",
    )
    parser.add_argument("--snapshots", type=Path, help="folder that `bert-ops snapshot` wrote: tables and far files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files; replaced as a whole")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the counts")
    parser.add_argument("--page", type=Path, required=True, help="HTML file for the data card")
    parser.add_argument(
        "--workers", type=int, default=cores(), help="processes that clean texts; the result does not depend on it"
    )


def run(arguments: argparse.Namespace) -> None:
    """Read all sources and write documents, sentences, examples, quarantine and counts.

    Raises:
        InputError: params.yaml or a source is wrong, or labels conflict and ``label_conflicts`` is ``fail``.
        StorageError: the disk is full; earlier outputs are left as they were.

    """
    params = load_section(arguments.params, "ingest", IngestParams)
    for folder in arguments.input:
        require_folder(folder, what="the input")
    if arguments.workers < 1:
        raise InputError(f"--workers is {arguments.workers}", allowed="at least 1")
    with atomic_folder(arguments.out) as out:
        metrics = build_corpus(
            params,
            inputs=arguments.input,
            snapshots=arguments.snapshots,
            out=out,
            page=arguments.page,
            workers=arguments.workers,
        )
    write_json(arguments.metrics, metrics)
    summarise(metrics)


def build_corpus(
    params: IngestParams, *, inputs: Sequence[Path], snapshots: Path | None, out: Path, page: Path, workers: int
) -> dict[str, Any]:
    """Read all sources and write the tables and the data card to an empty folder; returns the counts.

    Args:
        params: sources, and what is done to their rows.
        inputs: folders that sources may lie in.
        snapshots: folder of what the snapshot stage copied.
        out: an empty folder for the tables.
        page: HTML file for the data card.
        workers: processes that clean texts.

    Raises:
        InputError: a source is wrong, no text is left, or labels conflict and ``label_conflicts`` is ``fail``.

    """
    bands = near.plan_bands(params.near_duplicates) if params.near_duplicates.remove else None
    settings = Settings.of(params, bands)
    with scratch_folder(out) as scratch:
        spool = Spool(scratch, bands)
        try:
            with TableWriter(out / "quarantine.parquet", QUARANTINE) as quarantine:
                tally = first_pass(Reader(params, inputs, snapshots), settings, spool, quarantine, workers=workers)
                rows = spool.finish()
                decision = decide(rows, spool, params)
                settle_conflicts(rows, decision, spool=spool, params=params, tally=tally, quarantine=quarantine)
            if not len(decision.indices(KEPT)):
                raise InputError(
                    f"no document is left of the {tally.read:,} texts read: {listing(tally.reasons)}",
                    remedy="check the sources, ingest.clean and ingest.label_conflicts in params.yaml",
                )
            with Assembler(
                out, rows=rows, decision=decision, spool=spool, params=params, tasks=list(settings.tasks)
            ) as assembler:
                progress = Progress("writing the corpus", total=len(rows), unit="texts")
                for first, batch in spool.batches():
                    assembler.add(first, batch)
                    progress.update(first + len(batch))
                assembler.finish()
        finally:
            spool.close()
    metrics = count(rows, decision, assembler, tally, params)
    card.write_card(card_facts(metrics, assembler, tally), readme=out / "README.md", page=page)
    return metrics


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Yield a folder inside the output that is being made: if the process is killed, both are swept away together."""
    scratch = out / ".scratch"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


@dataclass
class Reader:
    """Chunks of all sources, one source after the other.

    Attributes:
        full: sources whose cap is reached; the rest of them is not read.
        reports: what reading found out, by source.

    """

    params: IngestParams
    inputs: Sequence[Path]
    snapshots: Path | None
    full: set[str] = field(default_factory=set)
    reports: dict[str, SourceReport] = field(default_factory=dict)

    def chunks(self) -> Iterator[Chunk]:
        """Yield chunks; a source ends early once it is in ``full``."""
        for name, source in self.params.sources.items():
            report = self.reports[name] = SourceReport()
            rows: list[Row | Rejection] = []
            characters = 0
            for row in read_source(
                name, source, reading=self.params.reading, inputs=self.inputs, snapshots=self.snapshots, report=report
            ):
                rows.append(row)
                characters += _characters(row)
                if len(rows) >= _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
                    yield Chunk(name, rows, report.facts() if source.has_cap else None)
                    rows, characters = [], 0
                    if name in self.full:
                        break
            if rows and name not in self.full:
                yield Chunk(name, rows, report.facts() if source.has_cap else None)


def _characters(row: Row | Rejection) -> int:
    """Characters that a row adds to a chunk."""
    if not isinstance(row, Row) or not isinstance(row.text, str):
        return 1
    return len(row.text) + (len(row.pair) if isinstance(row.pair, str) else 0)


def first_pass(reader: Reader, settings: Settings, spool: Spool, quarantine: TableWriter, *, workers: int) -> Tally:
    """Read, clean and spool all rows.

    Raises:
        InputError: a source cannot be read, holds a bad row and its policy is ``fail``, or has no row that can be used.

    """
    tally = Tally(settings.params, reader.reports)
    progress = Progress("reading", total=None, unit="texts")
    current: str | None = None
    results = map_in_order(prepare, reader.chunks(), workers=workers, initialise=initialise, arguments=(settings,))
    for chunk, prepared in results:
        if current is not None and chunk.source != current:
            close_source(current, tally)
        current = chunk.source
        if chunk.source in reader.full:
            continue
        source = settings.params.sources[chunk.source]
        room = tally.room(chunk.source, prepared)
        if room is not None:
            reader.full.add(chunk.source)
            prepared = prepare_with(Chunk(chunk.source, chunk.rows[:room]), settings)  # noqa: PLW2901 - the part of it that fits
        enforce(source, settings.params, prepared.refused)
        quarantine.write_rows({"step": one.step, **asdict(one.rejection)} for one in prepared.refused)
        spool.append(prepared)
        tally.add(chunk.source, prepared, capped=None if room is None else chunk.facts)
        progress.update(tally.read, rejected=f"{tally.rejected:,}")
    if current is not None:
        close_source(current, tally)
    return tally


def enforce(source: Source, params: IngestParams, refused: list[Refused]) -> None:
    """End the stage at the first bad row of a source whose policy is ``fail``.

    Raises:
        InputError: there is one.

    """
    policy = source.bad_rows or params.reading.bad_rows
    if refused and policy == "fail":
        first = refused[0].rejection
        raise InputError(
            f"{first.location} cannot be used: {first.reason}: {first.detail}",
            remedy="mend the row, or set `bad_rows: quarantine` for the source",
        )


def close_source(name: str, tally: Tally) -> None:
    """Say what a source gave.

    Raises:
        InputError: not one of its rows can be used.

    """
    counted = tally.sources[name]
    assert counted.read == counted.fit + sum(counted.reasons.values())
    if not counted.fit:
        assert counted.first is not None
        most = counted.reasons.most_common(1)[0][0]
        first = f"{counted.first.location}: {counted.first.detail}"
        raise InputError(
            f"the source {name} cannot be used: {first} ({most})"
            if counted.read == 1
            else f"not one of the {counted.read:,} rows of the source {name} can be used: {listing(counted.reasons)}; "
            f"the first is {first}",
            remedy=REMEDIES.get(most, f"check ingest.sources.{name} and ingest.clean in params.yaml"),
        )
    note(
        f"{name}: {counted.fit:,} texts from {getattr(tally.params.sources[name], 'path', 'its snapshot')}"
        + (f"; rejected {listing(counted.reasons)}" if counted.reasons else "")
        + ("; its cap is reached" if counted.capped else "")
    )


def decide(rows: Rows, spool: Spool, params: IngestParams) -> Decision:
    """Decide what becomes of each row."""
    decision = resolve_copies(rows)
    beside: list[near.NearPair] = []
    if spool.bands is not None:
        removed, beside = near.near_pairs(
            spool.bands,
            preference(rows, decision),
            key_of=spool.key_of,
            params=params.near_duplicates,
            meaning=meaning(rows, decision),
        )
        remove_near(decision, removed)
    assign_splits(rows, decision, beside=beside, pairs=spool.pairs(), params=params.split)
    return decision
