from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning.alignment import Edit, apply, convert_between_anchors, substitute
from bert_ops.corpus.records import Draft, Unfit

#: Every character of it is another one, so that a position can be told by what stands there.
DISTINCT = "".join(chr(0x4E00 + number) for number in range(24))


@st.composite
def edits(draw: st.DrawFn) -> list[Edit]:
    cuts = sorted(draw(st.lists(st.integers(0, len(DISTINCT)), max_size=10)))
    pairs = list(zip(cuts[0::2], cuts[1::2], strict=False))
    return [(start, end, draw(st.sampled_from(["", "x", "yz", "uvw"]))) for start, end in pairs]


def replaced(text: str, changes: list[Edit]) -> str:
    for start, end, replacement in reversed(changes):
        text = text[:start] + replacement + text[end:]
    return text


@given(edits(), st.data())
def test_a_span_becomes_what_its_own_text_becomes(changes: list[Edit], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(DISTINCT) - 1))
    end = data.draw(st.integers(start + 1, len(DISTINCT)))
    draft = Draft(DISTINCT, spans=[(start, end, "X")])
    # It grows to the whole of the places that it cuts through; insertions at its borders stay outside.
    first = min([start, *(one for one, two, _ in changes if one < start < two)])
    last = max([end, *(two for one, two, _ in changes if one < end < two)])
    inside = [
        (one - first, two - first, new)
        for one, two, new in changes
        if first <= one and two <= last and not (one == two and one in (first, last))
    ]
    expected = replaced(DISTINCT[first:last], inside)
    if not expected:
        with pytest.raises(Unfit) as caught:
            apply(draft, changes)
        assert caught.value.reason == "lost_span"
        return
    apply(draft, changes)
    assert draft.text == replaced(DISTINCT, changes)
    [(new_start, new_end, label)] = draft.spans
    assert (draft.text[new_start:new_end], label) == (expected, "X")


@given(edits(), st.sets(st.integers(0, len(DISTINCT) - 1)))
def test_words_begin_where_they_began(changes: list[Edit], places: set[int]) -> None:
    draft = Draft(DISTINCT, word_starts=sorted(places), breaks=tuple(sorted(places - {0})))
    apply(draft, changes)
    assert draft.word_starts is not None
    assert draft.word_starts == sorted(set(draft.word_starts))
    assert all(0 <= place < len(draft.text) for place in draft.word_starts)
    begun = {draft.text[place] for place in draft.word_starts}
    gone = {place for start, end, _ in changes for place in range(start, end)}
    # A word whose first character stays begins with it still.
    assert {DISTINCT[place] for place in places - gone} <= begun
    # And no other character begins one, but for replacements and what follows a word's lost beginning.
    behind: set[int] = set()
    for start, end, _ in changes:
        if any(start <= place < end for place in places | behind):
            behind.add(end)
    assert begun & set(DISTINCT) <= {DISTINCT[place] for place in (places - gone) | behind if place < len(DISTINCT)}
    assert set(draft.breaks) <= set(draft.word_starts)


def test_two_spans_that_become_one_are_lost() -> None:
    draft = Draft("abcd", spans=[(0, 2, "X"), (2, 4, "Y")])
    with pytest.raises(Unfit, match="lost_span") as caught:
        apply(draft, [(1, 3, "Z")])
    assert "overlap" in caught.value.detail


@pytest.mark.parametrize("anchored", [False, True])
def test_substitutes_with_and_without_anchors(anchored: bool) -> None:
    draft = Draft("a1b22c", word_starts=[0, 2, 5] if anchored else None)
    substitute(draft, re.compile(r"\d+"), lambda match: match.group() if match.group() == "1" else "")
    assert draft.text == "a1bc"
    assert draft.word_starts == ([0, 2, 3] if anchored else None)


def test_converts_between_anchors() -> None:
    draft = Draft("aabbcc", spans=[(2, 4, "X")], word_starts=[0, 2, 5], breaks=(4,))
    convert_between_anchors(draft, lambda piece: piece.upper() + "-" if piece != "aa" else piece)
    assert draft == Draft("aaBB-C-C-", spans=[(2, 5, "X")], word_starts=[0, 2, 7], breaks=(5,))


def test_words_that_are_gone_leave_no_start_on_white_space() -> None:
    draft = Draft("ab  \n cd ", word_starts=[0, 1, 6, 7])
    apply(draft, [(0, 2, ""), (7, 8, "")])
    assert draft == Draft("  \n c ", word_starts=[4])


def test_many_starts_on_much_white_space_take_linear_time() -> None:
    count = 100_000
    draft = Draft("ab" * count + "c", word_starts=list(range(0, 2 * count, 2)))
    apply(draft, [(place, place + 2, "\n\n") for place in range(0, 2 * count, 2)])
    assert draft.word_starts == [2 * count]
