"""Training texts as they are read: changed at random, another way in each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bert_ops.finetune.batching import Pieces
from bert_ops.finetune.examples import TaskData
from bert_ops.finetune.mentions import Mentions
from bert_ops.finetune.params import FinetuneParams, TaskParams, TokenClassificationTask
from bert_ops.finetune.problems.tagging import Tagging
from bert_ops.seeding import generator
from bert_ops.tokenizer.wordpiece import SpecialIds

Ints = NDArray[np.int64]


def training_pieces(data: TaskData, task: TaskParams, params: FinetuneParams) -> Callable[[Ints, int], Pieces]:
    """Return what gives the rows of a training batch; rows and the number of the step decide, with the seed."""
    split = data.splits["train"]
    mentions = _mentions(data, task)

    def pieces(rows: Ints, step: int) -> Pieces:
        taken = Pieces.of(split.rows, split.items, split.targets, rows)
        if mentions is not None:
            assert isinstance(task, TokenClassificationTask)
            rng = generator(params.seed, "mentions", step)
            taken = mentions.drawn_anew(taken, share=task.mention_replacement, rng=rng)
        rng = generator(params.seed, "masking", step)
        return mask_tokens(taken, rate=params.token_masking, rng=rng, special=data.special)

    return pieces


def _mentions(data: TaskData, task: TaskParams) -> Mentions | None:
    if not isinstance(task, TokenClassificationTask) or task.mention_replacement == 0.0:
        return None
    split, problem = data.splits["train"], data.problem
    assert isinstance(problem, Tagging)
    whole = Pieces.of(split.rows, split.items, split.targets, np.arange(len(split.rows)))
    return Mentions.of(whole, labels=len(problem.span_labels), scheme=problem.scheme, limit=task.max_tokens)


def mask_tokens(pieces: Pieces, *, rate: float, rng: np.random.Generator, special: SpecialIds) -> Pieces:
    """Replace a share of the ordinary tokens by ``[MASK]``, so that no single word decides a training text.

    The pretrained encoder has seen masked texts all along, which makes this a kind of dropout that it knows.
    """
    if rate == 0.0:
        return pieces
    flat = np.concatenate(pieces.ids)
    masked = np.where(~np.isin(flat, special) & (rng.random(flat.shape) < rate), special.mask, flat)
    edges = np.cumsum([len(ids) for ids in pieces.ids])[:-1]
    return replace(pieces, ids=np.split(masked, edges))
