"""One pass over the ids of a token store, and one over the sentences that it was made of, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.quality import characters
from bert_ops.quality.columns import column, keys, numbers, numbers_of
from bert_ops.quality.read import TableFile
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.store import SplitView, TokenStore

if TYPE_CHECKING:
    import pyarrow as pa

Indices = NDArray[np.int64]

#: Columns of sentences.parquet that are looked at; ``repeats`` too, where there is one.
SENTENCES = {"doc_id": "text", "source": "text", "split": "text", "position": "integer", "text": "text"}
#: What every tokenizer makes a token of: digits, Latin letters, ideographs.
_SURELY_TEXT = r"[0-9A-Za-z\x{4E00}-\x{9FFF}]"
#: Tokens that are looked at together.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Counts:
    """What the ids of a split hold.

    Attributes:
        out_of_range: ids beyond the vocabulary.
        special: ids that frame or mask sequences; ``[UNK]`` may stand in a sentence.
        unbegun_sentences: sentences whose first token does not begin a word.
        begun_continuations: pieces that continue a word (``##x``) and are marked as beginning one.
        unknown_total: ids that are ``[UNK]``.
        unknown: (S,) the same for each sentence, or None if the boundaries of the sentences do not ascend, so that no
            sentence can be told apart.

    """

    out_of_range: int
    special: int
    unbegun_sentences: int
    begun_continuations: int
    unknown_total: int
    unknown: NDArray[np.int32] | None


@dataclass
class Walk:
    """What the sentences say of the store.

    Attributes:
        sentences, documents: with text, by split.
        misplaced: documents that begin elsewhere than in the store, by split.
        repeats_differ: documents that are repeated more or less often than in the store, by split.
        by_source: tokens, unknown tokens and visible characters by source and split, where a split fits.
        sample: by row, sentences that were drawn: text, doc_id, position, split, and ``place``, their number in the
            store's split.

    """

    sentences: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    misplaced: Counter[str] = field(default_factory=Counter)
    repeats_differ: Counter[str] = field(default_factory=Counter)
    by_source: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    sample: dict[int, dict[str, Any]] = field(default_factory=dict)

    def fertility(self) -> dict[str, float]:
        """Tokens a visible character, by source, to nine digits."""
        sums: dict[str, Counter[str]] = {}
        for (source, _), figures in sorted(self.by_source.items()):
            sums.setdefault(source, Counter()).update(figures)
        return {
            source: float(f"{figures['tokens'] / max(figures['visible'], 1):.9g}") for source, figures in sums.items()
        }


def count(view: SplitView, *, tokenizer: Tokenizer) -> Counts:
    """Read every id of a split once, some millions at a time."""
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    continues = np.zeros(max(pieces.values()) + 1, bool)
    for piece, number in pieces.items():
        continues[number] = piece.startswith(wordpiece.CONTINUATION) and piece != wordpiece.CONTINUATION
    special = [view.special.pad, view.special.cls, view.special.sep, view.special.mask]
    ends = view.sentence_ends
    ascending = int(ends[0]) == 0 and bool((view.lengths() > 0).all())
    unknown = np.zeros(view.sentences, np.int32)
    sums: Counter[str] = Counter()
    for start in range(0, view.tokens, _CHUNK):
        stop = min(start + _CHUNK, view.tokens)
        ids, begins = view.span(start, stop), view.word_starts(start, stop)
        within = ids < len(continues)
        sums["out_of_range"] += int((~within).sum())
        sums["special"] += int(np.isin(ids, special).sum())
        sums["begun"] += int((continues[np.where(within, ids, 0)] & begins).sum())
        marked = ids == view.special.unk
        sums["unknown"] += int(marked.sum())
        if ascending:
            first, last = np.searchsorted(ends[:-1], [start, stop]).tolist()
            places = ends[first:last] - start
            sums["unbegun"] += int((~begins[places]).sum())
            _add_each(unknown, marked, ends, start=start, first=first, last=last)
    return Counts(
        out_of_range=sums["out_of_range"],
        special=sums["special"],
        unbegun_sentences=sums["unbegun"],
        begun_continuations=sums["begun"],
        unknown_total=sums["unknown"],
        unknown=unknown if ascending else None,
    )


def _add_each(
    sums: NDArray[np.int32], marked: NDArray[np.bool_], ends: Indices, *, start: int, first: int, last: int
) -> None:
    """Add the marked tokens of a chunk to the sentences that they stand in; the chunk may cut the outer two."""
    running = np.concatenate([[0], np.cumsum(marked)])
    begin = max(first - 1, 0)
    bounds = np.clip(ends[begin : last + 1] - start, 0, len(marked))
    sums[begin:last] += np.diff(running[bounds]).astype(np.int32)


def walk(
    file: TableFile, store: TokenStore, counts: Mapping[str, Counts], *, tokenizer: Tokenizer, sampled: Indices
) -> Walk:
    """Pass over the sentences and compare them with the store.

    Args:
        file: sentences.parquet.
        store: the store.
        counts: see :func:`count`.
        tokenizer: says which sentences hold nothing.
        sampled: rows to keep for the round trip.

    Raises:
        ArtifactError: the file is damaged.

    """
    found = Walk()
    last: dict[str, np.uint64] = {}
    row = 0
    with_repeats = "repeats" in file.names
    for table in file.batches([*SENTENCES, *(["repeats"] if with_repeats else [])]):
        texts = column(table, "text")
        present = with_text(texts, tokenizer)
        splits = column(table, "split").dictionary_encode()
        of_row = numbers_of(splits)
        ids = keys(column(table, "doc_id"))
        place = np.full(len(table), -1, np.int64)
        for number, split in enumerate(splits.dictionary.to_pylist()):
            rows = np.flatnonzero((of_row == number) & present)
            place[rows] = np.arange(len(rows)) + found.sentences[split]
            begins = np.ones(len(rows), bool)
            begins[1:] = ids[rows][1:] != ids[rows][:-1]
            if split in last and len(rows):
                begins[0] = ids[rows[0]] != last[split]
            repeats = numbers(table, "repeats")[rows][begins] if with_repeats else None
            _compare_documents(found, store, split, first=found.sentences[split], begins=begins, repeats=repeats)
            if len(rows):
                last[split] = ids[rows[-1]]
            found.sentences[split] += len(rows)
        _count_sources(found, store, counts, table, place, splits=splits.dictionary.to_pylist(), of_row=of_row)
        drawn = sampled[(sampled >= row) & (sampled < row + len(table))] - row
        for index in drawn[present[drawn]].tolist():
            values = table.slice(index, 1).to_pylist()[0]
            found.sample[row + index] = {**values, "place": int(place[index])}
        row += len(table)
    return found


def _compare_documents(
    found: Walk, store: TokenStore, split: str, *, first: int, begins: NDArray[np.bool_], repeats: Indices | None
) -> None:
    """Compare where documents begin, and how often they are repeated, among the sentences from ``first`` on."""
    before = found.documents[split]
    found.documents[split] += int(begins.sum())
    if split not in store.views or not len(begins):
        return
    view = store[split]
    here = np.flatnonzero(begins) + first
    known = view.document_ends[before : before + len(here)][: max(view.documents - before, 0)]
    shared = min(len(here), len(known))
    found.misplaced[split] += int((here[:shared] != known[:shared]).sum())
    if repeats is not None:
        stored = np.ones(shared, np.int64) if view.repeats is None else view.repeats[before : before + shared]
        found.repeats_differ[split] += int((repeats[:shared] != stored).sum())


def _count_sources(
    found: Walk,
    store: TokenStore,
    counts: Mapping[str, Counts],
    table: pa.Table,
    place: Indices,
    *,
    splits: list[str],
    of_row: Indices,
) -> None:
    """Add the tokens of the sentences at ``place`` of each split to their sources."""
    sources = column(table, "source").dictionary_encode()
    of_source = numbers_of(sources)
    visible = characters.count(column(table, "text"))["visible"]
    for number, split in enumerate(splits):
        view, unknown = store.views.get(split), counts[split].unknown if split in counts else None
        if view is None or unknown is None:
            continue
        in_store = (of_row == number) & (place >= 0) & (place < view.sentences)
        for index, source in enumerate(sources.dictionary.to_pylist()):
            rows = np.flatnonzero(in_store & (of_source == index))
            if len(rows):
                at = place[rows]
                figures = {
                    "tokens": int((view.sentence_ends[at + 1] - view.sentence_ends[at]).sum()),
                    "unknown": int(unknown[at].sum()),
                    "visible": int(visible[rows].sum()),
                }
                found.by_source.setdefault((source, split), Counter()).update(figures)


def with_text(texts: pa.Array, tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Whether sentences hold something after the tokenizer's normalisation; the store leaves the others out."""
    import pyarrow.compute as pc

    sure: NDArray[np.bool_] = pc.fill_null(pc.match_substring_regex(texts, _SURELY_TEXT), False).to_numpy(
        zero_copy_only=False
    )
    present = sure.copy()
    for index in np.flatnonzero(~sure).tolist():
        text = texts[index].as_py() or ""
        present[index] = bool(tokenizer.normalizer.normalize_str(text).strip())
    return present
