"""Corruption: how much, of what, into what; whole words."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import FIRST, clean, made_documents, made_store, made_stream

from bert_ops.pretrain.masking import BERT_RATES, MaskingRates, corrupt
from bert_ops.tokenizer.wordpiece import CLS, MASK, PAD, SEP, UNK, SpecialIds

VOCAB = 400


def run(ids: np.ndarray, *, seed: int = 0, rate: float = 0.15, rates: MaskingRates = BERT_RATES, **rest) -> tuple:
    """Corrupt a copy; returns it flat, the chosen positions and the targets."""
    settings = {"vocab_size": VOCAB, "special": SpecialIds(), "word_starts": None} | rest
    ids = ids.copy()
    masked, targets = corrupt(ids, rate=rate, rates=rates, rng=np.random.default_rng(seed), **settings)
    return ids.reshape(-1), masked, targets


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 8),
    columns=st.integers(1, 60),
    rate=st.floats(0.01, 0.99),
    words=st.booleans(),
)
def test_what_is_chosen_and_what_becomes_of_it(seed: int, rows: int, columns: int, rate: float, words: bool) -> None:
    rng = np.random.default_rng(seed)
    original = rng.integers(0, rng.integers(6, VOCAB), (rows, columns))
    starts = (rng.random(original.shape) < 0.6) | (original < FIRST) if words else None
    now, masked, targets = run(original, seed=seed, rate=rate, word_starts=starts)
    flat = original.reshape(-1)
    ordinary = int((flat >= FIRST).sum())
    assert np.array_equal(targets, flat[masked]) and (targets >= FIRST).all() and (np.diff(masked) > 0).all()
    untouched = np.setdiff1d(np.arange(flat.size), masked)
    assert np.array_equal(now[untouched], flat[untouched])
    assert ((now[masked] == MASK) | (now[masked] >= FIRST)).all()
    budget = min(ordinary, max(1, round(rate * ordinary)))
    if starts is None:
        assert len(masked) == budget
        return
    word = np.cumsum(starts.reshape(-1))
    sizes = np.bincount(word[flat >= FIRST], minlength=word[-1] + 1)
    chosen = np.bincount(word[masked], minlength=len(sizes))
    assert ((chosen == 0) | (chosen == sizes)).all(), "half a word"
    left = sizes[(chosen == 0) & (sizes > 0)]
    if ordinary and budget < sizes[sizes > 0].min():
        assert len(masked) == sizes[sizes > 0].min()
    else:
        assert len(masked) <= budget and (not len(left) or left.min() > budget - len(masked))


@pytest.mark.parametrize("words", [False, True])
def test_shares_are_80_10_10(words: bool) -> None:
    rng = np.random.default_rng(0)
    original = rng.integers(FIRST, VOCAB, (100, 2000))
    starts = rng.random(original.shape) < 0.5 if words else None
    now, masked, targets = run(original, word_starts=starts)
    assert len(masked) == round(0.15 * original.size)
    assert (now[masked] == MASK).mean() == pytest.approx(0.8, abs=0.01)
    # one random draw in VOCAB gives the token that stood there
    assert (now[masked] == targets).mean() == pytest.approx(0.1, abs=0.01)
    drawn = now[masked[(now[masked] != MASK) & (now[masked] != targets)]]
    share = np.bincount(drawn, minlength=VOCAB)[FIRST:]
    assert len(share) == VOCAB - FIRST and share.max() < 5 * share.mean()


def test_shares_come_from_the_recipe() -> None:
    original = np.random.default_rng(0).integers(FIRST, VOCAB, (10, 2000))
    now, masked, targets = run(original, rate=0.4, rates=MaskingRates(mask=1.0, random=0.0))
    assert len(masked) == 8000 and (now[masked] == MASK).all()
    now, masked, targets = run(original, rate=0.4, rates=MaskingRates(mask=0.0, random=0.0))
    assert np.array_equal(now, original.reshape(-1)) and len(targets) == 8000


@pytest.mark.parametrize("words", [False, True])
def test_every_token_is_chosen_equally_often(words: bool) -> None:
    """Long words too: what the budget leaves over at the end hardly matters."""
    rng = np.random.default_rng(0)
    original = rng.integers(FIRST, VOCAB, 2000)
    starts = rng.random(2000) < 0.4
    starts[0] = True
    times = np.zeros(2000, int)
    for seed in range(300):
        times[run(original, seed=seed, rate=0.2, word_starts=starts if words else None)[1]] += 1
    assert times.mean() == pytest.approx(60, rel=0.01)
    word = np.cumsum(starts) - 1
    sizes = np.bincount(word)[word]
    for size in (1, 2, 3, 4):
        assert times[sizes == size].mean() == pytest.approx(60, rel=0.1)


def test_without_ordinary_tokens_nothing_is_chosen() -> None:
    ids = np.array([[CLS, SEP, PAD], [CLS, UNK, SEP]])
    for starts in (None, np.ones(ids.shape, np.bool_)):
        now, masked, targets = run(ids, word_starts=starts)
        assert len(masked) == len(targets) == 0 and np.array_equal(now, ids.reshape(-1))


def test_one_token_is_chosen_where_the_rate_gives_none() -> None:
    ids = np.array([[CLS, 9, 10, 11, SEP, PAD]])
    assert len(run(ids, rate=0.01)[1]) == 1
    starts = np.array([[True, True, False, False, True, True]])
    assert run(ids, rate=0.01, word_starts=starts)[1].tolist() == [1, 2, 3]
    longer = np.array([[CLS, 9, 10, 11, 12, 13, 14, 15, SEP]])
    starts = np.array([[True, True, False, False, True, False, True, False, True]])
    chosen = {tuple(run(longer, seed=seed, rate=0.01, word_starts=starts)[1]) for seed in range(20)}
    assert chosen == {(4, 5), (6, 7)}, "one of the shortest words"


def test_an_unknown_piece_of_a_word_stays() -> None:
    ids = np.array([[CLS, 9, UNK, 11, SEP]])
    starts = np.array([[True, True, False, False, True]])
    assert run(ids, rate=0.9, word_starts=starts)[1].tolist() == [1, 3]


def test_another_vocabulary_s_special_ids_are_never_chosen_or_drawn() -> None:
    special = SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)
    ids = np.random.default_rng(0).integers(0, 130, (20, 100))
    now, masked, targets = run(ids, rate=0.5, rates=MaskingRates(mask=0.5, random=0.5), special=special, vocab_size=130)
    assert not set(targets) & set(special) and {1, 2, 104} <= set(targets)
    drawn = set(now[masked])
    assert 103 in drawn and not drawn & {0, 100, 101, 102} and {1, 129} <= drawn


# ---------------------------------------------------------------- whole words out of a store


def test_words_of_the_store_are_masked_whole(tmp_path: Path) -> None:
    documents = made_documents(120, seed=3, longest=60)
    tokens = sum(map(sum, documents))
    starts = np.random.default_rng(4).random(tokens) < 0.5
    starts[np.cumsum([0, *(length for document in documents for length in document)])[:-1]] = True
    view = made_store(tmp_path, documents, word_starts=starts)
    word = np.cumsum(starts)
    cut = whole = 0
    for batch, _ in islice(made_stream(view, whole_words=True, rate_at=lambda _: 0.3).units(None), 60):
        ids = clean(batch)
        chosen = np.zeros(ids.size, np.bool_)
        chosen[batch.masked] = True
        for example in range(len(batch.cls)):
            for segment in (0, 1):
                stop = batch.cls[example + 1] if example + 1 < len(batch.cls) else ids.size
                here = np.arange(batch.cls[example], stop)
                here = here[(batch.segments.reshape(-1)[here] == segment) & (ids[here] >= FIRST)]
                for one in np.unique(word[ids[here] - FIRST]):
                    pieces = chosen[here[word[ids[here] - FIRST] == one]]
                    assert pieces.all() or not pieces.any()
                    whole += len(pieces) > 1 and pieces.all()
                cut += bool(len(here)) and not starts[ids[here[0]] - FIRST]
        ordinary = int((ids >= FIRST).sum())
        assert 0 <= round(0.3 * ordinary) - len(batch.masked) < 8
    assert whole > 100 and cut > 10, "the store has words of several pieces, and sentences that are cut within one"


def test_single_tokens_are_masked_without_whole_words(tmp_path: Path) -> None:
    documents = made_documents(40, seed=3)
    starts = np.zeros(sum(map(sum, documents)), np.bool_)
    view = made_store(tmp_path, documents, word_starts=starts)
    for batch, _ in islice(made_stream(view).units(None), 10):
        assert len(batch.masked) == round(0.15 * (clean(batch) >= FIRST).sum())
