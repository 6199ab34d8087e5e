"""Command ``export_head``: a task of a multi-task model as a plain model folder of its own."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from bert_ops.errors import InputError
from bert_ops.finetune import multi_task_folder
from bert_ops.finetune.inference import load_task_model, task_facts
from bert_ops.io import atomic_folder, require_folder, write_text
from bert_ops.model import huggingface
from bert_ops.progress import note
from bert_ops.tokenizer import wordpiece


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, help="folder of a head: models/multi_task/NAME/heads/TASK")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write, as `finetune` writes it")


def run(arguments: argparse.Namespace) -> None:
    """Write a head with a copy of its encoder.

    Raises:
        InputError: the folder does not exist, is no head, or ``--out`` holds something else.
        ArtifactError: a file of it is missing or damaged.

    """
    source, out = require_folder(arguments.folder, what="the head"), arguments.out
    root = multi_task_folder.encoder_folder(source)
    if root == source:
        raise InputError(
            f"{source} is no head of a multi-task model, but a model by itself",
            allowed="models/multi_task/NAME/heads/TASK",
            remedy="use it as it is",
        )
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "config.json").is_file())):
        raise InputError(f"{out} holds something else than a model", remedy="name a new folder")
    if root in (out.resolve(), *out.resolve().parents) or out.resolve() in root.parents:
        raise InputError(f"{out} and the multi-task folder {root} lie in one another", remedy="name another folder")
    task = load_task_model(source)
    with atomic_folder(out) as folder:
        huggingface.save_model(
            task.model, folder, **task_facts(task.problem, max_tokens=task.max_tokens, truncation=task.truncation)
        )
        wordpiece.copy(
            root, folder, max_length=task.max_tokens, truncation=task.truncation, made_by=multi_task_folder.STAGE
        )
        if (source / "training").is_dir():
            shutil.copytree(source / "training", folder / "training")
        write_text(folder / "README.md", model_card(source.resolve().name, kind=task.problem.kind, labels=task.labels))
    note(f"{out}: the task {source.resolve().name} with an encoder of its own")


def model_card(name: str, *, kind: str, labels: list[str]) -> str:
    """``README.md`` of the folder."""
    pipeline = "token-classification" if kind == "token_classification" else "text-classification"
    return (
        f"---\npipeline_tag: {pipeline}\nlibrary_name: transformers\n---\n\n"
        f"# {name}, fine-tuned with bert-ops together with other tasks\n\n"
        f"Kind: {kind}. Labels: {', '.join(labels)}.\n\n"
        f"Load it with `transformers.pipeline('{pipeline}', FOLDER)`.\n"
    )
