"""Run a task model through PyTorch and through ONNX Runtime, and compare what they say.

Every text is scored by itself, without padding. That is how the shipped model is used, and it matters for int8:
activations are quantized with one scale for the whole tensor, so the answer for a text depends, slightly, on the
others in its batch. Shapes: N texts, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.finetune.batching import Pieces, lay_out
from bert_ops.model.encoder import TaskModel
from bert_ops.progress import Progress

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
#: Token ids and attention, each (batch, tokens), to logits.
Scorer = Callable[[Ids, Ids], Logits]


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """Copy a tokenizer without the truncation and padding that training set."""
    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_padding()
    own.no_truncation()
    return own


def pytorch_scorer(model: TaskModel) -> Scorer:
    """Score with the model itself: eager mode, float32, as many threads as torch is set to."""
    model = model.float().eval()

    def score(ids_BT: Ids, attend_BT: Ids) -> Logits:
        ids = torch.from_numpy(ids_BT)
        # Attention is faster without a mask; a user of the model would leave it out too.
        attend = None if attend_BT.all() else torch.from_numpy(attend_BT).bool()
        with torch.inference_mode():
            logits: Logits = model(ids, torch.zeros_like(ids), attend).numpy()
        return logits

    return score


def onnx_scorer(graph: bytes, *, threads: int) -> Scorer:
    """Score with ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def score(ids_BT: Ids, attend_BT: Ids) -> Logits:
        feed = {"input_ids": ids_BT, "token_type_ids": np.zeros_like(ids_BT), "attention_mask": attend_BT}
        logits: Logits = session.run(["logits"], feed)[0]
        return logits

    return score


def score_all(scorer: Scorer, texts: Sequence[Ids], *, what: str) -> Logits:
    """Logits of every text, one text a call: (N, L)."""
    progress = Progress(what, total=len(texts), unit="texts")
    rows = []
    for done, ids in enumerate(texts, start=1):
        rows.append(scorer(ids[None], np.ones((1, len(ids)), dtype=np.int64))[0])
        progress.update(done)
    return np.stack(rows)


def score_padded(scorer: Scorer, texts: Sequence[Ids]) -> Logits:
    """Logits of all texts in one padded batch, which exercises the mask and the free axes: (N, L)."""
    none: list[Ids] = [np.zeros(0, np.int64)] * len(texts)
    batch = lay_out(Pieces(list(texts), None, none, []), layout="bucketed", pad_id=0, unit=0)
    ids_BT = batch.ids
    attend_BT = np.ones_like(ids_BT) if batch.examples is None else batch.examples > 0
    return scorer(ids_BT, attend_BT.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What quantization changed on the same examples.

    ``accuracy`` and ``accuracy_fp32`` are shares; ``agreement`` is the share of equal predictions; ``lost`` and
    ``gained`` count examples that only float32, or only int8, got right; ``difference_ci95`` is about
    ``accuracy - accuracy_fp32``.
    """

    examples: int
    accuracy: float
    accuracy_fp32: float
    agreement: float
    lost: int
    gained: int
    difference_ci95: tuple[float, float]


def compare(fp32_NL: Logits, int8_NL: Logits, labels_N: NDArray[np.int64]) -> Comparison:
    """Compare the predictions of both models with the labels."""
    before, after = fp32_NL.argmax(axis=1), int8_NL.argmax(axis=1)
    right_before, right_after = before == labels_N, after == labels_N
    lost, gained = int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())
    return Comparison(
        examples=len(labels_N),
        accuracy=float(right_after.mean()),
        accuracy_fp32=float(right_before.mean()),
        agreement=float((before == after).mean()),
        lost=lost,
        gained=gained,
        difference_ci95=paired_interval(gained, lost, total=len(labels_N)),
    )


def paired_interval(gained: int, lost: int, *, total: int) -> tuple[float, float]:
    """95% interval of the difference of two shares on the same examples.

    Wald's with half an observation added to each of the four cells, which keeps its coverage when the differences
    are few (Agresti & Min 2005, Statistics in Medicine 24: 729-740).
    """
    n = total + 2.0
    b, c = gained + 0.5, lost + 0.5
    centre, spread = (b - c) / n, 1.959964 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return centre - spread, centre + spread
