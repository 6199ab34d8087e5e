"""The likeliest sequence of tags that a tagging scheme allows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


def viterbi(scores_MC: Floats, starts: Ints, *, prefixes: str) -> Ints:
    """Find the tags with the highest sum of scores among the sequences that the scheme allows, for each text.

    Transitions have no score of their own: one is allowed or not. I-X follows B-X or I-X only; with E among the
    prefixes an entity that began with B-X goes on with I-X or E-X until E-X, also at the end of the text.

    Args:
        scores_MC: logits or log-probabilities of the tags of each token, finite; O, then the prefixes of each label.
        starts: (N + 1,) first token of each text, and M.
        prefixes: ``BI`` or ``BIES``.

    Returns:
        Tags (M,).

    Source: Viterbi 1967; Rabiner 1989, eqs. 32-35, with transitions of probability one or none. The tag before an
    inner one is one of two, that before any other is the best that may end: a step takes O(C), not O(C²).

    """
    kinds = np.array(["O", *prefixes * ((scores_MC.shape[1] - 1) // len(prefixes))])
    begins, insides, ends = (np.flatnonzero(kinds == kind) for kind in "BIE")
    inner = np.isin(kinds, ["I", "E"])
    closing = np.flatnonzero(np.isin(kinds, ["O", "E", "S"])) if "E" in prefixes else np.arange(len(kinds))

    lengths = np.diff(starts)
    # All texts take a step together; sorted, those that still go on are the first ones.
    order = np.argsort(-lengths, kind="stable")
    first, lengths = starts[:-1][order], lengths[order]
    before = np.zeros(len(scores_MC), np.int64)  # the tag before, if this one is not inner
    from_begin = np.zeros((len(scores_MC), len(begins)), bool)  # whether B, not I, is before, if this one is inner
    best = np.zeros((len(order), len(kinds)))
    for t in range(int(lengths.max(initial=0))):
        count = int((lengths > t).sum())
        at = first[:count] + t
        step = scores_MC[at].astype(np.float64)
        if t == 0:
            step[:, inner] = -np.inf
        else:
            past = best[:count]
            before[at] = closing[past[:, closing].argmax(1)]
            from_begin[at] = past[:, begins] >= past[:, insides]
            going_on = np.maximum(past[:, begins], past[:, insides])
            step[:, insides] += going_on
            if len(ends):
                step[:, ends] += going_on
            step[:, ~inner] += past[np.arange(count), before[at]][:, None]
        best[:count] = step

    tags = np.zeros(len(scores_MC), np.int64)
    current = closing[best[:, closing].argmax(1)]
    for t in reversed(range(int(lengths.max(initial=0)))):
        count = int((lengths > t).sum())
        at, now = first[:count] + t, current[:count]
        tags[at] = now
        label = (now - 1) // len(prefixes)  # of O: -1, whose answer is not used
        entity = np.where(from_begin[at, label], begins[label], insides[label])
        current[:count] = np.where(inner[now], entity, before[at])
    return tags
