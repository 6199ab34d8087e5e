"""Where words go on: by jieba, by the source's own segmentation, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.errors import ArtifactError
from bert_ops.tokenizer.segment import inside_words


def shown(texts: list[str], **options) -> list[str]:
    """Texts with a bar where a word begins."""
    inside = inside_words(texts, **options)
    assert inside is not None
    joined = "\n".join(texts)
    assert len(inside) == len(joined)
    return "".join(c if goes_on else f"|{c}" for c, goes_on in zip(joined, inside, strict=True)).split("|\n")


def test_jieba_s_words() -> None:
    assert shown(["我来到北京清华大学", "", "他买了iPhone 15"], segmentation="jieba") == [
        "|我|来到|北京|清华大学",
        "",
        "|他|买|了|iPhone| |15",
    ]


def test_given_words_win_over_jieba() -> None:
    assert shown(["北京大学", "北京大学"], segmentation="jieba", given=[[2, 2], None]) == ["|北京|大学", "|北京大学"]
    assert shown(["北京大学", "北京大学"], segmentation="none", given=[None, [1, 3]]) == ["|北|京|大|学", "|北|京大学"]


def test_white_space_between_given_words_belongs_to_none() -> None:
    assert shown([" 北京  大学 A ", ""], segmentation="none", given=[[2, 2, 1], []]) == ["| |北京| | |大学| |A| ", ""]


def test_nothing_known_is_said_so() -> None:
    assert inside_words(["北京"], segmentation="none") is None
    assert inside_words(["北京"], segmentation="none", given=[None]) is None


@pytest.mark.parametrize("words", [[5], [2, 3], [1], [2, 0, 2], [], [-1, 5]])
def test_words_that_do_not_fit_are_refused(words: list[int]) -> None:
    with pytest.raises(ArtifactError, match="do not fit a sentence of 4: 北京大学"):
        inside_words(["北京大学"], segmentation="none", given=[words])


def test_texts_do_not_influence_each_other() -> None:
    texts = ["北京", "大学生", "活动中心", "abc", " ", "x\ny", "一九九八年"]
    alone = [inside_words([text], segmentation="jieba") for text in texts]
    together = inside_words(texts, segmentation="jieba")
    assert together is not None
    joined = np.concatenate([np.concatenate([part, [False]]) for part in alone if part is not None])[:-1]
    assert together.tolist() == joined.tolist()


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=4))
def test_no_character_is_lost_whatever_it_is(texts: list[str]) -> None:
    inside = inside_words(texts, segmentation="jieba")
    assert inside is not None and len(inside) == max(len("\n".join(texts)), 0)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    assert not any(inside[start] for start, text in zip(starts, texts, strict=True) if text)
