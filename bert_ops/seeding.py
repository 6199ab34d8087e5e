"""Random generators that are independent of each other and of the order in which they are made.

A stage's seed is never used twice: each use derives its own stream from the seed and a name, so that adding a draw
in one place moves no number elsewhere.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed from a seed and the names of its use (BLAKE2b)."""
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator (PCG64) for the named use."""
    return np.random.default_rng(derive(seed, *names))
