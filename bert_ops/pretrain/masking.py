"""Corruption for the masked-language-model objective (Devlin et al. 2019, section 3.1, Task #1), a batch at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bert_ops.tokenizer.wordpiece import SpecialIds


class MaskingRates(NamedTuple):
    """Shares of the chosen tokens that become ``[MASK]``, and a random token; the rest stay as they are."""

    mask: float
    random: float


#: BERT's own.
BERT_RATE = 0.15
BERT_RATES = MaskingRates(mask=0.8, random=0.1)


def corrupt(
    ids: NDArray[np.int64],
    *,
    vocab_size: int,
    special: SpecialIds,
    rate: float,
    rates: MaskingRates,
    word_starts: NDArray[np.bool_] | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose ``rate`` of the ordinary tokens and corrupt them in place; special tokens are never chosen or drawn.

    The budget is ``round(rate * ordinary tokens)``, and at least one. Without ``word_starts`` exactly so many tokens
    are chosen. With it whole words are (Cui et al. 2021, arXiv:1906.08101), in BERT's way: words are drawn in random
    order, and one that would exceed the budget is passed over. So the budget is never exceeded, and met unless every
    word left is longer than what is left of it; only if no word at all fits, one of the shortest is taken. Whether a
    chosen token becomes ``[MASK]``, random or stays is drawn for each token by itself, as in BERT.

    Args:
        ids: any shape, changed in place.
        vocab_size: entries of the vocabulary.
        special: ids that are never chosen or drawn.
        rate: share of the ordinary tokens to predict.
        rates: what becomes of them.
        word_starts: as ``ids``, True where a word begins; or None for single tokens.
        rng: source of all draws.

    Returns:
        Flat positions (M,), ascending, and the ids that stood there (M,); none if there is no ordinary token.

    """
    flat = ids.reshape(-1)
    is_ordinary, drawable = _tables(vocab_size, special)
    ordinary = np.flatnonzero(is_ordinary[flat])
    if not len(ordinary):
        return ordinary, flat[ordinary]
    budget = min(len(ordinary), max(1, round(len(ordinary) * rate)))
    chosen = np.zeros(len(ordinary), np.bool_)
    if word_starts is None:
        chosen[rng.permutation(len(ordinary))[:budget]] = True
    else:
        word = np.cumsum(word_starts.reshape(-1))[ordinary]
        begins = np.flatnonzero(np.diff(word, prepend=-1))
        sizes = np.diff(begins, append=len(word))
        taken = np.zeros(len(sizes), np.bool_)
        taken[_words_within(sizes, budget, rng)] = True
        chosen = np.repeat(taken, sizes)
    masked = ordinary[chosen]
    targets = flat[masked]
    draw = rng.random(len(masked))
    flat[masked[draw < rates.mask]] = special.mask
    swapped = masked[(draw >= rates.mask) & (draw < rates.mask + rates.random)]
    flat[swapped] = drawable[rng.integers(len(drawable), size=len(swapped))]
    return masked, targets


def _words_within(sizes: NDArray[np.int64], budget: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Words in random order, without those that would exceed the budget when their turn comes."""
    order = rng.permutation(len(sizes))
    total = np.cumsum(sizes[order])
    taken = int(np.searchsorted(total, budget, side="right"))
    left = budget - (int(total[taken - 1]) if taken else 0)
    extra, place = [], taken
    while left:
        fits = np.flatnonzero(sizes[order[place:]] <= left)
        if not len(fits):
            break
        place += int(fits[0])
        extra.append(order[place])
        left -= int(sizes[order[place]])
        place += 1
    if not taken and not extra:
        return order[[sizes[order].argmin()]]
    return np.concatenate([order[:taken], np.array(extra, np.int64)])


@lru_cache(maxsize=4)
def _tables(vocab_size: int, special: SpecialIds) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each id is ordinary, (V,), and the ids that are."""
    is_ordinary = np.ones(vocab_size, np.bool_)
    is_ordinary[list(special)] = False
    return is_ordinary, np.flatnonzero(is_ordinary)
