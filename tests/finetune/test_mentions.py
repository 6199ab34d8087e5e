"""Mentions that give way to others: what is put in their place, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.finetune.batching import Pieces
from bert_ops.finetune.mentions import Mentions, tags_of_mention, whole_mentions
from bert_ops.finetune.tagging import Scheme, tag_names

LABELS = ["X", "Y"]
CLS, SEP = 2, 3


def row(text: str, *, scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, places and tags of a row that is written as `10/O 11/B-X`; [CLS] and [SEP] are added, and have no tag."""
    names = tag_names(LABELS, scheme)
    parts = [part.split("/") for part in text.split()]
    ids = np.array([CLS, *(int(number) for number, _ in parts), SEP])
    return ids, np.arange(1, len(parts) + 1), np.array([names.index(tag) for _, tag in parts], np.int64)


def pieces(*texts: str, scheme: Scheme) -> Pieces:
    rows = [row(text, scheme=scheme) for text in texts]
    return Pieces([r[0] for r in rows], None, [r[1] for r in rows], [r[2] for r in rows])


def written(made: Pieces, number: int, *, scheme: Scheme) -> str:
    names = tag_names(LABELS, scheme)
    ids, places, tags = made.ids[number], made.places[number], made.targets[number]
    return " ".join(f"{ids[place]}/{names[tag]}" for place, tag in zip(places, tags, strict=True))


@pytest.mark.parametrize(
    ("scheme", "text", "expected"),
    [
        ("BIO", "10/B-X 11/I-X 12/O 13/B-Y", [(0, 1, 0)]),  # the last one may go on in the next window
        ("BIO", "10/I-X 11/O 12/B-Y 13/B-Y 14/O", [(2, 2, 1), (3, 3, 1)]),
        ("BIOES", "10/S-X 11/B-Y 12/I-Y 13/E-Y 14/O 15/B-X", [(0, 0, 0), (1, 3, 1)]),
        ("BIOES", "10/E-X 11/O 12/S-Y", [(2, 2, 1)]),
    ],
)
def test_mentions_that_a_row_has_all_of(scheme: Scheme, text: str, expected: list[tuple[int, int, int]]) -> None:
    _, places, tags = row(text, scheme=scheme)
    assert whole_mentions(tags, places, scheme=scheme) == expected


def test_tokens_apart_are_no_mention() -> None:
    """Between them stands something that has no tag, which would have to be thought up."""
    _, _, tags = row("10/B-X 11/E-X", scheme="BIOES")
    assert whole_mentions(tags, np.array([1, 4]), scheme="BIOES") == []


def test_each_mention_counts_once_and_others_of_its_label_take_its_place() -> None:
    texts = ["10/S-X 20/O", "10/S-X 21/O", "11/B-X 12/E-X", "13/S-Y"]
    given = pieces(*texts, scheme="BIOES")
    mentions = Mentions.of(given, labels=2, scheme="BIOES", limit=16)
    assert [[m.tolist() for m in of_label] for of_label in mentions.by_label] == [[[10], [11, 12]], [[13]]]
    seen = set()
    for seed in range(40):
        made = mentions.drawn_anew(given, share=1.0, rng=np.random.default_rng(seed))
        seen |= {written(made, n, scheme="BIOES") for n in range(4)}
    assert seen == {
        *(f"{mention} {rest}/O" for mention in ("10/S-X", "11/B-X 12/E-X") for rest in (20, 21)),
        "10/S-X",
        "11/B-X 12/E-X",
        "13/S-Y",
    }
    assert [written(given, n, scheme="BIOES") for n in range(4)] == texts, "what was given has not been changed"


def test_a_row_that_would_be_too_long_keeps_its_mention() -> None:
    given = pieces("10/S-X 20/O", "11/B-X 12/I-X 13/E-X", scheme="BIOES")
    mentions = Mentions.of(given, labels=2, scheme="BIOES", limit=5)
    for seed in range(20):
        made = mentions.drawn_anew(given, share=1.0, rng=np.random.default_rng(seed))
        assert written(made, 0, scheme="BIOES") == "10/S-X 20/O"
        assert max(len(ids) for ids in made.ids) <= 5


@settings(max_examples=60, deadline=None)
@given(data=st.data(), scheme=st.sampled_from(["BIO", "BIOES"]))
def test_what_is_no_mention_stays_and_tags_stay_allowed(data: st.DataObject, scheme: Scheme) -> None:
    spans = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=8))
    ids, tags = [], []
    for number, (kind, length) in enumerate(spans):
        ids += [100 * (number + 1) + n for n in range(length)]
        tags += [0] * length if kind == 2 else tags_of_mention(length, kind, scheme).tolist()
    given = Pieces([np.array([CLS, *ids, SEP])], None, [np.arange(1, len(ids) + 1)], [np.array(tags)])
    mentions = Mentions.of(given, labels=2, scheme=scheme, limit=64)
    made = mentions.drawn_anew(given, share=0.7, rng=np.random.default_rng(data.draw(st.integers(0, 99))))
    before, after = given.ids[0], made.ids[0]
    assert (after[0], after[-1]) == (CLS, SEP) and made.places[0].tolist() == list(range(1, len(after) - 1))
    outside = [i for i, tag in zip(ids, tags, strict=True) if tag == 0]
    assert [i for i, tag in zip(after[1:-1], made.targets[0], strict=True) if tag == 0] == outside
    # As many mentions of the same labels as before, each one that was there somewhere.
    labels = [label for _, _, label in whole_mentions(np.array([*tags, 0]), np.arange(len(tags) + 1), scheme=scheme)]
    again = whole_mentions(np.append(made.targets[0], 0), np.arange(len(after) - 1), scheme=scheme)
    assert [label for _, _, label in again] == labels
    known = {m.tobytes() for of_label in mentions.by_label for m in of_label}
    left = {before[1:-1][a : b + 1].tobytes() for a, b, _ in whole_mentions(
        np.array([*tags, 0]), np.arange(len(tags) + 1), scheme=scheme
    )}  # fmt: skip
    assert {after[1:-1][a : b + 1].tobytes() for a, b, _ in again} <= known | left


def test_share_none_changes_nothing_and_draws_depend_on_the_generator_alone() -> None:
    given = pieces("10/S-X 20/O", "11/B-X 12/E-X 21/O", scheme="BIOES")
    mentions = Mentions.of(given, labels=2, scheme="BIOES", limit=16)
    none = mentions.drawn_anew(given, share=0.0, rng=np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(none.ids, given.ids, strict=True))
    twice = [mentions.drawn_anew(given, share=0.5, rng=np.random.default_rng(7)) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(twice[0].ids, twice[1].ids, strict=True))
