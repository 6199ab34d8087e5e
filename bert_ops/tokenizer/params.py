"""Sections ``tokenizer`` and ``tokenize`` of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section

#: The five tokens that BERT needs, in the order that gives them their ids (``[PAD]`` must be 0).
REQUIRED_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenizerParams(Section):
    """How the WordPiece vocabulary is trained (Schuster & Nakajima 2012; Wu et al. 2016, section 4.1)."""

    vocab_size: int = Field(ge=16, le=1_000_000, description="entries of the vocabulary, special tokens included")
    min_frequency: int = Field(ge=1, description="times a piece must occur in the training split to be merged")
    lowercase: bool = Field(description="fold case before splitting; Chinese is unaffected")
    strip_accents: bool = Field(description="drop combining marks (é becomes e)")
    special_tokens: list[str] = Field(description="[PAD] [UNK] [CLS] [SEP] [MASK] first, then your own")
    user_tokens: list[str] = Field(
        description="texts that are one token wherever they stand, as they are written (case and accents included)"
    )
    vocabulary: str | None = Field(
        default=None,
        description="path of a vocab.txt to adapt: its pieces keep their ids, pieces of the corpus are appended; "
        "without it a vocabulary is trained",
    )

    @model_validator(mode="after")
    def _special_tokens_are_complete(self) -> Self:
        required = list(REQUIRED_SPECIAL_TOKENS)
        if self.special_tokens[: len(required)] != required:
            raise ValueError(f"special_tokens is {self.special_tokens}; it must begin with {required}")
        if len(set(self.special_tokens)) != len(self.special_tokens):
            raise ValueError(f"special_tokens is {self.special_tokens}; each may stand there once")
        count = len(self.special_tokens) + len(self.user_tokens)
        if self.vocab_size <= count:
            raise ValueError(f"vocab_size is {self.vocab_size}; it must exceed the {count} special and user tokens")
        return self

    @model_validator(mode="after")
    def _tokens_can_be_found(self) -> Self:
        for key, tokens in (("special_tokens", self.special_tokens), ("user_tokens", self.user_tokens)):
            for token in tokens:
                if token != token.strip() or not token.isprintable() or not token or token.startswith("##"):
                    raise ValueError(
                        f"{key} has {token!r}; allowed: visible characters, no space at its ends, no ## at its start"
                    )
        repeated = [t for t in self.user_tokens if t in self.special_tokens or self.user_tokens.count(t) > 1]
        if repeated:
            raise ValueError(f"user_tokens has {repeated[0]!r} twice, or it is a special token; each may stand once")
        return self


class TokenizeParams(Section):
    """How the token store is written."""

    shard_tokens: int = Field(ge=1_000, description="tokens after which a shard ends; a sentence is never cut")
    batch_sentences: int = Field(ge=1, description="sentences encoded at a time; bounds memory")
    segmentation: Literal["jieba", "none"] = Field(
        description="where Chinese words begin, for masking whole words: jieba's words, or every character by itself; "
        "a segmentation that the source gives wins"
    )
