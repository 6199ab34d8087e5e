"""Exchange of weights with the Hugging Face format: ``config.json`` + ``model.safetensors``.

Names on their side are those of ``transformers`` 5 (``BertForPreTraining``, ``BertForSequenceClassification``,
``BertForTokenClassification``). The one structural difference is that our query, key and value are one matrix.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bert_ops.errors import ArtifactError
from bert_ops.io import atomic_file, damaged, missing, read_json, rerun, write_json
from bert_ops.model.encoder import ACTIVATIONS, EncoderConfig, HeadKind, PretrainingModel, TaskModel
from bert_ops.model.tensor_file import save_tensors

#: Our module path -> theirs, outside the layers.
_OUTER = {
    "encoder.embeddings.token": "bert.embeddings.word_embeddings",
    "encoder.embeddings.position": "bert.embeddings.position_embeddings",
    "encoder.embeddings.segment": "bert.embeddings.token_type_embeddings",
    "encoder.embeddings.norm": "bert.embeddings.LayerNorm",
    "pooler.dense": "bert.pooler.dense",
    "mlm.dense": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "mlm": "cls.predictions",
    "nsp": "cls.seq_relationship",
    "encoder.final_norm": "bert.final_norm",
    "classifier": "classifier",
}

#: The same inside layer ``n``, below ``encoder.layers.n`` and ``bert.encoder.layer.n``.
_INNER = {
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(\w+)\.(weight|bias)")

#: Model type of what ``transformers`` has no architecture for.
OWN_TYPE = "bert_ops"

_ARCHITECTURES: dict[str, str] = {
    "pretraining": "BertForPreTraining",
    "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification",
}


def export_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our state dict to theirs; ``qkv`` is split in three.

    The decoder of the MLM head is tied to the token embedding on both sides and therefore written once.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer = _LAYER.fullmatch(name)
        if layer is None:
            module, leaf = name.rsplit(".", 1)
            out[f"{_OUTER[module]}.{leaf}"] = tensor
            continue
        number, module, leaf = layer.groups()
        prefix = f"bert.encoder.layer.{number}"
        if module == "qkv":
            out |= {f"{prefix}.{part}.{leaf}": t for part, t in zip(_QKV, tensor.chunk(3), strict=True)}
        else:
            out[f"{prefix}.{_INNER[module]}.{leaf}"] = tensor
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in out.items()}


def import_weights(theirs: dict[str, Tensor], names: list[str], *, source: Path) -> dict[str, Tensor]:
    """Pick the weights called ``names`` on our side out of a state dict of theirs.

    Raises:
        ArtifactError: a weight is missing.

    """
    out: dict[str, Tensor] = {}
    for name in names:
        layer = _LAYER.fullmatch(name)
        if layer is None:
            module, leaf = name.rsplit(".", 1)
            wanted = [f"{_OUTER[module]}.{leaf}"]
        else:
            number, module, leaf = layer.groups()
            parts = _QKV if module == "qkv" else (_INNER[module],)
            wanted = [f"bert.encoder.layer.{number}.{part}.{leaf}" for part in parts]
        absent = [part for part in wanted if part not in theirs]
        if absent:
            raise ArtifactError(f"{source} lacks {', '.join(absent)}", remedy="is it a BERT of the same architecture?")
        out[name] = torch.cat([theirs[part] for part in wanted]) if len(wanted) > 1 else theirs[wanted[0]]
    return out


def config_to_huggingface(config: EncoderConfig, *, architecture: str, **extra: Any) -> dict[str, Any]:
    """Return ``config.json`` for ``transformers``; ``extra`` adds keys such as ``id2label``.

    Rotary positions and norms before the blocks are no BERT to ``transformers``. Such a model says so by another model
    type, with which ``transformers`` refuses it instead of computing something else.
    """
    is_bert = config.positions == "learned" and config.norm == "post"
    own = {} if is_bert else {"position_encoding": config.positions, "norm_placement": config.norm}
    return {
        "architectures": [_ARCHITECTURES[architecture]],
        "model_type": "bert" if is_bert else OWN_TYPE,
        **own,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.segments,
        "hidden_act": config.activation,
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "layer_norm_eps": 1e-12,
        "pad_token_id": config.pad_id,
        "tie_word_embeddings": True,
        **extra,
    }


def config_from_huggingface(value: dict[str, Any], *, source: Path) -> EncoderConfig:
    """Read ``config.json``.

    Raises:
        ArtifactError: it is not a BERT, or a size is missing.

    """
    kind, activation = value.get("model_type"), value.get("hidden_act", "gelu")
    if kind not in {"bert", OWN_TYPE} or activation not in ACTIVATIONS:
        raise ArtifactError(
            f"{source}: model_type is {kind!r}, hidden_act is {activation!r}",
            allowed=f"bert or {OWN_TYPE} with {' or '.join(ACTIVATIONS)}",
        )
    try:
        return EncoderConfig(
            vocab_size=value["vocab_size"],
            hidden_size=value["hidden_size"],
            layers=value["num_hidden_layers"],
            heads=value["num_attention_heads"],
            feed_forward_size=value["intermediate_size"],
            max_positions=value["max_position_embeddings"],
            segments=value["type_vocab_size"],
            hidden_dropout=value["hidden_dropout_prob"],
            attention_dropout=value["attention_probs_dropout_prob"],
            initializer_range=value["initializer_range"],
            pad_id=value.get("pad_token_id") or 0,
            activation=activation,
            positions=value.get("position_encoding", "learned"),
            norm=value.get("norm_placement", "post"),
        )
    except KeyError as error:
        raise ArtifactError(f"{source} lacks {error.args[0]}", remedy=rerun("pretrain")) from error


def save_model(
    model: PretrainingModel | TaskModel, folder: Path, *, config: EncoderConfig | None = None, **extra: Any
) -> None:
    """Write ``config.json`` and ``model.safetensors``; ``config`` overrides what is written (dropout, say)."""
    architecture = model.kind if isinstance(model, TaskModel) else "pretraining"
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
        ArtifactError: a file is missing, damaged or of another architecture.

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


def load_config(folder: Path, *, made_by: str) -> EncoderConfig:
    """Read the architecture of a model folder."""
    path = folder / "config.json"
    return config_from_huggingface(read_json(path, made_by=made_by), source=path)


def fill(model: nn.Module, folder: Path, *, made_by: str, prefixes: tuple[str, ...] = ("",)) -> None:
    """Copy the weights of a folder into those parts of a model whose names begin with one of ``prefixes``.

    Raises:
        ArtifactError: ``model.safetensors`` is missing or damaged, lacks a weight, or one has another shape.

    """
    path = folder / "model.safetensors"
    try:
        theirs = load_file(path)
    except FileNotFoundError as error:
        raise missing(path, made_by=made_by) from error
    except (SafetensorError, OSError) as error:
        raise damaged(path, str(error), made_by=made_by) from error
    current = model.state_dict()
    names = [name for name in current if name.startswith(prefixes)]
    weights = import_weights(theirs, names, source=path)
    for name in names:
        if weights[name].shape != current[name].shape:
            raise ArtifactError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, "
                f"config.json asks for {tuple(current[name].shape)}",
                remedy=rerun(made_by),
            )
    model.load_state_dict(weights, strict=False)
