"""Layer tuning in the whole procedure: what was not chosen is exported as it was pretrained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tasks
import torch
from safetensors.torch import load_file
from tuned_models import layer_params

from bert_ops.errors import InputError
from bert_ops.model import huggingface

FAST = {"kind": "adamw", "learning_rate": 1e-2, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6}


def values(**changes: Any) -> dict[str, Any]:
    return layer_params(**changes).model_dump()


@pytest.mark.parametrize(
    ("changes", "learned"),
    [
        ({"train": "head"}, r"(?!)"),
        ({"train": "biases"}, r".*\.bias"),
        ({"train": "lora", "lora": {"modules": ["query", "down"]}}, r".*(\.query|\d\.output\.dense)\.weight"),
    ],
    ids=["head", "biases", "lora"],
)
def test_what_is_exported_differs_from_the_pretrained_where_it_was_trained(
    changes: dict[str, Any],
    learned: str,
    tmp_path: Path,
    params: dict,
    pretrained_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"epochs": 2, "evaluations_per_epoch": 1, "seed": 1, "optimizer": FAST}
    made, _ = tasks.tuned(tmp_path, params, "one", pretrained_folder, layers=values(**changes), **settings)
    said = f"one: {made.tuning.trained:,} of {made.tuning.parameters:,} parameters are trained"
    assert said in capsys.readouterr().err
    huggingface.save_model(made.model, tmp_path / "model")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", pretrained_folder))
    encoder = {name for name in ours if name.startswith(("bert.encoder", "bert.embeddings"))}
    assert set(ours) == encoder | {f"{m}.{p}" for m in ("bert.pooler.dense", "classifier") for p in ("weight", "bias")}
    moved = {name for name in encoder if not torch.equal(ours[name], theirs[name])}
    assert moved == {name for name in encoder if re.fullmatch(learned, name)}


def test_layers_that_the_model_has_not_are_refused_before_training(
    tmp_path: Path, params: dict, pretrained_folder: Path
) -> None:
    with pytest.raises(InputError, match=r"`finetune\.layers\.top` is 2, but the encoder has 1 layer"):
        tasks.tuned(tmp_path, params, "one", pretrained_folder, layers=values(top=2))
