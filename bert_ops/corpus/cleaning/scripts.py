"""Scripts: how much of a text is Han characters, and which language a script stands for."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from functools import lru_cache

_HAN = re.compile(r"[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")
_KANA_OR_HANGUL = re.compile(r"[\u3041-\u30fa\u30fc-\u30ff\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")
_LETTERS = re.compile(r"[^\W\d_]+")

#: Share of kana among kana and Han characters from which a text is Japanese; Chinese quotes single words of it.
_JAPANESE = 0.1

#: (first character, script); a script named by two letters is that of one language. Sorted.
_SCRIPTS = (
    (0x0041, "Latin"),
    (0x0370, "el"),
    (0x0400, "Cyrillic"),
    (0x0530, "hy"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0780, "other"),
    (0x0900, "Devanagari"),
    (0x0980, "Bengali"),
    (0x0A00, "pa"),
    (0x0A80, "gu"),
    (0x0B00, "or"),
    (0x0B80, "ta"),
    (0x0C00, "te"),
    (0x0C80, "kn"),
    (0x0D00, "ml"),
    (0x0D80, "si"),
    (0x0E00, "th"),
    (0x0E80, "lo"),
    (0x0F00, "other"),
    (0x1000, "my"),
    (0x10A0, "ka"),
    (0x1100, "ko"),
    (0x1200, "am"),
    (0x13A0, "other"),
    (0x1780, "km"),
    (0x1800, "mn"),
    (0x18B0, "other"),
    (0x1C80, "Cyrillic"),
    (0x1C90, "ka"),
    (0x1CC0, "other"),
    (0x1E00, "Latin"),
    (0x1F00, "el"),
    (0x2000, "other"),
    (0x2C60, "Latin"),
    (0x2C80, "other"),
    (0x3005, "zh"),
    (0x3041, "ja"),
    (0x3100, "zh"),
    (0x3131, "ko"),
    (0x31A0, "zh"),
    (0x31F0, "ja"),
    (0x3400, "zh"),
    (0xA000, "other"),
    (0xAC00, "ko"),
    (0xD7B0, "other"),
    (0xF900, "zh"),
    (0xFB00, "Latin"),
    (0xFB13, "other"),
    (0xFB50, "Arabic"),
    (0xFF00, "Latin"),
    (0xFF65, "ja"),
    (0xFFA0, "ko"),
    (0xFFE0, "other"),
    (0x20000, "zh"),
)
_FIRSTS = [first for first, _ in _SCRIPTS]


@lru_cache(maxsize=1)
def han_characters(text: str) -> int:
    """Count the Han characters of a text; several steps ask about the same one."""
    return sum(map(len, _HAN.findall(text)))


def by_script(text: str) -> str | None:
    """Return the language that the script of a text stands for, else the script, or None if there are no letters."""
    if text.isascii():
        return "Latin" if _LETTERS.search(text) else None
    if 2 * han_characters(text) >= len(text) and not _KANA_OR_HANGUL.search(text):
        return "zh"
    weights: Counter[str] = Counter()
    for letters in _LETTERS.findall(text):
        for letter in letters:
            script = script_of(letter)
            weights[script] += 3 if script in ("zh", "ja", "ko") else 1
    if not weights:
        return None
    if weights["ja"] and weights["ja"] >= _JAPANESE * (weights["ja"] + weights["zh"]):
        weights["ja"] += weights.pop("zh", 0)
    script = max(weights, key=lambda name: (weights[name], name))
    return None if script == "other" else script


def script_of(letter: str) -> str:
    """Name the script of a letter: of a language if it has one of its own."""
    return _SCRIPTS[max(bisect_right(_FIRSTS, ord(letter)) - 1, 0)][1]
