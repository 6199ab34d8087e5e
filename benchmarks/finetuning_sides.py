"""Both sides of the fine-tuning benchmark: the product's own functions, and the ``Trainer`` of transformers.

Peers, all on the same texts, tokenizer, first weights, optimiser, schedule and number of epochs:

* ``padded``: as ``run_glue.py`` does by default: every text padded to the longest length allowed; float32.
* ``dynamic``: as the library's course and guides do: padded to the longest text of a batch
  (``DataCollatorWithPadding``); float32.
* ``best``: texts of similar length together (``group_by_length``), bfloat16 autocast, fused AdamW, no dropout in the
  encoder, and the faster implementation of attention.

Dropout of the first two is what the folder's ``config.json`` says, BERT's own 0.1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretraining_contenders import SPIN, Gate
from torch import Tensor

from bert_ops.__main__ import wanted_environment
from bert_ops.finetune.examples import TaskData, encode_examples, read_examples
from bert_ops.finetune.inference import item_logits
from bert_ops.finetune.params import FinetuneParams, TaskParams, load_finetune, load_task
from bert_ops.finetune.tuning import tune
from bert_ops.model import huggingface
from bert_ops.tokenizer import wordpiece

PEERS = ("padded", "dynamic", "best")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contenders share.

    Args:
        init: model folder that all start from.
        examples: the task's examples.
        params: params.yaml.
        task: name of the task.
        changes: of section ``finetune``.
        seed: of all draws.
        limit: training examples at most; None for all.

    """

    init: Path
    examples: Path
    params: Path
    task: str
    changes: dict[str, Any]
    seed: int = 1
    limit: int | None = None

    @property
    def task_params(self) -> TaskParams:
        """The task."""
        return load_task(self.params, self.task)

    def finetune(self, **changes: Any) -> FinetuneParams:
        """Section ``finetune`` with the changes of the setting."""
        found = load_finetune(self.params, self.task_params, name=self.task)
        return FinetuneParams.model_validate({**found.model_dump(), **self.changes, "seed": self.seed, **changes})

    def data(self) -> TaskData:
        """The examples, encoded."""
        frame = read_examples(self.examples)
        if self.limit is not None:
            frame = frame.sample(frac=1.0, random_state=0).groupby("split", sort=False).head(self.limit)
        return encode_examples(frame, wordpiece.load(self.init), self.task_params)


def installed() -> bool:
    """Whether the library is here."""
    return all(find_spec(name) is not None for name in ("transformers", "accelerate"))


def our_environment() -> dict[str, str]:
    """What the command line starts ``finetune`` in."""
    return SPIN | wanted_environment(["finetune"])


def ours(gate: Gate, setting: Setting) -> None:
    """Train until the gate closes; the body of a contender."""
    params = setting.finetune(epochs=1000, evaluations_per_epoch=1, probe_examples=1)
    data = setting.data()
    import bert_ops.finetune.tuning as module

    build = module.build_model

    def watched(*values: Any, **named: Any) -> Any:
        model = build(*values, **named)
        gate.watch(model, lambda inside: len(inside["picked_M"]))
        return model

    module.build_model = watched
    with redirect_stderr(StringIO()):
        tune(
            data,
            config=huggingface.load_config(setting.init, made_by="pretrain"),
            pretrained=setting.init,
            task=setting.task_params,
            params=params,
            what="ours",
        )


def learn_ours(setting: Setting) -> float:
    """Accuracy on the test split after the whole training."""
    data = setting.data()
    with redirect_stderr(StringIO()):
        tuned = tune(
            data,
            config=huggingface.load_config(setting.init, made_by="pretrain"),
            pretrained=setting.init,
            task=setting.task_params,
            params=setting.finetune(),
            what="ours",
        )
    test = data.splits["test"]
    return float((item_logits(tuned.model, test.rows, test.items).argmax(1) == test.targets).mean())


class Examples(torch.utils.data.Dataset[Any]):
    """A list as a dataset."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.items[place]


def dataset(name: str, data: TaskData, split: str, *, longest: int, pad_id: int) -> Examples:
    """Examples of a split in the form that a peer takes."""
    part = data.splits[split]
    items = []
    for ids, label in zip(part.rows.ids, part.targets.tolist(), strict=True):
        row = ids.tolist()
        left = longest - len(row) if name == "padded" else 0
        items.append(
            {
                "input_ids": row + [pad_id] * left,
                "attention_mask": [1] * len(row) + [0] * left,
                "labels": label,
            }
        )
    return Examples(items)


def build_trainer(name: str, setting: Setting, data: TaskData, *, attention: str, folder: str, **changes: Any) -> Any:
    """The ``Trainer`` of a peer; ``changes`` go to its arguments."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    params = setting.finetune()
    optimizer: Any = params.optimizer
    torch.set_num_threads(params.threads)
    torch.manual_seed(setting.seed)
    dropout = 0.0 if name == "best" else 0.1
    model = AutoModelForSequenceClassification.from_pretrained(
        setting.init,
        num_labels=len(data.labels),
        attn_implementation=attention,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        classifier_dropout=params.classifier_dropout,
    )
    fast = {"bf16": True, "optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length"}
    arguments = TrainingArguments(
        **{
            "output_dir": folder,
            "per_device_train_batch_size": params.batch.examples,
            "per_device_eval_batch_size": 64,
            "num_train_epochs": params.epochs,
            "learning_rate": optimizer.learning_rate,
            "weight_decay": optimizer.weight_decay,
            "adam_beta1": optimizer.beta1,
            "adam_beta2": optimizer.beta2,
            "adam_epsilon": optimizer.epsilon,
            "lr_scheduler_type": "linear",
            "max_grad_norm": params.clipping.norm,
            "seed": setting.seed,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "eval_strategy": "no",
            "disable_tqdm": True,
            # Below 1 it is a share of the steps.
            "warmup_steps": params.schedule.warmup_share,
            **(fast if name == "best" else {}),
            **changes,
        }
    )
    longest = setting.task_params.max_tokens
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset(name, data, "train", longest=longest, pad_id=data.special.pad),
        eval_dataset=dataset(name, data, "test", longest=longest, pad_id=data.special.pad),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(setting.init)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def peer(gate: Gate, name: str, setting: Setting, attention: str) -> None:
    """Train until the gate closes; the body of a contender."""
    data = setting.data()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(name, setting, data, attention=attention, folder=folder, num_train_epochs=1000)

        def examples(named: dict[str, Any]) -> int:
            ids: Tensor = named["input_ids"]
            return len(ids)

        gate.watch(trainer.model, examples)
        trainer.train()


def learn_peer(setting: Setting, name: str, attention: str) -> float:
    """Accuracy on the test split after the whole training."""
    data = setting.data()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(name, setting, data, attention=attention, folder=folder)
        trainer.train()
        logits = trainer.predict(trainer.eval_dataset).predictions
    return float((np.asarray(logits).argmax(1) == data.splits["test"].targets).mean())


def names_of(peers: Sequence[str]) -> list[str]:
    """Peers that can run here."""
    return list(peers) if installed() else []
