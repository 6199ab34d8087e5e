from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.keys import Keys, content_hash, key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("你好,世界!", "你好 世界"),
        ("Ｈello", "hEllo"),
        ("a_b-c", "abc"),
        ("１９９８", "1998"),
        ("STRASSE", "strasse"),
    ],
)
def test_punctuation_case_and_width_do_not_matter(one: str, other: str) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(("one", "other"), [("कि", "का"), ("很好", "不好"), ("3.1", "32"), ("é", "e")])
def test_letters_marks_and_digits_do(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_a_text_of_punctuation_has_no_key() -> None:
    assert key("……!!! --__") == ""


@given(st.text())
def test_key_of_a_key_is_itself(text: str) -> None:
    assert key(key(text)) == key(text)
    assert len(content_hash(key(text))) == 64


MIXED = st.text(
    st.one_of(
        st.sampled_from("今天好坏，。！ＡＢab12 \n_-ßΣσςİıéñ가각각①㈱ﬁ½²ªｱﾞが"),
        st.sampled_from("\u0301\u0345\u093f\u200d\ufe0f\u0338\u00ad👍🏽🇨🇳𠀀龥"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)


@given(st.lists(MIXED, max_size=6))
def test_a_batch_gives_the_keys_of_its_texts(texts: list[str]) -> None:
    assert Keys.of(texts).strings() == [key(text) for text in texts]


def test_every_character_gives_its_key_between_others() -> None:
    """Alone, and between letters with which it may interact."""
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code % 7 < 2]
    texts = ["".join(characters[i : i + 50]) for i in range(0, len(characters), 50)]
    texts += [f"aO{character}b가" for character in characters[:20_000]]
    assert Keys.of(texts).strings() == [key(text) for text in texts]


@given(st.lists(st.text("天地人abc", max_size=8), max_size=6), st.integers(1, 5))
def test_ngrams_are_those_of_each_key(texts: list[str], n: int) -> None:
    hashes, ends = Keys.of(texts).ngrams(n)
    seen: dict[str, int] = {}
    for index, text in enumerate(texts):
        expected = [text[i : i + n] for i in range(max(len(text) - n + 1, 1))] if text else []
        found = hashes[ends[index] : ends[index + 1]].tolist()
        assert len(found) == len(expected)
        for gram, value in zip(expected, found, strict=True):
            assert seen.setdefault(gram, value) == value
    assert len(set(seen.values())) == len(seen)


def test_an_ngram_does_not_depend_on_its_batch() -> None:
    alone, _ = Keys.of(["今天天气好"]).ngrams(3)
    among, ends = Keys.of(["别的", "今天天气好", "x"]).ngrams(3)
    assert np.array_equal(among[ends[1] : ends[2]], alone)
