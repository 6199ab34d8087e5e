"""Step ``unicode``: a Unicode normalisation form, and the place in it of each character of the original.

Source: Unicode Standard Annex 15, "Unicode Normalization Forms" (boundaries of composition).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Literal

from bert_ops.corpus.cleaning.alignment import is_anchored, substitute
from bert_ops.corpus.cleaning.characters import character_class
from bert_ops.corpus.records import Draft

Form = Literal["NFC", "NFKC"]

#: Characters without a combining class that still compose with the one before them ("NFC_Quick_Check = Maybe").
COMPOSING_STARTERS = frozenset(
    map(
        chr,
        [
            *(0x09BE, 0x09D7, 0x0B3E, 0x0B56, 0x0B57, 0x0BBE, 0x0BD7, 0x0CC2, 0x0CD5, 0x0CD6, 0x0D3E, 0x0D57, 0x0DCF),
            *(0x0DDF, 0x102E, 0x1B35, 0x11127, 0x1133E, 0x11357, 0x114B0, 0x114BA, 0x114BD, 0x115AF, 0x11930),
            *range(0x1161, 0x1176),
            *range(0x11A8, 0x11C3),
        ],
    )
)


#: Full-width punctuation of Chinese text. Replaced one by one, it leaves most texts normalised: three times as fast.
_COMMON = tuple((mark, unicodedata.normalize("NFKC", mark)) for mark in "，！？：；（）")
#: Full-width forms and the ideographic space: each becomes one character.
_FULL_WIDTH = {code: unicodedata.normalize("NFKC", chr(code)) for code in (0x3000, *range(0xFF01, 0xFF5F))}


#: Outside of these usual characters stands all that may compose with the character before it.
_UNUSUAL = re.compile(
    r"[^\x00-\u02ff\u0400-\u0482\u2010-\u2027\u2030-\u205e\u2100-\u2bff\u3000-\u3029\u3030-\u3098\u309b-\u30ff\u3200-\u9fff"
    r"\uac00-\ud7a3\uff00-\uff9d]"
)

#: Combining marks that may stand on one letter ("Stream-Safe Text Format" of the same annex, section 13). Sorting them
#: takes quadratic time, which does not matter in texts of so many characters.
_STACK, _QUICK = 30, 500


def unicode_step(*, form: Form) -> Callable[[Draft], None]:
    """Return the step that brings a text to a normalisation form."""

    def normalize(draft: Draft) -> None:
        if draft.text.isascii():
            return
        if len(draft.text) > _QUICK and _UNUSUAL.search(draft.text):
            substitute(draft, _stacked(), lambda match: match.group()[:_STACK])
        text = draft.text
        if form == "NFKC":
            for mark, replacement in _COMMON:
                text = text.replace(mark, replacement)
        if not is_anchored(draft) or unicodedata.is_normalized(form, text):
            draft.text = unicodedata.normalize(form, text)
            return
        # One character became one so far, so that everything stands where it stood.
        draft.text = text.translate(_FULL_WIDTH) if form == "NFKC" else text
        if not unicodedata.is_normalized(form, draft.text):
            changing, segments = _segments(form)
            pattern = segments if _UNUSUAL.search(draft.text) else changing
            substitute(draft, pattern, lambda match: unicodedata.normalize(form, match.group()))

    return normalize


@cache
def _stacked() -> re.Pattern[str]:
    """Compile more combining marks in a row than one letter may bear."""
    combining = character_class(
        lambda character: unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0
    )
    return re.compile(f"{combining.pattern}{{{_STACK + 1},}}")


@cache
def _segments(form: Form) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Compile the pieces of a text that may change, each of which normalises independently of what is around it.

    Returns:
        Those of a text in which no character composes with the one before it, which are single characters and quick to
        find, and those of any text.

    """
    changing = character_class(lambda character: unicodedata.normalize(form, character) != character)
    following = character_class(lambda character: not _begins_segment(character, form)).pattern
    return changing, re.compile(f"{changing.pattern}{following}*+|.{following}++", re.DOTALL)


def _begins_segment(character: str, form: Form) -> bool:
    """Say whether no character before this one can change what it normalises to."""
    first = unicodedata.normalize("NFKD" if form == "NFKC" else "NFD", character)[0]
    return unicodedata.combining(first) == 0 and first not in COMPOSING_STARTERS
