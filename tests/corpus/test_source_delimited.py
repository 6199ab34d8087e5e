"""CSV and TSV: quoting, headers, and records that do not fit together."""

from __future__ import annotations

import csv
import gzip
import io
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_reading import put, read

from bert_ops.errors import InputError

pytestmark = pytest.mark.usefixtures("workspace")

SOURCE: dict[str, Any] = {"kind": "csv", "path": "raw/s.csv", "text": "body", "task": "t", "label": "good"}


def pairs(source: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(row.text, row.label) for row in read(source).rows]


def test_quoting() -> None:
    put("s.csv", '\ufeffid,body,good\r\n1,"很好，""真的""\r\n第二行, a",1\r\n\r\n2,plain "x",0\r\n3,"",1\r\n')
    result = read(SOURCE)
    assert [(row.text, row.label) for row in result.rows] == [
        ('很好，"真的"\n第二行, a', "1"),
        ('plain "x"', "0"),
        ("", "1"),
    ]
    assert [row.location for row in result.rows] == ["raw/s.csv:2", "raw/s.csv:5", "raw/s.csv:6"]
    assert not result.rejections


def test_tsv_and_own_delimiters() -> None:
    put("s.csv", 'body\tgood\n"很好"\t1\n')
    assert pairs(SOURCE | {"kind": "tsv"}) == [('"很好"', "1")]
    assert pairs(SOURCE | {"kind": "tsv", "quote": '"'}) == [("很好", "1")]
    put("s.csv", "body;good\n'很;好';1\n")
    assert pairs(SOURCE | {"delimiter": ";", "quote": "'"}) == [("很;好", "1")]
    put("s.csv", 'body|good\n"很好|1\n')
    assert pairs(SOURCE | {"delimiter": "|", "quote": ""}) == [('"很好', "1")]


@pytest.mark.parametrize(
    "more", [{"delimiter": ";;"}, {"delimiter": "\n"}, {"quote": "ab"}, {"delimiter": '"', "quote": '"'}]
)
def test_delimiters_that_cannot_be(more: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"delimiter|quote"):
        read(SOURCE | more)


def test_a_header_without_the_column() -> None:
    put("s.csv", "id,text\n1,很好\n")
    with pytest.raises(InputError, match=r"the header of raw/s\.csv has no column body, good") as caught:
        read(SOURCE)
    assert "it has id, text" in str(caught.value)
    put("s.csv", "body,body,good\na,b,1\n")
    with pytest.raises(InputError, match="has the column body twice"):
        read(SOURCE)


def test_a_later_file_with_another_header() -> None:
    put("a.csv", "body,good\n很好,1\n")
    put("b.csv", "text,good\n很坏,0\n")
    put("c.csv", "good,body\n0,一般\n")
    result = read(SOURCE | {"path": "raw/*.csv"})
    assert [(row.text, row.label) for row in result.rows] == [("很好", "1"), ("一般", "0")]
    assert [(one.location, one.reason) for one in result.rejections] == [("raw/b.csv", "wrong_columns")]


def test_rows_of_another_width() -> None:
    put("s.csv", "body,good\n很好,1\n很坏\na,b,c\n还行,0\n")
    result = read(SOURCE)
    assert [row.text for row in result.rows] == ["很好", "还行"]
    assert [(one.location, one.reason) for one in result.rejections] == [
        ("raw/s.csv:3", "wrong_columns"),
        ("raw/s.csv:4", "wrong_columns"),
    ]
    assert "it has 3 values, the header 2" in result.rejections[1].detail


def test_only_a_header() -> None:
    put("s.csv", "body,good\n")
    with pytest.raises(InputError, match="is empty"):
        read(SOURCE)


@pytest.mark.parametrize(
    "broken",
    ['"open,1\n', '"open" x,1\n', 'a,"1\n', 'a,"b"c\n'],
)
def test_a_quotation_mark_that_is_not_closed_takes_no_other_row_with_it(broken: str) -> None:
    good = [f"第{number}行,{number}\n" for number in range(2000)]
    put("s.csv", "body,good\n" + "".join(good[:5]) + broken + "".join(good[5:]))
    result = read(SOURCE)
    assert [row.text for row in result.rows] == [line.split(",")[0] for line in good]
    assert result.reasons == ["bad_csv"]
    assert result.rejections[0].location == "raw/s.csv:7"
    with pytest.raises(InputError, match=r"raw/s\.csv:7"):
        read(SOURCE, bad_rows="fail")


def test_a_quotation_mark_before_a_break() -> None:
    whole = gzip.compress(
        ('body,good\n很好,1\n"open,1\n' + "".join(f"{i}第{i * i}行,0\n" for i in range(9000))).encode()
    )
    put("s.csv", whole[:-2000])
    result = read(SOURCE)
    assert len(result.rows) > 100
    assert result.reasons == ["bad_csv", "broken_file"]


def test_lines_that_do_not_decode() -> None:
    put(
        "s.csv",
        "body,good\n很好,1\n".encode() + b"\xff\xff,1\n" + '还行,0\n"a\n'.encode() + b'\xff",1\n' + "末,1\n".encode(),
    )
    result = read(SOURCE | {"encoding": "utf-8"})
    assert [row.text for row in result.rows] == ["很好", "还行", "末"]
    assert [(one.location, one.reason) for one in result.rejections] == [
        ("raw/s.csv:3", "bad_bytes"),
        ("raw/s.csv:5", "bad_csv"),
        ("raw/s.csv:6", "bad_bytes"),
    ]


def test_a_header_that_does_not_decode() -> None:
    put("s.csv", b"body\xff,good\na,1\n")
    result = read(SOURCE | {"encoding": "utf-8"})
    assert result.reasons == ["bad_bytes"]
    assert "its header cannot be read" in result.rejections[0].detail


@pytest.mark.parametrize("line", ['"\n', '""\n', '"""\n', 'a"\n', ',"\n', '"a""\n'])
def test_hostile_quotation_marks_take_linear_time(line: str) -> None:
    def seconds(count: int) -> float:
        put("s.csv", "body,good\n" + line * count)
        started = process_time()
        result = read(SOURCE, max_row_mebibytes=1)
        assert len(result.items) > 0
        return process_time() - started

    short = max(seconds(4_000), 0.02)
    assert seconds(32_000) < 8 * 6 * short


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=8)] * 2),
        min_size=1,
        max_size=6,
    )
)
def test_what_csv_writes_is_read_as_it_was(rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("body", "good"), *rows])
    put("s.csv", text.getvalue())
    assert pairs(SOURCE | {"encoding": "utf-8"}) == rows
