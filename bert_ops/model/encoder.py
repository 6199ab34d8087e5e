"""BERT encoder (Devlin et al. 2019, arXiv:1810.04805), written for speed on any device.

Shapes in names and comments: B sequences, T tokens a sequence, D hidden size, H heads, K = D / H head size,
F feed-forward size.

One choice differs from the reference code and does not change a result: query, key and value are one matrix product
(``qkv``), which is one large GEMM instead of three small ones; :mod:`bert_ops.model.huggingface` splits and joins them
when weights are exchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from bert_ops.errors import InputError
from bert_ops.model.attention import Pattern, attend
from bert_ops.model.rotary import Rotation

#: LayerNorm epsilon of the reference implementation.
LAYER_NORM_EPS = 1e-12

Activation = Literal["gelu", "relu", "gelu_new"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Architecture of an encoder; every field is needed to rebuild the module that some weights belong to."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    feed_forward_size: int
    max_positions: int
    segments: int = 2
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    pad_id: int = 0
    activation: Activation = "gelu"
    positions: Literal["learned", "rotary"] = "learned"
    norm: Literal["post", "pre"] = "post"
    layer_norm_eps: float = LAYER_NORM_EPS

    def __post_init__(self) -> None:
        """Check that the sizes fit together.

        Raises:
            InputError: a size is not positive, ``hidden_size`` is not a multiple of ``heads``, or ``pad_id`` is no id.

        """
        for name in ("vocab_size", "hidden_size", "layers", "heads", "feed_forward_size", "max_positions", "segments"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name)}", remedy=f"give model.{name} at least 1")
        if self.hidden_size % self.heads:
            raise InputError(
                f"model.hidden_size {self.hidden_size} is not divisible by model.heads {self.heads}",
                remedy="choose a hidden size that is a multiple of the number of heads",
            )
        if not 0 <= self.pad_id < self.vocab_size:
            raise InputError(
                f"model.pad_id is {self.pad_id}, the vocabulary has {self.vocab_size} entries",
                allowed=f"0 to {self.vocab_size - 1}",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-serialisable values."""
        return asdict(self)


class Linear(nn.Linear):
    """A linear layer that computes in the type of its input; its weights stay float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input · weightᵀ + bias`` in the input's type."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in the type of its input, with sums, gain and bias in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input normalised over its last axis."""
        if input.is_cuda and input.dtype != self.weight.dtype:
            return F.layer_norm(input.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(input.dtype)
        # On a CPU the kernel takes float32 gain and bias beside half-precision input.
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class Embeddings(nn.Module):
    """Sum of token, position and segment embeddings, normalised (section 3.2 of the paper)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_id)
        # Rotary positions enter in attention instead.
        self.position = (
            nn.Embedding(config.max_positions, config.hidden_size) if config.positions == "learned" else None
        )
        self.segment = nn.Embedding(config.segments, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, ids_BT: Tensor, segments_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor:
        """Return (B, T, D); without ``positions_BT`` every row counts from 0.

        A model with one segment (some are trained so) does not tell the second text of a pair from the first.
        """
        one = self.segment.num_embeddings == 1
        x_BTD = self.token(ids_BT) + (self.segment.weight[0] if one else self.segment(segments_BT))
        if self.position is not None:
            rows = self.position.weight[: ids_BT.shape[1]] if positions_BT is None else self.position(positions_BT)
            x_BTD = x_BTD + rows
        out: Tensor = self.dropout(self.norm(x_BTD))
        return out


#: Activations of the feed-forward block; ReLU leaves most neurons at zero, which sparse inference makes use of.
#: ``gelu_new`` is GELU by the tanh formula (Hendrycks & Gimpel 2016, arXiv:1606.08415), which some checkpoints use.
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
}


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual, and a LayerNorm after (BERT) or before each."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.pre_norm = config.norm == "pre"
        self.activation = ACTIVATIONS[config.activation]
        self.attention_dropout = config.attention_dropout
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.attention_out = Linear(config.hidden_size, config.hidden_size)
        self.attention_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up = Linear(config.hidden_size, config.feed_forward_size)
        self.down = Linear(config.feed_forward_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x_BTD: Tensor, pattern: Pattern, rotation: Rotation | None = None) -> Tensor:
        """Return (B, T, D)."""
        if self.pre_norm:
            x_BTD = x_BTD + self.dropout(self.attend(self.attention_norm(x_BTD), pattern, rotation))
            x_BTD = x_BTD + self.dropout(self.feed_forward(self.norm(x_BTD)))
        else:
            x_BTD = self.attention_norm(x_BTD + self.dropout(self.attend(x_BTD, pattern, rotation)))
            x_BTD = self.norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))
        return x_BTD

    def attend(self, x_BTD: Tensor, pattern: Pattern, rotation: Rotation | None) -> Tensor:
        """Self-attention, (B, T, D)."""
        B, T, D = x_BTD.shape
        qkv_BT3HK = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads)
        if rotation is not None:
            qkv_BT3HK = rotation.turn(qkv_BT3HK)
        mixed = attend(qkv_BT3HK, pattern, dropout=self.attention_dropout if self.training else 0.0)
        out: Tensor = self.attention_out(mixed)
        return out

    def feed_forward(self, x_BTD: Tensor) -> Tensor:
        """Position-wise feed-forward block, (B, T, D)."""
        out: Tensor = self.down(self.activation(self.up(x_BTD)))
        return out


class Encoder(nn.Module):
    """Token ids to hidden states.

    ``compute_dtype`` is the arithmetic of everything after the embeddings (weights stay float32), and
    ``recompute_layers`` trades a second forward pass of each layer for the memory of its activations (Chen et al. 2016,
    arXiv:1604.06174); both are set by who runs the model (:mod:`bert_ops.training.device`) and belong to no checkpoint.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.recompute_layers = False
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.layers)])
        self.final_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm == "pre" else None
        self.apply(lambda module: initialise(module, config.initializer_range))

    def forward(
        self,
        ids_BT: Tensor,
        segments_BT: Tensor,
        attend_BT: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        pattern: Pattern | None = None,
    ) -> Tensor:
        """Encode a batch.

        Args:
            ids_BT: token ids, int64.
            segments_BT: segment ids (0 for the first text, 1 for the second), int64.
            attend_BT: bool, False on padding; None when nothing is padded, which lets attention skip the mask.
            positions_BT: position of each token in its example, int64; None if every row is one example.
            pattern: who sees whom, for rows that hold several examples; ``attend_BT`` must be None then.

        Returns:
            Hidden states of shape (B, T, D), in ``compute_dtype``.

        Raises:
            InputError: a sequence is longer than the position embeddings.

        """
        longest = ids_BT.shape[1] if pattern is None or pattern.longest is None else pattern.longest
        if longest > self.config.max_positions:
            raise InputError(
                f"a sequence of {longest} tokens does not fit {self.config.max_positions} positions",
                remedy="shorten the sequences, or pretrain with a larger pretrain.model.max_positions",
            )
        if pattern is None:
            pattern = Pattern(None if attend_BT is None else attend_BT.to(torch.uint8))
        x_BTD: Tensor = self.embeddings(ids_BT, segments_BT, positions_BT).to(self.compute_dtype)
        rotation = None if self.config.positions == "learned" else Rotation.of(self.config, x_BTD, positions_BT)
        for layer in self.layers:
            if self.recompute_layers and self.training:
                x_BTD = recompute(layer, x_BTD, pattern, rotation, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, pattern, rotation)
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)


def initialise(module: nn.Module, std: float) -> None:
    """Draw weights from N(0, std²), zero biases, padding row zero, LayerNorm at identity (BERT's own scheme)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def parameter_count(module: nn.Module) -> int:
    """Number of distinct parameters (tied weights count once)."""
    return sum(parameter.numel() for parameter in module.parameters())
