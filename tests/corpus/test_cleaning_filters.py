from __future__ import annotations

import time
from typing import Any

import pytest
from cleaning_params import cleaning_params, cleaning_section
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning.boilerplate import boilerplate_step, symbols_step
from bert_ops.corpus.cleaning.length import intake_step, length_step
from bert_ops.corpus.cleaning.patterns import check_pattern
from bert_ops.corpus.cleaning.repetition import repetition_step, runs_step
from bert_ops.corpus.records import Draft, Unfit
from bert_ops.errors import InputError
from bert_ops.schema import validate

SENTENCES = [
    "今天早上我们沿着河边走了很久。",
    "天上没有一片云，风也很轻。",
    "老人坐在桥头下棋，孩子们在草地上放风筝。",
    "中午大家在一家小店里吃面，店主讲起从前的事。",
    "后来下起雨来，我们只好跑回旅馆，浑身都湿透了。",
    "晚上灯一盏一盏亮起来，城市换了一副模样。",
    "有人在窗下拉琴，曲子很旧，却没有人记得名字。",
    "第二天我们坐火车往南，稻田从窗外一块块退去。",
]
PLAIN = "".join(SENTENCES)


def refused(step: Any, text: str) -> str | None:
    """Reason why a step refuses a text, or None."""
    draft = Draft(text)
    try:
        step(draft)
    except Unfit as unfit:
        return unfit.reason
    assert draft.text == text
    return None


# --- runs -------------------------------------------------------------------------------------------------------------


def shortened(text: str, **changes: int) -> str:
    draft = Draft(text)
    runs_step(cleaning_params(**{f"runs__{key}": value for key, value in changes.items()}).runs)(draft)
    return draft.text


def test_runs_are_shortened_but_digits_later_and_spaces_never() -> None:
    assert shortened("哈" * 20 + "！" * 7 + "。" * 6) == "哈" * 6 + "！" * 6 + "。" * 6
    assert shortened("1000000000 元 " + "8" * 30 + " " * 30) == "1000000000 元 " + "8" * 12 + " " * 30


@given(
    st.lists(st.tuples(st.sampled_from("哈a1 !"), st.integers(1, 30)), max_size=12),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_every_run_and_nothing_else_is_shortened(runs: list[tuple[str, int]], longest: int, digits: int) -> None:
    bounds = {"1": digits, " ": 10**6}
    merged: list[tuple[str, int]] = []
    for character, count in runs:
        if merged and merged[-1][0] == character:
            merged[-1] = (character, merged[-1][1] + count)
        else:
            merged.append((character, count))
    text = "".join(character * count for character, count in merged)
    expected = "".join(character * min(count, bounds.get(character, longest)) for character, count in merged)
    assert shortened(text, max_run=longest, max_digit_run=digits) == expected


# --- repetition -------------------------------------------------------------------------------------------------------


REPETITION = repetition_step(cleaning_params(repetition__min_characters=60).repetition)


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(["买就送好礼，点击查看更多优惠活动", "第一行文字"] * 6),
        "\n".join([*SENTENCES, *SENTENCES[:5]]),
        PLAIN + SENTENCES[4] * 8,
        "质量很好发货很快" * 20,
        "扩大民主" * 30 + PLAIN,
        "buy now and save money today with our great offer " * 8,
        " ".join(SENTENCES) + "the same five words again and once more " * 10,
    ],
)
def test_texts_that_repeat_themselves_go(text: str) -> None:
    assert refused(REPETITION, text) == "repetitive"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\n".join(SENTENCES),
        PLAIN + "……" * 40,
        "质量很好发货很快" * 5,  # too short to say
        "-" * 300,
        "",
        "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
        "nothing particular to interest me on shore, I thought I would sail about a little and see the world.",
        # a statute that quotes itself once
        PLAIN + SENTENCES[4],
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert refused(REPETITION, text) is None


@given(st.text("甲乙丙丁", min_size=60, max_size=300))
def test_the_shortcut_changes_no_verdict(text: str) -> None:
    """The share by its definition: characters within n-grams that stood before, each once."""
    n, bound = 10, 0.4
    covered = {
        place + offset
        for place in range(len(text) - n + 1)
        if text[place : place + n] in {text[first : first + n] for first in range(place)}
        for offset in range(n)
    }
    section = cleaning_params(
        repetition__min_characters=60,
        repetition__top_ngrams=[],
        repetition__duplicate_ngrams=[{"words": n // 2, "max_share": bound}, {"words": 25, "max_share": 1.0}],
    ).repetition
    assert (refused(repetition_step(section), text) == "repetitive") == (len(covered) / len(text) > bound)


# --- boilerplate ------------------------------------------------------------------------------------------------------


BOILERPLATE = boilerplate_step(cleaning_params().boilerplate)


def without_boilerplate(text: str) -> str:
    draft = Draft(text)
    BOILERPLATE(draft)
    return draft.text


@pytest.mark.parametrize(
    "line",
    [
        "首页 | 新闻 | 体育 | 财经 | 娱乐",
        "首页>新闻>国内>社会>正文",
        "上一篇：一个标题",
        "返回顶部",
        "责任编辑：张三",
        "[编辑:李四]",
        "Copyright © 2008 某某公司 版权所有",
        "京ICP备05012345号",
        "Copyright (C) Example Inc. All Rights Reserved",
    ],
)
def test_lines_of_the_page_are_dropped(line: str) -> None:
    assert without_boilerplate(f"{SENTENCES[0]}\n  {line}\r\n{SENTENCES[1]}") == f"{SENTENCES[0]}\n\n{SENTENCES[1]}"
    assert refused(BOILERPLATE, line) == "boilerplate"
    assert refused(BOILERPLATE, f"{line}\n\n{line}\n") == "boilerplate"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a > b | c",
        "他在编辑部工作，责任编辑是张三。",
        "首页做得很漂亮",
        "版权所有" * 30,  # too long to be looked at
        "P(A|B) 与 P(B|A) 的关系是 P(A|B)P(B) = P(B|A)P(A)",
        "上一篇文章讲的是另一件事",
    ],
)
def test_other_lines_stay(line: str) -> None:
    assert without_boilerplate(line) == line
    assert without_boilerplate(f"一\n{line}\n二") == f"一\n{line}\n二"


def test_words_follow_when_a_line_is_dropped() -> None:
    draft = Draft("一二\n返回顶部\n三四", word_starts=[0, 1, 3, 5, 8, 9], spans=[(8, 10, "X")])
    BOILERPLATE(draft)
    assert draft.text == "一二\n\n三四"
    assert [draft.text[start] for start in draft.word_starts or () if draft.text[start] != "\n"] == list("一二三四")
    assert draft.spans == [(4, 6, "X")]


def test_a_span_in_a_dropped_line_is_lost() -> None:
    with pytest.raises(Unfit, match="lost_span"):
        BOILERPLATE(Draft("一\n返回顶部", spans=[(2, 4, "X")]))


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(a+)+b", "exponential"),
        ("(a|aa)+b", "exponential"),
        ("(a?a)*b", "exponential"),
        ("(?:(a+))*?b", "exponential"),
        ("(.*a){20}", "exponential"),
        (r"(a)\1x", "group"),
        ("a*b*c*d", "3 repeats"),
        ("a{0,500}b.*c.*", "3 repeats"),
        ("(", "no regular expression"),
        ("a*", "empty line"),
        ("^|a", "empty line"),
        ("(?i)a", "flags"),
        ("(?P<x>a)", "names a group"),
        ("(" * 5000 + "a" + ")" * 5000, "no regular expression"),
    ],
)
def test_dangerous_patterns_are_refused(pattern: str, problem: str, tmp_path: Any) -> None:
    assert problem in (check_pattern(pattern) or "")
    with pytest.raises(InputError, match=r"ingest\.clean\.boilerplate\.drop_lines"):
        validate(
            cleaning_section(boilerplate__drop_lines=[pattern]),
            type(cleaning_params()),
            where="ingest.clean",
            source=tmp_path / "params.yaml",
        )


@pytest.mark.parametrize(
    "pattern",
    [
        "^a.*b.*c$",
        "(?:首页|新闻)",
        r"ICP备\d+号",
        "(ab)+",
        "[a-z]{2,16}x",
        "(?i:copyright)",
        "(?<=a)b",
        "a{3}",
        "(a|b){1}",
    ],
)
def test_safe_patterns_are_taken(pattern: str) -> None:
    assert check_pattern(pattern) is None


def test_the_worst_allowed_pattern_is_quick() -> None:
    step = boilerplate_step(
        cleaning_params(boilerplate__drop_lines=["a*a*b"], boilerplate__max_line_characters=500).boilerplate
    )
    seconds = []
    for length in (125, 500):
        start = time.process_time()
        step(Draft("a" * length))
        seconds.append(time.process_time() - start)
    assert seconds[1] < 4**3 * 3 * seconds[0] + 0.5  # cubic


# --- symbols, length, intake ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("深证A股424.35425·10429·11380·88", "symbols"),
        ("1194.1030.221355190501376 3", "symbols"),
        ("¥%&*#@!~^¥%&*#@!~^ 好吧好吧 ¥%&*", "symbols"),
        ("无聊死了~~~~~~买来真是浪费钱~~~~~~", None),
        ("房间很小,有点像招待所......四星......", None),
        ("1998年1月1日新华社北京电", None),
        ("__________________________", "symbols"),
        (PLAIN, None),
        ("12345", None),  # too short to say
    ],
)
def test_symbols(text: str, reason: str | None) -> None:
    assert refused(symbols_step(cleaning_params().symbols), text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("!?。_", "no_letters"),
        ("好", "too_short"),
        ("好 ", "too_short"),
        ("好 a", None),
        ("好" * 10, None),
        ("好" * 11, "too_long"),
    ],
)
def test_length(text: str, reason: str | None) -> None:
    assert refused(length_step(cleaning_params(length__max_characters=10).length), text) == reason


def test_intake() -> None:
    step = intake_step(max_characters=5)
    assert refused(step, "a\ud83d") == "invalid_text"
    assert refused(step, "\udc00") == "invalid_text"
    assert refused(step, "a" * 6) == "too_large"
    assert refused(step, "😀" * 5) is None
