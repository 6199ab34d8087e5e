"""Steps ``intake`` and ``length``: which texts are looked at at all, and which have enough in them to be kept."""

from __future__ import annotations

import re
from collections.abc import Callable

from bert_ops.corpus.cleaning.params import LengthParams
from bert_ops.corpus.records import Draft, Unfit

REASONS = {
    "invalid_text": "the text holds half of a surrogate pair",
    "too_large": "more characters before cleaning than ingest.clean.intake.max_characters",
    "empty": "nothing is left of the text after cleaning",
    "no_letters": "the text has neither letter nor digit",
    "too_short": "fewer characters than ingest.clean.length.min_characters",
    "too_long": "more characters than ingest.clean.length.max_characters",
}

_SURROGATE = re.compile("[\ud800-\udfff]")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def has_lone_surrogate(text: str) -> bool:
    """Say whether the text holds half of a surrogate pair, which no file can store as UTF-8."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def intake_step(*, max_characters: int) -> Callable[[Draft], None]:
    """Return the filter of texts that no step should touch: not storable, or so large that cleaning takes too long."""

    def check(draft: Draft) -> None:
        if len(draft.text) > max_characters:
            raise Unfit("too_large", f"{len(draft.text)} of at most {max_characters} characters before cleaning")
        if has_lone_surrogate(draft.text):
            raise Unfit("invalid_text", "an unpaired \\ud800..\\udfff escape")

    return check


def length_step(params: LengthParams) -> Callable[[Draft], None]:
    """Return the filter by length in characters, of which spaces do not count towards the least."""

    def check(draft: Draft) -> None:
        text = draft.text
        if not text:
            raise Unfit("empty", "only white space, invisible characters or what cleaning removes")
        if not _LETTER_OR_DIGIT.search(text):
            raise Unfit("no_letters", "only punctuation or symbols")
        solid = len(text) - text.count(" ")
        if solid < params.min_characters:
            raise Unfit("too_short", f"{solid} of at least {params.min_characters} characters")
        if len(text) > params.max_characters:
            raise Unfit("too_long", f"{len(text)} of at most {params.max_characters} characters")

    return check
