"""What params.yaml says of a row of any source: where its texts stand, and what its task is to answer."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from bert_ops.corpus.field_paths import parse_path
from bert_ops.corpus.records import TARGETS, BadRows, Target
from bert_ops.schema import Section

#: Names of sources and tasks become names of files and columns, so they are kept plain.
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
NAME_RULE = "a lower-case letter, then up to 63 lower-case letters, digits or underscores"

#: Parts of a row, in the order of :class:`bert_ops.corpus.records.Row`; the label may be several or a number.
ROLES = ("text", "label", "spans", "words", "group", "pair")

#: Keys that name the field of a role, where the role has no key of its own name only.
_KEYS = {"label": ("label", "labels", "value")}


class SourceBase(Section):
    """What every kind of source may say."""

    bad_rows: BadRows | None = Field(None, description="quarantine or fail; absent: as ingest.reading.bad_rows says")
    weight: float | None = Field(
        None, gt=0.0, le=100.0, description="passes over the source an epoch of pretraining; absent: 1"
    )
    max_documents: int | None = Field(None, ge=1, description="rows that are used at most; absent: all")
    max_characters: int | None = Field(None, ge=1, description="characters that are used at most; absent: all")
    licence: str | None = Field(None, description="licence of the texts, for the data card")

    @property
    def has_cap(self) -> bool:
        """Whether the source may be read in part only."""
        return self.max_documents is not None or self.max_characters is not None


class Fields(SourceBase):
    """Where the texts of a row stand and, if the row is labelled, its task and the answer."""

    nested: ClassVar[bool] = False
    text: str = Field(min_length=1, description="field or column that holds the text")
    pair: str | None = Field(
        None, min_length=1, description="field or column with the second text, for tasks on pairs (similarity, NLI)"
    )
    task: str | None = Field(None, description="task that the rows are examples of; absent: text only")
    label: str | None = Field(None, min_length=1, description="field or column with the label of the whole text")
    labels: str | None = Field(
        None, min_length=1, description="field or column with a list of labels, or JSON of one; empty: none applies"
    )
    label_separator: str | None = Field(
        None, min_length=1, max_length=8, description="what divides the labels where `labels` holds text ('|')"
    )
    value: str | None = Field(None, min_length=1, description="field or column with a number, for regression")
    spans: str | None = Field(
        None, min_length=1, description="field or column with [[start, end, label], ...], offsets in characters"
    )
    words: str | None = Field(
        None, min_length=1, description="field or column with the words of the text in order, a given segmentation"
    )
    group: str | None = Field(
        None, min_length=1, description="field or column whose equal values always land in the same split (an author)"
    )

    @property
    def target(self) -> Target | None:
        """What the task asks for; None without a task."""
        return next((key for key in TARGETS if getattr(self, key) is not None), None)

    @model_validator(mode="after")
    def _task_has_one_target(self) -> Self:
        targets = [key for key in TARGETS if getattr(self, key) is not None]
        if self.task is None and (targets or self.pair is not None):
            raise ValueError(
                f"{targets[0] if targets else 'pair'} is set but task is not; name the task that the rows are "
                "examples of"
            )
        if self.task is not None and len(targets) != 1:
            raise ValueError(
                f"task is {self.task!r} with {len(targets)} targets ({', '.join(targets) or 'none'}); a task needs "
                "exactly one of label, labels, value and spans"
            )
        if self.task is not None and not NAME.fullmatch(self.task):
            raise ValueError(f"task is {self.task!r}; allowed: {NAME_RULE}")
        if self.label_separator is not None and self.labels is None:
            raise ValueError("label_separator is set but labels is not; a single label is not divided")
        if self.pair is not None and self.words is not None:
            raise ValueError("words and pair are both set; a given segmentation is of single texts only")
        return self

    @model_validator(mode="after")
    def _paths_can_be_parsed(self) -> Self:
        if self.nested:
            for key in ("text", "pair", *TARGETS, "words", "group"):
                if getattr(self, key) is not None:
                    parse_path(getattr(self, key), key=key)
        return self


class Unlabelled:
    """A source whose rows are texts and nothing else."""

    task: ClassVar[None] = None
    pair: ClassVar[None] = None
    label: ClassVar[None] = None
    labels: ClassVar[None] = None
    label_separator: ClassVar[None] = None
    value: ClassVar[None] = None
    spans: ClassVar[None] = None
    words: ClassVar[None] = None
    group: ClassVar[None] = None
    target: ClassVar[None] = None


def field_of(source: Any, role: str) -> str | None:
    """Field or column in which a source has a role of :data:`ROLES`, or None."""
    found = (getattr(source, key) for key in _KEYS.get(role, (role,)))
    return next((field for field in found if field is not None), None)


def named_fields(source: Any) -> dict[str, str]:
    """Role to field or column, of those that a source names."""
    fields = ((role, field_of(source, role)) for role in ROLES)
    return {role: field for role, field in fields if field is not None}
