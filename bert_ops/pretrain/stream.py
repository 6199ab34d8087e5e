"""The endless sequence of packed batches ("units") of a split.

Which unit stands at which place is a function of corpus, seed and settings alone, not of processes, steps or what was
read before. An epoch reads the split in *windows*: documents of a pseudo-random order (:mod:`bert_ops.pretrain.order`)
up to some million tokens. A window is planned as a whole: its documents are cut into examples, these are packed into
rows, the rows are shuffled and cut into units. Memory holds one window's texts and plan, whatever the size of the
split. A place in the sequence is where a window begins and how many of its rows have been read, so that going on from
any place costs the plan of one window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import ArtifactError, InputError
from bert_ops.pretrain.batch import PackedBatch
from bert_ops.pretrain.examples import Plan, SentenceObjective, lengths, plan_examples
from bert_ops.pretrain.layout import copy_texts, lay_out
from bert_ops.pretrain.masking import BERT_RATE, BERT_RATES, MaskingRates, corrupt
from bert_ops.pretrain.order import Visits, shuffled
from bert_ops.pretrain.packing import pack
from bert_ops.seeding import derive, generator
from bert_ops.tokenizer.store import Ids, Numbers, SplitView

Position = dict[str, int]
START: Position = {"epoch": 0, "window": 0, "row": 0, "unit": 0}

#: Tokens of a window, and the least units of one: the last unit may be partly filled.
WINDOW_TOKENS = 2**20
WINDOW_UNITS = 32


@dataclass(frozen=True)
class Window:
    """Plan of a window, and its texts.

    Args:
        examples: (N, 5), see :mod:`bert_ops.pretrain.examples`; by row, then by column.
        column: (N,), first column of each.
        row_ends: (rows + 1,), first example of each row, and N.
        text: (P,), ids of the examples one after the other.
        word_starts: (P,), whether each begins a word, or None if single tokens are masked.
        text_ends: (N + 1,), first token of each example, and P.
        stop: first visit of the next window.

    """

    examples: Plan
    column: Numbers
    row_ends: Numbers
    text: Ids
    word_starts: NDArray[np.bool_] | None
    text_ends: Numbers
    stop: int

    @property
    def rows(self) -> int:
        """Rows of the window."""
        return len(self.row_ends) - 1


class UnitStream:
    """Packed batches of a split.

    Args:
        view: the split.
        sequence_tokens: T, tokens of a row and of the longest example.
        rows: R, rows of a unit; the last one of a window may have fewer.
        sentence_objective: what pairs of segments are made for.
        masking: what becomes of chosen tokens.
        whole_words: choose whole words.
        vocab_size: entries of the vocabulary.
        seed: of documents' order, examples and masking.
        rate_at: share of the ordinary tokens to predict in a unit, by its number.
        least_tokens: tokens that an epoch has to hold, as those of the largest batch; None for those of a unit.

    Raises:
        InputError: the split holds no sentence, or fewer tokens than a unit or a batch.

    """

    def __init__(
        self,
        view: SplitView,
        *,
        sequence_tokens: int,
        rows: int,
        sentence_objective: SentenceObjective,
        masking: MaskingRates,
        whole_words: bool,
        vocab_size: int,
        seed: int,
        rate_at: Callable[[int], float],
        least_tokens: int | None = None,
    ) -> None:
        self.view, self.sequence_tokens, self.rows = view, sequence_tokens, rows
        self.sentence_objective: SentenceObjective = sentence_objective
        self.masking, self.whole_words, self.vocab_size = masking, whole_words, vocab_size
        self.seed, self.rate_at = seed, rate_at
        _check_not_empty(view)
        self.visits = Visits(view)
        _check_size(view, rows * sequence_tokens if least_tokens is None else least_tokens)

    def units(
        self, position: Position | None, *, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[PackedBatch, Position]]:
        """Yield one process's unit of each group of ``world`` consecutive units, and the position after the group.

        Args:
            position: where to go on, as it was yielded; None to begin.
            rank: which unit of each group.
            world: units of a group.

        Raises:
            ArtifactError: the position cannot be one of this corpus.

        """
        places = self._places(dict(START if position is None else position))
        while True:
            group = list(islice(places, world))
            window, row, number, _ = group[rank]
            yield self.unit(window, row, number), group[-1][-1]

    def _places(self, position: Position) -> Iterator[tuple[Window, int, int, Position]]:
        """Window, first row and number of each unit, and the position after it."""
        self._check(position)
        epoch, first, row, number = (position[name] for name in START)
        while True:
            window = self.window(epoch, first)
            if row >= window.rows:
                raise _foreign(position, f"the window has {window.rows} rows")
            for begin in range(row, window.rows, self.rows):
                number += 1
                after = {"epoch": epoch, "window": first, "row": begin + self.rows, "unit": number}
                if begin + self.rows >= window.rows:
                    ended = window.stop == self.visits.count
                    after |= {"epoch": epoch + ended, "window": 0 if ended else window.stop, "row": 0}
                yield window, begin, number - 1, after
            epoch, first, row = after["epoch"], after["window"], 0

    def _check(self, position: Position) -> None:
        if set(position) != set(START) or not all(isinstance(n, int) and n >= 0 for n in position.values()):
            raise _foreign(position, f"it takes {', '.join(START)}, each a number from 0")
        if position["window"] >= self.visits.count:
            raise _foreign(position, f"an epoch has {self.visits.count} documents")

    def window(self, epoch: int, first: int) -> Window:
        """Plan the window that begins at the visit ``first`` of an epoch."""
        documents = self._documents(epoch, first)
        rng = generator(self.seed, "window", self.view.name, epoch, first)
        table = plan_examples(
            self.view,
            documents,
            visits=self.visits,
            sequence_tokens=self.sequence_tokens,
            sentence_objective=self.sentence_objective,
            rng=rng,
        )
        packing = pack(lengths(table), self.sequence_tokens)
        row = rng.permutation(packing.rows)[packing.row]
        order = np.lexsort((packing.column, row))
        row_ends = np.searchsorted(row[order], np.arange(packing.rows + 1))
        table = table[order]
        texts = copy_texts(self.view, table, with_word_starts=self.whole_words)
        return Window(table, packing.column[order], row_ends, *texts, stop=first + len(documents))

    def _documents(self, epoch: int, first: int) -> Numbers:
        """Documents of a window, in reading order: as many as make its tokens, one at least."""
        view, count = self.view, self.visits.count
        budget = max(WINDOW_TOKENS, WINDOW_UNITS * self.rows * self.sequence_tokens)
        ahead = 2 * budget * view.documents // view.tokens + 1
        seed = derive(self.seed, "documents", view.name, epoch)
        while True:
            stop = min(first + ahead, count)
            documents = self.visits.documents(shuffled(np.arange(first, stop), count=count, seed=seed))
            total = np.cumsum(_tokens(view, documents))
            if stop == count and total[-1] < 1.5 * budget:  # no crumbs for the last window
                return documents
            if total[-1] >= budget:
                return documents[: int(np.searchsorted(total, budget)) + 1]
            ahead *= 2

    def unit(self, window: Window, row: int, number: int) -> PackedBatch:
        """Copy and corrupt the rows from ``row`` on as the unit of this number."""
        ends = window.row_ends[row : row + self.rows + 1]
        here, text = slice(ends[0], ends[-1]), slice(*window.text_ends[ends[[0, -1]]])
        batch, word_starts = lay_out(
            window.examples[here],
            window.column[here],
            window.text[text],
            None if window.word_starts is None else window.word_starts[text],
            in_row=np.diff(ends),
            sequence_tokens=self.sequence_tokens,
            special=self.view.special,
            unit=number,
        )
        masked, targets = corrupt(
            batch.ids,
            vocab_size=self.vocab_size,
            special=self.view.special,
            rate=self.rate_at(number),
            rates=self.masking,
            word_starts=word_starts,
            rng=generator(self.seed, "mask", number),
        )
        return replace(batch, masked=masked, targets=targets)


def fixed_units(
    view: SplitView,
    *,
    sequence_tokens: int,
    sentence_objective: SentenceObjective,
    vocab_size: int,
    seed: int,
    examples: int,
    rows: int = 32,
) -> list[PackedBatch]:
    """Make the batches that models are measured on: at least this many examples, or the whole split if it has fewer.

    They are the first of an epoch of its own, corrupted once with BERT's own rate and shares, whatever the recipe of
    training, so that figures of different recipes compare.

    Raises:
        InputError: the split holds no sentence.

    """
    stream = UnitStream(
        view,
        sequence_tokens=sequence_tokens,
        rows=rows,
        sentence_objective=sentence_objective,
        masking=BERT_RATES,
        whole_words=False,
        vocab_size=vocab_size,
        seed=derive(seed, "evaluation"),
        rate_at=lambda _: BERT_RATE,
        least_tokens=0,
    )
    batches: list[PackedBatch] = []
    for batch, position in stream.units(None):
        batches.append(batch)
        if position["epoch"] or sum(len(one.cls) for one in batches) >= examples:
            break
    return batches


def _tokens(view: SplitView, documents: Numbers) -> Numbers:
    ends = view.sentence_ends
    tokens: Numbers = ends[view.document_ends[documents + 1]] - ends[view.document_ends[documents]]
    return tokens


def _check_not_empty(view: SplitView) -> None:
    if view.sentences == 0 or (view.repeats is not None and not view.repeats.any()):
        raise InputError(f"the {view.name} split holds no sentences", remedy="add text, or change ingest.split")


def _check_size(view: SplitView, least: int) -> None:
    """Refuse a split whose epoch has fewer than ``least`` tokens; reads no more than it takes to find that many."""
    found, block = 0, 2**16
    for first in range(0, view.documents, block):
        if found >= least:
            return
        documents = np.arange(first, min(first + block, view.documents))
        times = 1 if view.repeats is None else view.repeats[documents].astype(np.int64)
        found += int((_tokens(view, documents) * times).sum())
    if found < least:
        raise InputError(
            f"an epoch of the {view.name} split has {found:,} tokens, and one batch takes {least:,}",
            allowed=f"batches of at most {found:,} tokens, or more text",
            remedy="lower pretrain.batch.tokens and pretrain.batch.micro_tokens, or add text",
        )


def _foreign(position: Position, why: str) -> ArtifactError:
    return ArtifactError(
        f"the checkpoint's position in the data, {position}, is none of this corpus: {why}",
        remedy="remove the checkpoint, or train on the corpus that it was made with",
    )
