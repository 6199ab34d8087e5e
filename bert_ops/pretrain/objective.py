"""The pretraining objective and its held-out measurement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bert_ops.model.encoder import PretrainingModel
from bert_ops.pretrain.examples import NO_PAIR, Batch
from bert_ops.tokenizer.store import SplitView
from bert_ops.training.loop import Loss, Row


def tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Ids, segments, attention mask (None when nothing is padded) and masked positions, on the device."""
    attend = None if batch.attend.all() else torch.from_numpy(batch.attend).to(device)
    return (
        torch.from_numpy(batch.ids).to(device),
        torch.from_numpy(batch.segments).to(device),
        attend,
        torch.from_numpy(batch.masked).to(device),
    )


def loss(model: nn.Module, batch: Batch) -> Loss:
    """Sum of the mean MLM loss over masked tokens and the mean NSP loss over pairs (Devlin et al. 2019, A.2)."""
    device = next(model.parameters()).device
    mlm_MV, nsp_B2 = model(*tensors(batch, device))
    mlm = F.cross_entropy(mlm_MV.float(), torch.from_numpy(batch.targets).to(device))
    total = mlm
    if (batch.pair != NO_PAIR).any():
        pair = torch.from_numpy(batch.pair).to(device)
        total = mlm + F.cross_entropy(nsp_B2.float(), pair, ignore_index=NO_PAIR)
    return Loss(total=total, tokens=batch.tokens)


def measure(model: nn.Module, batches: Iterable[Batch], *, prefix: str) -> Row:
    """MLM loss (nats a masked token) and accuracy, NSP accuracy, over fixed batches; the model must be in eval mode."""
    model = cast(PretrainingModel, model)
    device = next(model.parameters()).device
    loss_sum = right = masked = pair_right = pairs = 0.0
    for batch in batches:
        mlm_MV, nsp_B2 = model(*tensors(batch, device))
        targets = torch.from_numpy(batch.targets).to(device)
        loss_sum += F.cross_entropy(mlm_MV.float(), targets, reduction="sum").item()
        right += (mlm_MV.argmax(1) == targets).sum().item()
        masked += len(targets)
        is_pair = batch.pair != NO_PAIR
        pairs += int(is_pair.sum())
        pair_right += int((nsp_B2.argmax(1).cpu().numpy() == batch.pair)[is_pair].sum())
    row = {f"{prefix}_mlm_loss": loss_sum / masked, f"{prefix}_mlm_accuracy": right / masked}
    if pairs:
        row[f"{prefix}_nsp_accuracy"] = pair_right / pairs
    return row


def unigram(train: SplitView, held_out: Iterable[Batch], *, vocab_size: int) -> tuple[float, float]:
    """Loss and accuracy of always answering with the training split's token frequencies (add-one smoothed).

    This is what a model scores that has learned frequencies and nothing of context; pretraining must beat it.
    """
    counts: NDArray[np.float64] = np.ones(vocab_size)
    for ids in train.shard_ids():
        counts += np.bincount(ids, minlength=vocab_size)
    counts[list(train.special)] = 0.0  # special tokens are never masked
    log_share = np.log(np.maximum(counts, 1e-12) / counts.sum())
    targets = np.concatenate([batch.targets for batch in held_out])
    # A token that the tokenizer did not know is masked nowhere, so every target has a positive count.
    return float(-log_share[targets].mean()), float((targets == counts.argmax()).mean())
