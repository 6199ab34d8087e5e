"""The folder of several tasks with one encoder: the encoder at its root, and a head for each task below ``heads``.

``config.json``, ``model.safetensors`` and the tokenizer's files at the root are those of an encoder (``BertModel`` to
``transformers``). ``heads/TASK`` holds ``config.json`` with what the task's answers mean, ``head.safetensors`` with the
classifier, and ``training`` with what evaluation reads. The head says where its encoder is, relative to itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bert_ops.errors import ArtifactError
from bert_ops.io import read_json, rerun
from bert_ops.model import huggingface
from bert_ops.model.checkpoint_folder import open_safetensors
from bert_ops.model.heads import HeadKind, TaskModel

STAGE = "finetune_together"
HEADS, HEAD_FILE = "heads", "head.safetensors"
#: Where a head's encoder is, seen from the head; nothing else is followed, so that no folder leads out of itself.
ENCODER = "../.."
#: Key of the root's config.json with the names of the heads, and of a head's with what it needs besides its task.
LISTED, HEAD = "multi_task", "head"


def encoder_folder(folder: Path) -> Path:
    """Folder with encoder and tokenizer of a model folder: the folder itself, or what a head shares with others.

    Raises:
        ArtifactError: a head's config.json is missing or damaged, names another place than the multi-task folder that
            it lies in, or does not lie in one.

    """
    config = read_json(folder / "config.json", made_by="finetune")
    if not isinstance(config, dict) or HEAD not in config:
        return folder
    given = config[HEAD].get("encoder") if isinstance(config[HEAD], dict) else None
    if given != ENCODER:
        raise ArtifactError(
            f"{folder / 'config.json'}: the encoder of this head is said to be at {given!r}",
            allowed=f"{ENCODER!r}, the multi-task folder that a head lies in",
            remedy="do not use this folder unless you know who wrote it",
        )
    here = folder.resolve()
    root = here.parent.parent
    listed = read_json(root / "config.json", made_by=None) if (root / "config.json").is_file() else None
    heads = listed.get(LISTED) if isinstance(listed, dict) else None
    if here.parent.name != HEADS or not isinstance(heads, list) or here.name not in heads:
        raise ArtifactError(
            f"{folder} is a head without its encoder: it does not lie below `{HEADS}` of a multi-task folder that "
            "lists it",
            remedy=f"use it where `bert-ops {STAGE}` wrote it, or write a model of its own with `bert-ops export_head`",
        )
    return root


def load_head(folder: Path, root: Path, *, labels: int, kind: HeadKind) -> TaskModel:
    """Load the model of a head: encoder and pooler of the root, and the head's own classifier.

    Raises:
        ArtifactError: a file is missing, damaged or of another architecture.

    """
    model = TaskModel(
        huggingface.load_config(root, made_by=STAGE), labels=labels, kind=kind, classifier_dropout=dropout_of(folder)
    )
    # The pooler's full name, unlike its prefix alone, makes one that is missing an error.
    huggingface.fill(model, root, made_by=STAGE, prefixes=("encoder.", "pooler.dense."))
    path = folder / HEAD_FILE
    stored = open_safetensors(path, made_by=STAGE)
    expected = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("classifier.")}
    if stored.keys() != expected.keys():
        raise ArtifactError(
            f"{path} holds {', '.join(sorted(stored)) or 'nothing'}", allowed=", ".join(expected), remedy=rerun(STAGE)
        )
    weights = {name: read() for name, read in stored.items()}
    huggingface.check_shapes(weights, expected, source=path, made_by=STAGE)
    model.load_state_dict(weights, strict=False)
    return model


def dropout_of(folder: Path) -> float:
    """Share of the features before the classifier that a head was trained with dropping.

    Raises:
        ArtifactError: config.json does not say it.

    """
    path = folder / "config.json"
    head: Any = read_json(path, made_by=STAGE)[HEAD]
    share = head.get("classifier_dropout")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ArtifactError(
            f"{path}: {HEAD}.classifier_dropout is {share!r}", allowed="a number from 0 to below 1", remedy=rerun(STAGE)
        )
    return float(share)
