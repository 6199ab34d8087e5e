from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus import profile
from bert_ops.corpus.profile import CLASSES, Profile, character_class

ALPHABET = "的我是天气AbZé1２，。!+ \n\u3000カ한ж\u0301😀\U00020000\ufffd\u200b"
TEXTS = st.lists(st.text(alphabet=ALPHABET, max_size=30), max_size=12)


def profile_of(*groups: tuple[str, str, list[str]]) -> dict:
    found = Profile()
    for source, split, texts in groups:
        found.add(source, split, texts)
    return found.result()


@given(TEXTS)
def test_counts_are_those_of_one_by_one(texts: list[str]) -> None:
    facts = profile_of(("a", "train", texts))["all"]
    joined = "".join(texts)
    assert facts["documents"] == len(texts)
    assert facts["characters"] == len(joined)
    assert facts["bytes"] == len(joined.encode())
    assert facts["distinct_characters"] == len(set(joined))
    classes = Counter(map(character_class, joined))
    assert facts["classes"] == {name: classes[name] for name in CLASSES}
    letters = Counter(c for c in joined if character_class(c) in {"Han", "Kana", "Hangul", "Latin", "other letters"})
    assert facts["letters"] == [list(p) for p in sorted(letters.items(), key=lambda p: (-p[1], p[0]))]
    lengths = facts["lengths"]
    assert sum(lengths["counts"]) == len(texts)
    assert len(lengths["edges"]) == len(lengths["counts"]) + 1
    for low, high, count in zip(lengths["edges"], lengths["edges"][1:], lengths["counts"], strict=False):
        assert count == sum(low <= len(text) < high for text in texts)
    if texts:
        ordered = sorted(map(len, texts))
        assert (lengths["min"], lengths["max"]) == (ordered[0], ordered[-1])
        assert lengths["quantiles"]["0.5"] == ordered[(len(ordered) - 1) // 2]


@given(TEXTS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_order_and_batches_do_not_matter(texts: list[str], size: int, rng: random.Random) -> None:
    rows = [(("x", "y")[i % 2], ("train", "test")[i // 2 % 2], text) for i, text in enumerate(texts)]
    one = Profile()
    for source, split, text in rows:
        one.add(source, split, [text])
    rng.shuffle(rows)
    other = Profile()
    for start in range(0, len(rows), size):
        for source, split, text in rows[start : start + size]:
            other.add(source, split, [text])
    assert one.result() == other.result()


def test_a_sample_that_overflows_depends_on_the_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "SAMPLE_CHARACTERS", 400)
    texts = [f"第{number}天，天气很好，我们去公园。" for number in range(200)]
    one, other = Profile(), Profile()
    one.add("a", "train", texts)
    for text in reversed(texts):
        other.add("a", "train", [text])
    assert one.result() == other.result()
    counted = one.result()["all"]["words_counted_in"]
    assert 50 < counted <= 400
    assert one.result()["all"]["words"][0] != ["天气", 1]


def test_words_are_counted_apart_from_characters() -> None:
    facts = profile_of(("a", "train", ["天气很好。天气不错！Hello hello 42", "天气"]))["all"]
    assert facts["words"][0] == ["天气", 3]
    assert ["hello", 2] in facts["words"]
    assert ["很", 1] in facts["one_character_words"]
    assert not any(token in {"42", "。", " "} for token, _ in facts["words"] + facts["one_character_words"])
    assert facts["punctuation"] == [["。", 1], ["！", 1]]


def test_sources_and_splits_add_up_to_the_whole() -> None:
    found = profile_of(
        ("a", "train", ["天气", "很好。"]), ("b", "test", ["Sun"]), ("a", "test", ["Rain"]), ("c", "x", [])
    )
    whole, sources = found["all"], found["sources"]
    assert list(sources) == ["a", "b"]
    assert found["splits"] == {
        "test": {"documents": 2, "characters": 7},
        "train": {"documents": 2, "characters": 5},
    }
    for key in ("documents", "characters", "bytes"):
        assert whole[key] == sum(facts[key] for facts in sources.values())
    assert whole["lengths"]["max"] == 4
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_nothing_at_all_has_a_profile() -> None:
    facts = profile_of()["all"]
    assert (facts["documents"], facts["characters"], facts["lengths"]["max"]) == (0, 0, None)
    assert sum(facts["lengths"]["counts"]) == 0


def test_long_lengths_are_kept_within_half_a_percent() -> None:
    lengths = [700, 5_003, 70_001, 999_999]
    found = profile_of(("a", "train", ["天" * length for length in lengths]))["all"]["lengths"]
    assert found["max"] == 999_999
    assert found["quantiles"]["0.25"] == pytest.approx(700, rel=0.005)
    assert found["quantiles"]["0.75"] == pytest.approx(70_001, rel=0.005)
    assert all(low < high for low, high in pairwise(found["edges"]))


def test_texts_longer_than_a_block_are_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_BLOCK_CHARACTERS", 5)
    facts = profile_of(("a", "train", ["ab", "c" * 23, "", "defgh", "i"]))["all"]
    assert facts["characters"] == 31
    assert facts["letters"][0] == ["c", 23]


@pytest.mark.parametrize(
    ("characters", "name"),
    [
        ("的々〇㐀豈\U00020000\U00030000", "Han"),
        ("あカｶ", "Kana"),
        ("한ᄀㄱ", "Hangul"),
        ("aZéﬀＡ", "Latin"),
        ("жאकª\u0301", "other letters"),
        ("1２½Ⅳ", "digits"),
        (",。「_", "punctuation"),
        ("+€😀`", "symbols"),
        (" \t\u3000\u2028", "space"),
        ("\u200b\x00\ue000", "other"),
    ],
)
def test_classes_of_characters(characters: str, name: str) -> None:
    expected = {c: name if c != "ª" else "other letters" for c in characters}
    assert {c: character_class(c) for c in characters} == expected, [unicodedata.name(c, "") for c in characters]
