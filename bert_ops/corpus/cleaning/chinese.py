"""Step ``chinese``: conversion between simplified and traditional characters by OpenCC."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from bert_ops.corpus.cleaning.alignment import convert_between_anchors, is_anchored
from bert_ops.corpus.cleaning.params import Conversion
from bert_ops.corpus.records import Draft
from bert_ops.errors import InputError

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def chinese_step(*, conversion: Conversion) -> Callable[[Draft], None]:
    """Return the step that converts Chinese characters.

    The conversions without a final p keep the number of characters in nearly all texts; then the text is converted as
    a whole and what follows it stays in place. Otherwise a text with spans or words is converted piece by piece.

    Raises:
        InputError: OpenCC or its dictionary is not there.

    """
    convert = _converter(conversion)

    def to_variant(draft: Draft) -> None:
        text = draft.text
        if text.isascii() or not _HAN.search(text):
            return
        converted = convert(text)
        if converted == text:
            return
        if is_anchored(draft) and (len(converted) != len(text) or conversion.endswith("p")):
            convert_between_anchors(draft, convert)
        else:
            draft.text = converted

    return to_variant


@cache
def _converter(conversion: Conversion) -> Callable[[str], str]:
    """Load a dictionary, once a process (0.01 to 0.1 s)."""
    try:
        import opencc

        # Ends at a NUL character, which the step `characters` has dropped.
        convert: Callable[[str], str] = opencc.OpenCC(conversion).convert
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"ingest.clean.chinese.conversion is {conversion}, but OpenCC cannot load it: {error}",
            remedy="install the package OpenCC, or switch the step off: ingest.clean.chinese.enabled: false",
        ) from error
    return convert
