"""Batches: every row once an epoch, laid out so that the model reads each as if it stood alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.finetune.batching import (
    Layout,
    Pieces,
    divide,
    epoch_order,
    forward,
    lay_out,
    order_from,
    steps_per_epoch,
)
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import TaskModel

LAYOUTS: tuple[Layout, ...] = ("bucketed", "packed")
lengths_of = st.lists(st.integers(2, 16), min_size=1, max_size=12)


def pieces_of(lengths: list[int], *, tokens: bool = False, seed: int = 0) -> Pieces:
    """Random rows; with ``tokens`` every other token is an item, else the first one."""
    rng = np.random.default_rng(seed)
    places = [np.arange(1, n, 2) if tokens else np.zeros(1, np.int64) for n in lengths]
    return Pieces(
        ids=[rng.integers(1, 50, n) for n in lengths],
        segments=[(np.arange(n) > n // 2).astype(np.int64) for n in lengths],
        places=places,
        targets=[rng.integers(0, 3, len(place)) for place in places],
    )


@pytest.fixture(scope="module", params=["sequence_classification", "token_classification"])
def model(request: pytest.FixtureRequest) -> TaskModel:
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=50, hidden_size=16, layers=2, heads=2, feed_forward_size=32, max_positions=16, initializer_range=0.3
    )
    return TaskModel(config, labels=3, kind=request.param, classifier_dropout=0.0).eval()


@given(lengths=lengths_of)
@settings(max_examples=40)
def test_both_layouts_read_rows_as_if_they_stood_alone(model: TaskModel, lengths: list[int]) -> None:
    pieces = pieces_of(lengths, tokens=model.pooler is None)
    singles = [pieces.part(np.array([n])) for n in range(len(lengths))]
    with torch.inference_mode():
        alone = [forward(model, lay_out(piece, layout="bucketed", pad_id=0, unit=0, limit=16)) for piece in singles]
        for layout in LAYOUTS:
            batch = lay_out(pieces, layout=layout, pad_id=0, unit=0, limit=16)
            logits, targets = forward(model, batch)
            assert targets.tolist() == torch.cat([t for _, t in alone]).tolist()
            torch.testing.assert_close(logits, torch.cat([x for x, _ in alone]), rtol=1e-5, atol=1e-5)
            assert batch.tokens == sum(lengths) and batch.counts == {"loss": len(targets)}


@given(lengths=lengths_of, parts=st.integers(1, 5))
@settings(max_examples=40)
def test_a_divided_batch_loses_nothing(lengths: list[int], parts: int) -> None:
    batch = lay_out(pieces_of(lengths, tokens=True), layout="packed", pad_id=0, unit=7, limit=16)
    divided = divide(batch, parts, layout="packed", pad_id=0, limit=16)
    assert len(divided) == min(parts, len(lengths))
    assert np.concatenate([part.targets for part in divided]).tolist() == batch.targets.tolist()
    assert sum(part.tokens for part in divided) == batch.tokens and {part.unit for part in divided} == {7}


def test_packing_saves_padding() -> None:
    pieces = pieces_of([16, 8, 8, 5, 5, 6])
    assert lay_out(pieces, layout="packed", pad_id=0, unit=0, limit=16).ids.shape == (3, 16)
    assert lay_out(pieces, layout="bucketed", pad_id=0, unit=0, limit=16).ids.shape == (6, 16)


@given(lengths=lengths_of, limit=st.integers(16, 24))
def test_widths_are_few_and_fit_the_model(lengths: list[int], limit: int) -> None:
    for layout in LAYOUTS:
        width = lay_out(pieces_of(lengths), layout=layout, pad_id=0, unit=0, limit=limit).ids.shape[1]
        assert max(lengths) <= width <= limit and (width % 8 == 0 or width == limit)


def test_padding_has_the_models_own_id() -> None:
    batch = lay_out(pieces_of([2, 4]), layout="bucketed", pad_id=49, unit=0, limit=16)
    assert batch.examples is not None
    assert (batch.ids[batch.examples == 0] == 49).all()
    assert lay_out(pieces_of([8, 8]), layout="bucketed", pad_id=49, unit=0, limit=16).examples is None


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=300),
    batch=st.integers(1, 40),
    layout=st.sampled_from(LAYOUTS),
    epoch=st.integers(0, 3),
)
@settings(max_examples=60)
def test_every_row_occurs_once_an_epoch(lengths: list[int], batch: int, layout: Layout, epoch: int) -> None:
    order = epoch_order(np.array(lengths), batch=batch, layout=layout, seed=1, epoch=epoch)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(lengths)))
    assert len(order) == steps_per_epoch(len(lengths), batch=batch)
    assert max(map(len, order)) <= batch


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("step", [0, 1, 6, 7, 15])
def test_the_order_can_be_taken_up_anywhere(layout: Layout, step: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 50)

    def taken(first: int, count: int) -> list[list[int]]:
        batches = order_from(lengths, first, batch=8, layout=layout, seed=3)
        return [next(batches).tolist() for _ in range(count)]

    assert taken(step, 4) == taken(0, step + 4)[step:]


def test_bucketed_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 3200)
    spread = {
        layout: np.mean([np.ptp(lengths[b]) for b in epoch_order(lengths, batch=32, layout=layout, seed=0, epoch=0)])
        for layout in LAYOUTS
    }
    assert spread["bucketed"] < 5 < 80 < spread["packed"]
