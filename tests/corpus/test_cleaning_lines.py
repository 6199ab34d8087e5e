from __future__ import annotations

import re
from typing import Any

import pytest
from cleaning_params import cleaning_params
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning.lines import lines_step
from bert_ops.corpus.records import Draft, Unfit


def repaired(draft: Draft | str, **changes: Any) -> Draft:
    draft = Draft(draft) if isinstance(draft, str) else draft
    lines_step(cleaning_params(**{f"lines__{key}": value for key, value in changes.items()}).lines)(draft)
    return draft


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("  a \t b\u3000 c ", "a b c"),
        ("中 国  人", "中 国 人"),
        (" \t\n", ""),
        ("", ""),
        ("a", "a"),
    ],
)
def test_collapses_white_space(raw: str, text: str) -> None:
    assert repaired(raw) == Draft(text)


def test_blank_lines_and_short_lines_end_paragraphs() -> None:
    assert repaired("标题\n\n第一段\r\n \r\n第二段\n\n") == Draft("标题 第一段 第二段", breaks=(2, 6))
    assert repaired("\n\n春眠不觉晓\n处处闻啼鸟\n") == Draft("春眠不觉晓 处处闻啼鸟", breaks=(5,))
    assert repaired("一\u2028二\x0c三\r四") == Draft("一 二 三 四", breaks=(1, 3, 5))


CHINESE = "\n".join(
    [
        "今天天气很好所以我们一起到山上去看了一次日出然后",
        "回来吃早饭",
        "下一段从这里开始而且它也很长所以它也要换到下一行",
        "去",
    ]
)


def test_wrapped_chinese_is_joined_without_spaces() -> None:
    whole = "这是一段被硬换行切开的文字里面没有空格所以接起来也不应当有空格" * 5
    wrapped = "\n".join(re.findall(".{1,24}", whole))
    assert repaired(wrapped) == Draft(whole)
    assert repaired(wrapped, join_wrapped=False).text == wrapped.replace("\n", " ")
    assert len(repaired(wrapped, join_wrapped=False).breaks) == wrapped.count("\n")
    # A short line ends a paragraph, the next one wraps again.
    assert repaired(CHINESE) == Draft(
        CHINESE.replace("然后\n", "然后").replace("一行\n", "一行").replace("\n", " "), breaks=(29,)
    )


def test_one_full_line_is_no_proof_of_wrapping() -> None:
    line = "酒店的位置非常好离地铁站很近走路五分钟就能到"
    assert repaired(f"{line}\n房间很小") == Draft(f"{line} 房间很小")


def test_an_indented_line_begins_a_paragraph() -> None:
    line = "酒店的位置非常好离地铁站很近走路五分钟就能到"
    assert repaired(f"\u3000\u3000{line}\n{line}\n\u3000\u3000{line}\n{line}") == Draft(
        f"{line}{line} {line}{line}", breaks=(44,)
    )


ENGLISH = """It was the best of times, it was the worst of times, it was the age
of wisdom, it was the age of foolishness, it was the epoch of belief,
it was the epoch of incredulity.
It was the season of Light, it was the season of Darkness, it was the
spring of hope, it was the winter of despair."""


def test_wrapped_english_is_joined_with_spaces() -> None:
    joined = ENGLISH.replace("\n", " ")
    assert repaired(ENGLISH) == Draft(joined, breaks=(joined.index("incredulity.") + 12,))


def test_a_long_address_does_not_make_every_line_short() -> None:
    address = "http://example.org/" + "a" * 200
    assert len(repaired(f"{address}\n{ENGLISH}").breaks) == 1
    assert repaired("An intro before it.\n" + ENGLISH + f"\n{address}").breaks[0] == 19


@pytest.mark.parametrize(
    ("raw", "hyphens", "text"),
    [
        ("an exam-\nple is an example", "keep", "an example is an example"),
        ("a well-\nknown, well-known man", "join", "a well-known, well-known man"),
        ("an exam-\nple", "keep", "an exam-ple"),
        ("an exam-\n  ple", "join", "an example"),
        ("Anglo-\nSaxon", "join", "Anglo- Saxon"),
        ("1-\na", "join", "1- a"),
        ("- \na", "join", "- a"),
        ("Exam-\nple! EXAMPLE", "keep", "Example! EXAMPLE"),
    ],
)
def test_hyphens(raw: str, hyphens: str, text: str) -> None:
    assert repaired(raw, hyphens=hyphens).text == text


def test_spaces_between_han_go_only_if_asked() -> None:
    raw = "我 们　去 a 店 。 b c"
    assert repaired(raw).text == "我 们 去 a 店 。 b c"
    assert repaired(raw, spaces_between_han="remove").text == "我们去 a 店。 b c"


@pytest.mark.parametrize(
    ("raw", "span", "inside"),
    [
        (" 中 国 ", (0, 5), "中 国"),
        ("  本报北京", (0, 6), "本报北京"),
        ("an exam-\nple, example", (3, 12), "example"),
        ("江  \n\n 泽民", (0, 8), "江 泽民"),
    ],
)
def test_spans_move(raw: str, span: tuple[int, int], inside: str) -> None:
    draft = repaired(Draft(raw, spans=[(*span, "X")]))
    [(start, end, _)] = draft.spans
    assert draft.text[start:end] == inside


def test_a_span_of_white_space_is_lost() -> None:
    with pytest.raises(Unfit, match="lost_span"):
        repaired(Draft("中 国", spans=[(1, 2, "X")]))


SPACED = st.text(st.sampled_from("中国a-b \n\r\t\u3000\u2028.。"), max_size=60)


@given(SPACED, SPACED, SPACED, st.sampled_from(["keep", "remove"]))
def test_spans_words_and_breaks_follow(before: str, inside: str, after: str, spaces: str) -> None:
    raw = f"{before}始{inside}末{after}"
    start, end = len(before), len(before) + len(inside) + 2
    # The words are the runs without white space.
    words = [match.start() for match in re.finditer(r"\S+", raw)]
    draft = repaired(Draft(raw, spans=[(start, end, "X")], word_starts=words), spaces_between_han=spaces)
    plain = repaired(raw, spaces_between_han=spaces)
    assert (draft.text, draft.breaks) == (plain.text, plain.breaks)
    [(first, last, _)] = draft.spans
    assert draft.text[first] == "始" and draft.text[last - 1] == "末"
    assert draft.text == draft.text.strip() and "  " not in draft.text
    assert not re.search(r"[^\S ]", draft.text)
    assert draft.word_starts is not None
    assert set(draft.word_starts) >= {match.start() for match in re.finditer(r"\S+", draft.text)}
    assert all(not draft.text[place].isspace() for place in draft.word_starts)
    assert all(draft.text[place] == " " for place in draft.breaks)
    # Nothing but white space and hyphens at the end of a line is lost.
    assert re.sub(r"[\s-]", "", raw) == re.sub(r"[ -]", "", draft.text)
    assert repaired(Draft(draft.text)).text == draft.text
