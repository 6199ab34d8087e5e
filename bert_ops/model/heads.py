"""What stands on the encoder: the pretraining heads of BERT and the classifiers of tasks.

Shapes in names and comments: B sequences, T tokens a sequence, D hidden size, V vocabulary size, M picked tokens of the
whole batch, E examples.

The masked-language-model head sees only the masked positions (about 15% of the tokens), because the decoder over V
entries is otherwise the most expensive product of a small model.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_ops.model.attention import Pattern
from bert_ops.model.encoder import ACTIVATIONS, Encoder, EncoderConfig, LayerNorm, Linear, initialise


class Pooler(nn.Module):
    """Dense layer and tanh over the hidden state of ``[CLS]``, the first token of an example."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        initialise(self.dense, config.initializer_range)

    def forward(self, cls_ED: Tensor) -> Tensor:
        """Return (E, D) for the hidden states of E first tokens."""
        return torch.tanh(self.dense(cls_ED))


class MaskedLanguageModelHead(nn.Module):
    """Transform and decoder over the vocabulary; the decoder's weight is the token embedding (tied)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self.dense, config.initializer_range)

    def transform(self, hidden_MD: Tensor) -> Tensor:
        """What the decoder is applied to, (M, D)."""
        out: Tensor = self.norm(self.activation(self.dense(hidden_MD)))
        return out

    def forward(self, hidden_MD: Tensor, token_embedding_VD: Tensor) -> Tensor:
        """Return logits (M, V)."""
        x_MD = self.transform(hidden_MD)
        return F.linear(x_MD, token_embedding_VD.to(x_MD.dtype), self.bias.to(x_MD.dtype))


class PretrainingModel(nn.Module):
    """Encoder with the masked-language-model head and the one for pairs (next sentence, or sentence order)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        self.mlm = MaskedLanguageModelHead(config)
        self.nsp = Linear(config.hidden_size, 2)
        initialise(self.nsp, config.initializer_range)

    def forward(
        self,
        ids_BT: Tensor,
        segments_BT: Tensor,
        attend_BT: Tensor | None = None,
        masked_M: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        pattern: Pattern | None = None,
        cls_E: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Score masked tokens and sentence pairs.

        Args:
            ids_BT: token ids, int64.
            segments_BT: segment ids, int64.
            attend_BT: bool, False on padding, or None.
            masked_M: flat positions (b * T + t) whose token is to be predicted; None scores every position.
            positions_BT: position of each token in its example, for packed rows.
            pattern: who sees whom, for packed rows.
            cls_E: flat position of the first token of each example; None if every row is one example.

        Returns:
            MLM logits (M, V) or, without ``masked_M``, (B, T, V); and pair logits (E, 2), class 0 = "is next".

        """
        hidden_BTD = self.encoder(ids_BT, segments_BT, attend_BT, positions_BT=positions_BT, pattern=pattern)
        flat_ND = hidden_BTD.flatten(0, 1)
        picked = hidden_BTD if masked_M is None else flat_ND.index_select(0, masked_M)
        first_ED = hidden_BTD[:, 0] if cls_E is None else flat_ND.index_select(0, cls_E)
        return self.mlm(picked, self.encoder.embeddings.token.weight), self.nsp(self.pooler(first_ED))


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
        self.classifier = Linear(config.hidden_size, labels)
        initialise(self.classifier, config.initializer_range)

    def forward(
        self,
        ids_BT: Tensor,
        segments_BT: Tensor,
        attend_BT: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        pattern: Pattern | None = None,
        picked_M: Tensor | None = None,
    ) -> Tensor:
        """Score texts or tokens.

        Args:
            ids_BT: token ids, int64.
            segments_BT: segment ids, int64.
            attend_BT: bool, False on padding, or None.
            positions_BT: position of each token in its example, for packed rows.
            pattern: who sees whom, for packed rows.
            picked_M: flat positions (b * T + t) to score: first tokens of examples, or tokens that have a tag; None
                scores the first token of every row, or all tokens.

        Returns:
            Logits (M, labels); without ``picked_M`` (B, labels), or (B, T, labels) for token classification.

        """
        hidden_BTD = self.encoder(ids_BT, segments_BT, attend_BT, positions_BT=positions_BT, pattern=pattern)
        if picked_M is not None:
            features = hidden_BTD.flatten(0, 1).index_select(0, picked_M)
        else:
            features = hidden_BTD if self.pooler is None else hidden_BTD[:, 0]
        if self.pooler is not None:
            features = self.pooler(features)
        logits: Tensor = self.classifier(self.dropout(features))
        return logits
