"""Steps ``runs`` and ``repetition``: one character typed on and on is shortened; texts that repeat themselves go.

Source of the filter: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
appendix A1.1: share of lines that are duplicates, of the characters in them, of the most frequent n-gram, and of the
characters within n-grams that stood before. Their n counts words. Where a text has no spaces between words, n counts
characters and is doubled: a Chinese word has about two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from bert_ops.corpus.cleaning.alignment import substitute
from bert_ops.corpus.cleaning.params import RepetitionParams, RunsParams
from bert_ops.corpus.records import Draft, Unfit

REASONS = {"repetitive": "lines or phrases repeat more than ingest.clean.repetition allows"}

_WORD_CHARACTERS = re.compile(r"[^\W_]+")

#: Characters at the start of a text whose n-grams are counted: what repeats, repeats there already.
_EXAMINED = 10_000
#: Characters a word, above which a text counts as written without spaces, and characters of a word in such a text.
_LONGEST_MEAN_WORD, _CHARACTERS_A_WORD = 12, 2


def runs_step(params: RunsParams) -> Callable[[Draft], None]:
    """Return the step that shortens runs of one character; white space is left to the step ``lines``."""
    longest, longest_digits = params.max_run, params.max_digit_run
    pattern = re.compile(rf"([^\d\s])\1{{{longest},}}|(\d)\2{{{longest_digits},}}")
    # Three of every `stride`-th character stand within any run, so that a look at those tells the few texts apart.
    stride = (min(longest, longest_digits) + 1) // 3
    suspicious = re.compile(r"(\S)\1\1")

    def replace(match: re.Match[str]) -> str:
        return match.group(1) * longest if match.group(1) else match.group(2) * longest_digits

    def shorten(draft: Draft) -> None:
        if (stride < 2 or suspicious.search(draft.text[::stride])) and pattern.search(draft.text):
            substitute(draft, pattern, replace)

    return shorten


def repetition_step(params: RepetitionParams) -> Callable[[Draft], None]:
    """Return the filter of texts that repeat themselves."""
    duplicates = sorted((bound.words, bound.max_share) for bound in params.duplicate_ngrams)
    tops = sorted((bound.words, bound.max_share) for bound in params.top_ngrams)

    def check(draft: Draft) -> None:
        text = draft.text
        if len(text) < params.min_characters:
            return
        if "\n" in text:
            _check_lines(text, params)
        text = text[:_EXAMINED]
        words = text.split()
        spaced = len(words) * _LONGEST_MEAN_WORD > len(text)
        # Only letters and digits: ellipses and rulers are no phrases.
        units: Sequence[str] = words if spaced else "".join(_WORD_CHARACTERS.findall(text))
        size = 1 if spaced else _CHARACTERS_A_WORD
        repeats = 0
        for number, (n, share) in enumerate(duplicates):
            grams = None
            if number == 0:
                grams = _ngrams(units, n * size)
                repeats = len(grams) - len(set(grams))
            # Longer n-grams repeat less often than the shortest, so that its count bounds theirs.
            if _upper_share(units, repeats, n * size, spaced=spaced) > share:
                found = _duplicate_share(units, grams or _ngrams(units, n * size), n * size)
                if found > share:
                    raise Unfit("repetitive", f"{found:.0%} of the characters stand in repeated phrases of {n} words")
        for n, share in tops:
            found = _top_share(units, n * size, at_least=share)
            if found > share:
                raise Unfit("repetitive", f"{found:.0%} of the characters are one phrase of {n} words")

    return check


def _check_lines(text: str, params: RepetitionParams) -> None:
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    counts = Counter(lines)
    repeated = len(lines) - len(counts)
    if repeated > params.duplicate_lines * len(lines):
        raise Unfit("repetitive", f"{repeated} of {len(lines)} lines stood before")
    characters = sum((count - 1) * len(line) for line, count in counts.items())
    total = sum(map(len, lines))
    if characters > params.duplicate_line_characters * total:
        raise Unfit("repetitive", f"{characters} of {total} characters stand in lines that stood before")


def _ngrams(units: Sequence[str], n: int) -> list[object]:
    """All n-grams in their order: strings of characters, or tuples of words."""
    if isinstance(units, str):
        return list(map(units.__getitem__, _slices(n, 1 << (len(units).bit_length()))[: max(len(units) - n + 1, 0)]))
    return list(zip(*(units[offset:] for offset in range(n)), strict=False))


@lru_cache(maxsize=16)
def _slices(n: int, count: int) -> tuple[slice, ...]:
    """Slices of ``n`` characters from each of ``count`` places: made once, they cut a text twice as fast."""
    return tuple(slice(start, start + n) for start in range(count))


def _upper_share(units: Sequence[str], repeats: int, n: int, *, spaced: bool) -> float:
    """Bound on the share of characters in repeated n-grams: none if there are none, not known for words."""
    return 1.0 if spaced and repeats else repeats * n / max(len(units), 1)


def _duplicate_share(units: Sequence[str], grams: list[object], n: int) -> float:
    """Share of the characters that lie in an n-gram which stood before; none is counted twice."""
    seen: set[object] = set()
    covered = until = 0
    for start, gram in enumerate(grams):
        if gram in seen:
            covered += sum(map(len, units[max(start, until) : start + n]))
            until = start + n
        seen.add(gram)
    return covered / max(sum(map(len, units)), 1)


def _top_share(units: Sequence[str], n: int, *, at_least: float) -> float:
    """Share of the characters in the most frequent n-gram; 0 if it is surely below ``at_least``."""
    grams = _ngrams(units, n)
    repeats = len(grams) - len(set(grams))
    if isinstance(units, str) and (repeats + 1) * n <= at_least * len(units):
        return 0.0
    if not repeats:
        return 0.0
    gram, count = Counter(grams).most_common(1)[0]
    characters = sum(map(len, gram)) if isinstance(gram, tuple) else n
    return count * characters / sum(map(len, units))
