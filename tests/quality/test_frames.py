from __future__ import annotations

import json

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.quality import frames

TEXTS = st.lists(st.none() | st.text(alphabet=st.sampled_from("天气A \u3000\n\ufffd𠀀é"), max_size=8), max_size=12)


@given(TEXTS, st.integers(1, 5))
def test_characters_are_counted_as_one_by_one(texts: list[str | None], chunk: int) -> None:
    original, frames._CHUNK = frames._CHUNK, chunk
    try:
        counts = frames.count_characters(pd.Series(texts, dtype=object))
    finally:
        frames._CHUNK = original
    plain = [text or "" for text in texts]
    assert counts["visible"].tolist() == [sum(not c.isspace() for c in text) for text in plain]
    assert counts["cjk"].tolist() == [sum(c in "天气𠀀" for c in text) for text in plain]
    assert counts["replacement"].tolist() == [text.count("\ufffd") for text in plain]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "test"])), max_size=12))
def test_sides_are_compared_over_all_rows(pairs: list[tuple[str, str]]) -> None:
    keys, sides = pd.Series([k for k, _ in pairs], dtype=object), pd.Series([s for _, s in pairs], dtype=object)
    expected = [len({side for other, side in pairs if other == key}) > 1 for key, _ in pairs]
    assert frames.on_several_sides(keys, sides).tolist() == expected


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3), max_leaves=12))
def test_any_json_is_judged_without_an_error(value: object) -> None:
    assert frames.span_problem(json.dumps(value), 5) in {None, "form", "outside", "overlap"}


def test_span_problems() -> None:
    cases = {
        None: None,
        "[]": None,
        '[[0, 2, "PER"], [2, 5, "LOC"]]': None,
        '[[2, 5, "LOC"], [0, 2, "PER"]]': None,
        "[[0, 2": "form",
        "{}": "form",
        '[[0, true, "PER"]]': "form",
        '[[0.0, 2, "PER"]]': "form",
        '[[0, 6, "PER"]]': "outside",
        '[[-1, 2, "PER"]]': "outside",
        '[[2, 2, "PER"]]': "outside",
        '[[0, 3, "PER"], [2, 4, "LOC"]]': "overlap",
    }
    assert {spans: frames.span_problem(spans, 5) for spans in cases} == cases


def test_excerpts_are_at_most_80_characters() -> None:
    short = frames.excerpts(pd.Series(["天" * 79, "天" * 80, "天" * 500, None], dtype=object))
    assert short.str.len().tolist() == [79, 80, 80, 0]
    assert short[1].endswith("…")
    assert short[2].endswith("…")
