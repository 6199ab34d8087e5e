"""Run a task model through PyTorch and through ONNX Runtime, and compare what they say.

Every text is scored by itself, without padding. That is how the shipped model is used, and it matters for int8:
activations are quantized with one scale for the whole tensor, so the answer for a text depends, slightly, on the
others in its batch. Shapes: R rows (texts, or windows of them), T tokens, M items that are answered for, C outputs.
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
from bert_ops.finetune.encoding import Rows
from bert_ops.finetune.problems import AnyProblem, Regression
from bert_ops.finetune.problems.base import Items
from bert_ops.finetune.resampling import paired
from bert_ops.finetune.scores import evaluate_score
from bert_ops.model.heads import TaskModel
from bert_ops.progress import Progress
from bert_ops.seeding import generator

#: Metrics that are shares of examples, whose difference has an interval in closed form; others are resampled.
COUNTED = ("accuracy", "subset_accuracy")
RESAMPLES = 2000

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
#: Token ids, segments and attention, each (batch, tokens), to logits: (batch, C), or (batch, tokens, C).
Scorer = Callable[[Ids, Ids, Ids], Logits]


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """Copy a tokenizer without the truncation and padding that training set."""
    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_padding()
    own.no_truncation()
    return own


def pytorch_scorer(model: TaskModel) -> Scorer:
    """Score with the model itself: eager mode, float32, as many threads as torch is set to."""
    model = model.float().eval()

    def score(ids_BT: Ids, segments_BT: Ids, attend_BT: Ids) -> Logits:
        # Attention is faster without a mask; a user of the model would leave it out too.
        attend = None if attend_BT.all() else torch.from_numpy(attend_BT).bool()
        with torch.inference_mode():
            logits: Logits = model(torch.from_numpy(ids_BT), torch.from_numpy(segments_BT), attend).numpy()
        return logits

    return score


def onnx_scorer(graph: bytes, *, threads: int) -> Scorer:
    """Score with ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def score(ids_BT: Ids, segments_BT: Ids, attend_BT: Ids) -> Logits:
        feed = {"input_ids": ids_BT, "token_type_ids": segments_BT, "attention_mask": attend_BT}
        logits: Logits = session.run(["logits"], feed)[0]
        return logits

    return score


def score_all(scorer: Scorer, rows: Rows, items: Items, *, what: str) -> Logits:
    """Logits of every item, one row a call: (M, C)."""
    progress = Progress(what, total=len(rows), unit="texts")
    found = []
    for row, ids in enumerate(rows.ids):
        segments = np.zeros_like(ids) if rows.segments is None else rows.segments[row]
        found.append(_items(scorer(ids[None], segments[None], np.ones((1, len(ids)), np.int64)), items, [row]))
        progress.update(row + 1)
    return np.concatenate(found)


def score_padded(scorer: Scorer, rows: Rows, items: Items, *, count: int) -> Logits:
    """Logits of the items of the first rows in one padded batch, which exercises the mask and the free axes."""
    chosen = np.arange(min(count, len(rows)))
    batch = lay_out(Pieces.of(rows, items, None, chosen), layout="bucketed", pad_id=0, unit=0, limit=0)
    attend = np.ones_like(batch.ids) if batch.examples is None else (batch.examples > 0).astype(np.int64)
    return _items(scorer(batch.ids, batch.segments, attend), items, chosen.tolist())


def _items(logits: Logits, items: Items, chosen: Sequence[int]) -> Logits:
    """Pick the items' logits out of those of some rows, (B, C) or (B, T, C)."""
    if logits.ndim == 2:
        return logits
    picked = [logits[n, items.places[items.starts[row] : items.starts[row + 1]]] for n, row in enumerate(chosen)]
    return np.concatenate(picked)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What quantization changed on the same N examples.

    ``score`` and ``score_fp32`` are of the task's ``metric``; ``agreement`` is the share of equal answers; ``lost`` and
    ``gained`` count examples that only float32, or only int8, got right. These three are None for numbers, of which
    none is quite the same. ``difference_ci95`` is about ``score - score_fp32``.
    """

    examples: int
    metric: str
    score: float
    score_fp32: float
    agreement: float | None
    lost: int | None
    gained: int | None
    difference_ci95: tuple[float, float]


def compare(problem: AnyProblem, fp32: Any, shipped: Any, truth: Sequence[Any], *, metric: str) -> Comparison:
    """Compare the answers of float32 and of what ships with the true ones."""
    before, after = (problem.scores(answers, truth)[metric] for answers in (fp32, shipped))
    agreement = lost = gained = None
    if not isinstance(problem, Regression):
        texts = [np.array(found, object) for found in (problem.as_text(fp32), problem.as_text(shipped))]
        right = [found == np.array(problem.truth_as_text(truth), object) for found in texts]
        agreement = float((texts[0] == texts[1]).mean())
        lost, gained = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    if metric in COUNTED and lost is not None and gained is not None:
        interval = paired_interval(gained, lost, total=len(truth))
    else:
        found = paired(after, before, resamples=RESAMPLES, rng=generator(0, "compress", "difference"))
        interval = (found.interval.low, found.interval.high)
    return Comparison(
        examples=len(truth),
        metric=metric,
        score=evaluate_score(after),
        score_fp32=evaluate_score(before),
        agreement=agreement,
        lost=lost,
        gained=gained,
        difference_ci95=interval,
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
