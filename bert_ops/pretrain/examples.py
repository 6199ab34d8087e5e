"""Training examples for masked tokens and sentence pairs, planned as spans of the token store.

The sentences of a document are neighbours in the store, so every segment is one contiguous span of tokens. Some
thousand documents are planned at once, from the boundaries of their sentences alone and without touching a token.

An example is a run of whole sentences that fills a sequence, as in BERT's ``create_pretraining_data.py``: one run in
ten is cut short, to 16 tokens or more, so that the model meets short texts too; a sentence that is longer than a
sequence is cut into several. What becomes of a run of two sentences or more is up to the objective:

* ``nsp`` (Devlin et al. 2019, Task #2): split at a random sentence boundary into A and B. In half of them B gives way
  to sentences of another document, and what stood there begins the next example, so that no token is lost.
* ``sop`` (Lan et al. 2020, arXiv:1909.11942, section 3.1): split likewise; in half of them A and B change places.
* ``none``: the run is one segment.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bert_ops.pretrain.batch import IS_NEXT, IS_RANDOM, NO_PAIR
from bert_ops.pretrain.order import Visits
from bert_ops.tokenizer.store import Numbers, SplitView

SentenceObjective = Literal["nsp", "sop", "none"]
OBJECTIVES: tuple[SentenceObjective, ...] = get_args(SentenceObjective)

#: Share of runs that are cut short (BERT: ``short_seq_prob``), and the shortest that they are cut to.
SHORT_SHARE = 0.1
SHORTEST = 16

#: Draws of a random B before one that does not fit is cut: only its end would tell that it is no next sentence.
TRIES = 4

#: Columns of a plan: first token and tokens of A and of B (0 without one), and the label.
A_START, A_LENGTH, B_START, B_LENGTH, PAIR = range(5)
Plan = NDArray[np.int64]


def plan_examples(
    view: SplitView,
    documents: Numbers,
    *,
    visits: Visits,
    sequence_tokens: int,
    sentence_objective: SentenceObjective,
    rng: np.random.Generator,
) -> Plan:
    """Cut documents into examples; a document that is named twice is cut twice, differently.

    Returns:
        int64 of shape (N, 5), see the columns above; in reading order.

    """
    first = view.document_ends[documents]
    counts = view.document_ends[documents + 1] - first
    sentences = ranges(first, counts)
    begins = view.sentence_ends[sentences]
    # From here on sentences are numbered as they are read; `ends[s]` is where s begins in the text that this makes.
    ends = np.concatenate([[0], np.cumsum(view.sentence_ends[sentences + 1] - begins)])
    here = np.arange(len(sentences))
    pairs = sentence_objective != "none"
    budget = _budgets(len(sentences), sequence_tokens, rng) - (3 if pairs else 2)
    last = np.searchsorted(ends, ends[:-1] + budget, side="right") - 1
    last = np.maximum(np.minimum(last, np.repeat(np.cumsum(counts), counts)), here + 1)
    splits = (last - here > 1) & pairs
    cut = here + 1 + (rng.random(len(here)) * (last - here - 1)).astype(np.int64)
    heads_tails = splits & (rng.random(len(here)) < 0.5)
    other = np.zeros_like(splits)
    if sentence_objective == "nsp":
        other = heads_tails & np.repeat(visits.of(documents)[1] < visits.count, counts)
    # An example is a step from a sentence to the first one that it leaves over; the window is one chain of steps.
    heads = _chain(np.where(other, cut, last))
    table = np.zeros((len(heads), 5), np.int64)
    stop = np.where(splits, cut, last)[heads]
    table[:, A_START], table[:, A_LENGTH] = begins[heads], ends[stop] - ends[heads]
    table[:, PAIR] = NO_PAIR
    pair = np.flatnonzero(splits[heads])
    table[pair, B_START] = begins[cut[heads[pair]]]
    table[pair, B_LENGTH] = (ends[last] - ends[cut])[heads[pair]]
    table[pair, PAIR] = IS_NEXT
    if sentence_objective == "sop":
        swapped = np.flatnonzero(heads_tails[heads])
        table[swapped, :PAIR] = table[swapped][:, [B_START, B_LENGTH, A_START, A_LENGTH]]
        table[swapped, PAIR] = IS_RANDOM
    elif sentence_objective == "nsp":
        replaced = np.flatnonzero(other[heads])
        room = budget[heads[replaced]] - table[replaced, A_LENGTH]
        own = np.repeat(documents, counts)[heads[replaced]]
        table[replaced, B_START : B_LENGTH + 1] = _elsewhere(view, visits, own, room, rng)
        table[replaced, PAIR] = IS_RANDOM
    return _pieces(table, sequence_tokens - 2)


def lengths(table: Plan) -> Numbers:
    """Tokens of each example with its special tokens."""
    tokens: Numbers = table[:, A_LENGTH] + table[:, B_LENGTH] + 2 + (table[:, B_LENGTH] > 0)
    return tokens


def ranges(starts: Numbers, counts: Numbers) -> Numbers:
    """Concatenate the numbers from each start on: 5, 9 with 2, 3 gives 5, 6, 9, 10, 11."""
    before = np.cumsum(counts) - counts
    numbers: Numbers = np.arange(int(counts.sum())) + np.repeat(starts - before, counts)
    return numbers


def _budgets(count: int, sequence_tokens: int, rng: np.random.Generator) -> Numbers:
    """Tokens, special ones included, of a run that would begin at each sentence."""
    short = rng.integers(min(SHORTEST, sequence_tokens // 2), sequence_tokens, count)
    return np.where(rng.random(count) < SHORT_SHARE, short, sequence_tokens)


def _chain(following: Numbers) -> Numbers:
    """Places met on the way from 0 by stepping to ``following``, until it leads past the end."""
    steps, place, met = following.tolist(), 0, []
    while place < len(steps):
        met.append(place)
        place = steps[place]
    return np.array(met, np.int64)


def _elsewhere(view: SplitView, visits: Visits, own: Numbers, room: Numbers, rng: np.random.Generator) -> Numbers:
    """Start and tokens of sentences of other documents, (N, 2): from a random one on, as many as the room holds."""
    found = np.zeros((len(own), 2), np.int64)
    ends, todo = view.sentence_ends, np.arange(len(own))
    for _ in range(TRIES):
        documents = visits.elsewhere(own[todo], rng)
        first, stop = view.document_ends[documents], view.document_ends[documents + 1]
        sentence = first + (rng.random(len(todo)) * (stop - first)).astype(np.int64)
        last = _last_that_fits(ends, sentence, stop, room[todo])
        begins = ends[sentence]
        found[todo, 0] = begins
        found[todo, 1] = np.minimum(ends[np.maximum(last, sentence + 1)] - begins, room[todo])
        todo = todo[last == sentence]
    return found


def _last_that_fits(ends: Numbers, sentence: Numbers, stop: Numbers, room: Numbers) -> Numbers:
    """Sentence after the last one, up to ``stop``, that still fits; ``sentence`` itself if none does.

    Bisection of a few neighbouring boundaries each, whatever the size of the corpus.
    """
    # A sentence has a token at least, so that no more than `room` sentences can fit.
    low, high = sentence, np.minimum(stop, sentence + room)
    limit = ends[sentence] + room
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = ends[middle] <= limit
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def _pieces(table: Plan, capacity: int) -> Plan:
    """Cut examples of one segment that are longer than ``capacity`` into several."""
    counts = -(-table[:, A_LENGTH] // capacity)
    counts[table[:, B_LENGTH] > 0] = 1
    if (counts == 1).all():
        return table
    offset = ranges(np.zeros_like(counts), counts) * capacity
    table = np.repeat(table, counts, axis=0)
    table[:, A_START] += offset
    table[:, A_LENGTH] = np.minimum(table[:, A_LENGTH] - offset, capacity)
    return table
