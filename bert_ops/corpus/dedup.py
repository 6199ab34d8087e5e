"""One document per text over all sources, one example per text and task.

Two texts are the same if their letters, marks and digits are: normalised by NFKC, in lower case, everything else
removed. Punctuation and spacing do not tell two reviews apart, and a held-out text that stands in the training split
but for its full stop would flatter every score. Combining marks count, because in Indic scripts they are the vowels.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from bert_ops.corpus.clean import Span, character_class

_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Record:
    """A cleaned row of a source that is fit to be used.

    Attributes:
        source: name of the source.
        location: where the row stands, for messages.
        text: cleaned text.
        breaks: positions at which a sentence ends whatever its punctuation.
        key: :func:`key` of the text; equal keys are equal texts.
        task: the task that the row is an example of.
        label: label of the whole text, or None.
        spans: labelled spans in ``text``, sorted, or None.

    """

    source: str
    location: str
    text: str
    breaks: tuple[int, ...]
    key: str
    task: str | None = None
    label: str | None = None
    spans: tuple[Span, ...] | None = None


@dataclass
class Deduplicated:
    """What is left of the records, in their order.

    ``documents``, ``conflicting`` and ``duplicates`` (counted by source) add up to the records that came in.
    """

    documents: list[Record] = field(default_factory=list)
    examples: dict[str, list[Record]] = field(default_factory=dict)
    conflicting: list[tuple[Record, Record]] = field(default_factory=list)
    duplicates: Counter[str] = field(default_factory=Counter)


def key(text: str) -> str:
    """Reduce a text to what makes it different from others; empty if it has no letter and no digit."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    if folded.isalnum():
        return folded
    if not _marks().search(folded):
        return _NEITHER_LETTER_NOR_DIGIT.sub("", folded)
    # Without the space between them, a letter and a mark may compose.
    return unicodedata.normalize("NFKC", _NEITHER_LETTER_NOR_DIGIT.sub(_keep_marks, folded))


def _keep_marks(match: re.Match[str]) -> str:
    return "".join(character for character in match.group() if unicodedata.category(character)[0] == "M")


@cache
def _marks() -> re.Pattern[str]:
    return character_class(lambda character: unicodedata.category(character)[0] == "M")


def content_hash(key: str) -> str:
    """SHA-256 of a key, 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def deduplicate(records: Iterable[Record]) -> Deduplicated:
    """Keep one document per key and one example per key and task.

    A labelled record wins over one without a label, then the earlier one wins. All records of one task and key whose
    labels differ are set aside: which of them is right cannot be known, and keeping one would be keeping noise.

    Returns:
        The documents and, per task, the examples, in the order of the records; the records that contradict each other,
        each with one that it contradicts; and the number of duplicates removed per source.

    """
    groups: dict[str, list[Record]] = {}
    order: dict[int, int] = {}
    for number, record in enumerate(records):
        groups.setdefault(record.key, []).append(record)
        order[id(record)] = number
    result = Deduplicated()
    for group in groups.values():
        kept = _without_conflicts(group, result)
        if not kept:
            continue
        winner = next((record for record in kept if record.task is not None), kept[0])
        result.documents.append(winner)
        seen: set[str] = set()
        for record in kept:
            if record is not winner:
                result.duplicates[record.source] += 1
            if record.task is not None and record.task not in seen:
                seen.add(record.task)
                result.examples.setdefault(record.task, []).append(record)
    result.documents.sort(key=lambda record: order[id(record)])
    for examples in result.examples.values():
        examples.sort(key=lambda record: order[id(record)])
    result.conflicting.sort(key=lambda pair: order[id(pair[0])])
    return result


def _without_conflicts(group: list[Record], result: Deduplicated) -> list[Record]:
    """Return the records of one key that do not contradict each other; the others go to ``result.conflicting``."""
    if len(group) == 1:
        return group
    contradicted = {}
    for task in {record.task for record in group if record.task is not None}:
        of_task = [record for record in group if record.task == task]
        first = of_task[0]
        other = next((record for record in of_task if _target(record) != _target(first)), None)
        if other is not None:
            contradicted[task] = (first, other)
    if not contradicted:
        return group
    kept = []
    for record in group:
        if record.task in contradicted:
            first, other = contradicted[record.task]
            result.conflicting.append((record, other if _target(record) == _target(first) else first))
        else:
            kept.append(record)
    return kept


def _target(record: Record) -> object:
    """What must be equal for two records not to contradict each other: label, or spans by their place in the key."""
    if record.spans is None:
        return record.label
    return tuple(
        (len(key(record.text[:start])), len(key(record.text[:end])), label) for start, end, label in record.spans
    )
