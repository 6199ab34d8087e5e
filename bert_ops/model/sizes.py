"""How large a model is and what it costs: parameters, memory and FLOPs a token, counted without building it.

Sizes follow from the architecture alone, so they are known before a byte of text is read. Symbols as in
:mod:`bert_ops.model.encoder`: D hidden size, F feed-forward size, V vocabulary, T tokens of a row, L layers.

Presets are files beside this one (``presets/NAME.yaml``), in the form of ``pretrain.model`` of ``params.yaml``. They
are pasted there rather than named there, because DVC tracks the values that stand in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bert_ops.errors import InputError
from bert_ops.model.params import ModelParams
from bert_ops.schema import read_yaml, validate

if TYPE_CHECKING:
    from bert_ops.model.encoder import EncoderConfig

#: Folder of the presets: the sizes of Turc et al. 2019 (arXiv:1908.08962), table 1.
PRESETS = Path(__file__).parent / "presets"

#: The backward pass computes two products (for input and for weight) where the forward pass computes one.
TRAINING_FACTOR = 3.0

#: Bytes of a parameter in each form in which a model is stored.
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}

#: Bytes a parameter while AdamW trains it: weight, gradient and two moments, all float32.
TRAINING_BYTES = 16


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; the MLM decoder is the token embedding (tied) and counts once.

    Args:
        embedding: token, position and segment embeddings and their LayerNorm.
        encoder: all layers.
        heads: pooler, masked-token head without the tied decoder, pair classifier.

    """

    embedding: int
    encoder: int
    heads: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.encoder + self.heads

    def mib(self, form: str) -> float:
        """MiB that they take in one of :data:`BYTES`."""
        return self.total * BYTES[form] / 2**20


@dataclass(frozen=True)
class Flops:
    """Floating-point operations a token; a multiplication and the addition after it are two.

    Args:
        forward: of the forward pass.
        training: of forward and backward pass together, without recomputation.
        by_part: forward pass by part of the model.

    """

    forward: float
    training: float
    by_part: dict[str, float]


def count_parameters(config: EncoderConfig) -> Parameters:
    """Count the parameters of :class:`~bert_ops.model.heads.PretrainingModel`."""
    D, F, V = config.hidden_size, config.feed_forward_size, config.vocab_size
    norm = 2 * D
    positions = config.max_positions if config.positions == "learned" else 0
    attention = _linear(D, 3 * D) + _linear(D, D)
    layer = attention + _linear(D, F) + _linear(F, D) + 2 * norm
    final_norm = norm if config.norm == "pre" else 0
    masked_head = _linear(D, D) + norm + V
    return Parameters(
        embedding=(V + positions + config.segments) * D + norm,
        encoder=config.layers * layer + final_norm,
        heads=_linear(D, D) + masked_head + _linear(D, 2),
    )


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def flops_per_token(config: EncoderConfig, *, sequence_tokens: int, masked_share: float) -> Flops:
    """Count the matrix products of pretraining, as Kaplan et al. 2020 (arXiv:2001.08361, table 1) do.

    Look-ups, LayerNorm, softmax, activation and bias are left out: they are no matrix products, and few.

    Args:
        config: the architecture.
        sequence_tokens: T, tokens of a row, over which attention reaches. A kernel that skips other examples of a
            packed row computes less.
        masked_share: share of tokens that the masked-token head sees.

    """
    D, F, L = config.hidden_size, config.feed_forward_size, config.layers
    by_part = {
        "attention_projections": L * 2.0 * D * 4 * D,
        "attention": L * 2.0 * 2 * sequence_tokens * D,
        "feed_forward": L * 2.0 * 2 * D * F,
        "masked_token_head": masked_share * 2.0 * D * (D + config.vocab_size),
        "pair_head": 2.0 * D * (D + 2) / sequence_tokens,
    }
    forward = sum(by_part.values())
    return Flops(forward=forward, training=TRAINING_FACTOR * forward, by_part=by_part)


def preset_names() -> list[str]:
    """Names of the presets, smallest first."""
    loaded = {path.stem: load_preset(path.stem) for path in PRESETS.glob("*.yaml")}
    return sorted(loaded, key=lambda name: loaded[name].layers * loaded[name].hidden_size ** 2)


def load_preset(name: str) -> ModelParams:
    """Architecture of a preset.

    Raises:
        InputError: there is none of this name; the message lists those that there are.

    """
    return validate(read_yaml(preset_file(name)), ModelParams, where="", source=preset_file(name))


def preset_file(name: str) -> Path:
    """File of a preset.

    Raises:
        InputError: there is none of this name; the message lists those that there are.

    """
    path = PRESETS / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise InputError(f"there is no model size {name!r}", allowed=known, remedy="run `bert-ops sizes` to see them")
    return path


def name_of(model: ModelParams) -> str | None:
    """Preset whose layers, width, heads and feed-forward size a model has, or None."""

    def shape(params: ModelParams) -> tuple[int, int, int, int]:
        return params.layers, params.hidden_size, params.heads, params.feed_forward_size

    return next((name for name in preset_names() if shape(load_preset(name)) == shape(model)), None)
