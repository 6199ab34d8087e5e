"""Sections ``validate_corpus`` and ``validate_tokens`` of params.yaml: a threshold and its severity for each check."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section, Seed, Share


class Limit(Section):
    """What a check allows, and what happens if it fails."""

    severity: Literal["warning", "critical"] = Field(
        description="critical: a failure stops the pipeline; warning: it is only reported"
    )


class AtLeastCount(Limit):
    """A count that may not be lower."""

    min: int = Field(ge=0, description="lowest count that passes")


class AtLeastShare(Limit):
    """A share that may not be lower."""

    min: Share = Field(description="lowest share that passes, 0 to 1")


class AtMostShare(Limit):
    """A share that may not be higher."""

    max: Share = Field(description="highest share that passes, 0 to 1")


class _Bounds(Limit):
    """Lowest and highest number that passes."""

    min: int = Field(ge=1, description="lowest number of characters that passes")
    max: int = Field(ge=1, description="highest number of characters that passes")

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}; it may not exceed max, {self.max}")
        return self


class Between(_Bounds):
    """A figure in characters with two bounds."""


class Lengths(_Bounds):
    """Lengths in characters, of which nearly all must lie within bounds."""

    mostly: Share = Field(description="share of rows that must pass, 0 to 1")


class AtMostLength(Limit):
    """Lengths in characters, of which nearly all must be short enough."""

    max: int = Field(ge=1, description="highest number of characters that passes")
    mostly: Share = Field(description="share of rows that must pass, 0 to 1")


class Mostly(Limit):
    """A rule that nearly all rows must keep."""

    mostly: Share = Field(description="share of rows that must pass, 0 to 1")


class Mojibake(Mostly):
    """Texts that were decoded by the wrong encoding."""

    signs: Share = Field(
        description="share of a text's visible characters that are signs of a wrong encoding; above it a text fails"
    )


class Drift(Limit):
    """How far a figure may move from the last accepted version."""

    max: float = Field(gt=0.0, description="highest relative difference that passes: 0.1 allows 10% up or down")
    version: int = Field(
        ge=1, description="raise it to accept new figures on purpose: the comparison then starts afresh"
    )


class ValidateCorpusParams(Section):
    """What documents and labelled examples must hold before anything is trained on them."""

    documents: AtLeastCount = Field(description="documents that the corpus must have")
    rejected_share: AtMostShare = Field(description="share of the rows read that ingest may reject")
    rejected_share_of_source: AtMostShare = Field(description="the same for each source")
    duplicate_share_of_source: AtMostShare = Field(description="share of a source's rows that may be duplicates")
    near_duplicates_left: AtMostShare = Field(
        description="share of the documents that may share a cluster (near-duplicates that were kept, or a group)"
    )
    encoding_confidence: AtLeastShare = Field(description="confidence with which a file's encoding must be known")
    replacement_characters: Mostly = Field(description="documents without U+FFFD, the trace of a wrong encoding")
    mojibake: Mojibake = Field(description="documents without sequences that only a wrong encoding makes")
    cjk_share: AtLeastShare = Field(description="CJK ideographs among all visible characters; 0 for other scripts")
    cjk_share_of_source: AtLeastShare = Field(description="the same for each source")
    document_characters: Lengths = Field(description="characters of a document")
    median_characters: Between = Field(description="median of the documents' lengths, in characters")
    longest_characters: AtMostLength = Field(
        description="length that the share `mostly` of the documents may not exceed: a quantile, in characters"
    )
    sentence_characters: AtMostLength = Field(
        description="characters of a sentence; longer ones hint at a failed splitting"
    )
    split_deviation: AtMostShare = Field(description="distance of a split's share from the one that ingest was given")
    examples_per_split: AtLeastCount = Field(description="labelled examples that each split of a task must have")
    majority_share: AtMostShare = Field(description="share of a task's most frequent label, in each split")
    label_conflict_share: AtMostShare = Field(
        description="share of the rows read that ingest may set aside because equal texts have different labels"
    )
    leaked_share: AtMostShare = Field(
        description="share of a task's test examples that may stand in pretraining text that was not dropped"
    )


class ValidateTokensParams(Section):
    """What the token store must hold before a model is trained on it."""

    tokens: AtLeastCount = Field(description="tokens that all splits together must have")
    unknown_share: AtMostShare = Field(description="share of [UNK] among the tokens, of all and of each split")
    unknown_share_of_source: AtMostShare = Field(description="the same for each source of each split")
    fertility_drift: Drift = Field(
        description="tokens a visible character, by source, against the last accepted version"
    )
    round_trip_sentences: int = Field(ge=1, description="sentences drawn for the round trip through the tokenizer")
    seed: Seed
