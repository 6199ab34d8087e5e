"""Sections ``validate_corpus`` and ``validate_tokens`` of params.yaml."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from bert_ops.schema import Section, Seed, Share


class SplitShares(Section):
    """Shares of the documents that the splits should have."""

    train: Share = Field(description="share of documents for training")
    validation: Share = Field(description="share of documents for choosing among models")
    test: Share = Field(description="share of documents for the last word")


class ValidateCorpusParams(Section):
    """What documents and labelled examples must hold before anything is trained on them."""

    min_documents: int = Field(ge=1, description="documents that the corpus must have")
    min_examples_per_split: int = Field(ge=1, description="labelled examples that each split of a task must have")
    max_rejected_share: Share = Field(description="share of read texts that ingest may reject; beyond it the run stops")
    max_rejected_share_of_source: Share = Field(description="the same for one source; beyond it the report warns")
    min_cjk_share: Share = Field(description="share of CJK ideographs among visible characters; 0 for other scripts")
    max_majority_share: Share = Field(description="share of a task's most frequent label; beyond it the report warns")
    min_document_characters: int = Field(ge=1, description="characters of a document, at least")
    max_document_characters: int = Field(ge=1, description="characters of a document, at most")
    max_sentence_characters: int = Field(
        ge=1, description="characters of a sentence; longer ones hint at a failed splitting"
    )
    split_shares: SplitShares = Field(description="shares that `ingest.split` should have led to")
    max_split_deviation: Share = Field(description="difference from `split_shares` beyond which the report warns")
    mostly: Share = Field(description="share of rows for which a bound on lengths or characters must hold")

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        low, high = self.min_document_characters, self.max_document_characters
        if low > high:
            raise ValueError(
                f"validate_corpus.min_document_characters is {low}; it may not exceed max_document_characters, {high}"
            )
        total = self.split_shares.train + self.split_shares.validation + self.split_shares.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"validate_corpus.split_shares sum to {total:.6g}; they must sum to 1")
        return self


class ValidateTokensParams(Section):
    """What the token store must hold before a model is trained on it."""

    max_unknown_share: Share = Field(description="share of [UNK] among the tokens, of all and of each split")
    max_unknown_share_of_source: Share = Field(description="the same for one source; beyond it the report warns")
    min_tokens: int = Field(ge=1, description="tokens that all splits together must have")
    round_trip_sentences: int = Field(ge=1, description="sentences drawn for the round trip through the tokenizer")
    seed: Seed
