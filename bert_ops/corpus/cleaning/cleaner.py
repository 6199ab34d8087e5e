"""All steps of cleaning in their order, run on one text after another, and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from bert_ops.corpus.cleaning import alignment, boilerplate, characters, language, length, repetition
from bert_ops.corpus.cleaning.boilerplate import boilerplate_step, symbols_step
from bert_ops.corpus.cleaning.characters import characters_step, garbled_step
from bert_ops.corpus.cleaning.chinese import chinese_step
from bert_ops.corpus.cleaning.counts import (
    EXAMPLES,
    Kind,
    StepCount,
    StepExample,
    changed_example,
    rejected_example,
)
from bert_ops.corpus.cleaning.language import language_step
from bert_ops.corpus.cleaning.length import intake_step, length_step
from bert_ops.corpus.cleaning.lines import lines_step
from bert_ops.corpus.cleaning.markup import markup_step
from bert_ops.corpus.cleaning.normalization import unicode_step
from bert_ops.corpus.cleaning.params import CleaningParams
from bert_ops.corpus.cleaning.pii import pii_step
from bert_ops.corpus.cleaning.repetition import repetition_step, runs_step
from bert_ops.corpus.records import Draft, Unfit

#: Edits a draft in place, or raises Unfit.
Step = Callable[[Draft], None]
#: (name, kind, what builds the step from the parameters; None if they switch it off).
Entry = tuple[str, Kind, Callable[[CleaningParams], Step | None]]

#: Every step, in the order in which they run. A new step is a function and a line here.
STEPS: tuple[Entry, ...] = (
    ("intake", "filter", lambda p: intake_step(max_characters=p.intake.max_characters)),
    ("markup", "edit", lambda p: markup_step(extra_elements=p.markup.extra_elements) if p.markup.enabled else None),
    ("characters", "edit", lambda _: characters_step()),
    ("unicode", "edit", lambda p: unicode_step(form=p.normalization)),
    ("garbled", "filter", lambda p: garbled_step(max_share=p.garbled.max_share) if p.garbled.enabled else None),
    ("chinese", "edit", lambda p: chinese_step(conversion=p.chinese.conversion) if p.chinese.enabled else None),
    ("boilerplate", "edit", lambda p: boilerplate_step(p.boilerplate) if p.boilerplate.enabled else None),
    ("runs", "edit", lambda p: runs_step(p.runs) if p.runs.enabled else None),
    ("repetition", "filter", lambda p: repetition_step(p.repetition) if p.repetition.enabled else None),
    ("lines", "edit", lambda p: lines_step(p.lines)),
    ("pii", "edit", lambda p: pii_step(tokens=p.pii.tokens) if p.pii.enabled else None),
    ("length", "filter", lambda p: length_step(p.length)),
    ("symbols", "filter", lambda p: symbols_step(p.symbols) if p.symbols.enabled else None),
    ("language", "filter", lambda p: language_step(p.language) if p.language.enabled else None),
)

#: Why a step rejects a text, and what that means, in the words of the report.
REASONS: dict[str, str] = {
    **length.REASONS,
    **alignment.REASONS,
    **characters.REASONS,
    **boilerplate.REASONS,
    **repetition.REASONS,
    **language.REASONS,
}


@dataclass(slots=True)
class _Running:
    """A step at work."""

    name: str
    kind: Kind
    step: Step
    rows_in: int = 0
    rows_out: int = 0
    changed: int = 0
    rejected: int = 0
    characters_in: int = 0
    characters_out: int = 0


class Cleaner:
    """Runs the steps that the parameters switch on.

    Args:
        params: section ``ingest.clean``.

    Raises:
        InputError: a parameter cannot be used on this machine (a dictionary or model that is not installed).

    """

    def __init__(self, params: CleaningParams) -> None:
        built = ((name, kind, build(params)) for name, kind, build in STEPS)
        self._steps = [_Running(name, kind, step) for name, kind, step in built if step is not None]
        self._examples: dict[tuple[str, str | None], list[StepExample]] = {}

    def clean(self, draft: Draft, pair: Draft | None = None) -> None:
        """Clean a draft in place, and the second text of a pair with it: the two are one row in the counts.

        Raises:
            Unfit: a step rejects it, or the second text; the reason is one of ``REASONS``.

        """
        drafts = (draft,) if pair is None else (draft, pair)
        for running in self._steps:
            running.rows_in += 1
            for one in drafts:
                running.characters_in += len(one.text)
            changed, left = False, 0
            for one in drafts:
                changed |= self._run(running, one, second=one is pair)
                left += len(one.text)
            running.rows_out += 1
            running.characters_out += left
            running.changed += changed

    def _run(self, running: _Running, draft: Draft, *, second: bool) -> bool:
        """Run one step on one text; whether it changed it."""
        before = draft.text
        try:
            running.step(draft)
        except Unfit as unfit:
            assert unfit.reason in REASONS, unfit.reason
            unfit.step = running.name
            unfit.detail = f"the second text: {unfit.detail}" if second else unfit.detail
            running.rejected += 1
            alike = self._examples.setdefault((running.name, unfit.reason), [])
            if len(alike) < EXAMPLES:
                alike.append(rejected_example(running.name, before, reason=unfit.reason, detail=unfit.detail))
            raise
        after = draft.text
        if after is before or after == before:
            return False
        alike = self._examples.setdefault((running.name, None), [])
        if len(alike) < EXAMPLES:
            alike.append(changed_example(running.name, before, after))
        return True

    def counts(self) -> list[StepCount]:
        """Counts of each step so far, in the order of the steps; rows in = rows out + rejected is asserted."""
        counts = [
            StepCount(
                step.name,
                step.kind,
                step.rows_in,
                step.rows_out,
                step.changed,
                step.rejected,
                step.characters_in,
                step.characters_out,
            )
            for step in self._steps
        ]
        for first, second in pairwise(counts):
            assert first.rows_out == second.rows_in, (first, second)
            assert first.characters_out == second.characters_in, (first, second)
        return counts

    def examples(self) -> list[StepExample]:
        """The first texts that each step changed, and the first that it rejected for each reason, by step."""
        order = {step.name: number for number, step in enumerate(self._steps)}
        keys = sorted(self._examples, key=lambda key: (order[key[0]], key[1] or ""))
        return [example for key in keys for example in self._examples[key]]

    def take(self) -> tuple[list[StepCount], list[StepExample]]:
        """Return counts and examples since the last call, and begin anew.

        A worker process hands them over with each batch; merged in the order of the batches
        (:func:`~bert_ops.corpus.cleaning.counts.merge`, ``merge_examples``) they do not depend on
        the number of workers.
        """
        taken = self.counts(), self.examples()
        for step in self._steps:
            step.rows_in = step.rows_out = step.changed = step.rejected = 0
            step.characters_in = step.characters_out = 0
        self._examples = {}
        return taken
