"""Loading a fine-tuned model and asking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.errors import ArtifactError, InputError
from bert_ops.finetune.batching import Pieces, forward, in_order_of_length, lay_out
from bert_ops.finetune.encoding import Rows, encode
from bert_ops.finetune.examples import Split
from bert_ops.finetune.multi_task_folder import encoder_folder, load_head
from bert_ops.finetune.params import Truncation
from bert_ops.finetune.problems import AnyProblem, restore
from bert_ops.finetune.problems.base import Items
from bert_ops.io import read_json, rerun
from bert_ops.model.heads import TaskModel
from bert_ops.model.huggingface import load_task_weights
from bert_ops.tokenizer import wordpiece
from bert_ops.training.device import arithmetic
from bert_ops.training.params import Precision

if TYPE_CHECKING:
    import pandas as pd

#: Rows that are read at a time.
BATCH_ROWS = 64


@dataclass(frozen=True)
class LoadedTask:
    """A fine-tuned model with what it takes to use it."""

    model: TaskModel
    tokenizer: Tokenizer
    problem: AnyProblem
    max_tokens: int
    truncation: Truncation

    @property
    def labels(self) -> list[str]:
        """Names of the outputs, by class id."""
        return self.problem.labels


def task_facts(problem: AnyProblem, *, max_tokens: int, truncation: Truncation) -> dict[str, Any]:
    """What ``config.json`` says of a task besides the architecture; ``transformers`` reads labels and problem type."""
    kind = {} if problem.huggingface is None else {"problem_type": problem.huggingface}
    shown = problem.shown_labels
    return {
        "id2label": {str(number): label for number, label in enumerate(shown)},
        "label2id": {label: number for number, label in reversed(list(enumerate(shown)))},
        **kind,
        "task": {
            "kind": problem.kind,
            "labels": problem.labels,
            "max_tokens": max_tokens,
            "truncation": truncation,
            **problem.facts,
        },
    }


def load_task_model(folder: Path) -> LoadedTask:
    """Load a folder that ``finetune`` wrote, or a head that ``finetune_together`` wrote, with the encoder it shares.

    Raises:
        ArtifactError: a file is missing or damaged, or says nothing of a task; a head lies elsewhere than its encoder.

    """
    config = read_json(folder / "config.json", made_by="finetune")
    try:
        facts = dict(config["task"])
        labels = facts.pop("labels")
        max_tokens, truncation = facts.pop("max_tokens"), facts.pop("truncation")
        problem = restore(facts.pop("kind"), labels, facts)
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / 'config.json'} describes no task ({error!r})", remedy=rerun("finetune")
        ) from error
    root = encoder_folder(folder)
    if root == folder:
        model = load_task_weights(folder, labels=problem.outputs, kind=problem.head)
    else:
        model = load_head(folder, root, labels=problem.outputs, kind=problem.head)
    tokenizer = wordpiece.load(root, made_by="finetune")
    return LoadedTask(model.eval(), tokenizer, problem, max_tokens, truncation)


def encode_for(task: LoadedTask, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Rows:
    """Encode texts as the model was trained on them."""
    return encode(
        task.tokenizer,
        texts,
        pairs,
        max_tokens=task.max_tokens,
        truncation=task.truncation,
        with_offsets=task.problem.with_offsets,
    )


def encode_examples_for(task: LoadedTask, frame: pd.DataFrame) -> Split:
    """Encode examples with their true answers, as the model was trained on them.

    Raises:
        InputError: there is an answer that the model does not know, or one of another form.

    """
    truth = task.problem.read(frame)
    task.problem.check(truth, split="test")
    pairs = None if frame["pair"].isna().any() else frame["pair"].tolist()
    texts = frame["text"].tolist()
    rows = encode_for(task, texts, pairs)
    items = task.problem.items(rows)
    return Split(
        example_ids=frame["example_id"].tolist(),
        texts=texts,
        pairs=pairs,
        clusters=frame["cluster"].tolist(),
        truth=truth,
        rows=rows,
        items=items,
        targets=task.problem.targets(truth, rows, items),
    )


def predict(
    task: LoadedTask,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    threads: int,
    precision: Precision = "float32",
    batch: int = BATCH_ROWS,
) -> Any:
    """Answer texts, in their order: probabilities (N, labels), numbers (N,), or spans, as the task's kind says."""
    torch.set_num_threads(threads)
    rows = encode_for(task, texts, pairs)
    items = task.problem.items(rows)
    with arithmetic(task.model, precision):
        logits = item_logits(task.model, rows, items, batch=batch)
    return task.problem.answer(logits, items, rows)


def predict_probabilities(
    task: LoadedTask, texts: Sequence[str], *, threads: int, precision: Precision = "float32", batch: int = BATCH_ROWS
) -> NDArray[np.float32]:
    """Probabilities (N, labels) of a task that labels whole texts.

    Raises:
        InputError: the task gives numbers or spans.

    """
    if task.problem.kind not in {"sequence_classification", "multi_label_classification"}:
        raise InputError(
            f"a {task.problem.kind} model has no probabilities of labels",
            allowed="sequence_classification, multi_label_classification",
        )
    return np.asarray(predict(task, texts, threads=threads, precision=precision, batch=batch), np.float32)


def item_logits(model: TaskModel, rows: Rows, items: Items, *, batch: int = BATCH_ROWS) -> NDArray[np.float32]:
    """Logits (M, C) of the items in their order, without dropout; the model's mode is left as it was.

    Rows are read in order of length, which saves most of the padding.
    """
    out = np.zeros((len(items), model.classifier.out_features), np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for chosen in in_order_of_length(rows.lengths, batch=batch):
            pieces = Pieces.of(rows, items, None, chosen)
            config = model.config
            read = lay_out(pieces, layout="bucketed", pad_id=config.pad_id, unit=0, limit=config.max_positions)
            places = np.concatenate([np.arange(items.starts[i], items.starts[i + 1]) for i in chosen])
            out[places] = forward(model, read)[0].float().cpu().numpy()
    model.train(was_training)
    return out
