"""Steps ``boilerplate`` and ``symbols``: lines that belong to a page and not to its text; texts of signs and numbers.

Patterns come from the parameters, so they are checked before they run: :mod:`~bert_ops.corpus.cleaning.patterns`
refuses those whose time can explode, and no line longer than a bound is looked at.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

from bert_ops.corpus.cleaning.alignment import Edit, apply
from bert_ops.corpus.cleaning.params import BoilerplateParams, SymbolsParams
from bert_ops.corpus.cleaning.scripts import han_characters
from bert_ops.corpus.records import Draft, Unfit

REASONS = {
    "boilerplate": "every line is navigation or matches a pattern of ingest.clean.boilerplate.drop_lines",
    "symbols": "more symbols or digits than ingest.clean.symbols allows",
}

_ASCII_LETTERS = string.ascii_letters.encode()
_LETTERS = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+")
#: A row of one symbol is one: "no~~~~~~" is a text.
_SYMBOLS = re.compile(r"([^\w\s]|_)\1*")


def boilerplate_step(params: BoilerplateParams) -> Callable[[Draft], None]:
    """Return the step that drops lines; a text of nothing else is rejected."""
    menu = params.menu
    pattern = re.compile("|".join(f"(?:{one})" for one in params.drop_lines)) if params.drop_lines else None
    separator = re.compile(f"[{re.escape(menu.separators)}]") if menu else None

    def is_boilerplate(line: str) -> bool:
        if not line or len(line) > params.max_line_characters:
            return False
        if pattern is not None and pattern.search(line):
            return True
        if menu is None or separator is None or not separator.search(line):
            return False
        items = [stripped for item in separator.split(line) if (stripped := item.strip())]
        return len(items) >= menu.min_items and max(map(len, items)) <= menu.max_item_characters

    def drop(draft: Draft) -> None:
        text = draft.text
        if "\n" not in text:
            if is_boilerplate(text.strip()):
                raise Unfit("boilerplate", "the only line")
            return
        dropped = [is_boilerplate(line.strip()) for line in text.split("\n")]
        if not any(dropped):
            return
        edits, kept = _line_edits(text, dropped)
        if not kept:
            raise Unfit("boilerplate", f"all {sum(dropped)} lines")
        apply(draft, edits)

    return drop


def _line_edits(text: str, dropped: list[bool]) -> tuple[list[Edit], bool]:
    """Edits that leave a line break in the place of each dropped line, and whether another line holds text.

    The line before one that was dropped ends there, and does not run on into the one behind it.
    """
    edits: list[Edit] = []
    kept = False
    start = 0
    for line, is_dropped in zip(text.split("\n"), dropped, strict=True):
        if is_dropped:
            edits.append((start, start + len(line), ""))
        else:
            kept = kept or line.strip() != ""
        start += len(line) + 1
    return edits, kept


def symbols_step(params: SymbolsParams) -> Callable[[Draft], None]:
    """Return the filter by the shares of symbols (neither letter, digit nor white space) and of digits."""
    # Letters alone decide most texts: if they leave no room, neither bound can be exceeded.
    enough = 1.0 - min(params.max_symbol_share, params.max_digit_share)

    def check(draft: Draft) -> None:
        text = draft.text
        if len(text) < params.min_characters:
            return
        if text.isascii():
            letters = len(text) - len(text.encode().translate(None, _ASCII_LETTERS))
        elif han_characters(text) >= enough * len(text):
            return
        else:
            letters = sum(map(len, _LETTERS.findall(text)))
        if letters >= enough * len(text):
            return
        digits = sum(map(len, _DIGITS.findall(text)))
        symbols = len(_SYMBOLS.findall(text))
        solid = letters + digits + symbols
        if digits > params.max_digit_share * solid:
            raise Unfit("symbols", f"{digits} of {solid} characters are digits")
        if symbols > params.max_symbol_share * solid:
            raise Unfit("symbols", f"{symbols} of {solid} characters are symbols")

    return check
