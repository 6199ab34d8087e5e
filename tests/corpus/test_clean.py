from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.clean import _COMPOSING_STARTERS, Cleaned, clean, clean_with_spans, has_lone_surrogate

FORMS = st.sampled_from(["NFC", "NFKC"])
#: Text rich in what makes offsets move: full width, ligatures, accents, jamo, kana marks, zero width, white space.
TRICKY = st.text(
    st.one_of(
        st.sampled_from("江泽民ＡＢ１２ﬁ㈱㍿①½e\u0301\u0323o\u0308ᄀ\u1161\u11a8ｶﾞ¨¸ﷺ"),
        st.sampled_from("\u200b\u200d\ufeff\ufe0f\x00\x07 \t\n\u3000\u2028"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("１９９８年　Ｈｅｌｌｏ", "1998年 Hello"),
        ("  a \t\n b\u3000\u2028 c ", "a b c"),
        ("中\u200b国\ufeff人\u00ad民", "中国人民"),
        ("a\x00b\x1bc", "abc"),
        ("❤\ufe0f 好", "❤ 好"),
        ("e\u0301", "é"),
        ("e\u200d\u0301", "é"),
        ("㈱ﬁ", "(株)fi"),
        (" \u200b\n", ""),
    ],
)
def test_cleans(raw: str, text: str) -> None:
    assert clean(raw, form="NFKC").text == text


def test_nfc_keeps_full_width_letters() -> None:
    assert clean("Ａe\u0301", form="NFC").text == "Ａé"


def test_blank_lines_are_breaks_and_single_ones_are_not() -> None:
    assert clean("标题\n\n第一段\n还是第一段\r\n \r\n第二段\n\n", form="NFKC") == Cleaned(
        "标题 第一段 还是第一段 第二段", breaks=(2, 12)
    )
    assert clean("\n\n标题\r\n同段", form="NFKC") == Cleaned("标题 同段")


@given(TRICKY, FORMS)
def test_cleaning_twice_changes_nothing(raw: str, form: str) -> None:
    once = clean(raw, form=form).text
    assert clean(once, form=form).text == once
    assert once == once.strip() and "  " not in once
    assert unicodedata.is_normalized(form, once)


@given(st.data(), TRICKY, FORMS)
def test_spans_do_not_change_the_text_and_stay_inside(data: st.DataObject, raw: str, form: str) -> None:
    start = data.draw(st.integers(0, max(len(raw) - 1, 0)))
    spans = [(start, data.draw(st.integers(start + 1, len(raw))), "X")] if raw else []
    cleaned, moved = clean_with_spans(raw, spans, form=form)
    assert cleaned == clean(raw, form=form)
    for first, last, label in moved:
        assert 0 <= first <= last <= len(cleaned.text)
        assert label == "X"
        assert cleaned.text[first:last] == cleaned.text[first:last].strip()


@given(TRICKY, TRICKY, TRICKY, FORMS)
def test_a_span_holds_exactly_what_its_own_text_becomes(before: str, inside: str, after: str, form: str) -> None:
    # Han characters at the two borders compose with nothing, so the span's text can be cleaned on its own.
    inside, after = "江" + inside, "中" + after
    raw = before + inside + after
    start = len(before)
    cleaned, [(first, last, _)] = clean_with_spans(raw, [(start, start + len(inside), "PER")], form=form)
    assert cleaned.text[first:last] == clean(inside, form=form).text


@pytest.mark.parametrize(
    ("raw", "span", "inside"),
    [
        ("ＡＢＣ江泽民", (3, 6), "江泽民"),
        ("㈱日本", (1, 3), "日本"),
        ("a㈱b", (1, 2), "(株)"),
        ("cafe\u0301 x", (0, 4), "café"),  # a span that cuts off the accent grows to the whole letter
        ("中\u200b国", (0, 1), "中"),
        (" 中 国 ", (0, 5), "中 国"),
        ("\u3000\u3000本报北京", (0, 6), "本报北京"),
        ("a\u200b", (1, 2), "a"),  # an invisible character belongs to the one before it
    ],
)
def test_spans_move(raw: str, span: tuple[int, int], inside: str) -> None:
    cleaned, [(start, end, label)] = clean_with_spans(raw, [(*span, "X")], form="NFKC")
    assert (cleaned.text[start:end], label) == (inside, "X")


def test_a_span_of_white_space_vanishes() -> None:
    _, [(start, end, _)] = clean_with_spans("中 国", [(1, 2, "X")], form="NFKC")
    assert start == end


def test_list_of_composing_starters_is_complete() -> None:
    """The list is what the Unicode data of this Python says: second characters of primary composites with class 0."""
    found = set()
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and "<" not in parts[0]:
            first, second = (chr(int(part, 16)) for part in parts)
            if unicodedata.combining(second) == 0 and unicodedata.normalize("NFC", first + second) == chr(code):
                found.add(second)
    hangul = {chr(code) for code in [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]}
    assert found - _COMPOSING_STARTERS == set()
    assert hangul <= _COMPOSING_STARTERS


def test_lone_surrogates_are_seen() -> None:
    assert has_lone_surrogate("a\ud83d")
    assert not has_lone_surrogate("a😀")
