from __future__ import annotations

import html
import time
from html.entities import html5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning.markup import markup_step
from bert_ops.corpus.records import Draft

_MARKUP = markup_step(extra_elements=["docno"])


def without(text: str) -> str:
    draft = Draft(text)
    _MARKUP(draft)
    return draft.text


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "a<b and c>d",
        "x <y and z> w",
        "I <3 you",
        "<<三国>>和<三国>",
        "<<<一",
        "零星<-三星",
        ">_< 和 <_<",
        "check in & check out",
        "AT&T，R&Y，out&永远",
        "http://a.cn/?a=1&copy=2&lt3=4&region=5",
        "List<String> map",
        "<foo@bar.com>",
        "<http://a.cn/>",
        "<!",
        "<",
        "&",
        "<?",
        "&#;",
        "&ename;",
        "<!-- nowhere closed",
        "<![CDATA[ nowhere closed",
        "<a href='x",
        "1<2",
        "<br",
    ],
)
def test_leaves_what_is_no_markup(text: str) -> None:
    assert without(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>很</b>好", "很好"),
        ("<p>一</p><p>二</p>", "\n\n一\n\n\n\n二\n\n"),
        ("一<br>二<br/>三<BR />四", "一\n二\n三\n四"),
        ("<td>一</td><td>二</td>", " 一  二 "),
        (
            '<a href="http://a.cn/?a=1&amp;b=2" target=_blank class>x</a>',
            '<a href="http://a.cn/?a=1&b=2" target=_blank class>x',
        ),
        ("<a href=http://a.cn/x.php?id=3>x</a>", "x"),
        ("<option selected value='1'>x</option>", "\n\nx\n\n"),
        ("a<script>if (a<b) { x('</p>') }</script >b<STYLE>p{}</style>c", "abc"),
        ("a<script>b", "ab"),
        ("a<!-- <p> \n -->b<!DOCTYPE html>c<!doctype html>d<?xml version='1.0'?>e", "abcde"),
        ("a<![CDATA[x<y & z]]>b", "ax<y & zb"),
        ("<o:p></o:p>a<docno>1</docno>", "a\n\n1\n\n"),
        ("&lt;b&gt;&amp;lt;", "<b>&lt;"),
        ("马可&#183;奥勒留&#x4E00;&nbsp;&nbsp&copy;", "马可·奥勒留一\xa0\xa0©"),
        ("&#0;&#xD800;&#x110000;&#128;", "\ufffd\ufffd\ufffd€"),
    ],
)
def test_removes_markup(text: str, expected: str) -> None:
    assert without(text) == expected


@given(st.lists(st.one_of(st.sampled_from(sorted(html5)), st.text("ab#x0123456789&;中 ", max_size=6)), max_size=8))
def test_references_with_a_semicolon_are_those_of_html(pieces: list[str]) -> None:
    text = "".join(f"&{piece.rstrip(';')};" for piece in pieces if "&" not in piece and ";" not in piece.rstrip(";"))
    assert without(text) == html.unescape(text)


def test_spans_words_and_breaks_follow() -> None:
    text = "<p>江&#27901;民<b>主</b>席</p>来&amp;去"
    spans = [(3, 13, "PER"), (len(text) - 7, len(text), "X")]
    draft = Draft(text, spans=spans, word_starts=[3, 13, len(text) - 7])
    _MARKUP(draft)
    assert draft.text == "\n\n江泽民主席\n\n来&去"
    assert [draft.text[start:end] for start, end, _ in draft.spans] == ["江泽民", "来&去"]
    assert [draft.text[start] for start in draft.word_starts or ()] == ["江", "主", "来"]


PIECES = st.sampled_from(
    [
        *[
            "<",
            ">",
            "</",
            "<b",
            "<p>",
            "</p>",
            "<!--",
            "-->",
            "<![CDATA[",
            "]]>",
            "<script>",
            "</script>",
            "&lt;",
            "&#1",
        ],
        *["&", "a", "=", '"', "'", " ", "/", "中", "\n", "<a href=", "<td ", "nowrap", "!", "?", ";"],
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join), st.sets(st.integers(0, 60)))
def test_what_follows_does_not_change_the_text(text: str, places: set[int]) -> None:
    draft = Draft(text, word_starts=sorted(place for place in places if place < len(text)))
    _MARKUP(draft)
    assert draft.text == without(text)


@pytest.mark.parametrize(
    "piece", ["<script>", "<!--", "<![CDATA[", '<a b="', "<a b ", "&", "<", "<a b='x' ", "<style >", "<?a"]
)
def test_time_grows_linearly(piece: str) -> None:
    """A text twice as long takes about twice as long: quadratic time would take minutes here."""
    seconds = []
    for count in (20_000, 80_000):
        start = time.process_time()
        without(piece * count)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0] + 0.2
