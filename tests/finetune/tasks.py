"""Made-up tasks of every kind whose answers follow from the words of the text."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bert_ops.finetune.examples import TaskData, encode_examples
from bert_ops.finetune.params import FinetuneParams, TaskParams, load_finetune, load_task
from bert_ops.finetune.tuning import Tuned, tune
from bert_ops.model import huggingface
from bert_ops.tokenizer import wordpiece

GOOD, BAD = "非常好", "让人失望"
THINGS = ["这家酒店", "那本书", "这部电影"]
TASKS: dict[str, dict[str, Any]] = {
    "one": {"kind": "sequence_classification", "metric": "accuracy", "class_weights": "none"},
    "many": {"kind": "multi_label_classification", "metric": "f1_micro", "class_weights": "none"},
    "number": {"kind": "regression", "metric": "r2"},
    "pairs": {"kind": "sequence_classification", "metric": "accuracy", "class_weights": "none"},
    "spans": {
        "kind": "token_classification",
        "metric": "entity_f1",
        "class_weights": "none",
        "scheme": "BIO",
        "misaligned": "widen",
        "loss": "sequences",
        "mention_replacement": 0.0,
    },
}
METRIC_OF = {"one": "accuracy", "many": "f1_micro", "number": "pearson", "spans": "entity_f1"}


def frame_of(task: str, *, count: int = 300, seed: int = 0) -> pd.DataFrame:
    """Examples of a task, as ingest writes them."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        thing, good = rng.choice(THINGS), rng.random() < 0.5
        said = f"{thing}{GOOD if good else BAD}"
        text, pair, label, spans = f"{said}，第{number}次。", None, None, None
        if task == "one":
            label = "positive" if good else "negative"
        elif task == "many":
            label = json.dumps(sorted([*(["good"] if good else []), *(["book"] if "书" in thing else [])]))
        elif task == "number":
            label = repr(1000.0 + 100.0 * good)
        elif task == "pairs":
            # The second text decides, and says the same kind of thing as the first.
            other = rng.random() < 0.5
            pair, label = f"{rng.choice(THINGS)}{GOOD if other else BAD}", "positive" if other else "negative"
        elif task == "spans":
            spans = json.dumps([[0, len(thing), "THING"]], ensure_ascii=False)
        split = (["train"] * 6 + ["validation", "validation", "test", "test"])[number % 10]
        rows.append(
            {
                "example_id": f"{number:016x}",
                "source": "made_up",
                "split": split,
                "text": text,
                "pair": pair,
                "label": label,
                "spans": spans,
                "content_hash": f"{number:064x}",
                "cluster": f"{number:016x}",
            }
        )
    return pd.DataFrame(rows)


def write_params(folder: Path, params: dict[str, Any], task: str, **changes: Any) -> Path:
    """A params.yaml with a task; ``changes`` go to section ``finetune``, those of ``own`` to the task."""
    value = copy.deepcopy(params)
    own = changes.pop("own", {})
    value["tasks"] = {task: {**TASKS[task], "max_tokens": 48, "truncation": "head", **own}}
    value["finetune"] |= {"precision": "float32", "average_decay": 0.0, "token_masking": 0.0, **changes}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    return path


def setting(
    folder: Path, params: dict[str, Any], task: str, init: Path, *, frame: pd.DataFrame | None = None, **changes: Any
) -> tuple[TaskData, TaskParams, FinetuneParams]:
    """The encoded examples of a task and its parameters."""
    path = write_params(folder, params, task, **changes)
    found = load_task(path, task)
    examples = frame_of(task) if frame is None else frame
    return encode_examples(examples, wordpiece.load(init), found), found, load_finetune(path, found, name=task)


def tuned(
    folder: Path,
    params: dict[str, Any],
    task: str,
    init: Path,
    *,
    frame: pd.DataFrame | None = None,
    store: Any = None,
    **changes: Any,
) -> tuple[Tuned, TaskData]:
    """Tune a task on its made-up examples."""
    data, found, settings = setting(folder, params, task, init, frame=frame, **changes)
    config = huggingface.load_config(init, made_by="pretrain")
    return tune(data, config=config, pretrained=init, task=found, params=settings, what=task, store=store), data
