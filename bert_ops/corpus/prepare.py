"""A chunk of rows to what the corpus needs of them: cleaned, cut into sentences, hashed; runs in worker processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_ops.corpus.cleaning.cleaner import Cleaner
from bert_ops.corpus.cleaning.counts import StepCount, StepExample
from bert_ops.corpus.decide import PAIR_ROW, ROW, Rows
from bert_ops.corpus.examine import Examined, examine
from bert_ops.corpus.keys import PAIR, U64, Keys
from bert_ops.corpus.near import Bands, band_hashes
from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.records import Draft, Rejection, Row, Unfit, excerpt, joined
from bert_ops.corpus.sentences import split_offsets
from bert_ops.corpus.split import place

#: What stands on disk of each row until its fate is decided.
SCHEMA = pa.schema(
    [
        ("location", pa.string()),
        ("text", pa.string()),
        ("pair", pa.string()),
        ("sentences", pa.list_(pa.string())),
        ("words", pa.list_(pa.list_(pa.uint16()))),
        ("language", pa.string()),
        ("label", pa.string()),
        ("spans", pa.string()),
        ("content_hash", pa.binary(32)),
    ]
)

#: Words longer than this are cut: their length is stored in 16 bits.
_MAX_WORD = 65_535


@dataclass(frozen=True)
class Chunk:
    """Rows of one source as they were read, in their order; what could not be read stands among them.

    ``facts`` is what reading had found out by then, for sources with a cap: how far the reader is ahead when the cap is
    reached depends on the number of workers.
    """

    source: str
    rows: list[Row | Rejection]
    facts: dict[str, Any] | None = None


@dataclass(frozen=True)
class Refused:
    """A row that is not used, and the step that refused it."""

    position: int
    step: str
    rejection: Rejection


@dataclass(frozen=True)
class Prepared:
    """What became of a chunk.

    Attributes:
        batch: the N fit rows, by SCHEMA.
        rows: (N,) by :data:`bert_ops.corpus.decide.ROW`.
        pairs: (N,) by :data:`bert_ops.corpus.decide.PAIR_ROW` if the source has pairs, else (0,).
        positions: (N,) place of each in the chunk.
        keys: keys of the rows, UTF-8, one after the other.
        key_bytes: (N,) their lengths.
        bands: (N, bands) hashes, or None if near-duplicates are not looked for.
        refused: the other rows, in order.
        steps: what the cleaning steps did.
        examples: texts before and after a step.

    """

    batch: pa.RecordBatch
    rows: Rows
    pairs: Rows
    positions: list[int]
    keys: bytes
    key_bytes: np.ndarray[Any, np.dtype[np.int64]]
    bands: U64 | None
    refused: list[Refused]
    steps: list[StepCount]
    examples: list[StepExample]


@dataclass(frozen=True)
class Settings:
    """What a worker must know."""

    params: IngestParams
    bands: Bands | None
    sources: dict[str, int]
    tasks: dict[str, int]

    @classmethod
    def of(cls, params: IngestParams, bands: Bands | None) -> Settings:
        """Number the sources and the tasks."""
        tasks = sorted({source.task for source in params.sources.values() if source.task is not None})
        return cls(
            params, bands, {name: i for i, name in enumerate(params.sources)}, {t: i for i, t in enumerate(tasks)}
        )


_SETTINGS: Settings


def initialise(settings: Settings) -> None:
    """Give this process its settings."""
    global _SETTINGS  # noqa: PLW0603 - a worker process has one job, and a pool has no other way to say which
    _SETTINGS = settings


def prepare(chunk: Chunk) -> Prepared:
    """Prepare a chunk with this process's settings."""
    return prepare_with(chunk, _SETTINGS)


def prepare_with(chunk: Chunk, settings: Settings) -> Prepared:
    """Clean and check the rows of a chunk; each becomes a row of the batch or is refused."""
    source = settings.params.sources[chunk.source]
    cleaner = Cleaner(settings.params.clean)
    fit: list[tuple[int, Row, Examined]] = []
    refused: list[Refused] = []
    for position, row in enumerate(chunk.rows):
        if isinstance(row, Rejection):
            refused.append(Refused(position, "read", row))
            continue
        try:
            fit.append((position, row, examine(row, source=source, cleaner=cleaner)))
        except Unfit as unfit:
            refused.append(_refuse(chunk.source, position, row, unfit))
    firsts, seconds = keys_of(fit)
    empty = [i for i, first in enumerate(firsts) if not first or (seconds is not None and not seconds[i])]
    if empty:
        no_letters = Unfit("no_letters", "only punctuation or symbols")
        refused += [_refuse(chunk.source, fit[i][0], fit[i][1], no_letters) for i in empty]
        refused.sort(key=lambda one: one.position)
        gone = set(empty)
        fit = [one for i, one in enumerate(fit) if i not in gone]
        firsts, seconds = keys_of(fit)
    assert len(fit) + len(refused) == len(chunk.rows)
    strings = firsts if seconds is None else [f"{a}{PAIR}{b}" for a, b in zip(firsts, seconds, strict=True)]
    encoded = [key.encode() for key in strings]
    hashes = [hashlib.sha256(key).digest() for key in encoded]
    examined = [item for _, _, item in fit]
    return Prepared(
        batch=_batch([(row.location, item) for _, row, item in fit], hashes),
        rows=_numbers(chunk.source, examined, keys=firsts, hashes=hashes, settings=settings),
        pairs=_pair_rows(firsts, seconds),
        positions=[position for position, _, _ in fit],
        keys=b"".join(encoded),
        key_bytes=np.fromiter(map(len, encoded), np.int64, len(encoded)),
        bands=_bands(strings, settings) if fit else None,
        refused=refused,
        steps=cleaner.counts(),
        examples=cleaner.examples(),
    )


def keys_of(fit: list[tuple[int, Row, Examined]]) -> tuple[list[str], list[str] | None]:
    """Keys of the texts, and those of the second texts if the rows are pairs."""
    firsts = Keys.of([item.draft.text for _, _, item in fit]).strings()
    seconds = [item.pair.text for _, _, item in fit if item.pair is not None]
    return firsts, Keys.of(seconds).strings() if seconds else None


def _pair_rows(firsts: list[str], seconds: list[str] | None) -> Rows:
    """Numbers of both texts of each pair; that of the first is what a row has as ``high`` whose only text it is."""
    rows = np.zeros(0 if seconds is None else len(seconds), PAIR_ROW)
    for name, keys in (("first", firsts), ("second", seconds or [])):
        if len(rows):
            rows[name] = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") for key in keys]
    rows["row"] = np.arange(len(rows))
    return rows


def _bands(keys: list[str], settings: Settings) -> U64 | None:
    if settings.bands is None:
        return None
    return band_hashes(Keys.of_keys(keys), ngram=settings.params.near_duplicates.ngram, bands=settings.bands)


def _refuse(source: str, position: int, row: Row, unfit: Unfit) -> Refused:
    text = joined(row.text, row.pair) if isinstance(row.text, str) and isinstance(row.pair, str) else row.text
    rejection = Rejection(source, row.location, unfit.reason, unfit.detail, excerpt(text))
    return Refused(position, unfit.step, rejection)


def _batch(rows: list[tuple[str, Examined]], hashes: list[bytes]) -> pa.RecordBatch:
    sentences, words = [], []
    for _, item in rows:
        offsets = split_offsets(item.draft.text, breaks=item.draft.breaks)
        sentences.append([item.draft.text[start:end] for start, end in offsets])
        words.append(None if item.draft.word_starts is None else words_of(item.draft, offsets))
        if item.pair is not None:
            offsets = split_offsets(item.pair.text, breaks=item.pair.breaks)
            sentences[-1] += [item.pair.text[start:end] for start, end in offsets]
    columns = [
        pa.array([location for location, _ in rows], pa.string()),
        pa.array([item.draft.text for _, item in rows], pa.string()),
        pa.array([None if item.pair is None else item.pair.text for _, item in rows], pa.string()),
        pa.array(sentences, pa.list_(pa.string())),
        pa.array(words, pa.list_(pa.list_(pa.uint16()))),
        pa.array([item.draft.language for _, item in rows], pa.string()),
        pa.array([item.label for _, item in rows], pa.string()),
        pa.array([item.spans for _, item in rows], pa.string()),
        pa.array(hashes, pa.binary(32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def words_of(draft: Draft, offsets: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Lengths of the given words of each sentence; the beginning of a sentence begins a word."""
    assert draft.word_starts is not None
    starts = np.asarray(draft.word_starts, np.int64)
    lengths = []
    for start, end in offsets:
        inner = starts[np.searchsorted(starts, start, "right") : np.searchsorted(starts, end)]
        bounds = [start, *inner.tolist(), end]
        words = (draft.text[first:last].strip() for first, last in pairwise(bounds))
        lengths.append([min(len(word), _MAX_WORD) for word in words if word])
    return lengths


def whole_texts(batch: pa.RecordBatch) -> pa.Array:
    """The text of each row of SCHEMA, both texts of a pair as one (as :func:`bert_ops.corpus.records.joined` does)."""
    if batch["pair"].null_count == len(batch):
        return batch["text"]
    return pc.binary_join_element_wise(batch["text"], batch["pair"], "\n", null_handling="skip")


def _numbers(name: str, items: list[Examined], *, keys: list[str], hashes: list[bytes], settings: Settings) -> Rows:
    source = settings.params.sources[name]
    rows = np.zeros(len(items), ROW)
    salt = settings.params.split.salt
    rows["high"] = [int.from_bytes(digest[:8], "big") for digest in hashes]
    rows["low"] = [int.from_bytes(digest[8:16], "big") for digest in hashes]
    rows["source"] = settings.sources[name]
    rows["task"] = -1 if source.task is None else settings.tasks[source.task]
    if source.task is not None:
        rows["target"] = [_number(item.target) for item in items]
    if source.group is not None:
        rows["group"] = [0 if item.group is None else _number((name, item.group)) for item in items]
    rows["place"] = [
        place(key if item.group is None else f"group\0{name}\0{item.group}", salt)
        for key, item in zip(keys, items, strict=True)
    ]
    if source.weight is not None and source.weight % 1:
        rows["draw"] = [place(key, f"{salt}\0weight") for key in keys]
    return rows


def _number(value: object) -> int:
    """A 64-bit number that stands for a value, never 0."""
    digest = hashlib.blake2b(json.dumps(value, ensure_ascii=True).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
