"""Losses and held-out figures on packed batches, against examples that stand alone."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_stores import FIRST, clean, made_documents, made_store, made_stream
from torch import Tensor, nn

from bert_ops.errors import InputError
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import PretrainingModel
from bert_ops.pretrain import objective
from bert_ops.pretrain.batch import NO_PAIR, PackedBatch, split_rows
from bert_ops.pretrain.stream import fixed_units
from bert_ops.tokenizer.store import SplitView


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> SplitView:
    return made_store(tmp_path_factory.mktemp("store"), made_documents(40, seed=1, longest=12))


@pytest.fixture(scope="module")
def batches(view: SplitView) -> list[PackedBatch]:
    return [batch for batch, _ in islice(made_stream(view, sequence_tokens=40).units(None), 3)]


@pytest.fixture
def model(view: SplitView) -> PretrainingModel:
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=FIRST + view.tokens,
        hidden_size=16,
        layers=2,
        heads=2,
        feed_forward_size=32,
        max_positions=40,
        initializer_range=0.3,
    )
    return PretrainingModel(config)


def alone(model: PretrainingModel, batch: PackedBatch) -> dict[str, Tensor]:
    """Sums of the losses when each example is a batch by itself, without packing, masks or padding."""
    sums = {"mlm": torch.zeros(()), "nsp": torch.zeros(())}
    assert not batch.positions.reshape(-1)[batch.cls].any()
    for start, label in zip(batch.cls.tolist(), batch.pair.tolist(), strict=True):
        row = start // batch.ids.shape[1]
        number = batch.examples.reshape(-1)[start]
        here = np.flatnonzero((batch.examples == number) & (np.arange(len(batch.ids)) == row)[:, None])
        ids, segments = (torch.from_numpy(x.reshape(-1)[here])[None] for x in (batch.ids, batch.segments))
        inside = np.isin(batch.masked, here)
        masked = torch.from_numpy(batch.masked[inside] - start)
        mlm_MV, nsp_12 = model(ids, segments, None, masked)
        sums["mlm"] = sums["mlm"] + F.cross_entropy(mlm_MV, torch.from_numpy(batch.targets[inside]), reduction="sum")
        if label != NO_PAIR:
            sums["nsp"] = sums["nsp"] + F.cross_entropy(nsp_12, torch.tensor([label]), reduction="sum")
    return sums


def gradients(model: nn.Module, sums: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    torch.stack(list(sums.values())).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_packing_changes_no_loss_and_no_gradient(model: PretrainingModel, batches: list[PackedBatch]) -> None:
    for batch in batches:
        assert batch.examples.max() > 1 and (batch.pair != NO_PAIR).any()
        packed, single = objective.loss(model, batch).sums, alone(model, batch)
        for name, expected in single.items():
            assert float(packed[name].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        one, two = gradients(model, packed), gradients(model, single)
        assert set(one) == set(two)
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-4)


def test_smaller_passes_add_up(model: PretrainingModel, batches: list[PackedBatch]) -> None:
    for batch in batches:
        parts = [objective.loss(model, part).sums for part in split_rows(batch, 3)]
        for name, expected in objective.loss(model, batch).sums.items():
            total = sum(float(part[name].detach()) for part in parts)
            assert total == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_batch_with_nothing_to_predict_adds_nothing(model: PretrainingModel, batches: list[PackedBatch]) -> None:
    none = np.zeros(0, np.int64)
    batch = replace(batches[0], masked=none, targets=none, pair=np.full_like(batches[0].pair, NO_PAIR))
    assert batch.counts == {"mlm": 0, "nsp": 0}
    sums = objective.loss(model, batch).sums
    assert {name: float(value.detach()) for name, value in sums.items()} == {"mlm": 0.0, "nsp": 0.0}
    assert all((grad == 0).all() for grad in gradients(model, sums).values())


class Fixed(nn.Module):
    """Answers with the logits it was given, whatever it reads."""

    def __init__(self, mlm: Tensor, pair: Tensor | None) -> None:
        super().__init__()
        self.mlm, self.pair = nn.Parameter(mlm), pair

    def forward(self, *_: object, **__: object) -> tuple[Tensor, Tensor | None]:
        return self.mlm, self.pair


def test_measured_figures_are_means_over_items(batches: list[PackedBatch]) -> None:
    batch = batches[0]
    masked, vocab = len(batch.masked), 10_000
    targets = torch.from_numpy(batch.targets)
    right = torch.arange(masked) % 3 == 0
    logits = torch.zeros(masked, vocab)
    logits[torch.arange(masked), torch.where(right, targets, (targets + 1) % vocab)] = 5.0
    labels = torch.from_numpy(batch.pair)
    pair = F.one_hot((labels != 0).long(), 2).float()
    pair[0] = pair[0].flip(0)
    with torch.no_grad():
        row = objective.measure(Fixed(logits, pair), [batch, batch], prefix="validation")
    share = float(right.float().mean())
    norm = math.log(math.exp(5) + vocab - 1)
    assert row["validation_mlm_accuracy"] == pytest.approx(share)
    assert row["validation_mlm_loss"] == pytest.approx(norm - 5 * share, rel=1e-5)
    wrong = int(labels[0] != NO_PAIR)
    assert row["validation_nsp_accuracy"] == pytest.approx(1 - wrong / int((labels != NO_PAIR).sum()))


def test_without_pairs_no_pair_figure_is_reported(view: SplitView, model: PretrainingModel) -> None:
    held_out = fixed_units(
        view, sequence_tokens=40, sentence_objective="none", vocab_size=FIRST + view.tokens, seed=1, examples=5, rows=2
    )
    with torch.no_grad():
        row = objective.measure(model.eval(), held_out, prefix="train")
    assert set(row) == {"train_mlm_loss", "train_mlm_accuracy"}
    assert row["train_mlm_loss"] > 0


def test_text_without_a_known_token_is_refused(view: SplitView, model: PretrainingModel, tmp_path: Path) -> None:
    none = np.zeros(0, np.int64)
    stream = made_stream(view)
    batch = replace(next(stream.units(None))[0], masked=none, targets=none)
    with pytest.raises(InputError, match="no token to predict"):
        objective.measure(model, [batch], prefix="validation")
    with pytest.raises(InputError, match="no token to predict"):
        objective.unigram(view, [], vocab_size=FIRST + view.tokens)


def test_unigram_is_the_cross_entropy_of_the_frequencies(view: SplitView, batches: list[PackedBatch]) -> None:
    vocab = FIRST + view.tokens + 7
    loss, accuracy = objective.unigram(view, batches, vocab_size=vocab)
    # Every token of this store occurs once: count 2 with the one that is added; seven never occur.
    assert loss == pytest.approx(math.log((2 * view.tokens + 7) / 2))
    assert all((clean(batch)[batch.masked] == batch.targets).all() for batch in batches)
    assert accuracy == np.mean([t == FIRST for batch in batches for t in batch.targets])
