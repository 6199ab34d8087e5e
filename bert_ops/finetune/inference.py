"""Loading a fine-tuned model and asking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.errors import ArtifactError
from bert_ops.finetune.examples import encode_texts, pad
from bert_ops.io import read_json, rerun
from bert_ops.model.encoder import TaskModel
from bert_ops.model.huggingface import load_task_weights
from bert_ops.tokenizer import wordpiece
from bert_ops.training.device import arithmetic
from bert_ops.training.params import Precision


@dataclass(frozen=True)
class LoadedTask:
    """A fine-tuned model with what it takes to use it; ``labels[i]`` is the name of class ``i``."""

    model: TaskModel
    tokenizer: Tokenizer
    labels: list[str]
    max_tokens: int


def load_task_model(folder: Path) -> LoadedTask:
    """Load a folder that ``finetune`` wrote.

    Raises:
        ArtifactError: a file is missing or damaged, or has no labels.

    """
    config = read_json(folder / "config.json", made_by="finetune")
    if "id2label" not in config or "max_tokens" not in config:
        raise ArtifactError(f"{folder / 'config.json'} names no labels", remedy=rerun("finetune"))
    labels = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
    model = load_task_weights(folder, labels=len(labels), kind="sequence_classification")
    tokenizer = wordpiece.load(folder, made_by="finetune")
    return LoadedTask(model=model.eval(), tokenizer=tokenizer, labels=labels, max_tokens=config["max_tokens"])


def encode_batch(
    tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Token ids (B, T), padded, and the attention mask, False on padding."""
    return pad(encode_texts(tokenizer, texts, max_tokens=max_tokens))


def predict_probabilities(
    task: LoadedTask, texts: Sequence[str], *, threads: int, precision: Precision = "float32", batch: int = 64
) -> NDArray[np.float32]:
    """Class probabilities, (N, labels), rows in the order of the texts.

    Texts are read in order of length, which saves most of the padding.
    """
    torch.set_num_threads(threads)
    rows = encode_texts(task.tokenizer, texts, max_tokens=task.max_tokens)
    logits = predict_logits(task.model, rows, precision=precision, batch=batch)
    probabilities: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    return probabilities


def predict_logits(
    model: TaskModel, rows: Sequence[NDArray[np.int64]], *, precision: Precision, batch: int = 64
) -> NDArray[np.float32]:
    """Logits (N, labels) of encoded texts; the model's mode is left as it was."""
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out = np.zeros((len(rows), model.classifier.out_features), np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), arithmetic(model, precision):
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            ids, attend = pad([rows[i] for i in chosen])
            ids_BT = torch.from_numpy(ids).to(device)
            attend_BT = None if attend.all() else torch.from_numpy(attend).to(device)
            out[chosen] = model(ids_BT, torch.zeros_like(ids_BT), attend_BT).float().cpu().numpy()
    model.train(was_training)
    return out
