from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.quality import characters, columns, rows

TEXTS = st.lists(st.none() | st.text(alphabet=st.sampled_from("天气A \u3000\n\ufffd𠀀éå©锛«"), max_size=8), max_size=12)


def signs(text: str) -> int:
    """Signs of a wrong encoding, one by one."""
    beside = [{a, b} for a, b in pairwise(text)]
    return sum(pair & {"é", "å"} != set() and "©" in pair for pair in beside) + text.count("锛")


@given(TEXTS)
def test_characters_are_counted_as_one_by_one(texts: list[str | None]) -> None:
    counts = characters.count(pa.array(texts, pa.string()))
    plain = [text or "" for text in texts]
    assert counts["length"].tolist() == list(map(len, plain))
    assert counts["visible"].tolist() == [sum(not c.isspace() for c in text) for text in plain]
    assert counts["cjk"].tolist() == [sum(c in "天气𠀀锛" for c in text) for text in plain]
    assert counts["replacement"].tolist() == [text.count("\ufffd") for text in plain]
    assert counts["signs"].tolist() == [signs(text) for text in plain]


def test_white_space_is_what_python_takes_for_it() -> None:
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace() and not 0xD800 <= code < 0xE000]
    assert characters.count(pa.array(spaces))["visible"].sum() == 0


CHINESE = "他说，天气很好的时候，我们在公园里散步，这是一个不错的主意。" * 3
SOUND = [
    CHINESE,
    "L'été dernier, il a été gêné par « l'œuvre » — où ça ? — à côté du café…",
    "Größe: 5 °C – schöne Füße, „Übung“",
    "¿Qué pasó? ¡Él no está aquí! «Sí»",
    "informação, ações e opções são não; Zażółć gęślą jaźń",
    "价格为25€，温度±5°C，§3……——“引号”",
]


def share(text: str) -> float:
    counts = characters.count(pa.array([text]))
    return counts["signs"][0] / counts["visible"][0]


@pytest.mark.parametrize("text", SOUND)
def test_sound_texts_show_hardly_any_sign_of_a_wrong_encoding(text: str) -> None:
    assert share(text) < 0.05


@pytest.mark.parametrize(
    ("true", "taken"), [("utf-8", "latin-1"), ("utf-8", "cp1252"), ("utf-8", "gbk"), ("gbk", "latin-1")]
)
def test_texts_in_the_wrong_encoding_show_many_signs(true: str, taken: str) -> None:
    assert share(CHINESE.encode(true).decode(taken, "ignore")) > 0.05


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "test"])), max_size=12))
def test_sides_are_compared_over_all_rows(pairs: list[tuple[str, str]]) -> None:
    keys = np.array([ord(k) for k, _ in pairs], np.uint64)
    sides = np.array([len(s) for _, s in pairs], np.int8)
    expected = [len({side for other, side in pairs if other == key}) > 1 for key, _ in pairs]
    assert columns.on_several_sides(keys, sides).tolist() == expected
    times = [sum(other == key for other, _ in pairs) > 1 for key, _ in pairs]
    assert columns.repeated(keys).tolist() == times


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3), max_leaves=12))
def test_any_json_is_judged_without_an_error(value: object) -> None:
    assert rows.span_problem(json.dumps(value), 5) in {None, "form", "outside", "overlap"}


def test_span_problems() -> None:
    cases = {
        None: None,
        "[]": None,
        '[[0, 2, "PER"], [2, 5, "LOC"]]': None,
        '[[2, 5, "LOC"], [0, 2, "PER"]]': None,
        "[[0, 2": "form",
        "{}": "form",
        "[" * 100_000: "form",
        '[[0, true, "PER"]]': "form",
        '[[0.0, 2, "PER"]]': "form",
        '[[0, 6, "PER"]]': "outside",
        '[[-1, 2, "PER"]]': "outside",
        '[[2, 2, "PER"]]': "outside",
        '[[0, 3, "PER"], [2, 4, "LOC"]]': "overlap",
    }
    assert {spans: rows.span_problem(spans, 5) for spans in cases} == cases


def test_excerpts_are_at_most_80_characters() -> None:
    short = rows.excerpts(pa.array(["天" * 79, "天" * 80, "𠀀" * 500, None]))
    assert [len(text) for text in short] == [79, 80, 80, 0]
    assert short[1].endswith("…")
    assert short[2].endswith("…")


@given(
    st.lists(st.sampled_from("aabbc"), max_size=12),
    st.integers(1, 5),
)
def test_ordinals_go_on_over_batches(ids: list[str], size: int) -> None:
    keys = np.array([ord(i) for i in ids], np.uint64)
    found, before = [], None
    for start in range(0, len(keys), size):
        part = rows._ordinals(keys[start : start + size], before)
        before = (keys[min(start + size, len(keys)) - 1], int(part[-1]))
        found += part.tolist()
    expected = []
    for index, value in enumerate(ids):
        expected.append(expected[-1] + 1 if index and ids[index - 1] == value else 0)
    assert found == expected
