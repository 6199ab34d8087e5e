"""How far a score can be trusted, and whether one model is better than another: the bootstrap over examples.

A resample is a weight for each example, and a score is a function of sums: the score of a resample is that of its
weighted sums. Examples of one kind (:class:`bert_ops.finetune.scores.Score`) are drawn together: counting N draws with
replacement by kind is one multinomial draw over the kinds, so that the cost does not grow with N while kinds are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_ops.finetune.scores import Floats, Ints, Score, evaluate_score

#: Coverage of every interval.
CONFIDENCE = 0.95

#: Numbers held at a time in one array; bounds the memory to some 50 MiB beside the statistics.
_CHUNK_VALUES = 1_000_000

#: Examples a kind from which a multinomial draw over the kinds is the cheaper one (measured).
_FEW_KINDS = 8


@dataclass(frozen=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float

    def as_list(self) -> list[float]:
        """Return ``[low, high]``, as the metrics files hold it."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Comparison:
    """Score of the first model minus that of the second on the same examples.

    ``p_value`` is two-sided: how often a difference at least as large comes about if there is none.
    """

    difference: float
    interval: Interval
    p_value: float


def bootstrap(score: Score, *, resamples: int, rng: np.random.Generator) -> Interval:
    """Percentile interval of a score (Efron & Tibshirani 1993, eq. 13.5); of no example, its value twice."""
    if not len(score.kind_of):
        value = evaluate_score(score)
        return Interval(value, value)
    drawn = _resampled(score.kind_of, kinds=len(score.kinds), resamples=resamples, rng=rng)
    return _interval(np.concatenate([score.value(weights @ score.kinds) for weights in drawn]))


def paired(first: Score, second: Score, *, resamples: int, rng: np.random.Generator) -> Comparison:
    """Compare two models by one score; examples are resampled, the answers of both together.

    The interval is a percentile interval of the difference. The p-value is the share of resamples whose difference is
    at least as far from the observed one as that is from 0, the observed one counted in (Efron & Tibshirani 1993,
    chapter 16, by shifting; Berg-Kirkpatrick et al. 2012 for its use in NLP; Davison & Hinkley 1997, eq. 4.11): never
    below 1 / (resamples + 1), and 1 for models that answer alike.

    Args:
        first: of one model.
        second: of the other, the same score over the same examples in the same order.
        resamples: number of resamples.
        rng: the source of chance.

    """
    assert len(first.kind_of) == len(second.kind_of) and first.name == second.name
    observed = evaluate_score(first) - evaluate_score(second)
    if not len(first.kind_of):
        return Comparison(observed, Interval(observed, observed), 1.0)
    pairs, pair_of = np.unique(first.kind_of.astype(np.int64) * len(second.kinds) + second.kind_of, return_inverse=True)
    of_first, of_second = np.divmod(pairs, len(second.kinds))
    ours, theirs = first.kinds[of_first], second.kinds[of_second]
    drawn = np.concatenate(
        [
            first.value(weights @ ours) - second.value(weights @ theirs)
            for weights in _resampled(pair_of, kinds=len(pairs), resamples=resamples, rng=rng)
        ]
    )
    # Sums in another order differ by rounding, which must not decide between equal differences.
    as_far = np.abs(drawn - observed) >= abs(observed) * (1.0 - 1e-9) - 1e-12
    return Comparison(observed, _interval(drawn), float((as_far.sum() + 1) / (resamples + 1)))


def _interval(samples: NDArray[np.floating]) -> Interval:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def _resampled(kind_of: Ints, *, kinds: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each kind is drawn in each resample, (some of them, kinds)."""
    examples = len(kind_of)
    few = kinds * _FEW_KINDS <= examples
    counts = np.bincount(kind_of, minlength=kinds)
    unlike = kinds == examples and counts.max() == 1
    chunk = max(1, _CHUNK_VALUES // (kinds if few else examples))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        if few:
            weights = rng.multinomial(examples, counts / examples, size=size)
        else:
            drawn = rng.integers(0, examples, size=(size, examples))
            drawn = (drawn if unlike else kind_of[drawn]) + kinds * np.arange(size)[:, None]
            weights = np.bincount(drawn.reshape(-1), minlength=size * kinds).reshape(size, kinds)
        yield weights.astype(np.float64)
