"""Training texts with other names in them: a mention gives way to another one of the same label.

A network that has read a few thousand texts knows their names by heart, and learns from them less of what surrounds a
name than it could. A mention that is drawn anew in each epoch leaves the surroundings to go by.

Source: Dai & Adel 2020, "An Analysis of Simple Data Augmentation for Named Entity Recognition", section 3 (mention
replacement), COLING 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.finetune.batching import Pieces
from bert_ops.finetune.tagging import PREFIXES, Scheme

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Mentions:
    """Different mentions of the training split.

    Args:
        by_label: token ids of the mentions of each label, in the order of the labels.
        scheme: of the tags.
        limit: tokens of the longest row that may come of it.

    """

    by_label: list[list[Ints]]
    scheme: Scheme
    limit: int

    @classmethod
    def of(cls, pieces: Pieces, *, labels: int, scheme: Scheme, limit: int) -> Mentions:
        """Collect the mentions of rows: each counts once, so that rare names are drawn as often as frequent ones."""
        found: list[dict[bytes, Ints]] = [{} for _ in range(labels)]
        for ids, places, tags in zip(pieces.ids, pieces.places, pieces.targets, strict=True):
            for first, last, label in whole_mentions(tags, places, scheme=scheme):
                mention = ids[places[first] : places[last] + 1]
                found[label].setdefault(mention.tobytes(), mention)
        return cls([list(by_ids.values()) for by_ids in found], scheme, limit)

    def drawn_anew(self, pieces: Pieces, *, share: float, rng: np.random.Generator) -> Pieces:
        """Replace a share of the mentions; rows that would become too long keep theirs."""
        rows = [
            self._row(*row, share=share, rng=rng) for row in zip(pieces.ids, pieces.places, pieces.targets, strict=True)
        ]
        ids, places, targets = (list(column) for column in zip(*rows, strict=True))
        return replace(pieces, ids=ids, places=places, targets=targets)

    def _row(
        self, ids: Ints, places: Ints, tags: Ints, *, share: float, rng: np.random.Generator
    ) -> tuple[Ints, Ints, Ints]:
        mentions = whole_mentions(tags, places, scheme=self.scheme)
        chosen = rng.random(len(mentions)) < share
        room = self.limit - len(ids)
        # From the right, so that what is still to come keeps its place.
        for (first, last, label), change in reversed(list(zip(mentions, chosen.tolist(), strict=True))):
            if not change:
                continue
            new = self.by_label[label][rng.integers(len(self.by_label[label]))]
            more = len(new) - (last + 1 - first)
            if more > room:
                continue
            room -= more
            start, end = int(places[first]), int(places[last]) + 1
            ids = np.concatenate([ids[:start], new, ids[end:]])
            tags = np.concatenate([tags[:first], tags_of_mention(len(new), label, self.scheme), tags[last + 1 :]])
            places = np.concatenate([places[:first], start + np.arange(len(new)), places[last + 1 :] + more])
        return ids, places, tags


def whole_mentions(tags: Ints, places: Ints, *, scheme: Scheme) -> list[tuple[int, int, int]]:
    """Return first item, last item and label of each mention that a row has all of.

    Mentions at the row's first or last item are left out where their tags begin or end without the tag for it: they
    may go on in the next window. So are those whose tokens do not stand side by side.
    """
    prefixes = PREFIXES[scheme]
    found, first = [], -1
    for place, tag in enumerate([*tags.tolist(), 0]):
        label, prefix = divmod(tag - 1, len(prefixes)) if tag > 0 else (-1, -1)
        begins = tag > 0 and prefixes[prefix] in "BS"
        if first >= 0 and scheme == "BIO" and (begins or tag <= 0) and place < len(tags):
            found.append((first, place - 1, _label(tags[first], prefixes)))
        if begins:
            first = place
        if first >= 0 and tag > 0 and prefixes[prefix] in "ES":
            found.append((first, place, label))
            first = -1
        elif tag <= 0:
            first = -1
    return [(a, b, label) for a, b, label in found if places[b] - places[a] == b - a]


def _label(tag: Any, prefixes: str) -> int:
    return int(tag - 1) // len(prefixes)


def tags_of_mention(length: int, label: int, scheme: Scheme) -> Ints:
    """Tags of a mention of some tokens."""
    prefixes = PREFIXES[scheme]
    names: Sequence[str] = "B" + "I" * (length - 1)
    if scheme == "BIOES":
        names = "S" if length == 1 else "B" + "I" * (length - 2) + "E"
    return np.array([1 + len(prefixes) * label + prefixes.index(name) for name in names], np.int64)
