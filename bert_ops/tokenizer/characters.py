"""What BERT's normaliser and splitter make of each character, learned from the library itself.

A Chinese character or a mark of punctuation is a word by itself whatever stands around it; white space gives nothing.
For such characters a table answers what the library would compute. Nothing here repeats the library's rules: every
entry is the library's own answer to ``x<character>x``, so that tables follow its version and its Unicode data.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models

#: Kinds of a character.
CONTEXT, ISOLATED, SPACE = 0, 1, 2

#: Code points that BERT's ``tokenize_chinese_chars`` may surround with spaces. Too many here would cost time, too few
#: speed; neither would change an id.
_CJK = (
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x2A6E0),
    (0x2A700, 0x2CEB0),
    (0x2F800, 0x2FA20),
)
_BLOCK = 256


@lru_cache(maxsize=8)
def kinds(frame: str) -> NDArray[np.uint8]:
    """Return the kind of every code point, (0x110000,).

    * ``ISOLATED``: a word by itself, of one character after normalisation, whatever stands before and after.
    * ``SPACE``: separates words and leaves nothing.
    * ``CONTEXT``: anything else (letters, digits, marks, symbols, controls): belongs to the run that it stands in.

    Args:
        frame: JSON of the tokenizer's normaliser and pre-tokeniser, as :func:`frame_of` gives it.

    """
    probe = _probe(frame)
    table = np.zeros(sys.maxunicode + 1, np.uint8)
    # Where the library does not split Chinese by character, no block passes as a whole and each is asked about singly.
    candidates = _candidates()
    for start in range(0, len(candidates), _BLOCK):
        block = candidates[start : start + _BLOCK]
        ids = probe.encode("x" + "x".join(map(chr, block)) + "x", add_special_tokens=False).ids
        if ids == [0, 1] * len(block) + [0]:
            table[block] = ISOLATED
            continue
        for point, answer in zip(
            block, probe.encode_batch_fast([f"x{chr(p)}x" for p in block], add_special_tokens=False), strict=True
        ):
            table[point] = {(0, 1, 0): ISOLATED, (0, 0): SPACE}.get(tuple(answer.ids), CONTEXT)
    single = np.flatnonzero(table == ISOLATED)
    table[single[[len(word) != 1 for word in words_of(frame, single)]]] = CONTEXT
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def isolated(frame: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """All isolated characters and the words that they become."""
    points = np.flatnonzero(kinds(frame) == ISOLATED)
    points.setflags(write=False)
    return points, tuple(words_of(frame, points))


def words_of(frame: str, points: NDArray[np.int64]) -> list[str]:
    """Words that isolated characters become; a compatibility ideograph becomes its standard form with NFD."""
    return list(_probe(frame).normalizer.normalize_str(" ".join(map(chr, points))).split())


def frame_of(specification: dict[str, Any]) -> str | None:
    """JSON of a tokenizer's normaliser and pre-tokeniser if they are BERT's and the model is WordPiece; otherwise None.

    Added tokens that are matched after normalisation, truncation and padding also give None: what they do to a text
    cannot be told from its characters.

    Args:
        specification: what ``tokenizer.json`` holds.

    """
    normalizer, splitter = specification["normalizer"] or {}, specification["pre_tokenizer"] or {}
    plain = (
        normalizer.get("type") == "BertNormalizer"
        and splitter.get("type") == "BertPreTokenizer"
        and specification["model"].get("type") == "WordPiece"
        and specification["model"]["unk_token"] in specification["model"]["vocab"]
        and not specification["truncation"]
        and not specification["padding"]
        and not any(token["normalized"] for token in specification["added_tokens"])
    )
    return json.dumps({"normalizer": normalizer, "pre_tokenizer": splitter}, sort_keys=True) if plain else None


def is_chinese(points: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether code points are ideographs in BERT's sense."""
    found: NDArray[np.bool_] = _chinese()[points]
    return found


@lru_cache(maxsize=1)
def _chinese() -> NDArray[np.bool_]:
    table = np.zeros(sys.maxunicode + 1, np.bool_)
    for start, stop in _CJK:
        table[start:stop] = True
    return table


@lru_cache(maxsize=1)
def _candidates() -> list[int]:
    """Code points that may be isolated or white space; marks that reorder under NFD never are."""
    chinese = [point for start, stop in _CJK for point in range(start, stop)]
    others = [
        point
        for point in range(0x20000)
        if unicodedata.category(chr(point))[0] in "PZ" or (point < 0x80 and not chr(point).isalnum())
    ]
    return [point for point in chinese + others if not unicodedata.combining(chr(point))]


@lru_cache(maxsize=8)
def _probe(frame: str) -> Tokenizer:
    """A tokenizer with this frame that knows one word: ``x`` is 0 and any other word is 1."""
    base = Tokenizer(models.WordLevel({"x": 0, "[UNK]": 1}, unk_token="[UNK]"))
    specification = json.loads(base.to_str())
    specification.update(json.loads(frame))
    return Tokenizer.from_str(json.dumps(specification))
