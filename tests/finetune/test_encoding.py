"""Texts as rows: cut at either end, or read in windows in which every token is answered for exactly once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bert_ops.errors import InputError
from bert_ops.finetune.encoding import encode
from bert_ops.tokenizer import wordpiece

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return wordpiece.load(tokenizer_folder)


def test_a_long_text_keeps_its_head_or_its_tail(tokenizer: Tokenizer) -> None:
    text = "我去看书店的一二三四五六七八九"
    whole = tokenizer.encode(text).ids
    for truncation, kept in (("head", [*whole[:9], SEP]), ("tail", [CLS, *whole[-9:]])):
        rows = encode(tokenizer, [text, "书"], max_tokens=10, truncation=truncation)
        assert rows.ids[0].tolist() == kept
        assert (rows.cut, len(rows), rows.examples, rows.lengths.tolist()) == (1, 2, 2, [10, 3])
    assert tokenizer.truncation is None


@given(lengths=st.lists(st.integers(0, 90), min_size=1, max_size=6), max_tokens=st.integers(3, 40))
@settings(max_examples=60)
def test_windows_answer_for_every_token_once(tokenizer: Tokenizer, lengths: list[int], max_tokens: int) -> None:
    texts = ["书" * length for length in lengths]
    rows = encode(tokenizer, texts, max_tokens=max_tokens, truncation="windows", with_offsets=True)
    assert rows.offsets is not None and rows.cut == 0
    assert (rows.lengths <= max_tokens).all() and (np.diff(rows.owner) >= 0).all()
    for number, length in enumerate(lengths):
        mine = [rows.offsets[row] for row in np.flatnonzero(rows.owner == number)]
        answered = np.concatenate(mine)
        assert answered[answered[:, 1] > 0].tolist() == [[i, i + 1] for i in range(length)]


def test_a_token_is_answered_where_it_is_far_from_the_edge(tokenizer: Tokenizer) -> None:
    rows = encode(tokenizer, ["书" * 40], max_tokens=22, truncation="windows", with_offsets=True)
    assert rows.offsets is not None
    answered = [offsets[offsets[:, 1] > 0][:, 0] for offsets in rows.offsets]
    # Windows of 20 characters that begin 15 apart: the five that two have in common are shared between them.
    assert [(places[0], places[-1]) for places in answered] == [(0, 16), (17, 31), (32, 39)]


def test_a_pair_has_segments_and_loses_the_longer_text_first(tokenizer: Tokenizer) -> None:
    rows = encode(tokenizer, ["书" * 20, "我"], ["店", "店"], max_tokens=12, truncation="head")
    assert rows.segments is not None
    assert rows.segments[0].tolist() == [0] * 10 + [1] * 2
    assert rows.segments[1].tolist() == [0, 0, 0, 1, 1]
    assert rows.cut == 1


def test_windows_over_pairs_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="windows over pairs"):
        encode(tokenizer, ["书"], ["店"], max_tokens=12, truncation="windows")


@pytest.mark.parametrize("truncation", ["head", "windows"])
def test_rows_of_some_examples_are_theirs(tokenizer: Tokenizer, truncation: str) -> None:
    texts = ["书" * n for n in (30, 2, 60, 5)]
    rows = encode(tokenizer, texts, max_tokens=16, truncation=truncation, with_offsets=True)  # type: ignore[arg-type]
    chosen = np.array([2, 0])
    part, places = rows.of_examples(chosen)
    alone = encode(
        tokenizer,
        [texts[2], texts[0]],
        max_tokens=16,
        truncation=truncation,  # type: ignore[arg-type]
        with_offsets=True,
    )
    assert part.owner.tolist() == alone.owner.tolist() == [list(chosen).index(n) for n in rows.owner[places]]
    assert [ids.tolist() for ids in part.ids] == [ids.tolist() for ids in alone.ids]
    assert part.offsets is not None and alone.offsets is not None
    assert all((a == b).all() for a, b in zip(part.offsets, alone.offsets, strict=True))
