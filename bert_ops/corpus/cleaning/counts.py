"""What the steps did: counts and a few examples of each, by one process or by several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["edit", "filter"]

#: Examples kept of each step and outcome.
EXAMPLES = 5
_AROUND, _SHOWN = 20, 80


@dataclass(frozen=True, slots=True)
class StepCount:
    """What one step did; ``rows_in`` is always rows out + ``rejected``.

    Attributes:
        name: name of the step.
        kind: whether it edits texts or only lets them pass; an edit can reject too, if it loses a labelled span.
        rows_in: texts that came to the step.
        rows_out: texts that left it.
        changed: texts that it changed.
        rejected: texts that it rejected.
        characters_in: characters of the texts that came.
        characters_out: characters of the texts that left.

    """

    name: str
    kind: Kind
    rows_in: int
    rows_out: int
    changed: int
    rejected: int
    characters_in: int
    characters_out: int

    def __post_init__(self) -> None:
        assert self.rows_in == self.rows_out + self.rejected, self


@dataclass(frozen=True, slots=True)
class StepExample:
    """A text before and after a step, around the first place that differs.

    Attributes:
        step: name of the step.
        before: excerpt of the text that came.
        after: excerpt of what left; empty if the text was rejected.
        reason: why it was rejected, or None.
        detail: more on the reason.

    """

    step: str
    before: str
    after: str
    reason: str | None = None
    detail: str = ""


def changed_example(step: str, before: str, after: str) -> StepExample:
    """Show a change: the first place at which the texts differ and what is around it."""
    pairs = enumerate(zip(before, after, strict=False))
    same = next((place for place, (first, second) in pairs if first != second), min(len(before), len(after)))
    place = max(same - _AROUND, 0)
    return StepExample(step, _excerpt(before, place), _excerpt(after, place))


def rejected_example(step: str, text: str, *, reason: str, detail: str) -> StepExample:
    """Show a rejected text by its start."""
    return StepExample(step, _excerpt(text, 0), "", reason, detail)


def _excerpt(text: str, start: int) -> str:
    end = start + _SHOWN
    shown = f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
    return shown.encode("utf-8", "replace").decode("utf-8")


def merge(counts: Sequence[Sequence[StepCount]]) -> list[StepCount]:
    """Add up the counts of several cleaners that ran the same steps."""
    merged: dict[str, StepCount] = {}
    for count in (count for of_one in counts for count in of_one):
        total = merged.get(count.name)
        merged[count.name] = count if total is None else _sum(total, count)
    return list(merged.values())


def _sum(first: StepCount, second: StepCount) -> StepCount:
    return replace(
        first,
        rows_in=first.rows_in + second.rows_in,
        rows_out=first.rows_out + second.rows_out,
        changed=first.changed + second.changed,
        rejected=first.rejected + second.rejected,
        characters_in=first.characters_in + second.characters_in,
        characters_out=first.characters_out + second.characters_out,
    )


def merge_examples(examples: Iterable[Sequence[StepExample]]) -> list[StepExample]:
    """Keep the first examples of each step and outcome; given in the order of the texts, the same for any workers."""
    kept: dict[tuple[str, str | None], list[StepExample]] = {}
    for example in (example for of_one in examples for example in of_one):
        alike = kept.setdefault((example.step, example.reason), [])
        if len(alike) < EXAMPLES:
            alike.append(example)
    return [example for alike in kept.values() for example in alike]
