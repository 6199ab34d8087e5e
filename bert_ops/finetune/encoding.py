"""Texts, or pairs of them, as rows of token ids that fit the model; long ones cut, or read in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bert_ops.errors import InputError
from bert_ops.finetune.params import Truncation

#: Share of a window that it has in common with the next one.
OVERLAP = 0.25

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """What the model reads: R rows for N examples, one or (in windows) several an example.

    Args:
        ids: R arrays (T,) of token ids with ``[CLS]`` and ``[SEP]``.
        segments: R arrays (T,), 1 in the second text of a pair; None if there are no pairs.
        owner: (R,) example of each row, ascending.
        examples: N.
        offsets: R arrays (T, 2) of the characters that a token stands for, (0, 0) on special tokens and on those that
            another window answers for; None if nobody asked.
        cut: examples of which the model does not see all.

    """

    ids: list[Ids]
    segments: list[Ids] | None
    owner: Ids
    examples: int
    offsets: list[Ids] | None
    cut: int

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> Ids:
        """Tokens of each row, (R,)."""
        return np.fromiter((len(row) for row in self.ids), np.int64, len(self.ids))

    def of_examples(self, chosen: Ids) -> tuple[Rows, Ids]:
        """Return the rows of some examples, numbered anew in the order given, and the places of those rows here."""
        order = np.argsort(self.owner, kind="stable")
        first = np.searchsorted(self.owner[order], chosen)
        counts = np.searchsorted(self.owner[order], chosen, side="right") - first
        places = np.concatenate(
            [np.zeros(0, np.int64), *(order[f : f + c] for f, c in zip(first, counts, strict=True))]
        )
        rows = Rows(
            ids=[self.ids[i] for i in places],
            segments=None if self.segments is None else [self.segments[i] for i in places],
            owner=np.repeat(np.arange(len(chosen)), counts),
            examples=len(chosen),
            offsets=None if self.offsets is None else [self.offsets[i] for i in places],
            cut=0,
        )
        return rows, places


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_tokens: int,
    truncation: Truncation,
    with_offsets: bool = False,
) -> Rows:
    """Encode texts with ``[CLS]`` and ``[SEP]``.

    A pair that is too long loses tokens of its longer text first. Windows overlap by :data:`OVERLAP`; of a token that
    stands in two of them the window answers in which it is farther from the edge.

    Raises:
        InputError: windows are asked for over pairs.

    """
    if pairs is not None and truncation == "windows":
        raise InputError(
            "windows over pairs of texts are not defined: which part of one belongs with which of the other?",
            allowed="truncation: head or tail",
            remedy="change tasks.TASK.truncation",
        )
    overlap = int(max_tokens * OVERLAP) if truncation == "windows" else 0
    tokenizer.enable_truncation(max_tokens, stride=overlap, direction="left" if truncation == "tail" else "right")
    inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    # The fast variant leaves the offsets out.
    run = tokenizer.encode_batch if with_offsets else tokenizer.encode_batch_fast
    try:
        encodings = run(inputs)
    finally:
        tokenizer.no_truncation()
    return _gather(
        encodings, windows=truncation == "windows", overlap=overlap, offsets=with_offsets, pairs=pairs is not None
    )


def _gather(encodings: list[Encoding], *, windows: bool, overlap: int, offsets: bool, pairs: bool) -> Rows:
    ids, segments, owner, places = [], [], [], []
    cut = 0
    for number, encoding in enumerate(encodings):
        further = encoding.overflowing
        cut += bool(further) and not windows
        parts = [encoding, *further] if windows else [encoding]
        for place, part in enumerate(parts):
            ids.append(np.asarray(part.ids, np.int64))
            owner.append(number)
            if pairs:
                segments.append(np.asarray(part.type_ids, np.int64))
            if offsets:
                places.append(_answered(part, overlap, first=place == 0, last=place == len(parts) - 1))
    return Rows(
        ids=ids,
        segments=segments if pairs else None,
        owner=np.asarray(owner, np.int64),
        examples=len(encodings),
        offsets=places if offsets else None,
        cut=cut,
    )


def _answered(part: Encoding, overlap: int, *, first: bool, last: bool) -> Ids:
    """Offsets (T, 2) of the tokens that this window answers for."""
    offsets = np.asarray(part.offsets, np.int64).reshape(-1, 2)
    content = np.flatnonzero(np.asarray(part.special_tokens_mask) == 0)
    before = 0 if first else overlap // 2
    after = 0 if last else overlap - overlap // 2
    mine = np.zeros(len(offsets), bool)
    mine[content[before : len(content) - after]] = True
    return np.where(mine[:, None], offsets, 0)
