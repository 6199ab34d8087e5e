"""Small training runs: a regression that takes milliseconds a step, and pretraining of a one-layer encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bert_ops.pretrain import fitting
from bert_ops.pretrain.params import PretrainParams
from bert_ops.seeding import derive
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.checkpoint import CheckpointStore, Retention
from bert_ops.training.device import prepare
from bert_ops.training.loop import Loss, Plan, Position, Run, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.params import (
    AdamWParams,
    BatchParams,
    CheckpointParams,
    ClippingParams,
    ConstantBatch,
    LinearSchedule,
    StabilityParams,
)
from bert_ops.training.run_log import LOG_NAME, RunLog, deterministic, read_log

OPTIMIZER = AdamWParams(kind="adamw", learning_rate=0.05, weight_decay=0.01, beta1=0.9, beta2=0.98, epsilon=1e-6)
UNIT_ROWS = 8
IDENTITY = {"architecture": "a", "vocabulary": "v", "parameters": "p"}


@dataclass(frozen=True)
class Rows:
    """A unit: rows of numbers whose sum is to be told."""

    x: Tensor
    unit: int

    @property
    def tokens(self) -> int:
        return len(self.x)

    @property
    def counts(self) -> dict[str, int]:
        return {"squared": len(self.x)}


def rows_of(unit: int, *, rows: int = UNIT_ROWS) -> Rows:
    return Rows(torch.randn(rows, 4, generator=torch.Generator().manual_seed(derive(1, unit))), unit)


def units(position: Position | None, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Rows, Position]]:
    for first in count((position or {"unit": 0})["unit"], world):
        yield rows_of(first + rank), {"unit": first + world}


def split(unit: Rows, parts: int) -> list[Rows]:
    return [Rows(x, unit.unit) for x in unit.x.tensor_split(min(parts, len(unit.x)))]


def loss(model: nn.Module, unit: Rows) -> Loss:
    return Loss({"squared": (model(unit.x)[:, 0] - unit.x.sum(1)).pow(2).sum()})


def evaluate(model: nn.Module) -> dict[str, float]:
    fixed = rows_of(10**6, rows=32)
    return {"validation_loss": float(loss(model, fixed).sums["squared"].detach()) / 32}


def batch(units_a_step: int = 2, *, growth: Any = None, world: int = 1) -> BatchSize:
    tokens = units_a_step * UNIT_ROWS
    growth = growth or ConstantBatch(kind="constant")
    return BatchSize(
        BatchParams(tokens=tokens, micro_tokens=UNIT_ROWS, growth=growth), unit_tokens=UNIT_ROWS, world=world
    )


def stability(**changes: Any) -> StabilityParams:
    values = {"spike_deviations": 0.0, "window": 20, "max_skips_in_a_row": 3, "rate_factor": 0.5, "max_rollbacks": 2}
    return StabilityParams(**{**values, **changes})


def checkpoints(**changes: Any) -> CheckpointParams:
    values = {"every_s": 1e6, "every_steps": 5, "keep_last": 2, "keep_best": 0, "milestone_steps": 0}
    return CheckpointParams(**{**values, **changes})


def plan(folder: Path | None = None, **changes: Any) -> Plan[Rows]:
    """A run of 40 steps of two units each; with a folder it is logged and checkpointed there."""
    when = changes.pop("when", None) or checkpoints()
    values: dict[str, Any] = {
        "what": "testing",
        "seed": 3,
        "total_steps": 40,
        "units": units,
        "batch": batch(),
        "loss": loss,
        "split": split,
        "schedule": LinearSchedule(kind="linear", warmup_steps=5, final_share=0.0),
        "clipping": ClippingParams(norm=1.0, value=None),
        "precision": "float32",
        "stability": stability(),
        "evaluate": evaluate,
        "evaluate_at": lambda step: step % 10 == 0,
        "best": "validation_loss",
        "log_every_steps": 4,
    }
    if folder is not None:
        values |= {"store": store(folder, when), "checkpoints": when, "log": RunLog(folder / LOG_NAME)}
    return Plan(**{**values, **changes})


def store(folder: Path, when: CheckpointParams | None = None) -> CheckpointStore:
    when = when or checkpoints()
    retention = Retention(keep_last=when.keep_last, keep_best=when.keep_best)
    return CheckpointStore(folder, retention=retention, identity=IDENTITY)


def fresh(*, dropout: float = 0.1, seed: int = 7) -> nn.Module:
    prepare(threads=1, seed=seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


def trained(a_plan: Plan[Rows], *, dropout: float = 0.1, seed: int = 7) -> tuple[nn.Module, Run]:
    model = fresh(dropout=dropout, seed=seed)
    return model, train(a_plan, model, build_optimizer(model, OPTIMIZER))


def digest(model: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def told(folder: Path, name: str = LOG_NAME) -> list[str]:
    """The deterministic part of a log as texts, in which NaN equals NaN."""
    return [repr(record) for record in deterministic(read_log(folder / name))]


def events(folder: Path, event: str) -> list[dict[str, Any]]:
    return [record for record in read_log(folder / LOG_NAME) if record["event"] == event]


def small_params(params: dict, **changes: Any) -> PretrainParams:
    """The tests' parameters with a still smaller run; a dict in ``changes`` is merged, one with a kind replaces."""
    section = {
        **params["pretrain"],
        "steps": 12,
        "sequence_tokens": 32,
        "batch": {"tokens": 256, "micro_tokens": 128, "growth": {"kind": "constant"}},
        "evaluate_every_steps": 4,
        "evaluation_sequences": 8,
        "log_every_steps": 3,
        "embedding_init": {**params["pretrain"]["embedding_init"], "kind": "normal"},
        "schedule": {"kind": "linear", "warmup_steps": 3, "final_share": 0.0},
        "checkpoints": {"every_s": 1e6, "every_steps": 1, "keep_last": 100, "keep_best": 0, "milestone_steps": 0},
    }
    for name, value in changes.items():
        merged = isinstance(value, dict) and "kind" not in value and name != "batch"
        section[name] = {**section[name], **value} if merged else value
    return PretrainParams(**section)


def pretrained(tokens: Path, params: PretrainParams, folder: Path) -> tuple[nn.Module, Run]:
    """Pretrain in this process; log and checkpoints go to ``folder``, whose checkpoint it goes on from."""
    data = TokenStore.open(tokens)
    prepare(threads=params.threads, seed=params.seed)
    model = fitting.build_model(data, params)
    held_out, probe = (fitting.held_out_units(data[name], params, data.vocab_size) for name in ("validation", "train"))
    log = RunLog(folder / LOG_NAME)
    run = fitting.fit(
        model,
        data,
        params,
        held_out=held_out,
        probe=probe,
        checkpoints=store(folder, params.checkpoints),
        log=log,
    )
    log.close()
    return model, run
