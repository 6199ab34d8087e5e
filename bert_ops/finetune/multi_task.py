"""Stage ``finetune_together``: one pretrained encoder tuned for several tasks, with a head for each."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bert_ops.finetune.examples import TaskData, describe, encode_examples, read_examples
from bert_ops.finetune.inference import task_facts
from bert_ops.finetune.multi_task_folder import ENCODER, HEAD, HEAD_FILE, HEADS, LISTED
from bert_ops.finetune.multi_task_params import Together, load_multi_task
from bert_ops.finetune.stage import checkpoint_store, measured_memory
from bert_ops.finetune.start import load_start
from bert_ops.finetune.together import TunedTogether, shares, tune_together
from bert_ops.finetune.tuning import PRETRAINED_PARTS
from bert_ops.io import atomic_folder, file_sha256, folder_sha256, write_json, write_text, write_tsv
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig, parameter_count
from bert_ops.model.tensor_file import save_tensors
from bert_ops.progress import duration, note
from bert_ops.tokenizer import wordpiece
from bert_ops.training import checkpoint
from bert_ops.training.run_log import LOG_NAME, RunLog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--name", required=True, help="key of `multi_task` in params.yaml")
    parser.add_argument("--init", type=Path, required=True, help="model folder to start from, any BERT's")
    parser.add_argument("--examples", type=Path, required=True, help="folder with TASK.parquet, as ingest writes them")
    parser.add_argument("--out", type=Path, required=True, help="folder for the encoder and the heads")
    parser.add_argument("--history", type=Path, required=True, help="TSV file for the curves")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for validation scores and throughput")
    parser.add_argument("--run-log", type=Path, required=True, help="JSON Lines file for the run's log")
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="folder for checkpoints; not an output of the stage"
    )


@dataclass(frozen=True)
class Job:
    """Tasks to be learned together, and everything that their result depends on."""

    name: str
    together: Together
    init: Path
    config: EncoderConfig
    data: dict[str, TaskData]

    @property
    def what(self) -> str:
        """Name for progress lines."""
        return f"fine-tuning {self.name}"

    def identity(self, examples: Path) -> dict[str, str]:
        """What a checkpoint belongs to; a run resumes only from its own."""
        together = self.together
        tasks = {name: task.model_dump(mode="json", exclude={"finetune"}) for name, task in together.tasks.items()}
        return {
            "multi_task": together.params.model_dump_json(exclude={"finetune"}),
            "tasks": json.dumps(tasks, sort_keys=True),
            "parameters": together.finetune.model_dump_json(exclude={"checkpoints", "log_every_steps", "runs"}),
            "examples": json.dumps({name: file_sha256(examples / f"{name}.parquet") for name in together.tasks}),
            "start": folder_sha256(self.init),
            "torch": torch.__version__,
        }


def run(arguments: argparse.Namespace) -> None:
    """Tune, save encoder and heads, their curves and their validation scores.

    Raises:
        ArtifactError: examples or model to start from are missing or damaged.
        InputError: the examples cannot be learned from, training diverged, or another trainer is at it.

    """
    together = load_multi_task(arguments.params, arguments.name)
    config, tokenizer = load_start(arguments.init)
    frames = {name: read_examples(arguments.examples / f"{name}.parquet") for name in together.tasks}
    data = {name: encode_examples(frames[name], tokenizer, task) for name, task in together.tasks.items()}
    job = Job(arguments.name, together, arguments.init, config, data)
    for name, each in data.items():
        for line in describe(each):
            note(f"{job.what}: {name}: {line}")
    identity = job.identity(arguments.examples)
    folder = arguments.checkpoints / job.name / checkpoint.run_key(**identity)
    with checkpoint.lock(folder):
        log = folder / LOG_NAME
        tuned, memory = measured_memory(
            lambda: tune_together(
                data,
                together,
                config=config,
                pretrained=job.init,
                what=job.what,
                store=checkpoint_store(folder, together.finetune, identity),
                log=RunLog(log),
                on_evaluation=lambda history: write_tsv(arguments.history, history),
            )
        )
        with atomic_folder(arguments.out) as out:
            save(tuned, job, out)
        write_tsv(arguments.history, tuned.history)
        write_json(arguments.metrics, metrics(tuned, job, memory=memory))
        write_text(arguments.run_log, log.read_text(encoding="utf-8") if log.is_file() else "")
        checkpoint.discard(folder)
    for line in said(tuned, memory=memory):
        note(f"{job.what}: {line}")


def save(tuned: TunedTogether, job: Job, folder: Path) -> None:
    """Write the encoder once, and each head with what evaluation reads beside it."""
    weights = {name: each for name, each in tuned.model.state_dict().items() if name.startswith(PRETRAINED_PARTS)}
    huggingface.save_weights(
        weights, folder, config=tuned.model.config, architecture="encoder", **{LISTED: list(tuned.problems)}
    )
    wordpiece.copy(job.init, folder)
    write_text(folder / "README.md", model_card(tuned, job))
    for name in tuned.problems:
        save_head(tuned, job, name, folder / HEADS / name)


def save_head(tuned: TunedTogether, job: Job, name: str, folder: Path) -> None:
    """Write a head's classifier, what its answers mean, and its curve as a run of this task alone has it."""
    task, view = job.together.tasks[name], tuned.view(name)
    training = folder / "training"
    training.mkdir(parents=True)
    facts = task_facts(tuned.problems[name], max_tokens=task.max_tokens, truncation=task.truncation)
    needed = {"encoder": ENCODER, "classifier_dropout": view.dropout.p}
    write_json(folder / "config.json", {**facts, HEAD: needed})
    classifier = {f"classifier.{key}": each.detach().cpu() for key, each in view.classifier.state_dict().items()}
    save_tensors({key: each.contiguous().clone() for key, each in classifier.items()}, folder / HEAD_FILE)
    np.save(training / "validation_losses.npy", tuned.validation_losses[name])
    write_json(training / "training.json", {"kept_step": tuned.run.best_step, "steps": tuned.run.step})
    write_tsv(training / "history.tsv", [tuned.of_task(name, row) for row in tuned.history])


def metrics(tuned: TunedTogether, job: Job, *, memory: int) -> dict[str, Any]:
    """Scores on the validation splits at the step whose weights were kept, and what they cost."""
    run, best = tuned.run, tuned.best
    encoder = parameter_count(tuned.model) - sum(parameter_count(part) for part in tuned.model.classifiers)
    separately = sum(parameter_count(view) for view in tuned.model.views.values())
    return {
        **{name: best[name] for name in ("train_loss", "validation_loss", "validation_score")},
        "score": best["validation_score"],
        "best_step": run.best_step,
        "steps": run.step,
        "skipped_steps": run.skipped_steps,
        "rollbacks": run.rollbacks,
        "parameters": {
            "together": parameter_count(tuned.model),
            "encoder": encoder,
            "heads": {name: parameter_count(view.classifier) for name, view in tuned.model.views.items()},
            "separately": separately,
            "size_ratio": separately / parameter_count(tuned.model),
        },
        "trained_parameters": tuned.tuning.trained,
        "trained_share": tuned.tuning.share,
        "tasks": {name: task_metrics(tuned, job, name) for name in tuned.tasks},
        "tokens_per_second": run.tokens_here / run.train_seconds if run.train_seconds else None,
        "seconds": run.train_seconds,
        "memory_mib": memory / 2**20,
    }


def task_metrics(tuned: TunedTogether, job: Job, name: str) -> dict[str, Any]:
    """Scores of a task at the step whose weights were kept, and how much of the run was its own."""
    metric, splits = tuned.tasks[name].metric, job.data[name].splits
    row = tuned.of_task(name, tuned.best)
    rows = [len(each.splits["train"].rows) for each in job.data.values()]
    wanted = shares(rows, job.together.params.sampling)[list(job.data).index(name)]
    return {
        **{key: value for key, value in row.items() if key.startswith(("train_", "validation_"))},
        "metric": metric,
        "score": row[f"validation_{metric}"],
        "share": float(wanted),
        "batches": tuned.batches(name),
        "epochs": tuned.batches(name) * job.together.finetune.batch.examples / len(splits["train"].rows),
        "examples": {split: len(each) for split, each in splits.items()},
        "texts_cut": {split: each.rows.cut for split, each in splits.items()},
    }


def said(tuned: TunedTogether, *, memory: int) -> list[str]:
    """Lines on what came of a run."""
    best, run = tuned.best, tuned.run
    scores = ", ".join(
        f"{name} {task.metric} {best[f'validation_{name}_{task.metric}']:.4f}" for name, task in tuned.tasks.items()
    )
    separately = sum(parameter_count(view) for view in tuned.model.views.values())
    return [
        f"validation {scores}, mean loss {best['validation_loss']:.3f} at step {run.best_step} of {run.step}",
        f"{parameter_count(tuned.model):,} parameters with all heads; {separately:,} as models of their own",
        f"{tuned.tuning.trained:,} parameters ({tuned.tuning.share:.2%}) trained in "
        f"{duration(run.train_seconds)} of steps, with up to {memory / 2**20:,.0f} MiB of memory",
    ]


def model_card(tuned: TunedTogether, job: Job) -> str:
    """``README.md`` of the folder."""
    lines = [
        f"* `{HEADS}/{name}`: {task.kind}, validation {task.metric} "
        f"{tuned.best[f'validation_{name}_{task.metric}']:.4f}; labels: {', '.join(tuned.problems[name].labels)}"
        for name, task in tuned.tasks.items()
    ]
    return (
        f"---\nlibrary_name: transformers\n---\n\n# {job.name}: one encoder for {len(lines)} tasks, by bert-ops\n\n"
        f"The weights are those of step {tuned.run.best_step} of {tuned.run.step}. This folder is the encoder, which "
        "`transformers.AutoModel` loads; the heads use it from where they are:\n\n"
        + "\n".join(lines)
        + f"\n\n`bert-ops export_head {HEADS}/TASK --out FOLDER` writes one that `transformers.pipeline` loads.\n"
    )
