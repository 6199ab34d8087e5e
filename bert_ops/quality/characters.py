"""Counting characters of many texts at once: all texts of a batch laid end to end as code points."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Counts = NDArray[np.int64]

#: Unified ideographs with extensions, and compatibility ideographs (Unicode 15, blocks "CJK …Ideographs…").
_CJK = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F), (0x30000, 0x323AF))
_SPACE = (0x20, 0x3000, 0xA0, 0x85, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, *range(0x9, 0xE), *range(0x1C, 0x20),
          *range(0x2000, 0x200B))  # fmt: skip
#: What the bytes 0x80 to 0x9F are in Windows-1252.
_WINDOWS_1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
#: Marks of these that stand beside accented letters in sound texts, too.
_QUOTES = "¡¿«»‚„…‹›‘’“”–—"
#: Characters that Chinese text hardly ever holds, and that its commonest characters become when UTF-8 is read as GBK:
#: ``，`` begins with the bytes of 锛, ``。`` and quotes with those of 銆 and 鈥, 的 with those of 鐨.
_UTF8_AS_GBK = "锛銆鈥鐨鏄鍦鎴杩鍙涓嶄粬浠锟"

_VISIBLE, _IDEOGRAPH, _ACCENTED, _UPPER_HALF, _RARE = (1 << bit for bit in range(5))
REPLACEMENT = 0xFFFD


@cache
def _flags() -> NDArray[np.uint8]:
    """What each code point is, (0x110000,)."""
    flags = np.full(0x110000, _VISIBLE, np.uint8)
    flags[list(_SPACE)] = 0
    for low, high in _CJK:
        flags[low : high + 1] |= _IDEOGRAPH
    # À to ÿ are letters but for two: the first byte of most characters in UTF-8, read as Latin-1.
    flags[0xC0:0x100] |= _ACCENTED
    flags[[0xD7, 0xF7]] &= ~np.uint8(_ACCENTED)
    # The bytes that follow it: controls, marks and symbols.
    flags[[*range(0x80, 0xC0), *map(ord, _WINDOWS_1252)]] |= _UPPER_HALF
    flags[list(map(ord, _QUOTES))] &= ~np.uint8(_UPPER_HALF)
    flags[list(map(ord, _UTF8_AS_GBK))] |= _RARE
    return flags


def count(texts: pa.Array) -> dict[str, Counts]:
    """Count characters of each text.

    Args:
        texts: N strings; a null counts as empty.

    Returns:
        (N,) each: ``length``, ``visible`` (not white space), ``cjk`` (ideographs), ``replacement`` (U+FFFD) and
        ``signs`` of a wrong encoding: an accented Latin letter beside a mark of the upper half of Latin-1 or
        Windows-1252 (UTF-8 or GBK read as one of these), and characters that UTF-8 read as GBK is full of.

    """
    plain = [text or "" for text in texts.to_pylist()]
    lengths = np.fromiter(map(len, plain), np.int64, len(plain))
    codes = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    flags = _flags()[codes]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    accented, upper = (flags & _ACCENTED) > 0, (flags & _UPPER_HALF) > 0
    signs = (flags & _RARE) > 0
    pairs = (accented[:-1] & upper[1:]) | (upper[:-1] & accented[1:])
    # A pair across the border of two texts is none.
    borders = ends[1:-1]
    pairs[borders[(borders > 0) & (borders < len(codes))] - 1] = False
    signs[:-1] |= pairs
    return {
        "length": lengths,
        "visible": _each((flags & _VISIBLE) > 0, ends),
        "cjk": _each((flags & _IDEOGRAPH) > 0, ends),
        "replacement": _each(codes == REPLACEMENT, ends),
        "signs": _each(signs, ends),
    }


def _each(marked: NDArray[np.bool_], ends: Counts) -> Counts:
    running = np.concatenate([[0], np.cumsum(marked)])
    counts: Counts = np.diff(running[ends])
    return counts
