"""Pretraining examples: what BERT's paper says, over seeds and sizes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.pretrain import examples
from bert_ops.pretrain.examples import A_LENGTH, B_LENGTH, B_START, IS_NEXT, IS_RANDOM, NO_PAIR, PAIR, Source
from bert_ops.tokenizer.store import SplitView, TokenStore
from bert_ops.tokenizer.store_writer import SplitWriter, write_manifest
from bert_ops.tokenizer.wordpiece import CLS, MASK, PAD, SEP, SpecialIds

VOCAB = 400
SHARES = {"rate": 0.15, "mask": 0.8, "random": 0.1}


@pytest.fixture(scope="module")
def view(tokens_folder: Path) -> SplitView:
    return TokenStore.open(tokens_folder)["train"]


def document_of(view: SplitView, token: int) -> int:
    sentence = int(np.searchsorted(view.sentence_ends, token, side="right")) - 1
    return int(np.searchsorted(view.document_ends, sentence, side="right")) - 1


@pytest.mark.parametrize("length", [10, 24, 48, 128])
@pytest.mark.parametrize("seed", [0, 1])
def test_plans_hold_their_promises(view: SplitView, length: int, seed: int) -> None:
    plan = examples.plan_epoch(view, sequence_tokens=length, next_sentence=True, rng=np.random.default_rng(seed))
    pairs = plan[plan[:, PAIR] != NO_PAIR]
    singles = plan[plan[:, PAIR] == NO_PAIR]
    assert (pairs[:, A_LENGTH] >= 1).all() and (pairs[:, B_LENGTH] >= 1).all()
    assert (pairs[:, A_LENGTH] + pairs[:, B_LENGTH] + 3 <= length).all()
    assert (singles[:, A_LENGTH] + 2 <= length).all() and (singles[:, B_LENGTH] == 0).all()
    for a, a_length, b, b_length, pair in plan:
        assert document_of(view, a) == document_of(view, a + a_length - 1)
        if pair == IS_NEXT:
            assert b == a + a_length and document_of(view, a) == document_of(view, b + b_length - 1)
        if pair == IS_RANDOM:
            assert document_of(view, a) != document_of(view, b) == document_of(view, b + b_length - 1)
        if pair != NO_PAIR:
            assert {a, b} <= set(view.sentence_ends.tolist())


def test_half_of_the_pairs_are_random(view: SplitView) -> None:
    pairs = np.concatenate(
        [
            examples.plan_epoch(view, sequence_tokens=48, next_sentence=True, rng=np.random.default_rng(s))[:, PAIR]
            for s in range(20)
        ]
    )
    share = (pairs == IS_RANDOM).sum() / (pairs != NO_PAIR).sum()
    assert share == pytest.approx(0.5, abs=0.05)


def test_without_replaced_segments_every_token_is_read_once(view: SplitView) -> None:
    plan = examples.plan_epoch(view, sequence_tokens=32, next_sentence=False, rng=np.random.default_rng(0))
    seen = np.zeros(view.tokens, int)
    for a, a_length, b, b_length, _ in plan:
        seen[a : a + a_length] += 1
        seen[b : b + b_length] += 1
    assert (seen == 1).all()


def test_a_document_is_read_as_often_as_the_store_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    writer = SplitWriter(tmp_path, "train", dtype=np.dtype("<u2"), shard_tokens=200)
    repeats = [1, 3, 0, 2] * 10
    for number in repeats:
        writer.add([rng.integers(5, VOCAB, 12, dtype=np.uint16) for _ in range(6)], repeats=number)
    write_manifest(
        tmp_path, vocab_size=VOCAB, vocab_sha256="x", special_ids=SpecialIds(), splits={"train": writer.close()}
    )
    view = TokenStore.open(tmp_path)["train"]
    read = np.zeros(view.tokens, int)
    plan = examples.plan_epoch(view, sequence_tokens=40, next_sentence=False, rng=np.random.default_rng(0))
    for a, a_length, b, b_length, _ in plan:
        read[a : a + a_length] += 1
        read[b : b + b_length] += 1
    assert read.tolist() == np.repeat(repeats, 72).tolist()
    pairs = examples.plan_epoch(view, sequence_tokens=40, next_sentence=True, rng=np.random.default_rng(0))
    never = {document for document, number in enumerate(repeats) if number == 0}
    assert (pairs[:, PAIR] == IS_RANDOM).any()
    assert not never & {document_of(view, token) for token in pairs[pairs[:, B_LENGTH] > 0, B_START]}


def test_another_vocabulary_s_special_ids_frame_and_mask(tmp_path: Path) -> None:
    special = SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)
    writer = SplitWriter(tmp_path, "train", dtype=np.dtype("<u2"), shard_tokens=1000)
    for _ in range(20):
        writer.add([np.arange(104, 130, dtype=np.uint16), np.array([1, 100, 2], np.uint16)])
    write_manifest(tmp_path, vocab_size=130, vocab_sha256="x", special_ids=special, splits={"train": writer.close()})
    one = Source(
        TokenStore.open(tmp_path)["train"],
        sequence_tokens=40, batch_tokens=400, next_sentence=True, vocab_size=130, seed=1,
    )  # fmt: skip
    targets, drawn = [], []
    for batch in islice(one.from_step(0, rate=0.5, mask=0.5, random=0.5), 20):
        assert (batch.ids[:, 0] == 101).all() and (batch.ids[~batch.attend] == 0).all()
        assert ((batch.ids == 102).sum(1) == 1 + (batch.pair != NO_PAIR)).all()
        targets += batch.targets.tolist()
        drawn += batch.ids.reshape(-1)[batch.masked].tolist()
    assert not set(targets) & set(special) and {1, 2} <= set(targets)
    assert 103 in drawn and not set(drawn) & {0, 100, 101, 102} and min(drawn) < 100


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch_tokens=st.integers(48, 600))
def test_groups_hold_every_example_once_within_the_budget(view: SplitView, seed: int, batch_tokens: int) -> None:
    rng = np.random.default_rng(seed)
    plan = examples.plan_epoch(view, sequence_tokens=48, next_sentence=True, rng=rng)
    groups = examples.group(plan, batch_tokens=batch_tokens, rng=rng)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(plan)))
    for rows in groups:
        longest = (plan[rows, A_LENGTH] + plan[rows, B_LENGTH] + 2 + (plan[rows, B_LENGTH] > 0)).max()
        assert len(rows) * longest <= batch_tokens


def source(view: SplitView, seed: int = 3) -> Source:
    return Source(view, sequence_tokens=48, batch_tokens=384, next_sentence=True, vocab_size=VOCAB, seed=seed)


def test_a_batch_is_laid_out_as_bert_reads_it(view: SplitView) -> None:
    one = source(view)
    plan, groups = one.epoch(0)
    rows = plan[next(g for g in groups if (plan[g, PAIR] != NO_PAIR).any())]
    batch = one.batch(rows, **SHARES, rng=np.random.default_rng(0))
    clean = batch.ids.copy()
    clean.reshape(-1)[batch.masked] = batch.targets
    for row, (a, a_length, b, b_length, _) in enumerate(rows):
        expected = [CLS, *view.span(a, a + a_length), SEP]
        segments = [0] * len(expected)
        if b_length:
            tail = [*view.span(b, b + b_length), SEP]
            expected, segments = expected + tail, segments + [1] * len(tail)
        padding = clean.shape[1] - len(expected)
        assert clean[row].tolist() == expected + [PAD] * padding
        assert batch.segments[row].tolist() == segments + [0] * padding
        assert batch.attend[row].tolist() == [True] * len(expected) + [False] * padding


def test_batches_from_a_step_continue_the_stream(view: SplitView) -> None:
    whole = list(islice(source(view).from_step(0, **SHARES), 90))
    for start in (1, 37, 70):
        again = next(source(view).from_step(start, **SHARES))
        assert (again.ids == whole[start].ids).all() and (again.masked == whole[start].masked).all()


def test_another_seed_gives_other_batches(view: SplitView) -> None:
    one, two = (next(source(view, seed).from_step(0, **SHARES)) for seed in (1, 2))
    assert one.ids.shape != two.ids.shape or (one.ids != two.ids).any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 8), columns=st.integers(3, 60), rate=st.floats(0.05, 0.6))
def test_corruption(seed: int, rows: int, columns: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    original = rng.integers(0, VOCAB, (rows, columns))
    original[0, 0] = 77
    ids = original.copy()
    masked, targets = examples.corrupt(
        ids, vocab_size=VOCAB, rate=rate, mask=0.8, random=0.1, rng=rng, special=SpecialIds()
    )
    flat = original.reshape(-1)
    assert (targets == flat[masked]).all() and (targets > MASK).all()
    assert len(masked) == max(1, round((original > MASK).sum() * rate)) and (np.diff(masked) > 0).all()
    untouched = np.setdiff1d(np.arange(flat.size), masked)
    assert (ids.reshape(-1)[untouched] == flat[untouched]).all()
    assert ((ids.reshape(-1)[masked] == MASK) | (ids.reshape(-1)[masked] > MASK)).all()


def test_shares_of_the_corruption_are_80_10_10() -> None:
    original = np.random.default_rng(0).integers(5, VOCAB, (100, 2000))
    ids = original.copy()
    masked, targets = examples.corrupt(
        ids, vocab_size=VOCAB, rate=0.15, mask=0.8, random=0.1, rng=np.random.default_rng(1), special=SpecialIds()
    )
    now = ids.reshape(-1)[masked]
    assert len(masked) / original.size == pytest.approx(0.15, abs=1e-3)
    assert (now == MASK).mean() == pytest.approx(0.8, abs=0.01)
    # one random draw in VOCAB gives the token that stood there
    assert (now == targets).mean() == pytest.approx(0.1, abs=0.01)


def test_no_ordinary_token_means_nothing_to_predict() -> None:
    ids = np.array([[CLS, SEP, PAD]])
    masked, _ = examples.corrupt(ids, vocab_size=VOCAB, **SHARES, rng=np.random.default_rng(0), special=SpecialIds())
    assert len(masked) == 0
