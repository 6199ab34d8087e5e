"""BERT encoder and pretraining heads (Devlin et al. 2019, arXiv:1810.04805), written for speed on any device.

Shapes in names and comments: B sequences, T tokens a sequence, D hidden size, H heads, K = D / H head size,
F feed-forward size, V vocabulary size, M masked tokens in the whole batch.

Two choices differ from the reference code and neither changes a result:

* query, key and value are one matrix product (``qkv``), which is one large GEMM instead of three small ones;
  :mod:`bert_ops.model.huggingface` splits and joins them when weights are exchanged.
* the masked-language-model head sees only the masked positions (about 15% of the tokens), because the decoder
  over V entries is otherwise the most expensive product of a small model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_ops.errors import InputError

#: LayerNorm epsilon of the reference implementation.
LAYER_NORM_EPS = 1e-12


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

    def __post_init__(self) -> None:
        """Check that the sizes fit together.

        Raises:
            InputError: a size is not positive, or ``hidden_size`` is not a multiple of ``heads``.

        """
        for name in ("vocab_size", "hidden_size", "layers", "heads", "feed_forward_size", "max_positions", "segments"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name)}", remedy=f"give model.{name} at least 1")
        if self.hidden_size % self.heads:
            raise InputError(
                f"model.hidden_size {self.hidden_size} is not divisible by model.heads {self.heads}",
                remedy="choose a hidden size that is a multiple of the number of heads",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-serialisable values."""
        return asdict(self)


class Embeddings(nn.Module):
    """Sum of token, position and segment embeddings, normalised (section 3.2 of the paper)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_id)
        self.position = nn.Embedding(config.max_positions, config.hidden_size)
        self.segment = nn.Embedding(config.segments, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, ids_BT: Tensor, segments_BT: Tensor) -> Tensor:
        """Return (B, T, D)."""
        x_BTD = self.token(ids_BT) + self.segment(segments_BT)
        x_BTD = x_BTD + self.position.weight[: ids_BT.shape[1]]
        out: Tensor = self.dropout(self.norm(x_BTD))
        return out


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual and a LayerNorm after it (post-norm, as BERT)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.attention_out = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.up = nn.Linear(config.hidden_size, config.feed_forward_size)
        self.down = nn.Linear(config.feed_forward_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x_BTD: Tensor, attend_B11T: Tensor | None) -> Tensor:
        """Return (B, T, D); ``attend_B11T`` is bool, False where a key is padding."""
        B, T, D = x_BTD.shape
        qkv_3BHTK = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed_BHTK = F.scaled_dot_product_attention(
            qkv_3BHTK[0],
            qkv_3BHTK[1],
            qkv_3BHTK[2],
            attn_mask=attend_B11T,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        mixed_BTD = mixed_BHTK.transpose(1, 2).reshape(B, T, D)
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention_out(mixed_BTD)))
        out: Tensor = self.norm(x_BTD + self.dropout(self.down(F.gelu(self.up(x_BTD)))))
        return out


class Encoder(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.layers)])
        self.apply(lambda module: initialise(module, config.initializer_range))

    def forward(self, ids_BT: Tensor, segments_BT: Tensor, attend_BT: Tensor | None = None) -> Tensor:
        """Encode a batch.

        Args:
            ids_BT: token ids, int64.
            segments_BT: segment ids (0 for the first text, 1 for the second), int64.
            attend_BT: bool, False on padding; None when nothing is padded, which lets attention skip the mask.

        Returns:
            Hidden states of shape (B, T, D).

        Raises:
            InputError: a sequence is longer than the position embeddings.

        """
        if ids_BT.shape[1] > self.config.max_positions:
            raise InputError(
                f"a sequence of {ids_BT.shape[1]} tokens does not fit {self.config.max_positions} positions",
                remedy="shorten the sequences, or pretrain with a larger pretrain.model.max_positions",
            )
        attend_B11T = None if attend_BT is None else attend_BT[:, None, None, :]
        x_BTD: Tensor = self.embeddings(ids_BT, segments_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, attend_B11T)
        return x_BTD


class Pooler(nn.Module):
    """Dense layer and tanh over the hidden state of ``[CLS]``, the first token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        initialise(self.dense, config.initializer_range)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Return (B, D)."""
        return torch.tanh(self.dense(hidden_BTD[:, 0]))


class MaskedLanguageModelHead(nn.Module):
    """Transform and decoder over the vocabulary; the decoder's weight is the token embedding (tied)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self.dense, config.initializer_range)

    def forward(self, hidden_MD: Tensor, token_embedding_VD: Tensor) -> Tensor:
        """Return logits (M, V)."""
        x_MD = self.norm(F.gelu(self.dense(hidden_MD)))
        return F.linear(x_MD, token_embedding_VD, self.bias)


class PretrainingModel(nn.Module):
    """Encoder with the masked-language-model and next-sentence heads."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        self.mlm = MaskedLanguageModelHead(config)
        self.nsp = nn.Linear(config.hidden_size, 2)
        initialise(self.nsp, config.initializer_range)

    def forward(
        self, ids_BT: Tensor, segments_BT: Tensor, attend_BT: Tensor | None = None, masked_M: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score masked tokens and sentence pairs.

        Args:
            ids_BT: token ids, int64.
            segments_BT: segment ids, int64.
            attend_BT: bool, False on padding, or None.
            masked_M: flat positions (b * T + t) whose token is to be predicted; None scores every position.

        Returns:
            MLM logits (M, V) or, without ``masked_M``, (B, T, V); and NSP logits (B, 2), class 0 = "is next".

        """
        hidden_BTD = self.encoder(ids_BT, segments_BT, attend_BT)
        picked = hidden_BTD if masked_M is None else hidden_BTD.flatten(0, 1)[masked_M]
        return self.mlm(picked, self.encoder.embeddings.token.weight), self.nsp(self.pooler(hidden_BTD))


HeadKind = Literal["sequence_classification", "token_classification"]


class TaskModel(nn.Module):
    """Encoder with a classification head over the whole text or over each token."""

    def __init__(self, config: EncoderConfig, *, labels: int, kind: HeadKind, classifier_dropout: float) -> None:
        super().__init__()
        self.config = config
        self.kind: HeadKind = kind
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if kind == "sequence_classification" else None
        self.dropout = nn.Dropout(classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, labels)
        initialise(self.classifier, config.initializer_range)

    def forward(self, ids_BT: Tensor, segments_BT: Tensor, attend_BT: Tensor | None = None) -> Tensor:
        """Return logits of shape (B, labels), or (B, T, labels) for token classification."""
        hidden_BTD = self.encoder(ids_BT, segments_BT, attend_BT)
        features = hidden_BTD if self.pooler is None else self.pooler(hidden_BTD)
        logits: Tensor = self.classifier(self.dropout(features))
        return logits


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
