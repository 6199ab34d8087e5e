"""Training examples for masked tokens and sentence pairs, planned as spans of the token store.

The sentences of a document are neighbours in the store, so every segment is one contiguous span of tokens. An epoch is
planned as an array of spans, in a second or so for a million sentences and without touching the tokens; a batch then
copies its spans. The plan of epoch ``e`` depends on the seed and ``e`` alone, so a resumed run plans the epochs before
it again but reads none of their tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.seeding import generator
from bert_ops.tokenizer.store import SplitView
from bert_ops.tokenizer.wordpiece import SpecialIds

#: Label of an example that is one segment only, ignored by the next-sentence loss.
NO_PAIR = -100
IS_NEXT, IS_RANDOM = 0, 1

#: Share of examples that are cut short at random, as BERT's create_pretraining_data.py does (``short_seq_prob``).
SHORT_SHARE = 0.1

#: Columns of a plan.
A_START, A_LENGTH, B_START, B_LENGTH, PAIR = range(5)
Plan = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A batch; B sequences of T tokens, M of which are to be predicted.

    Args:
        ids: (B, T) int64, already corrupted.
        segments: (B, T) int64, 0 for the first segment and for padding, 1 for the second.
        attend: (B, T) bool, False on padding.
        masked: (M,) int64, flat positions that are to be predicted, ascending.
        targets: (M,) int64, the ids that stood there.
        pair: (B,) int64, 0 is next, 1 is random, -100 no pair.

    """

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    attend: NDArray[np.bool_]
    masked: NDArray[np.int64]
    targets: NDArray[np.int64]
    pair: NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.attend.sum())


def plan_epoch(view: SplitView, *, sequence_tokens: int, next_sentence: bool, rng: np.random.Generator) -> Plan:
    """Plan one epoch over a split: each document is cut into runs of whole sentences that fill a sequence.

    A run of several sentences is split at a random sentence boundary into segments A and B; with ``next_sentence``,
    half of the Bs are replaced by a span from another document (never from the same one). A sentence longer than a
    sequence is cut into several. A document is read as often as the store says (``view.repeats``), cut anew each time.

    Returns:
        int64 of shape (N, 5): start and length of A, start and length of B (0 without one), pair label.

    """
    rows = array("q")
    repeats = np.ones(view.documents, np.uint8) if view.repeats is None else view.repeats
    for passed in range(int(repeats.max(initial=0))):
        documents = np.flatnonzero(repeats > passed)
        _plan_pass(rows, view, documents, sequence_tokens=sequence_tokens, next_sentence=next_sentence, rng=rng)
    return np.array(rows, np.int64).reshape(-1, 5)


def _plan_pass(
    rows: array[int],
    view: SplitView,
    documents: NDArray[np.int64],
    *,
    sequence_tokens: int,
    next_sentence: bool,
    rng: np.random.Generator,
) -> None:
    """Plan one pass over some documents; ``rows`` takes five numbers an example."""
    ends = view.sentence_ends
    shorten = rng.random(view.sentences) < SHORT_SHARE
    short = rng.integers(min(16, sequence_tokens // 2), sequence_tokens, view.sentences)
    fraction, other = rng.random(view.sentences), rng.random(view.sentences)
    for place, document in enumerate(documents):
        first, stop = view.document(document)
        sentence = first
        while sentence < stop:
            target = int(short[sentence]) if shorten[sentence] else sequence_tokens
            last = _last_that_fits(ends, sentence, stop, budget=target - 3)
            start, length = int(ends[sentence]), int(ends[last] - ends[sentence])
            if last - sentence == 1:
                for offset in range(0, length, sequence_tokens - 2):
                    rows.extend((start + offset, min(sequence_tokens - 2, length - offset), 0, 0, NO_PAIR))
            else:
                cut = sentence + 1 + int(fraction[sentence] * (last - sentence - 1))
                a_length = int(ends[cut] - ends[sentence])
                b = (int(ends[cut]), length - a_length, IS_NEXT)
                if next_sentence and len(documents) > 1 and other[sentence] < 0.5:
                    budget = target - 3 - a_length
                    b = (*_random_span(view, documents, place, budget=budget, rng=rng), IS_RANDOM)
                rows.extend((start, a_length, *b))
            sentence = last


def _last_that_fits(ends: NDArray[np.int64], sentence: int, stop: int, *, budget: int) -> int:
    """Index after the last sentence of a run that starts at ``sentence`` and fits; a run has at least one."""
    limit = ends[sentence] + budget
    last = int(np.searchsorted(ends[sentence + 1 : stop + 1], limit, side="right")) + sentence
    return max(last, sentence + 1)


def _random_span(
    view: SplitView, documents: NDArray[np.int64], place: int, *, budget: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Start and length of a span that begins at a random sentence of another document than the one at ``place``."""
    # Drawing from one document fewer and stepping over this one is uniform over the others.
    drawn = int(rng.integers(len(documents) - 1))
    drawn += drawn >= place
    first, stop = view.document(documents[drawn])
    sentence = int(rng.integers(first, stop))
    start = int(view.sentence_ends[sentence])
    return start, min(budget, int(view.sentence_ends[stop]) - start)


def group(plan: Plan, *, batch_tokens: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Group examples of similar length into batches of at most ``batch_tokens`` with padding, in random order.

    A jitter of up to 8 tokens keeps an epoch's batches from being the same sets every time.
    """
    lengths = plan[:, A_LENGTH] + plan[:, B_LENGTH] + 2 + (plan[:, B_LENGTH] > 0)
    order = np.argsort(lengths + rng.random(len(plan)) * 8, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start, longest = 0, 0
    for end, index in enumerate(order):
        grown = max(longest, int(lengths[index]))
        if end > start and (end - start + 1) * grown > batch_tokens:
            batches.append(order[start:end])
            start, grown = end, int(lengths[index])
        longest = grown
    batches.append(order[start:])
    return [batches[i] for i in rng.permutation(len(batches))]


class Source:
    """Batches of a split by step.

    Raises:
        InputError: the split has no example.

    """

    def __init__(
        self,
        view: SplitView,
        *,
        sequence_tokens: int,
        batch_tokens: int,
        next_sentence: bool,
        vocab_size: int,
        seed: int,
    ) -> None:
        if view.sentences == 0:
            raise InputError(f"the {view.name} split holds no sentences", remedy="add text, or change ingest.split")
        self.view, self.seed, self.vocab_size = view, seed, vocab_size
        self.sequence_tokens, self.batch_tokens, self.next_sentence = sequence_tokens, batch_tokens, next_sentence
        self.special = view.special

    def epoch(self, number: int) -> tuple[Plan, list[NDArray[np.int64]]]:
        """Plan of an epoch and its batches."""
        rng = generator(self.seed, "epoch", self.view.name, number)
        plan = plan_epoch(self.view, sequence_tokens=self.sequence_tokens, next_sentence=self.next_sentence, rng=rng)
        return plan, group(plan, batch_tokens=self.batch_tokens, rng=rng)

    def from_step(self, step: int, *, rate: float, mask: float, random: float) -> Iterator[Batch]:
        """Yield batches for ever, beginning with the one of ``step``."""
        epoch, passed = 0, 0
        while True:
            plan, batches = self.epoch(epoch)
            for index in range(max(step - passed, 0), len(batches)):
                rng = generator(self.seed, "mask", passed + index)
                yield self.batch(plan[batches[index]], rate=rate, mask=mask, random=random, rng=rng)
            passed += len(batches)
            epoch += 1

    def batch(self, plan: Plan, *, rate: float, mask: float, random: float, rng: np.random.Generator) -> Batch:
        """Copy the spans of a plan into a padded batch and corrupt it."""
        lengths = plan[:, A_LENGTH] + plan[:, B_LENGTH] + 2 + (plan[:, B_LENGTH] > 0)
        special = self.special
        ids = np.full((len(plan), int(lengths.max())), special.pad, np.int64)
        segments = np.zeros_like(ids)
        for row, (a, a_length, b, b_length, _) in enumerate(plan.tolist()):
            ids[row, 0] = special.cls
            ids[row, 1 : a_length + 1] = self.view.span(a, a + a_length)
            ids[row, a_length + 1] = special.sep
            if b_length:
                end = a_length + 2 + b_length
                ids[row, a_length + 2 : end] = self.view.span(b, b + b_length)
                ids[row, end] = special.sep
                segments[row, a_length + 2 : end + 1] = 1
        attend = np.arange(ids.shape[1]) < lengths[:, None]
        masked, targets = corrupt(
            ids, vocab_size=self.vocab_size, rate=rate, mask=mask, random=random, rng=rng, special=special
        )
        return Batch(ids, segments, attend, masked, targets, plan[:, PAIR])


def corrupt(
    ids: NDArray[np.int64],
    *,
    vocab_size: int,
    rate: float,
    mask: float,
    random: float,
    rng: np.random.Generator,
    special: SpecialIds,
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Choose ``rate`` of the tokens and corrupt them in place; special tokens are never chosen or drawn.

    Returns:
        Flat positions (ascending) and the ids that stood there; at least one unless there is no ordinary token.

    """
    flat = ids.reshape(-1)
    is_special = np.zeros(vocab_size, np.bool_)
    is_special[list(special)] = True
    ordinary = np.flatnonzero(~is_special[flat])
    count = min(len(ordinary), max(1, round(len(ordinary) * rate)))
    chosen = np.sort(rng.choice(ordinary, count, replace=False))
    targets = flat[chosen].copy()
    draw = rng.random(count)
    flat[chosen[draw < mask]] = special.mask
    swapped = chosen[(draw >= mask) & (draw < mask + random)]
    flat[swapped] = np.flatnonzero(~is_special)[rng.integers(vocab_size - len(special), size=len(swapped))]
    return chosen, targets
