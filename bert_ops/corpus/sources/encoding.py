"""Which encoding a file has, and how certain that is.

A byte order mark decides. Without one, UTF-8 is tried strictly first, because bytes of another encoding that happen to
be UTF-8 are next to impossible; then GB18030 is judged by what its characters would be. GB18030 accepts nearly any
bytes, so that nothing follows from mere success. The confidence is the posterior probability of Chinese in GB18030
against what else such bytes are in practice, under a naive Bayes model of three classes of characters: the most
frequent ones, the rest of level 1 of GB 2312 (rows 16 to 55) with its punctuation, and all others.
"""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass

#: The most frequent characters of modern Chinese and their traditional forms, and the punctuation between them.
_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去"
    "法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点"
    "正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿"
    "這個們來為國說時會對於後過發種經現當沒動進實無與長機關點業將兩間問應戰頭體見產給門買賣錢電話車東"
    ",。、；：？！“”‘’（）《》　…—·【】,"
)

#: Log probabilities of (frequent, other level 1, anything else): Chinese, and the two that are taken for it.
_CHINESE = tuple(map(math.log, (0.40, 0.54, 0.06)))
_OTHERS = (
    tuple(map(math.log, (0.04, 0.92, 0.04))),  # two bytes from A1 on, as in EUC-KR and EUC-JP
    tuple(map(math.log, (0.02, 0.33, 0.65))),  # Big5, Shift JIS, Latin letters with accents, binary data
)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
)

#: Characters that are judged at most; more change nothing.
_JUDGED = 20_000


@dataclass(frozen=True, slots=True)
class Guess:
    """An encoding (a name of Python's codecs) and how certain it is, 0 to 1."""

    encoding: str
    confidence: float


def byte_order_mark(start: bytes) -> tuple[str, int] | None:
    """Encoding and length of the byte order mark that a file starts with."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, len(mark)
    return None


def guess(sample: bytes) -> Guess:
    """Tell UTF-8 from GB18030 by the lines of a sample; the sample may end within a character.

    A sample in which most lines with other than ASCII are UTF-8 is UTF-8, with their share as confidence: the file is
    mixed, and the other lines will be refused. Otherwise the confidence is that of GB18030 times the share of lines
    that are valid in it.
    """
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    if not lines:
        return Guess("utf-8", 1.0)
    ends_within = sample.endswith(lines[-1])
    flags = [_decodes(line, "utf-8", partial=ends_within and i == len(lines) - 1) for i, line in enumerate(lines)]
    share = sum(flags) / len(lines)
    if share >= 0.5:
        return Guess("utf-8", share)
    others = [line for line, fits in zip(lines, flags, strict=True) if not fits]
    valid = [line for line in others if _decodes(line, "gb18030", partial=line is lines[-1] and ends_within)]
    text = b"\n".join(valid)[: 4 * _JUDGED].decode("gb18030", "ignore")
    return Guess("gb18030", chinese(text) * len(valid) / len(lines))


def _decodes(line: bytes, encoding: str, *, partial: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(line, final=not partial)
    except UnicodeDecodeError:
        return False
    return True


def chinese(text: str) -> float:
    """Posterior probability that text decoded as GB18030 is Chinese and not something else."""
    counts = [0, 0, 0]
    for character in [c for c in text[: 4 * _JUDGED] if c > "\x7f"][:_JUDGED]:
        counts[0 if character in _FREQUENT else 1 if _in_level_1(character) else 2] += 1
    if not any(counts):
        return 0.0
    own = math.fsum(n * p for n, p in zip(counts, _CHINESE, strict=True))
    worst = [own - math.fsum(n * p for n, p in zip(counts, other, strict=True)) for other in _OTHERS]
    return 1.0 / (1.0 + math.fsum(math.exp(min(-difference, 700.0)) for difference in worst))


def _in_level_1(character: str) -> bool:
    """Whether GB 2312 has the character in rows 1 to 3 (punctuation, full-width letters) or 16 to 55 (level 1)."""
    code = character.encode("gb18030", "replace")
    return len(code) == 2 and (0xA1 <= code[0] <= 0xA3 or 0xB0 <= code[0] <= 0xD7) and code[1] >= 0xA1
