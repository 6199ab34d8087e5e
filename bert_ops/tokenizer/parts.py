"""A part of a token store: one row group of ``sentences.parquet`` as ids, encoded by any process and kept until needed.

Parts make the store independent of who encoded what: they are put together in the order of the file. Each is written
under a temporary name and renamed, its checksum last, so that one that is there is whole and is not made again.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import ne
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import ArtifactError
from bert_ops.io import atomic_file, file_sha256, rerun, write_json
from bert_ops.tokenizer import segment, wordpiece
from bert_ops.tokenizer.fast import Encoded, FastEncoder
from bert_ops.tokenizer.params import TokenizeParams
from bert_ops.tokenizer.sentences import batches
from bert_ops.tokenizer.store import SPLITS, Ids

COLUMNS = ("doc_id", "source", "split", "text", "words", "repeats")

_CODES = {name: code for code, name in enumerate(SPLITS)}

#: Figures of each source.
FIGURES = ("sentences", "tokens", "unknown", "words", "characters")


@dataclass
class SplitPart:
    """Sentences of one split; S sentences that hold T tokens.

    Attributes:
        ids: (T,).
        word_starts: (T,).
        lengths: (S,), none 0.
        begins: (S,), whether a sentence is the first of its document, within this part.
        repeats: for each document that begins here.
        first_document: of the first sentence; None without sentences.
        last_document: of the last sentence.

    """

    ids: Ids
    word_starts: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    begins: NDArray[np.bool_]
    repeats: NDArray[np.uint8]
    first_document: str | None
    last_document: str | None


@dataclass
class _Growing:
    """A split while its row group is read."""

    blocks: list[tuple[Ids, NDArray[np.bool_]]] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    begins: list[NDArray[np.bool_]] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    first: str | None = None
    last: str | None = None


_worker: dict[str, Any] = {}


def start_worker(sentences: Path, tokenizer: Path, folder: Path, params: dict[str, Any]) -> None:
    """Load what encoding needs, once in a process."""
    if multiprocessing.parent_process() is not None:
        # The processes share the cores already.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    loaded = wordpiece.load(tokenizer)
    _worker.update(
        sentences=sentences,
        folder=folder,
        params=TokenizeParams(**params),
        encoder=FastEncoder(loaded),
        unknown=wordpiece.special_ids(loaded).unk,
    )


def make_part(number: int) -> dict[str, Any]:
    """Encode a row group, write its part and return its figures.

    Raises:
        ArtifactError: the sentences are damaged, or a row cannot be used.

    """
    params: TokenizeParams = _worker["params"]
    splits = {name: _Growing() for name in SPLITS}
    figures: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(FIGURES), np.int64))
    size = 0
    for rows in batches(_worker["sentences"], columns=COLUMNS, rows=params.batch_sentences, groups=[number]):
        texts = ["" if text is None else text for text in rows["text"]]
        inside = segment.inside_words(texts, segmentation=params.segmentation, given=rows["words"])
        encoded = _worker["encoder"].encode(texts, inside=inside)
        _sort_in(splits, rows, encoded)
        _count(figures, rows["source"], texts, encoded, unknown=_worker["unknown"])
        size += len("".join(texts).encode())
    facts = {
        "bytes": size,
        "by_source": {source: dict(zip(FIGURES, row.tolist(), strict=True)) for source, row in sorted(figures.items())},
        "documents": {name: [split.first, split.last] for name, split in splits.items()},
    }
    _write(_worker["folder"], number, splits, facts)
    return facts


def _sort_in(splits: dict[str, _Growing], rows: dict[str, list[Any]], encoded: Encoded) -> None:
    """Add encoded sentences to their splits; those without tokens are left out."""
    lengths = np.diff(encoded.offsets)
    of_row = np.fromiter(map(_CODES.get, rows["split"], repeat(-1)), np.int8, len(lengths))
    if len(of_row) and of_row.min() < 0:
        row = int(of_row.argmin())
        raise ArtifactError(
            f"sentences.parquet has a sentence of split {rows['split'][row]!r} (document {rows['doc_id'][row]})",
            allowed=", ".join(SPLITS),
            remedy=rerun("ingest"),
        )
    of_token = np.repeat(of_row, lengths)
    for name, code in _CODES.items():
        kept = np.flatnonzero((of_row == code) & (lengths > 0))
        if not len(kept):
            continue
        growing, here = splits[name], of_token == code
        documents = list(map(rows["doc_id"].__getitem__, kept.tolist()))
        begins = np.fromiter(map(ne, documents, [growing.last, *documents]), np.bool_, len(documents))
        growing.begins.append(begins)
        repeats = map(rows["repeats"].__getitem__, kept[begins].tolist())
        growing.repeats += [1 if number is None else number for number in repeats]
        growing.first = documents[0] if growing.first is None else growing.first
        growing.last = documents[-1]
        growing.blocks.append((encoded.ids[here], encoded.word_starts[here]))
        growing.lengths.append(lengths[kept])


def _count(
    figures: dict[str, NDArray[np.int64]], sources: Sequence[str], texts: list[str], encoded: Encoded, *, unknown: int
) -> None:
    names = sorted(set(sources))
    numbers = {name: number for number, name in enumerate(names)}
    of_row = np.fromiter(map(numbers.__getitem__, sources), np.int64, len(sources))
    lengths = np.diff(encoded.offsets)
    columns = (
        lengths > 0,
        lengths,
        _sums(encoded.ids == unknown, encoded.offsets),
        _sums(encoded.word_starts, encoded.offsets),
        np.fromiter(map(len, texts), np.int64, len(texts)),
    )
    for column, values in enumerate(columns):
        for name, total in zip(names, np.bincount(of_row, weights=values, minlength=len(names)), strict=True):
            figures[name][column] += int(total)


def _sums(marked: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens of each text are marked."""
    return np.diff(np.concatenate([[0], np.cumsum(marked)])[offsets])


def _write(folder: Path, number: int, splits: dict[str, _Growing], facts: dict[str, Any]) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for name, split in splits.items():
        arrays[f"{name}_ids"] = np.concatenate([np.zeros(0, np.uint16), *(ids for ids, _ in split.blocks)])
        starts = np.concatenate([np.zeros(0, np.bool_), *(starts for _, starts in split.blocks)])
        arrays[f"{name}_starts"] = np.packbits(starts)
        arrays[f"{name}_lengths"] = np.concatenate([np.zeros(0, np.int64), *split.lengths])
        arrays[f"{name}_begins"] = np.concatenate([np.zeros(0, np.bool_), *split.begins])
        arrays[f"{name}_repeats"] = np.array(split.repeats, np.uint8)
    path = _path(folder, number)
    with atomic_file(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)
    write_json(path.with_suffix(".json"), facts | {"sha256": file_sha256(path)})


def _path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.npz"


def finished(folder: Path, number: int) -> dict[str, Any] | None:
    """Figures of a part that an earlier run finished, or None if it has to be made."""
    path = _path(folder, number)
    try:
        facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return facts if file_sha256(path) == facts["sha256"] else None
    except (OSError, ValueError, KeyError):
        return None


def read_part(folder: Path, number: int, facts: dict[str, Any]) -> dict[str, SplitPart]:
    """Read a finished part."""
    arrays = np.load(io.BytesIO(_path(folder, number).read_bytes()), allow_pickle=False)
    splits = {}
    for name in SPLITS:
        ids = arrays[f"{name}_ids"]
        starts = np.unpackbits(arrays[f"{name}_starts"], count=len(ids)).view(np.bool_)
        lengths, begins, repeats = (arrays[f"{name}_{kind}"] for kind in ("lengths", "begins", "repeats"))
        splits[name] = SplitPart(ids, starts, lengths, begins, repeats, *facts["documents"][name])
    return splits
