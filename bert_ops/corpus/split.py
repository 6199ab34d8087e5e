"""Which split a text belongs to: decided by its content, so that it never changes sides when other texts come or go."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from bert_ops.corpus.params import SplitParams

SPLITS = ("train", "validation", "test")


def place(key: str, salt: str) -> float:
    """Return the place of a key in [0, 1): BLAKE2b of salt and key, read as a number."""
    digest = hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def sides_of(places: NDArray[np.float64], params: SplitParams) -> NDArray[np.int8]:
    """Return the index in ``SPLITS`` of each place: where it lies among the cumulated shares."""
    sides = np.full(len(places), 2, np.int8)
    # A share of 0 must stay empty although 0.9 + 0.1 is not exactly 1 in binary.
    validation = np.full(len(places), params.test == 0.0)
    if params.validation > 0.0:
        validation |= places < params.train + params.validation
    sides[validation] = 1 if params.validation > 0.0 else 0
    sides[places < params.train] = 0
    return sides


def side(key: str, params: SplitParams) -> str:
    """Return the split of a text without a cluster. Equal keys land on the same side whatever their source and task.

    Args:
        key: the text's :func:`bert_ops.corpus.keys.key`.
        params: shares and salt.

    """
    return SPLITS[int(sides_of(np.array([place(key, params.salt)]), params)[0])]
