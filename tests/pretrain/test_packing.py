"""Packing of examples into rows, and cutting a packed batch into smaller ones."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import made_documents, made_store, made_stream

from bert_ops.pretrain.batch import PackedBatch, split_rows
from bert_ops.pretrain.examples import lengths as lengths_of
from bert_ops.pretrain.packing import pack

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=300)


def rows_of_best_fit(lengths: list[int], capacity: int) -> int:
    """Best-fit decreasing as a textbook has it: look at every row."""
    left: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, space in enumerate(left) if space >= length]
        if fitting:
            left[min(fitting, key=lambda row: left[row])] -= length
        else:
            left.append(capacity - length)
    return len(left)


@settings(max_examples=100)
@given(lengths=LENGTHS, capacity=st.integers(64, 200))
def test_every_example_has_its_place(lengths: list[int], capacity: int) -> None:
    packing = pack(np.array(lengths), capacity)
    taken = np.zeros((packing.rows, capacity), int)
    for length, row, column in zip(lengths, packing.row, packing.column, strict=True):
        assert column + length <= capacity
        taken[row, column : column + length] += 1
    assert taken.max() == 1 and taken.sum() == sum(lengths)
    # A row is filled from its start without gaps, and none is empty.
    assert (np.diff(taken, axis=1) <= 0).all() and (taken[:, 0] == 1).all()
    assert packing.rows == rows_of_best_fit(lengths, capacity)


def test_rows_are_nearly_full_where_short_examples_fill_the_gaps() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.6, 0.9, 20_000).astype(int), 4, 128)
    packing = pack(lengths, 128)
    assert lengths.sum() / (packing.rows * 128) > 0.995


@pytest.mark.parametrize("lengths", [[128] * 5, [1], [65] * 4, [64] * 6])
def test_lengths_that_leave_no_choice(lengths: list[int]) -> None:
    assert pack(np.array(lengths), 128).rows == {128: 5, 1: 1, 65: 4, 64: 3}[lengths[0]]


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[PackedBatch]:
    view = made_store(tmp_path_factory.mktemp("store"), made_documents(150, seed=2, longest=20))
    return [batch for batch, _ in islice(made_stream(view, rows=7, sequence_tokens=48).units(None), 12)]


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
def test_a_batch_is_split_without_loss(batches: list[PackedBatch], parts: int) -> None:
    for batch in batches:
        found = split_rows(batch, parts)
        rows = [len(part.ids) for part in found]
        assert len(found) == min(parts, len(batch.ids)) and max(rows) - min(rows) <= 1
        starts = np.cumsum([0, *(part.ids.size for part in found)])
        for name in ("ids", "segments", "positions", "examples", "targets", "pair"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in found]), getattr(batch, name))
        for name in ("masked", "cls"):
            pieces = [getattr(part, name) + start for part, start in zip(found, starts, strict=False)]
            assert np.array_equal(np.concatenate(pieces), getattr(batch, name))
        bounds = [part.bounds[:-1] + start for part, start in zip(found, starts, strict=False)]
        assert np.array_equal(np.concatenate([*bounds, starts[-1:]]), batch.bounds)
        for part in found:
            assert part.bounds[0] == 0 and part.bounds[-1] == part.ids.size and part.bounds.dtype == np.int32
            assert part.longest == np.diff(part.bounds).max() and part.unit == batch.unit
        assert sum(part.tokens for part in found) == batch.tokens
        assert {n: sum(part.counts[n] for part in found) for n in ("mlm", "nsp")} == batch.counts


def test_real_texts_fill_rows(batches: list[PackedBatch], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Newspaper and reviews: many documents shorter than a row, some much longer."""
    rng = np.random.default_rng(1)
    documents = [
        np.clip(rng.lognormal(3.3, 0.7, 1 + rng.geometric(0.4)), 2, 300).astype(int).tolist() for _ in range(3000)
    ]
    view = made_store(tmp_path_factory.mktemp("texts"), documents, shard_tokens=10**6)
    one = made_stream(view, sequence_tokens=128, rows=32)
    window = one.window(0, 0)
    assert lengths_of(window.examples).sum() / (window.rows * 128) > 0.98
