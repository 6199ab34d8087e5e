"""``config.json``: our architecture in the words of ``transformers``, and theirs in ours.

What our encoder does not compute is refused by name, never approximated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bert_ops.errors import ArtifactError, InputError
from bert_ops.model.encoder import LAYER_NORM_EPS, Activation, EncoderConfig

#: Model type of what ``transformers`` has no architecture for.
OWN_TYPE = "bert_ops"

_ARCHITECTURES: dict[str, str] = {
    "encoder": "BertModel",
    "masked_language_model": "BertForMaskedLM",
    "pretraining": "BertForPreTraining",
    "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification",
}

#: Their names of activations that we compute; those on a line are one formula.
ACTIVATION_NAMES: dict[str, Activation] = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), "gelu_new"),
    "relu": "relu",
}

#: Our name -> theirs.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
#: Limits of what a file is believed: far above any model, and below what no machine could hold.
_MOST, _MOST_LAYERS = 10**7, 10**3
#: Their name -> the only value with which the model is the BERT that we compute.
_PLAIN: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "quantization_config": None,
}


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
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "type_vocab_size": config.segments,
        "hidden_act": config.activation,
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": config.pad_id,
        "tie_word_embeddings": True,
        **extra,
    }


def config_from_huggingface(value: Any, *, source: Path) -> EncoderConfig:
    """Read ``config.json``. What it leaves out besides sizes has the value of the published BERT.

    Raises:
        ArtifactError: it is not a BERT, or one with parts that we do not compute; or a size is missing or impossible.

    """
    if not isinstance(value, dict):
        raise ArtifactError(f"{source} holds no JSON object", remedy="is it the config.json of a model?")
    _refuse_others(value, source=source)
    activation = ACTIVATION_NAMES[value.get("hidden_act", "gelu")]
    sizes = {ours: _number(value, theirs, source=source, whole=True) for ours, theirs in _SIZES.items()}
    try:
        return EncoderConfig(
            **sizes,
            segments=_number(value, "type_vocab_size", 2, source=source, whole=True),
            hidden_dropout=_number(value, "hidden_dropout_prob", 0.1, source=source),
            attention_dropout=_number(value, "attention_probs_dropout_prob", 0.1, source=source),
            initializer_range=_number(value, "initializer_range", 0.02, source=source),
            layer_norm_eps=_number(value, "layer_norm_eps", LAYER_NORM_EPS, source=source),
            pad_id=_number(value, "pad_token_id", 0, source=source, whole=True),
            activation=activation,
            positions=_choice(value, "position_encoding", ("learned", "rotary"), source=source),
            norm=_choice(value, "norm_placement", ("post", "pre"), source=source),
        )
    except InputError as error:
        raise ArtifactError(f"{source}: {error.what}", allowed=error.allowed, remedy="is it whole?") from error


def _refuse_others(value: dict[str, Any], *, source: Path) -> None:
    """Refuse what is no BERT, or one that computes something that we do not."""
    kind, activation = _model_type(value), value.get("hidden_act", "gelu")
    if kind not in ("bert", OWN_TYPE):  # a tuple: what the file says need not be hashable
        raise ArtifactError(
            f"{source}: model_type is {kind!r}, which is no BERT",
            allowed=f"bert, or {OWN_TYPE} (our own with rotary positions or norms before the blocks)",
            remedy="choose a checkpoint of the BERT architecture",
        )
    if not isinstance(activation, str) or activation not in ACTIVATION_NAMES:
        raise ArtifactError(
            f"{source}: model_type is {kind!r}, hidden_act is {activation!r}, which we do not compute",
            allowed=", ".join(ACTIVATION_NAMES),
            remedy="choose a checkpoint with one of these",
        )
    plain = {**_PLAIN, "embedding_size": value.get("hidden_size"), "pruned_heads": {}}
    for key, only in plain.items():
        given = value.get(key)
        if given not in (None, only):
            raise ArtifactError(
                f"{source}: {key} is {given!r}, which we do not compute",
                allowed=f"{only!r}, as BERT has it",
                remedy="choose a checkpoint of the plain architecture",
            )


def _model_type(value: dict[str, Any]) -> Any:
    """``model_type``; the first BERTs have none, and nothing else that would speak against it."""
    if "model_type" in value:
        return value["model_type"]
    architectures = value.get("architectures") or []
    named = isinstance(architectures, list) and all(str(name).startswith("Bert") for name in architectures)
    return "bert" if named and "num_hidden_layers" in value else None


def _number(value: dict[str, Any], key: str, default: Any = None, *, source: Path, whole: bool = False) -> Any:
    """A number of ``config.json``; null counts as left out."""
    given = value.get(key)
    if given is None:
        if default is None:
            raise ArtifactError(f"{source} lacks {key}", remedy="is it the config.json of a BERT, and whole?")
        return default
    most = _MOST_LAYERS if key == "num_hidden_layers" else _MOST if whole else 1
    kinds = (int,) if whole else (int, float)
    if isinstance(given, bool) or not isinstance(given, kinds) or not 0 <= given <= most:
        raise ArtifactError(
            f"{source}: {key} is {given!r}",
            allowed=f"a {'whole ' * whole}number from 0 to {most:,}",
            remedy="correct it",
        )
    return given


def _choice(value: dict[str, Any], key: str, allowed: tuple[str, ...], *, source: Path) -> Any:
    given = value.get(key, allowed[0])
    if given not in allowed:
        raise ArtifactError(f"{source}: {key} is {given!r}", allowed=" or ".join(allowed))
    return given
