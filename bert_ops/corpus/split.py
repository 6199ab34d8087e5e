"""Which split a text belongs to: decided by its content, so that it never changes sides when other texts come or go."""

from __future__ import annotations

import hashlib

from bert_ops.corpus.params import SplitParams

SPLITS = ("train", "validation", "test")


def side(key: str, params: SplitParams) -> str:
    """Return the split of a text.

    BLAKE2b of salt and key, read as a number in [0, 1), is compared with the cumulated shares. Equal keys land on the
    same side whatever their source and task.

    Args:
        key: the text's :func:`bert_ops.corpus.dedup.key`.
        params: shares and salt.

    """
    digest = hashlib.blake2b(f"{params.salt}\0{key}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < params.train:
        return "train"
    # A share of 0 must stay empty although 0.9 + 0.1 is not exactly 1 in binary.
    if params.test == 0.0 or (params.validation > 0.0 and place < params.train + params.validation):
        return "validation" if params.validation > 0.0 else "train"
    return "test"
