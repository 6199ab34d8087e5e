"""What every run of the comparison of quality gets, and the held-out text that all of them are measured on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pretraining_data import Setting, chunks

from bert_ops.model.heads import PretrainingModel
from bert_ops.pretrain import fitting, objective
from bert_ops.pretrain.batch import NO_PAIR, PackedBatch
from bert_ops.pretrain.masking import BERT_RATE, BERT_RATES, corrupt
from bert_ops.pretrain.params import PretrainParams
from bert_ops.seeding import generator

#: Times that a run is measured on held-out text.
MEASUREMENTS = 20

#: Tokens trained on, loss on all held-out text, in our form, in the grouped form.
Point = tuple[int, float, float, float]
Curve = list[Point]


@dataclass(frozen=True)
class Budget:
    """What each run of the comparison gets.

    Args:
        steps: optimiser steps.
        seeds: runs of each kind.
        rate: peak learning rate.
        held_out: examples to measure on; rows cut anywhere have about as many tokens.
        slow_peers: whether the peers in float32 are trained as well, with one seed.

    """

    steps: int
    seeds: int
    rate: float
    held_out: int
    slow_peers: bool = True

    @classmethod
    def of(cls, arguments: argparse.Namespace, setting: Setting) -> Budget:
        """As the command line says."""
        if arguments.quick:
            return cls(steps=6, seeds=1, rate=1e-3, held_out=64, slow_peers=False)
        rate = arguments.learning_rate or {"base": 2e-4, "medium": 5e-4}.get(setting.model, 1e-3)
        return cls(max(MEASUREMENTS, arguments.budget // setting.batch_tokens), arguments.seeds, rate, 400)

    @property
    def every(self) -> int:
        """Steps between two measurements."""
        return max(1, self.steps // MEASUREMENTS)

    def params(self, setting: Setting, **changes: Any) -> PretrainParams:
        """Parameters of our side; the peers take optimiser, schedule and clipping from them."""
        params = setting.params(steps=self.steps, evaluate_every_steps=self.every, sentence_objective="none", **changes)
        section = params.model_dump()
        section["optimizer"] |= {"kind": "adamw", "learning_rate": self.rate}
        section["schedule"] = {"kind": "linear", "warmup_steps": self.steps // 10, "final_share": 0.0}
        section["clipping"] = {"norm": 1.0, "value": None}
        return PretrainParams(**section)


class HeldOut:
    """Fixed batches in both forms, and the one way in which everybody is measured."""

    def __init__(self, setting: Setting, budget: Budget) -> None:
        # The batches are the same for all seeds.
        self.params = budget.params(replace(setting, seed=0))
        view = setting.store["validation"]
        params = self.params.model_copy(update={"evaluation_sequences": budget.held_out})
        self.packed = fitting.held_out_units(view, params, setting.vocab_size)
        self.grouped = [self._rows(setting)]
        self.model = PretrainingModel(self.params.model.config(vocab_size=setting.vocab_size)).to(setting.device)
        self.model.eval()

    def _rows(self, setting: Setting) -> PackedBatch:
        view, T = setting.store["validation"], setting.sequence_tokens
        tokens = sum(batch.tokens for batch in self.packed)
        ids = chunks(view, tokens=T, limit=max(1, tokens // T))[: max(1, tokens // T)].copy()
        masked, targets = corrupt(
            ids,
            vocab_size=setting.vocab_size,
            special=view.special,
            rate=BERT_RATE,
            rates=BERT_RATES,
            word_starts=None,
            rng=generator(0, "grouped"),
        )
        R = len(ids)
        bounds = np.arange(0, R * T + 1, T, dtype=np.int32)
        return PackedBatch(
            ids=ids,
            segments=np.zeros_like(ids),
            positions=np.broadcast_to(np.arange(T), (R, T)).copy(),
            examples=np.ones((R, T), np.int16),
            masked=masked,
            targets=targets,
            cls=bounds[:-1].astype(np.int64),
            pair=np.full(R, NO_PAIR),
            bounds=bounds,
            longest=T,
            unit=0,
        )

    def measure(self, weights: dict[str, Any], tokens: int) -> Point:
        """Losses of weights under our names; those that are missing do not matter for masked tokens."""
        self.model.load_state_dict(weights, strict=False)
        with torch.no_grad():
            losses = [
                objective.measure(self.model, batches, prefix="x")["x_mlm_loss"]
                for batches in (self.packed, self.grouped)
            ]
        return tokens, sum(losses) / 2, losses[0], losses[1]
