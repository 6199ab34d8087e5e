"""Section ``pretrain.model`` of params.yaml: the architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section

if TYPE_CHECKING:
    from bert_ops.model.encoder import EncoderConfig


class ModelParams(Section):
    """Sizes of the encoder (Devlin et al. 2019, section 3: layers L, hidden size H, heads A)."""

    hidden_size: int = Field(ge=8, le=8192, description="width of a token's hidden state")
    layers: int = Field(ge=1, le=96, description="transformer layers")
    heads: int = Field(ge=1, le=128, description="attention heads; must divide hidden_size")
    feed_forward_size: int = Field(
        ge=8, le=65536, description="inner width of the feed-forward block, usually 4 × hidden_size"
    )
    max_positions: int = Field(ge=8, le=8192, description="tokens of the longest sequence that the model can read")
    hidden_dropout: float = Field(ge=0, lt=1, description="share of hidden units dropped in pretraining")
    attention_dropout: float = Field(ge=0, lt=1, description="share of attention weights dropped in pretraining")
    initializer_range: float = Field(
        gt=0, le=1, description="standard deviation of initial weights; BERT: 0.02 at 768, grows as hidden_size shrinks"
    )

    activation: Literal["gelu", "relu"] = Field(description="of the feed-forward blocks; relu for sparse inference")
    positions: Literal["learned", "rotary"] = Field(
        description="learned, as BERT; or rotary (Su et al. 2021), which transformers' BERT cannot load"
    )
    norm: Literal["post", "pre"] = Field(
        description="LayerNorm after each block, as BERT; or before it, which transformers' BERT cannot load"
    )

    @model_validator(mode="after")
    def _heads_divide_hidden_size(self) -> Self:
        if self.hidden_size % self.heads:
            divisors = [h for h in range(1, 129) if self.hidden_size % h == 0]
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by heads {self.heads}; "
                f"allowed heads: {', '.join(map(str, divisors))}"
            )
        if self.positions == "rotary" and self.hidden_size // self.heads % 2:
            raise ValueError(
                f"positions is rotary and a head has {self.hidden_size // self.heads} channels (hidden_size / heads); "
                "allowed: an even number"
            )
        return self

    def config(self, *, vocab_size: int) -> EncoderConfig:
        """Architecture for a vocabulary."""
        from bert_ops.model.encoder import EncoderConfig  # brings torch, which a reader of params.yaml does not need

        return EncoderConfig(vocab_size=vocab_size, **self.model_dump())
