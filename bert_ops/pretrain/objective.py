"""The pretraining objectives on packed batches, and their held-out measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bert_ops.errors import InputError
from bert_ops.model.attention import Pattern
from bert_ops.model.losses import summed_cross_entropy
from bert_ops.pretrain.batch import NO_PAIR, PackedBatch
from bert_ops.tokenizer.store import SplitView
from bert_ops.training.loop import Loss, Row


def loss(model: nn.Module, batch: PackedBatch) -> Loss:
    """Sums of the MLM loss over masked tokens and of the NSP or SOP loss over pairs (Devlin et al. 2019, A.2).

    In nats. A batch without masked tokens or without pairs adds zero to that objective, and zero gradients.
    """
    mlm_MV, pair_E2, targets_M, pair_E = _scores(model, batch)
    sums = {"mlm": summed_cross_entropy(mlm_MV, targets_M)}
    if pair_E2 is not None:
        sums["nsp"] = F.cross_entropy(pair_E2.float(), pair_E, ignore_index=NO_PAIR, reduction="sum")
    return Loss(sums=sums)


def measure(model: nn.Module, batches: Sequence[PackedBatch], *, prefix: str) -> Row:
    """MLM loss (nats a masked token) and accuracy, NSP accuracy, over fixed batches; the model must be in eval mode.

    Raises:
        InputError: no batch has a token to predict.

    """
    _targets(batches)
    device = next(model.parameters()).device
    # Sums stay on the device, so that it need not wait for the host between two batches.
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    for batch in batches:
        mlm_MV, pair_E2, targets_M, pair_E = _scores(model, batch)
        totals[0] += summed_cross_entropy(mlm_MV, targets_M)
        totals[1] += (mlm_MV.argmax(1) == targets_M).sum()
        if pair_E2 is not None:
            totals[2] += (pair_E2.argmax(1) == pair_E).sum()  # no class is -100
    masked, pairs = (sum(batch.counts[name] for batch in batches) for name in ("mlm", "nsp"))
    loss_sum, right, pair_right = totals.tolist()
    row = {f"{prefix}_mlm_loss": loss_sum / masked, f"{prefix}_mlm_accuracy": right / masked}
    if pairs:
        row[f"{prefix}_nsp_accuracy"] = pair_right / pairs
    return row


def unigram(train: SplitView, held_out: Sequence[PackedBatch], *, vocab_size: int) -> tuple[float, float]:
    """Loss and accuracy of always answering with the training split's token frequencies (add-one smoothed).

    This is what a model scores that has learned frequencies and nothing of context; pretraining must beat it.

    Raises:
        InputError: no batch has a token to predict.

    """
    counts: NDArray[np.float64] = np.ones(vocab_size)
    for ids in train.shard_ids():
        counts += np.bincount(ids, minlength=vocab_size)
    counts[list(train.special)] = 0.0  # special tokens are never masked
    log_share = np.log(np.maximum(counts, 1e-12) / counts.sum())
    targets = _targets(held_out)
    # A token that the tokenizer did not know is masked nowhere, so every target has a positive count.
    return float(-log_share[targets].mean()), float((targets == counts.argmax()).mean())


def _targets(batches: Sequence[PackedBatch]) -> NDArray[np.int64]:
    """Ids to be predicted, of all batches."""
    targets = np.concatenate([np.zeros(0, np.int64), *(batch.targets for batch in batches)])
    if not len(targets):
        raise InputError(
            "the held-out text has no token to predict: every one of them is a special token",
            remedy="check that the tokenizer knows the characters of the validation split (data/tokens/preview.jsonl)",
        )
    return targets


def _scores(model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Logits (M, V) of masked tokens and (E, 2) of pairs (None without that head), targets (M,) and labels (E,)."""
    device = next(model.parameters()).device

    def put(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    pattern = Pattern(put(batch.examples), bounds=put(batch.bounds), longest=batch.longest)
    # Through `forward`, which is what wrappers (DDP, FSDP, compile) see.
    mlm_MV, pair_E2 = model(
        put(batch.ids),
        put(batch.segments),
        None,
        put(batch.masked),
        positions_BT=put(batch.positions),
        pattern=pattern,
        cls_E=put(batch.cls),
    )
    return mlm_MV, pair_E2, put(batch.targets), put(batch.pair)
