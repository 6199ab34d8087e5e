from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning.characters import characters_step, garbled_step
from bert_ops.corpus.cleaning.normalization import _UNUSUAL, COMPOSING_STARTERS, Form, _begins_segment, unicode_step
from bert_ops.corpus.records import Draft, Unfit

FORMS = st.sampled_from(["NFC", "NFKC"])
#: Text rich in what makes offsets move: full width, ligatures, accents, jamo, kana marks, zero width, white space.
TRICKY = st.text(
    st.one_of(
        st.sampled_from("江泽民，！ＡＢ１２ﬁ㈱㍿①½e\u0301\u0323o\u0308ᄀ\u1161\u11a8ｶﾞ¨¸ﷺ＜\u0338"),
        st.sampled_from("\u200b\u200d\ufeff\ufe0f\x00\x07 \t\n\u3000\u2028"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)


def cleaned(draft: Draft, form: Form) -> Draft:
    characters_step()(draft)
    unicode_step(form=form)(draft)
    return draft


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("１９９８年，Ｈｅｌｌｏ", "1998年,Hello"),
        ("中\u200b国\ufeff人\u00ad民", "中国人民"),
        ("a\x00b\x1bc\x9fd\ue000", "abcd\ue000"),
        ("❤\ufe0f 好", "❤ 好"),
        ("葛\U000e0100城", "葛城"),
        ("e\u0301", "é"),
        ("e\u200d\u0301", "é"),
        ("㈱ﬁ", "(株)fi"),
        ("exam\u00ad\nple, exam\u00ad\r\n  ple", "example, example"),
        ("a\nb\tc", "a\nb\tc"),
    ],
)
def test_drops_and_normalises(raw: str, text: str) -> None:
    assert cleaned(Draft(raw), "NFKC").text == text


def test_nfc_keeps_full_width_letters() -> None:
    assert cleaned(Draft("Ａ，e\u0301"), "NFC").text == "Ａ，é"


@given(TRICKY, FORMS)
def test_twice_is_once(raw: str, form: Form) -> None:
    once = cleaned(Draft(raw), form).text
    assert cleaned(Draft(once), form).text == once
    assert unicodedata.is_normalized(form, once)


@given(st.data(), TRICKY, FORMS)
def test_what_follows_does_not_change_the_text(data: st.DataObject, raw: str, form: Form) -> None:
    starts = sorted(data.draw(st.sets(st.integers(0, len(raw)))) - {len(raw)})
    draft = cleaned(Draft(raw, word_starts=starts), form)
    assert draft.text == cleaned(Draft(raw), form).text
    assert draft.word_starts is not None
    assert len(draft.word_starts) <= len(starts)
    assert all(0 <= start < len(draft.text) for start in draft.word_starts)


@given(TRICKY, TRICKY, TRICKY, FORMS)
def test_spans_and_words_hold_exactly_what_their_own_text_becomes(
    before: str, inside: str, after: str, form: Form
) -> None:
    # Han characters at the two borders compose with nothing, so the part can be cleaned on its own.
    inside, after = "江" + inside, "中" + after
    start, end = len(before), len(before) + len(inside)
    draft = cleaned(Draft(before + inside + after, spans=[(start, end, "PER")], word_starts=[start, end]), form)
    [(first, last, _)] = draft.spans
    assert draft.text[first:last] == cleaned(Draft(inside), form).text
    assert draft.word_starts == [first, last]


@pytest.mark.parametrize(
    ("raw", "span", "inside"),
    [
        ("ＡＢＣ江泽民", (3, 6), "江泽民"),
        ("㈱日本", (1, 3), "日本"),
        ("a㈱b", (1, 2), "(株)"),
        ("cafe\u0301 x", (0, 4), "café"),  # a span that cuts off the accent grows to the whole letter
        ("中\u200b国", (0, 1), "中"),
        ("ᄀ\u1161\u11a8a", (1, 2), "각"),
    ],
)
def test_spans_move(raw: str, span: tuple[int, int], inside: str) -> None:
    [(start, end, label)] = (draft := cleaned(Draft(raw, spans=[(*span, "X")]), "NFKC")).spans
    assert (draft.text[start:end], label) == (inside, "X")


def test_a_span_of_nothing_visible_is_lost() -> None:
    with pytest.raises(Unfit, match="lost_span"):
        cleaned(Draft("中\u200b\u200b国", spans=[(1, 3, "X")]), "NFKC")


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
    assert found - COMPOSING_STARTERS == set()
    assert hangul <= COMPOSING_STARTERS


@pytest.mark.parametrize("anchored", [False, True])
def test_stacks_of_marks_are_cut_before_they_are_sorted(anchored: bool) -> None:
    text = "字" * 500 + "a" + "\u0323\u0301" * 200_000 + "b"  # would take a minute
    draft = cleaned(Draft(text, word_starts=[0, 500, len(text) - 1] if anchored else None), "NFC")
    assert draft.text == "字" * 500 + "ạ" + "\u0323" * 14 + "\u0301" * 15 + "b"
    assert draft.word_starts == ([0, 500, 530] if anchored else None)


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_the_quick_way_leaves_out_only_what_stands_alone(form: Form) -> None:
    usual = [character for character in map(chr, range(0x110000)) if not _UNUSUAL.match(character)]
    assert len(usual) > 30_000
    assert [character for character in usual if not _begins_segment(character, form)] == []


@pytest.mark.parametrize("text", ["房\ue000间\ue001很小", "锟斤拷锟斤拷的", "a\ufffdb\ufffdc\ufffd", "\U000f0000一"])
def test_garbled_texts_go(text: str) -> None:
    with pytest.raises(Unfit) as caught:
        garbled_step(max_share=0.25)(Draft(text))
    assert caught.value.reason == "garbled"


@pytest.mark.parametrize(
    "text", ["", "房间很小\n" * 3, "一个\ue000很长的句子里面只有一个", "这是一只锟斤拷和许多其他的字在一起"]
)
def test_texts_with_a_little_of_it_stay(text: str) -> None:
    garbled_step(max_share=0.25)(Draft(text))
