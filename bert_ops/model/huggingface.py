"""Exchange of models with the Hugging Face format: ``config.json`` and weights, ours and other people's.

Written is always ``model.safetensors`` under the names of ``transformers`` 5 (``BertForPreTraining``,
``BertForSequenceClassification``, ``BertForTokenClassification``). Read is what the field has
(:mod:`bert_ops.model.checkpoint_folder`, :mod:`bert_ops.model.huggingface_names`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from bert_ops.errors import ArtifactError
from bert_ops.io import atomic_file, read_json, rerun, write_json
from bert_ops.model.checkpoint_folder import Stored, open_folder
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import HeadKind, PretrainingModel, TaskModel
from bert_ops.model.huggingface_config import config_from_huggingface, config_to_huggingface
from bert_ops.model.huggingface_names import DECODER, canonical, export_weights, import_weights, names_of
from bert_ops.model.tensor_file import save_tensors
from bert_ops.progress import note

__all__ = [
    "check_shapes",
    "check_vocabulary",
    "config_from_huggingface",
    "config_to_huggingface",
    "export_weights",
    "fill",
    "import_weights",
    "load_config",
    "load_pretraining_model",
    "load_task_weights",
    "open_checkpoint",
    "save_model",
    "save_weights",
]

#: Part that models are shared without: a dense layer over ``[CLS]`` that task models can learn anew.
_POOLER = "pooler."


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a BERT folder.

    Args:
        folder: where they stand.
        stored: tensors by the names in the files.
        names: today's names of ``transformers`` -> those in the files.

    """

    folder: Path
    stored: Stored
    names: dict[str, str]

    def has(self, ours: Iterable[str]) -> bool:
        """Whether all of our weights of these names can be read."""
        return all(part in self.names for name in ours for part in names_of(name))

    def read(self, ours: Iterable[str]) -> dict[str, Tensor]:
        """Read weights by our names, float32.

        Raises:
            ArtifactError: one is missing, or holds other things than finite numbers.

        """
        ours = list(ours)
        wanted = [part for name in ours for part in names_of(name)]
        theirs = {part: self.stored[self.names[part]]() for part in wanted if part in self.names}
        return import_weights(theirs, ours, source=self.folder)

    def ties_decoder(self) -> bool:
        """Whether the decoder over the vocabulary is the token embedding, as ours is."""
        if DECODER not in self.names:
            return True
        embedding = self.stored[self.names["bert.embeddings.word_embeddings.weight"]]()
        decoder = self.stored[self.names[DECODER]]()
        return decoder.shape == embedding.shape and bool(torch.equal(decoder, embedding))


def open_checkpoint(folder: Path, *, made_by: str | None) -> Checkpoint:
    """Find the weights of a BERT folder, however they are named and divided.

    Raises:
        ArtifactError: there are none, they are damaged or pickled with code, or they are not those of a BERT.

    """
    stored = open_folder(folder, made_by=made_by)
    return Checkpoint(folder, stored, canonical(stored, source=folder))


def save_model(
    model: PretrainingModel | TaskModel, folder: Path, *, config: EncoderConfig | None = None, **extra: Any
) -> None:
    """Write ``config.json`` and ``model.safetensors``; ``config`` overrides what is written (dropout, say).

    ``extra`` adds keys to ``config.json``: ``id2label``, ``label2id`` and ``problem_type`` tell ``transformers`` what
    the outputs are, and ``pipeline`` which function turns them into scores.
    """
    architecture = "pretraining"
    if isinstance(model, TaskModel):
        architecture = model.kind
        extra = {"classifier_dropout": model.dropout.p, **extra}
    save_weights(model.state_dict(), folder, config=config or model.config, architecture=architecture, **extra)


def save_weights(
    weights: dict[str, Tensor], folder: Path, *, config: EncoderConfig, architecture: str, **extra: Any
) -> None:
    """Write ``config.json`` and ``model.safetensors`` of weights under our names."""
    write_json(folder / "config.json", config_to_huggingface(config, architecture=architecture, **extra))
    with atomic_file(folder / "model.safetensors") as temporary:
        # transformers asks for the format note
        save_tensors(export_weights(weights), temporary, metadata={"format": "pt"})


def load_pretraining_model(folder: Path) -> PretrainingModel:
    """Load a model with both pretraining heads.

    Raises:
        ArtifactError: a file is missing, damaged or of another architecture, or the decoder is not tied.

    """
    model = PretrainingModel(load_config(folder, made_by="pretrain"))
    fill(model, folder, made_by="pretrain")
    return model


def load_task_weights(folder: Path, *, labels: int, kind: HeadKind) -> TaskModel:
    """Load a fine-tuned model.

    Raises:
        ArtifactError: a file is missing, damaged or of another architecture.

    """
    model = TaskModel(load_config(folder, made_by="finetune"), labels=labels, kind=kind, classifier_dropout=0.0)
    fill(model, folder, made_by="finetune")
    return model


def load_config(folder: Path, *, made_by: str | None) -> EncoderConfig:
    """Read the architecture of a model folder.

    Raises:
        ArtifactError: ``config.json`` is missing, damaged, or that of another architecture.

    """
    path = folder / "config.json"
    return config_from_huggingface(read_json(path, made_by=made_by), source=path)


def fill(model: nn.Module, folder: Path, *, made_by: str | None, prefixes: tuple[str, ...] = ("",)) -> None:
    """Copy the weights of a folder into those parts of a model whose names begin with one of ``prefixes``.

    A pooler is not missed where ``prefixes`` asks for it by name: many models are shared without one. It keeps its
    random weights then, as in ``transformers``, and a note says so.

    Raises:
        ArtifactError: the weights are missing or damaged, one is not there, or one has another shape.

    """
    checkpoint = open_checkpoint(folder, made_by=made_by)
    current = model.state_dict()
    names = [name for name in current if name.startswith(prefixes)]
    pooler = [name for name in names if name.startswith(_POOLER)]
    if _POOLER in prefixes and pooler and not checkpoint.has(pooler):
        note(f"{folder} has no pooler: that of the task starts from random weights")
        names = [name for name in names if name not in pooler]
    if any(name.startswith("mlm.") for name in names) and not checkpoint.ties_decoder():
        raise ArtifactError(
            f"{folder}: the decoder over the vocabulary is not the token embedding (tied), as ours is",
            remedy="fine-tune from it, which needs no decoder",
        )
    weights = checkpoint.read(names)
    check_shapes(weights, current, source=folder, made_by=made_by)
    model.load_state_dict(weights, strict=False)


def check_vocabulary(tokenizer: Tokenizer, config: EncoderConfig, *, source: Path) -> None:
    """Refuse a tokenizer that has more ids than the model has embeddings.

    Raises:
        ArtifactError: it has.

    """
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= config.vocab_size:
        raise ArtifactError(
            f"{source}: the tokenizer has ids up to {highest}, the model embeddings for 0 to {config.vocab_size - 1}",
            remedy="use the tokenizer that the model was trained with",
        )


def check_shapes(weights: dict[str, Tensor], expected: dict[str, Tensor], *, source: Path, made_by: str | None) -> None:
    """Compare shapes.

    Raises:
        ArtifactError: one is another.

    """
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ArtifactError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, config.json asks for {tuple(expected[name].shape)}",
                remedy=rerun(made_by),
            )
