"""Names of weights, ours and those of ``transformers`` (``BertForPreTraining`` and the task models).

The one structural difference is that our query, key and value are one matrix. Checkpoints in the field spell the names
in several ways; :func:`canonical` brings them to one:

* the encoder stands under ``bert.``, under nothing (``BertModel``), or deeper (``module.bert.``);
* LayerNorm has ``gamma`` and ``beta`` instead of ``weight`` and ``bias`` (before 2019);
* buffers such as ``position_ids`` are stored as if they were weights;
* the bias of the decoder is stored twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bert_ops.errors import ArtifactError

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

#: By its end the name is found under which the encoder stands.
_ANCHOR = "embeddings.word_embeddings.weight"
_OLD_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
#: Constants that older versions stored.
_BUFFERS = {"bert.embeddings.position_ids", "bert.embeddings.token_type_ids"}
#: The decoder over the vocabulary, which we tie to the token embedding.
DECODER = "cls.predictions.decoder.weight"
_MLM_BIAS = ("cls.predictions.decoder.bias", "cls.predictions.bias")
_OF_LAYER = re.compile(
    r"bert\.encoder\.layer\.\d+\.(?:" + "|".join(map(re.escape, (*_QKV, *_INNER.values()))) + r")\.(?:weight|bias)"
)
_OF_ENCODER = {f"{name}.{leaf}" for name in _OUTER.values() for leaf in ("weight", "bias") if name.startswith("bert.")}


def export_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our state dict to theirs; ``qkv`` is split in three.

    The decoder of the MLM head is tied to the token embedding on both sides and therefore written once.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        theirs = names_of(name)
        parts = tensor.chunk(len(theirs)) if len(theirs) > 1 else (tensor,)
        out |= dict(zip(theirs, parts, strict=True))
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in out.items()}


def names_of(ours: str) -> list[str]:
    """Their names for one of our weights: three for ``qkv``, otherwise one."""
    layer = _LAYER.fullmatch(ours)
    if layer is None:
        module, leaf = ours.rsplit(".", 1)
        return [f"{_OUTER[module]}.{leaf}"]
    number, module, leaf = layer.groups()
    parts = _QKV if module == "qkv" else (_INNER[module],)
    return [f"bert.encoder.layer.{number}.{part}.{leaf}" for part in parts]


def import_weights(theirs: Mapping[str, Tensor], names: Iterable[str], *, source: Path) -> dict[str, Tensor]:
    """Pick the weights called ``names`` on our side out of a state dict of theirs, under canonical names.

    Raises:
        ArtifactError: a weight is missing.

    """
    names = list(names)
    absent = [part for name in names for part in names_of(name) if part not in theirs]
    if absent:
        listed = ", ".join(absent[:6]) + (f" and {len(absent) - 6} more" if len(absent) > 6 else "")
        raise ArtifactError(
            f"{source} lacks {listed}", remedy="is it a BERT of the architecture that config.json says?"
        )
    out = {}
    for name in names:
        parts = [theirs[part] for part in names_of(name)]
        out[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return out


def canonical(stored: Iterable[str], *, source: Path) -> dict[str, str]:
    """Map the names that ``transformers`` uses today to those under which a checkpoint stores the same weights.

    Raises:
        ArtifactError: there is no BERT encoder, there are several, or it has weights that BERT does not know, with
            which it would compute something else.

    """
    stored = list(stored)
    prefix = _encoder_prefix(stored, source=source)
    root = prefix.removesuffix("bert.")
    out: dict[str, str] = {}
    for name in stored:
        if name.startswith(prefix) and _is_of_encoder(name, prefix):
            today = "bert." + name.removeprefix(prefix)
        elif name.startswith(root):
            today = name.removeprefix(root)
        else:
            continue
        for old, new in _OLD_NORM.items():
            if today.endswith(old):
                today = today.removesuffix(old) + new
        if today in out:
            raise ArtifactError(
                f"{source} stores {today} twice, as {out[today]} and {name}", remedy="which one is meant?"
            )
        if today not in _BUFFERS:
            out[today] = name
    first, second = _MLM_BIAS
    if first in out:
        out.setdefault(second, out[first])
    unknown = [n for n in out if n.startswith("bert.") and n not in _OF_ENCODER and not _OF_LAYER.fullmatch(n)]
    if unknown:
        raise ArtifactError(
            f"{source}: the encoder has {', '.join(out[name] for name in unknown[:3])}"
            + (f" and {len(unknown) - 3} more weights" if len(unknown) > 3 else "")
            + ", which BERT does not have",
            remedy="merge adapters into the weights, or use a plain BERT",
        )
    return out


def _is_of_encoder(name: str, prefix: str) -> bool:
    """Whether a name belongs to the encoder; without a prefix the heads stand beside its parts."""
    return bool(prefix) or name.split(".", 1)[0] in {"embeddings", "encoder", "pooler", "final_norm"}


def _encoder_prefix(stored: list[str], *, source: Path) -> str:
    found = [name.removesuffix(_ANCHOR) for name in stored if name == _ANCHOR or name.endswith("." + _ANCHOR)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ArtifactError(
            f"{source} lacks bert.{_ANCHOR}", remedy="is it a BERT of the architecture that config.json says?"
        )
    raise ArtifactError(
        f"{source} holds {len(found)} encoders: {', '.join(name.rstrip('.') or 'the root' for name in sorted(found))}",
        remedy="save the one that you want by itself, with transformers' save_pretrained",
    )
