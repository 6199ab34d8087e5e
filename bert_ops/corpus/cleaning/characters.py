"""Step ``characters``: what shows nothing is dropped: control and format characters, zero-width marks.

Source: the cleaning of BERT's own tokeniser (``BasicTokenizer._clean_text`` drops the categories Cc and Cf too).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from bert_ops.corpus.cleaning.alignment import substitute
from bert_ops.corpus.records import Draft

#: Zero-width marks that are neither control nor format characters: joiner of graphemes, variation selectors.
_ZERO_WIDTH_MARKS = frozenset(
    map(chr, [0x034F, *range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)

#: Planes of Unicode with assigned characters that are not for private use (Unicode Standard, section 2.8).
_ASSIGNED = (*range(0x40000), *range(0xE0000, 0xE1000))

#: A soft hyphen at the end of a line goes with the line break: it stands within a word.
_SOFT_WRAP = r"\u00ad[ \t]*(?:\r\n|[\n\r\u2028])[ \t]*"


def characters_step() -> Callable[[Draft], None]:
    """Return the step that drops what shows nothing."""
    pattern = invisible()

    def drop(draft: Draft) -> None:
        if pattern.search(draft.text):
            substitute(draft, pattern, lambda _: "")

    return drop


@cache
def invisible() -> re.Pattern[str]:
    """Compile the class of characters that show nothing: control and format, but not white space."""
    shown = character_class(
        lambda character: (
            (unicodedata.category(character) in ("Cc", "Cf") and not character.isspace())
            or character in _ZERO_WIDTH_MARKS
        )
    )
    return re.compile(f"{_SOFT_WRAP}|{shown.pattern}")


def character_class(belongs: Callable[[str], bool]) -> re.Pattern[str]:
    """Compile the class of all characters for which ``belongs`` is true, by a look at each of them (0.1 s)."""
    runs: list[list[int]] = []
    for code in filter(lambda code: belongs(chr(code)), _ASSIGNED):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return re.compile("[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs) + "]")
