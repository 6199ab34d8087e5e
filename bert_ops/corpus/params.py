"""Section ``ingest`` of params.yaml."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.corpus.cleaning.params import CleaningParams
from bert_ops.corpus.fields import NAME, NAME_RULE
from bert_ops.corpus.source_params import ReadingParams, Source
from bert_ops.schema import Section, Share


class SplitParams(Section):
    """Shares of the splits; a text's side follows from its content and the salt alone."""

    train: float = Field(gt=0.0, le=1.0, description="share of the training split")
    validation: float = Field(ge=0.0, lt=1.0, description="share of the validation split")
    test: float = Field(ge=0.0, lt=1.0, description="share of the test split")
    salt: str = Field(
        description="changes every side at once; leave it, or scores cannot be compared with earlier ones"
    )

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"train + validation + test is {total:g}; the three shares must add up to 1")
        return self


class NearDuplicateParams(Section):
    """Near-duplicates: MinHash with banding finds candidates, the exact Jaccard similarity decides."""

    remove: bool = Field(description="remove near-duplicates; labelled texts stay if their labels differ")
    ngram: int = Field(ge=1, le=64, description="characters of a shingle; punctuation and spaces are not counted")
    threshold: float = Field(ge=0.1, le=1.0, description="Jaccard similarity of the n-grams from which texts are near")
    permutations: int = Field(ge=8, le=1024, description="values of a MinHash signature")
    recall: float = Field(ge=0.5, lt=1.0, description="share of the pairs right at the threshold that must be found")


class LeakageParams(Section):
    """Training texts that hold a test example of a task (overlap of n-grams; Brown et al. 2020, appendix C)."""

    action: Literal["off", "report", "drop"] = Field(
        description="drop: documents that leak stay out of the pretraining text; report: they are only listed"
    )
    ngram: int = Field(ge=4, le=64, description="characters of an n-gram; shorter examples are not looked for")
    min_share: Share = Field(description="share of a test example's n-grams in one document from which it leaks")


class IngestParams(Section):
    """Sources, and what is done to their rows."""

    sources: dict[str, Source] = Field(
        min_length=1, description="sources by name; earlier ones win over later duplicates"
    )
    reading: ReadingParams = Field(description="how sources are read, unless one says otherwise")
    clean: CleaningParams = Field(description="cleaning steps, in their order")
    label_conflicts: Literal["drop", "fail"] = Field(
        description="equal texts with different labels of one task: drop all of them and count them, or fail"
    )
    near_duplicates: NearDuplicateParams = Field(description="texts that are nearly the same")
    leakage: LeakageParams = Field(description="test examples inside the pretraining text")
    split: SplitParams = Field(description="training, validation and test")

    @model_validator(mode="after")
    def _sources_fit_together(self) -> Self:
        firsts: dict[str, str] = {}
        for name, source in self.sources.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"sources has a source named {name!r}; allowed: {NAME_RULE}")
            if source.task is None:
                continue
            first = firsts.setdefault(source.task, name)
            other = self.sources[first]
            if source.target != other.target:
                raise ValueError(
                    f"sources.{name}.task is {source.task!r} with {source.target}, but sources.{first} gives that task "
                    f"{other.target}; one task takes one of them"
                )
            if (source.pair is None) != (other.pair is None):
                paired, single = (name, first) if other.pair is None else (first, name)
                raise ValueError(
                    f"sources.{paired} gives the task {source.task!r} pairs, but sources.{single} single texts; one "
                    "task takes one of them"
                )
        return self
