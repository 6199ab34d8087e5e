"""Our side of the pretraining benchmark: the product's own functions, as stage ``pretrain`` calls them."""

from __future__ import annotations

import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from pretraining_contenders import SPIN, Gate
from pretraining_data import Setting
from torch import Tensor

from bert_ops.__main__ import wanted_environment
from bert_ops.model.heads import PretrainingModel
from bert_ops.pretrain import fitting
from bert_ops.pretrain.params import PretrainParams
from bert_ops.training.device import prepare
from bert_ops.training.run_log import LOG_NAME, RunLog


def environment() -> dict[str, str]:
    """What the command line starts ``pretrain`` in."""
    return SPIN | wanted_environment(["pretrain"])


def train(gate: Gate, setting: Setting, changes: dict[str, Any]) -> None:
    """Train until the gate closes; the body of a contender."""
    params = setting.params(steps=10_000_000, evaluate_every_steps=10_000_000, **changes)
    prepare(threads=params.threads, seed=params.seed)
    model = build_model(setting, params)

    def real_tokens(named: dict[str, Any]) -> Tensor:
        return torch.count_nonzero(named["pattern"].examples_BT)

    gate.watch(model, real_tokens)
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder) / LOG_NAME)
        with redirect_stderr(StringIO()):  # its progress lines
            fitting.fit(model, setting.store, params, held_out=[], probe=[], log=log)


def build_model(setting: Setting, params: PretrainParams) -> PretrainingModel:
    """The model of the stage, on the device of the setting."""
    return fitting.build_model(setting.store, params).to(setting.device)
