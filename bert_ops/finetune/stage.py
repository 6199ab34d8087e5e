"""Stage ``finetune``: a pretrained encoder tuned for one task."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bert_ops.finetune.examples import TaskData, describe, encode_examples, read_examples
from bert_ops.finetune.inference import task_facts
from bert_ops.finetune.params import FinetuneParams, TaskParams, load_finetune, load_task
from bert_ops.finetune.runs import repeat
from bert_ops.finetune.start import load_start
from bert_ops.finetune.tuning import Tuned, tune
from bert_ops.io import atomic_folder, file_sha256, folder_sha256, write_json, write_text, write_tsv
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig, parameter_count
from bert_ops.progress import duration, note
from bert_ops.tokenizer import wordpiece
from bert_ops.training import checkpoint
from bert_ops.training.checkpoint import CheckpointStore, Retention
from bert_ops.training.device import pick_device
from bert_ops.training.machine_memory import peak_bytes, used_bytes
from bert_ops.training.run_log import LOG_NAME, RunLog

#: What a run of tuning comes to.
Learned = TypeVar("Learned")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--task", required=True, help="name of the task, a key of `tasks` in params.yaml")
    parser.add_argument("--init", type=Path, required=True, help="model folder to start from, any BERT's")
    parser.add_argument("--examples", type=Path, required=True, help="the task's examples, as ingest writes them")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tuned model")
    parser.add_argument("--history", type=Path, required=True, help="TSV file for the curves")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for validation scores and throughput")
    parser.add_argument("--run-log", type=Path, required=True, help="JSON Lines file for the run's log")
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="folder for checkpoints; not an output of the stage"
    )


@dataclass(frozen=True)
class Job:
    """A task to be learned, and everything that its result depends on."""

    name: str
    task: TaskParams
    params: FinetuneParams
    init: Path
    config: EncoderConfig
    data: TaskData

    @property
    def what(self) -> str:
        """Name for progress lines."""
        return f"fine-tuning {self.name}"

    def identity(self, examples: Path) -> dict[str, str]:
        """What a checkpoint belongs to; a run resumes only from its own."""
        kept = self.params.model_dump_json(exclude={"checkpoints", "log_every_steps", "runs"})
        return {
            "task": self.task.model_dump_json(exclude={"finetune"}),
            "parameters": kept,
            "examples": file_sha256(examples),
            "start": folder_sha256(self.init),
            "torch": torch.__version__,
        }


def run(arguments: argparse.Namespace) -> None:
    """Tune, save the model, its curves and its validation scores.

    Raises:
        ArtifactError: examples or model to start from are missing or damaged.
        InputError: the examples cannot be learned from, training diverged, or another trainer is at it.

    """
    task = load_task(arguments.params, arguments.task)
    params = load_finetune(arguments.params, task, name=arguments.task)
    config, tokenizer = load_start(arguments.init)
    data = encode_examples(read_examples(arguments.examples), tokenizer, task)
    job = Job(arguments.task, task, params, arguments.init, config, data)
    for line in describe(data):
        note(f"{job.what}: {line}")
    finetune(job, arguments)


def finetune(job: Job, arguments: argparse.Namespace) -> None:
    """Train, repeat where that is asked for, and write what comes of it."""
    params = job.params
    identity = job.identity(arguments.examples)
    folder = arguments.checkpoints / job.name / checkpoint.run_key(**identity)
    learn = partial(tune, config=job.config, pretrained=job.init, task=job.task)
    with checkpoint.lock(folder):
        log = folder / LOG_NAME
        tuned, memory = measured_memory(
            lambda: learn(
                job.data,
                params=params,
                what=job.what,
                store=checkpoint_store(folder, params, identity),
                log=RunLog(log),
                on_evaluation=lambda history: write_tsv(arguments.history, history),
            )
        )
        spread = repeat(job.data, learn, job.task, params, first=tuned, what=job.what, folder=folder, identity=identity)
        with atomic_folder(arguments.out) as out:
            save_task_model(tuned, job, out)
        write_tsv(arguments.history, tuned.history)
        write_json(arguments.metrics, {**metrics(tuned, job, memory=memory), **({"runs": spread} if spread else {})})
        write_text(arguments.run_log, log.read_text(encoding="utf-8") if log.is_file() else "")
        checkpoint.discard(folder)
    score = tuned.best[f"validation_{job.task.metric}"]
    note(
        f"{job.what}: validation {job.task.metric} {score:.4f}, loss {tuned.best['validation_loss']:.3f} "
        f"at step {tuned.run.best_step} of {tuned.run.step}"
    )
    note(
        f"{job.what}: {tuned.tuning.trained:,} parameters ({tuned.tuning.share:.2%}) trained in "
        f"{duration(tuned.run.train_seconds)} of steps, with up to {memory / 2**20:,.0f} MiB of memory"
    )


def measured_memory(learn: Callable[[], Learned]) -> tuple[Learned, int]:
    """Tune, and measure the most memory that it took, in bytes: beyond what the process had with the encoded data."""
    made: list[Learned] = []
    device = pick_device()
    before = used_bytes(device)
    peak = peak_bytes(lambda: made.append(learn()), device)
    return made[0], max(peak - before, 0)


def checkpoint_store(folder: Path, params: FinetuneParams, identity: dict[str, str]) -> CheckpointStore:
    """Where a run's checkpoints go, and how many are kept."""
    kept = Retention(keep_last=params.checkpoints.keep_last, keep_best=params.checkpoints.keep_best)
    return CheckpointStore(folder, retention=kept, identity=identity)


def save_task_model(tuned: Tuned, job: Job, folder: Path) -> None:
    """Write a folder that ``transformers`` loads, and the losses of each validation example."""
    task = job.task
    huggingface.save_model(
        tuned.model,
        folder,
        **task_facts(tuned.problem, max_tokens=task.max_tokens, truncation=task.truncation),
    )
    wordpiece.copy(job.init, folder, max_length=task.max_tokens, truncation=task.truncation)
    (folder / "training").mkdir()
    np.save(folder / "training" / "validation_losses.npy", tuned.validation_losses)
    write_json(folder / "training" / "training.json", {"kept_step": tuned.run.best_step, "steps": tuned.run.step})
    write_text(folder / "README.md", model_card(tuned, job))


def metrics(tuned: Tuned, job: Job, *, memory: int) -> dict[str, Any]:
    """Scores on the validation split at the step whose weights were kept, and what they cost."""
    run, best = tuned.run, tuned.best
    speed = run.tokens_here / run.train_seconds if run.train_seconds else None
    return {
        **{name: value for name, value in best.items() if name.startswith(("train_", "validation_"))},
        "metric": job.task.metric,
        "score": best[f"validation_{job.task.metric}"],
        "best_step": run.best_step,
        "steps": run.step,
        "skipped_steps": run.skipped_steps,
        "rollbacks": run.rollbacks,
        "parameters": parameter_count(tuned.model),
        "trained_parameters": tuned.tuning.trained,
        "trained_share": tuned.tuning.share,
        "examples": {name: len(split) for name, split in job.data.splits.items()},
        "texts_cut": {name: split.rows.cut for name, split in job.data.splits.items()},
        "tokens_per_second": speed,
        "examples_per_second": speed and speed / float(job.data.splits["train"].rows.lengths.mean()),
        "seconds": run.train_seconds,
        "memory_mib": memory / 2**20,
    }


def model_card(tuned: Tuned, job: Job) -> str:
    """``README.md`` of the model folder."""
    pipeline = "token-classification" if job.data.problem.head == "token_classification" else "text-classification"
    labels = job.data.labels
    score = tuned.best[f"validation_{job.task.metric}"]
    return (
        f"---\npipeline_tag: {pipeline}\nlibrary_name: transformers\n---\n\n"
        f"# {job.name}, fine-tuned with bert-ops\n\n"
        f"Kind: {job.task.kind}. Labels: {', '.join(labels)}. Trained on {len(job.data.splits['train']):,} examples; "
        f"the weights are those of step {tuned.run.best_step} of {tuned.run.step}, where validation {job.task.metric} "
        f"was {score:.4f} and the loss {tuned.best['validation_loss']:.4f}.\n\n"
        f"Load it with `transformers.pipeline('{pipeline}', FOLDER)`. Test scores stand in the evaluation "
        "report of the pipeline.\n"
    )
