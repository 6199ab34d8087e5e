"""Stage ``finetune``: a pretrained encoder tuned for one task."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from bert_ops.finetune.examples import TaskData, encode_examples, read_examples
from bert_ops.finetune.params import FinetuneParams, TaskParams
from bert_ops.finetune.tuning import Tuned, tune
from bert_ops.io import atomic_folder, write_json, write_text, write_tsv
from bert_ops.model import huggingface
from bert_ops.model.encoder import parameter_count
from bert_ops.progress import note
from bert_ops.schema import load_section
from bert_ops.tokenizer import wordpiece


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--task", required=True, help="name of the task, a key of `tasks` in params.yaml")
    parser.add_argument("--init", type=Path, required=True, help="pretrained model folder to start from")
    parser.add_argument("--examples", type=Path, required=True, help="the task's examples, as ingest writes them")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tuned model")
    parser.add_argument("--history", type=Path, required=True, help="TSV file for the curves")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for validation scores and throughput")


def run(arguments: argparse.Namespace) -> None:
    """Tune, save the model, its curves and its validation scores.

    Raises:
        ArtifactError: examples or pretrained model are missing or damaged.
        InputError: the examples cannot be learned from, or training diverged.

    """
    params = load_section(arguments.params, "finetune", FinetuneParams)
    task = load_section(arguments.params, f"tasks.{arguments.task}", TaskParams)
    config = huggingface.load_config(arguments.init, made_by="pretrain")
    tokenizer = wordpiece.load(arguments.init, made_by="pretrain")
    data = encode_examples(read_examples(arguments.examples), tokenizer, max_tokens=task.max_tokens)
    what = f"fine-tuning {arguments.task}"
    tuned = tune(data, config=config, pretrained=arguments.init, task=task, params=params, what=what)
    best = next(row for row in tuned.run.history if row["step"] == tuned.run.best_step)
    with atomic_folder(arguments.out) as folder:
        save_task_model(tuned, data, folder, task=task, tokenizer=arguments.init, name=arguments.task)
    write_tsv(arguments.history, tuned.run.history)
    write_json(arguments.metrics, metrics(tuned, data, best))
    note(
        f"{what}: validation accuracy {best['validation_accuracy']:.1%}, loss {best['validation_loss']:.3f} "
        f"at step {tuned.run.best_step} of {tuned.run.step}"
    )


def save_task_model(
    tuned: Tuned, data: TaskData, folder: Path, *, task: TaskParams, tokenizer: Path, name: str
) -> None:
    """Write a folder that ``transformers.AutoModelForSequenceClassification`` loads, and the losses of each example."""
    huggingface.save_model(
        tuned.model,
        folder,
        id2label={str(i): label for i, label in enumerate(data.labels)},
        label2id={label: i for i, label in enumerate(data.labels)},
        max_tokens=task.max_tokens,
    )
    wordpiece.copy(tokenizer, folder)
    (folder / "training").mkdir()
    np.save(folder / "training" / "validation_losses.npy", tuned.validation_losses)
    write_json(folder / "training" / "training.json", {"kept_step": tuned.run.best_step, "steps": tuned.run.step})
    write_text(folder / "README.md", model_card(name, data, tuned))


def metrics(tuned: Tuned, data: TaskData, best: dict[str, float]) -> dict[str, Any]:
    """Scores on the validation split at the step whose weights were kept, and throughput."""
    run = tuned.run
    return {
        "validation_accuracy": best["validation_accuracy"],
        "validation_loss": best["validation_loss"],
        "train_loss": best["train_loss"],
        "best_step": run.best_step,
        "steps": run.step,
        "skipped_steps": run.skipped_steps,
        "parameters": parameter_count(tuned.model),
        "examples": {name: len(split) for name, split in data.splits.items()},
        "tokens_per_second": run.tokens_here / run.train_seconds,
        "seconds": run.train_seconds,
    }


def model_card(name: str, data: TaskData, tuned: Tuned) -> str:
    """``README.md`` of the model folder."""
    return (
        "---\npipeline_tag: text-classification\nlibrary_name: transformers\n---\n\n"
        f"# {name}, fine-tuned with bert-ops\n\n"
        f"Labels: {', '.join(data.labels)}. Trained on {len(data.splits['train']):,} examples; the weights are those "
        f"of step {tuned.run.best_step} of {tuned.run.step}, where the validation loss was lowest "
        f"({tuned.run.best_score:.4f}).\n\n"
        "Load it with `transformers.pipeline('text-classification', FOLDER)`. Test scores stand in the evaluation "
        "report of the pipeline.\n"
    )
