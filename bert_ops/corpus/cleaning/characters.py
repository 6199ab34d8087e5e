"""Steps ``characters`` and ``garbled``: what shows nothing is dropped, and texts of a wrong encoding go.

Dropped are control and format characters and zero-width marks. A text that was decoded with the wrong encoding can be
told by what no text is written in: characters for private use, the replacement character, and what becomes of a
replacement character that is decoded once more (锟斤拷).

Source: the cleaning of BERT's own tokeniser (``BasicTokenizer._clean_text`` drops the categories Cc and Cf too).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from bert_ops.corpus.cleaning.alignment import substitute
from bert_ops.corpus.records import Draft, Unfit

#: Zero-width marks that are neither control nor format characters: joiner of graphemes, variation selectors.
_MARKS = re.compile("[\u034f\u180b-\u180d\ufe00-\ufe0f\U000e0100-\U000e01ef]")

#: Planes of Unicode with assigned characters that are not for private use (Unicode Standard, section 2.8).
_ASSIGNED = (*range(0x40000), *range(0xE0000, 0xE1000))

#: A soft hyphen at the end of a line goes with the line break: it stands within a word.
_SOFT_WRAP = r"\u00ad[ \t]*(?:\r\n|[\n\r\u2028])[ \t]*"


REASONS = {"garbled": "more characters that a wrong encoding leaves than ingest.clean.garbled.max_share"}

_GARBLED = re.compile("[\ue000-\uf8ff\ufffd\U000f0000-\U0010ffff]|锟斤拷")


def characters_step() -> Callable[[Draft], None]:
    """Return the step that drops what shows nothing."""
    pattern = invisible()

    def drop(draft: Draft) -> None:
        if not _is_printable(draft.text) or _MARKS.search(draft.text):
            substitute(draft, pattern, lambda _: "")

    return drop


def garbled_step(*, max_share: float) -> Callable[[Draft], None]:
    """Return the filter of texts of which more than ``max_share`` comes from a wrong encoding."""

    def check(draft: Draft) -> None:
        text = draft.text
        # Characters for private use count as not printable.
        if _is_printable(text) and "\ufffd" not in text and "锟斤拷" not in text:
            return
        characters = sum(map(len, _GARBLED.findall(text)))
        if characters > max_share * len(text):
            raise Unfit("garbled", f"{characters} of {len(text)} characters")

    return check


def _is_printable(text: str) -> bool:
    """Say quickly that a text holds, beside lines, nothing that Unicode puts among "other" (C) and separators (Z)."""
    return text.isprintable() or text.replace("\n", " ").isprintable()


@cache
def invisible() -> re.Pattern[str]:
    """Compile the class of characters that show nothing: control and format, but not white space."""
    shown = character_class(
        lambda character: (
            (unicodedata.category(character) in ("Cc", "Cf") and not character.isspace())
            or _MARKS.match(character) is not None
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
