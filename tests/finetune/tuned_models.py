"""Small task models and runs of them, for the tests of layer tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_ops.finetune import layers
from bert_ops.finetune.layer_params import EVERYTHING, LayerParams
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import TaskModel
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.checkpoint import CheckpointStore, Retention
from bert_ops.training.loop import Loss, Plan, Position
from bert_ops.training.params import (
    AdamWParams,
    BatchParams,
    CheckpointParams,
    ClippingParams,
    LinearSchedule,
    NoiseScaleBatch,
    StabilityParams,
)
from bert_ops.training.run_log import RunLog

LAYERS, UNIT_TOKENS = 3, 48
OPTIMIZER = AdamWParams(kind="adamw", learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.98, epsilon=1e-6)


def layer_params(**changes: Any) -> LayerParams:
    """Parameters of layer tuning that differ from "everything" in ``changes``; those of lora are merged."""
    values = EVERYTHING.model_dump()
    values["lora"] |= changes.pop("lora", {})
    return LayerParams(**{**values, **changes})


def config(**changes: Any) -> EncoderConfig:
    sizes = {"vocab_size": 30, "hidden_size": 16, "layers": LAYERS, "heads": 2, "feed_forward_size": 32}
    return EncoderConfig(**{**sizes, "max_positions": 12, "initializer_range": 0.1, **changes})


def task_model(*, seed: int = 0, kind: Any = "sequence_classification", **changes: Any) -> TaskModel:
    """A model whose biases and gains are no zeros and ones, as those of a pretrained one."""
    torch.manual_seed(seed)
    model = TaskModel(config(**changes), labels=2, kind=kind, classifier_dropout=0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


@dataclass(frozen=True)
class Texts:
    """A unit: texts whose label is whether their second token is an even one."""

    ids: Tensor
    unit: int

    @property
    def tokens(self) -> int:
        return self.ids.numel()

    @property
    def counts(self) -> dict[str, int]:
        return {"loss": len(self.ids)}


def texts(unit: int, *, rows: int = 8) -> Texts:
    return Texts(torch.randint(5, 30, (rows, 6), generator=torch.Generator().manual_seed(unit)), unit)


def loss(model: nn.Module, unit: Texts) -> Loss:
    logits = model(unit.ids, torch.zeros_like(unit.ids))
    return Loss({"loss": F.cross_entropy(logits, unit.ids[:, 1] % 2, reduction="sum")})


def units(position: Position | None) -> Iterator[tuple[Texts, Position]]:
    for number in count((position or {"step": 0})["step"]):
        yield texts(number), {"step": number + 1}


def batch_of(growth: NoiseScaleBatch) -> BatchSize:
    """Up to four units a step."""
    params = BatchParams(tokens=4 * UNIT_TOKENS, micro_tokens=UNIT_TOKENS, growth=growth)
    return BatchSize(params, unit_tokens=UNIT_TOKENS, world=1)


def evaluate(model: nn.Module) -> dict[str, float]:
    return {"validation_loss": float(loss(model, texts(10**6, rows=32)).sums["loss"]) / 32}


def plan(folder: Path | None = None, *, steps: int = 12, **changes: Any) -> Plan[Texts]:
    """A run with averaged weights and clipping; with a folder there is a checkpoint at each step."""
    when = CheckpointParams(every_s=1e6, every_steps=1, keep_last=100, keep_best=0, milestone_steps=0)
    stability = {"spike_deviations": 0.0, "window": 20, "max_skips_in_a_row": 2, "rate_factor": 0.5, "max_rollbacks": 2}
    values: dict[str, Any] = {
        "what": "testing",
        "seed": 3,
        "total_steps": steps,
        "units": units,
        "batch": BatchSize.of_one_unit(8),
        "loss": loss,
        "split": None,
        "schedule": LinearSchedule(kind="linear", warmup_steps=2, final_share=0.1),
        "clipping": ClippingParams(norm=1.0, value=None),
        "precision": "float32",
        "stability": StabilityParams(**stability),
        "evaluate": evaluate,
        "evaluate_at": lambda step: step % 4 == 0,
        "best": "validation_loss",
        "average_decay": 0.9,
    }
    if folder is not None:
        store = CheckpointStore(folder, retention=Retention(keep_last=100, keep_best=0), identity={"a": "b"})
        values |= {"store": store, "checkpoints": when, "log": RunLog(folder / "log.jsonl")}
    return Plan(**{**values, **changes})


def prepared(params: LayerParams, **changes: Any) -> tuple[TaskModel, layers.Tuning]:
    """A model of which what ``params`` say will be trained."""
    model = task_model(**changes)
    return model, layers.apply(model, params, seed=5)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    """Names of the weights that differ from what they were."""
    now = model.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(tensor, now[name])}


def saved_bytes(work: Callable[[], Any], model: nn.Module) -> int:
    """Bytes that autograd keeps of what ``work`` computes, without weights; what is kept twice counts once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = work()
    del out
    return sum(kept.values())
