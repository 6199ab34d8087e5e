"""JSON documents: rows wherever they stand, streamed; broken, deep, huge and misplaced ones."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_reading import put, read

from bert_ops.corpus.records import MISSING
from bert_ops.corpus.sources import lines, streams
from bert_ops.corpus.sources.json import _Document
from bert_ops.corpus.sources.json_scan import Depth
from bert_ops.errors import InputError

pytestmark = pytest.mark.usefixtures("workspace")

SOURCE = {"kind": "json", "path": "raw/s.json", "text": "body"}


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"body": text} for text in texts]


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (rows("甲", "乙"), None),
        ({"meta": {"rows": [1]}, "data": rows("甲", "乙")}, "data[*]"),
        ({"data": [{"items": rows("甲")}, {"other": 1}, {"items": rows("乙")}]}, "data[*].items[*]"),
        ([[rows("no"), rows("甲", "乙")]], "[0][1][*]"),
        ({"a.b": {"c": rows("甲", "乙")}}, '"a.b".c[*]'),
        ({"x": rows("甲")[0], "y": [rows("甲", "乙")]}, "y[*][*]"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_by_path(document: Any, where: str | None, indent: int | None) -> None:
    put("s.json", json.dumps(document, indent=indent, ensure_ascii=indent is None))
    result = read(SOURCE | ({"rows": where} if where else {}))
    assert result.texts == ["甲", "乙"]
    assert [row.location for row in result.rows] == ["raw/s.json row 1", "raw/s.json row 2"]
    assert not result.rejections


def test_a_document_that_is_one_row() -> None:
    put("a.json", '{"body": {"parts": ["甲", "乙"]}}')
    put("b.json", ' \n{"body": {"parts": ["丙"]}}\n')
    result = read(SOURCE | {"path": "raw/*.json", "text": "body.parts[1]"})
    assert result.texts == ["乙", MISSING]
    put("a.json", '{"one": {"body": "甲"}}')
    assert read(SOURCE | {"path": "raw/a.json", "rows": "one"}).texts == ["甲"]


def test_a_path_that_leads_nowhere() -> None:
    put("a.json", json.dumps({"data": rows("甲")}))
    put("b.json", json.dumps({"other": rows("乙")}))
    with pytest.raises(InputError, match=r"has nothing at items\[\*\]"):
        read(SOURCE | {"path": "raw/a.json", "rows": "items[*]"})
    result = read(SOURCE | {"path": "raw/*.json", "rows": "data[*]"})
    assert result.texts == ["甲"]
    assert result.reasons == ["wrong_columns"]


def test_a_field_that_is_not_there() -> None:
    put("s.json", json.dumps(rows("甲")))
    with pytest.raises(InputError, match=r"raw/s\.json row 1 has no field text"):
        read(SOURCE | {"text": "text"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("3", "not_an_object"),
        ("[1]", "not_an_object"),
        ('{"body": 1' + "0" * 6000 + "}", "bad_json"),
        ('{"body": ' + "[" * 60 + "]" * 60 + "}", "deep_json"),
        ('{"body": "a", "body": "b"}', "duplicate_key"),
        ('{"body": nothing}', "bad_json"),
        ('{"body" "a"}', "bad_json"),
        ('{"body": "' + "x" * (1 << 20) + '"}', "row_too_long"),
        ("9" * (2 << 20), "row_too_long"),
        ("[" * 300_000 + "]" * 300_000, "deep_json"),
        ("[" * 2_000_000 + "]" * 2_000_000, "row_too_long"),
        ('{"body": "a\nb"}', "bad_json"),
    ],
)
def test_a_bad_row_is_refused_alone(row: str, reason: str) -> None:
    put("s.json", f'[{{"body": "甲"}}, {row}, {{"body": "乙"}}]')
    result = read(SOURCE)
    assert result.texts == ["甲", "乙"]
    assert [(one.location, one.reason) for one in result.rejections] == [("raw/s.json row 2", reason)]
    with pytest.raises(InputError, match=r"raw/s\.json row 2[: ]"):
        read(SOURCE, bad_rows="fail")


@pytest.mark.parametrize(
    ("document", "texts"),
    [
        ('[{"body": "甲"}, {"body": "乙"', 1),
        ('[{"body": "甲"}, {"body": "乙"}', 2),
        ('[{"body": "甲"} {"body": "乙"}]', 1),
        ('[{"body": "甲"}]]', 1),
        ('[{"body": "甲"},]x', 1),
        ('{"body": "甲"}\n{"body": "乙"}\n', 1),
        ('[{"body": "甲"}, }', 1),
    ],
)
def test_a_broken_document_keeps_the_rows_before_the_break(document: str, texts: int) -> None:
    put("s.json", document)
    result = read(SOURCE)
    assert result.texts == ["甲", "乙"][:texts]
    assert result.reasons == ["bad_json"]
    assert "after row" in result.rejections[0].location


@pytest.mark.parametrize("document", ["{", "[", '{"a"', '{"a" 1}', "{1: 2}", ":", "]"])
def test_broken_structure_on_the_way_to_the_rows(document: str) -> None:
    put("s.json", document)
    assert read(SOURCE | {"rows": "data[*]"}).reasons == ["bad_json"]


def test_a_bomb_beside_the_rows_is_passed_over() -> None:
    put("s.json", '{"bomb": ' + "[" * 20_000_000 + "]" * 20_000_000 + ', "data": [{"body": "甲"}]}')
    tracemalloc.start()
    try:
        assert read(SOURCE | {"rows": "data[*]"}).texts == ["甲"]
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_bytes_that_are_no_utf8_refuse_their_row() -> None:
    put("s.json", '[{"body": "甲"}, {"body": "'.encode() + b"\xff" + '"}, {"body": "乙"}]'.encode())
    result = read(SOURCE | {"encoding": "utf-8"})
    assert result.texts == ["甲", "乙"]
    assert result.reasons == ["bad_bytes"]


def test_lone_surrogates_and_pairs() -> None:
    put("s.json", '[{"body": "\\ud800"}, {"body": "\\ud83d\\ude00"}]')
    assert read(SOURCE).texts == ["\ud800", "😀"]


def test_an_empty_array() -> None:
    put("a.json", "[]")
    put("b.json", json.dumps(rows("甲")))
    assert read(SOURCE | {"path": "raw/*.json"}).reasons == ["empty_file"]
    with pytest.raises(InputError, match="is empty"):
        read(SOURCE | {"path": "raw/a.json"})


@pytest.mark.parametrize("block", [1, 2, 5])
def test_chunks_may_end_anywhere(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ['a"b\\', "{[", "很好", "\\\\", "x\n", ""]
    put("s.json", json.dumps({"data": rows(*texts), "n": [1, -2.5e3, None, True]}, ensure_ascii=False))
    monkeypatch.setattr(streams, "BLOCK", block)
    assert lines.blocks is streams.blocks
    assert read(SOURCE | {"rows": "data[*]", "encoding": "utf-8"}).texts == texts


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(_VALUES, max_size=4), st.integers(1, 9), st.booleans())
def test_cutting_agrees_with_a_parser(values: list[Any], size: int, ascii_only: bool) -> None:
    whole = json.dumps(values, ensure_ascii=ascii_only)
    chunks = (whole[start : start + size] for start in range(0, len(whole), size))
    document = _Document(chunks, max_length=10_000)
    assert [json.loads(str(raw)) for raw in document.rows(None)] == values
    document.expect_end()
    depth = Depth()
    depth.feed(whole)
    assert depth.deepest == _depth(values)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
