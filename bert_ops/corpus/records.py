"""What flows from a source to the corpus: a row, the draft that cleaning works on, and the rejection of either."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

#: (start, end, label) in characters of the text, 0 <= start < end.
Span = tuple[int, int, str]

#: What happens to a row that cannot be used: it goes to the quarantine table, or it ends the stage.
BadRows = Literal["quarantine", "fail"]


#: What a task asks for: one label of a text, any number of labels, a number, or labelled spans.
Target = Literal["label", "labels", "value", "spans"]
TARGETS: tuple[Target, ...] = ("label", "labels", "value", "spans")


class _Missing(Enum):
    """Keeps its identity when a row is sent to another process, which a bare object() does not."""

    MISSING = "missing"


#: Stands for a field that a row does not have, which is not the same as a field that is null.
MISSING = _Missing.MISSING

EXCERPT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands in a source; a field that the source does not name is None.

    Attributes:
        location: where the row stands, for messages ("data/raw/a.jsonl:12").
        text: the text; anything that the source holds, checked later.
        label: the answer for the whole text: a label, a list of labels or a number, as the source says which.
        spans: labelled spans, [[start, end, label], ...], or the same as JSON text.
        words: a given segmentation: the words of the text in order, or the same as JSON text.
        group: rows of equal group always land in the same split (an author, a thread, a book).
        pair: the second text of a task on pairs.

    """

    location: str
    text: Any
    label: Any = None
    spans: Any = None
    words: Any = None
    group: Any = None
    pair: Any = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is not used: a line of the quarantine table."""

    source: str
    location: str
    reason: str
    detail: str
    excerpt: str


class Unfit(Exception):
    """A row fails a check; ``reason`` is one of the names that the module that raises it declares in ``REASONS``.

    ``step`` is the cleaning step that refused the row; the cleaner sets it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail
        self.step = "fields"


@dataclass(slots=True)
class Draft:
    """A text under the hands of the cleaning steps, with what must follow its characters.

    Attributes:
        text: the text as the steps so far left it.
        spans: labelled spans, sorted and without overlap.
        word_starts: positions at which a word begins by a given segmentation, ascending, or None if none was given.
        breaks: positions at which a sentence ends whatever its punctuation.
        language: ISO 639-1 code of the language that was identified, or None.

    """

    text: str
    spans: list[Span] = field(default_factory=list)
    word_starts: list[int] | None = None
    breaks: tuple[int, ...] = ()
    language: str | None = None


def joined(text: str, pair: str | None) -> str:
    """Both texts of a pair as one document, the second on a line of its own."""
    return text if pair is None else f"{text}\n{pair}"


def excerpt(text: object) -> str:
    """Start of a text, made fit for UTF-8."""
    shown = "" if text is None or text is MISSING else str(text)[:EXCERPT_CHARACTERS]
    return shown.encode("utf-8", "replace").decode("utf-8")
