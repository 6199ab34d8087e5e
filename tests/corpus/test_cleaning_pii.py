from __future__ import annotations

import time

import pytest
from cleaning_params import cleaning_params
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning.pii import is_bank_card, is_id_number, pii_step
from bert_ops.corpus.records import Draft

_MASK = pii_step(tokens=cleaning_params().pii.tokens)


def masked(text: str) -> str:
    draft = Draft(text)
    _MASK(draft)
    return draft.text


def luhn(digits: str) -> str:
    """Add the check digit that makes a number valid, by trying all ten: another way than the code's."""
    for check in "0123456789":
        total = 0
        for place, digit in enumerate(reversed(digits + check)):
            value = int(digit) * (1 + place % 2)
            total += value // 10 + value % 10
        if total % 10 == 0:
            return digits + check
    raise AssertionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # identity numbers (published examples of GB 11643, and the same with other check characters)
        ("身份证11010519491231002X。", "身份证[ID]。"),
        ("身份证号:11010519491231002x,男", "身份证号:[ID],男"),
        ("440524188001010014", "[ID]"),
        # Chinese phones
        ("电话13800138000。", "电话[PHONE]。"),
        ("打 138 0013 8000 或 138-0013-8000", "打 [PHONE] 或 [PHONE]"),
        ("+8613800138000 +86 138 0013 8000 +86-13800138000 008613800138000 86-13800138000", "[PHONE] " * 4 + "[PHONE]"),
        ("010-12345678", "010-12345678"),  # no local number begins with 1
        ("010-62345678,(010)62345678,01062345678", "[PHONE],[PHONE],[PHONE]"),
        ("0755-26001234转8001", "[PHONE]"),
        ("13800138000,13900139000/13700137000、13600136000", "[PHONE],[PHONE]/[PHONE]、[PHONE]"),
        ("0571 8765432", "[PHONE]"),
        ("+86 10 6234 5678 +86 755 26001234", "[PHONE] [PHONE]"),
        ("400-820-8820 400-8208820 800 8208820 400-8888-888", "[PHONE] [PHONE] [PHONE] [PHONE]"),
        # others
        ("+1 (212) 555-0123, +44 20 7946 0958, +852 2345 6789", "[PHONE], [PHONE], [PHONE]"),
        ("(212) 555-0123 or 212-555-0123", "[PHONE] or [PHONE]"),
        # e-mail
        ("写信给zhang.san+x@mail.example.com.cn。", "写信给[EMAIL]。"),
        ("<a_b@example.org>, c@d.io.", "<[EMAIL]>, [EMAIL]."),
        # bank cards
        ("卡号4111111111111111", "卡号[CARD]"),
        ("4111 1111 1111 1111 和 4111-1111-1111-1111", "[CARD] 和 [CARD]"),
        (f"银联{luhn('622202123456789012')}", "银联[CARD]"),
        ("6222 0212 3456 7890 " + luhn("622202123456789012")[-3:], "[CARD]"),
        ("378282246310005", "[CARD]"),
        # addresses of machines
        ("服务器192.168.1.10。", "服务器[IP]。"),
        ("2001:db8::ff00:42:8329 ::ffff:10.0.0.100", "[IP] ::ffff:[IP]"),
    ],
)
def test_masks(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2008年5月20日 2008-05-20 20080520 2008.05.20 12:30:45",
        "20080520123045 2008-05-20 12:30",
        "金额1,234,567.89元,人民币12345678.90元,增长3.14159265%",
        "ISBN 978-7-302-51145-8 9787302511458 7-302-51145-8",
        "110105194912310021",  # wrong check character
        "99010519491231002X",  # no such province
        "11010519491331002X",  # no such month
        "4111111111111112",  # wrong check digit
        "1234567890123456 12345678901234567890 6922266446771",
        "0000000000000000 11111111111",
        "238001380001 12800138000 1380013800 A13800138000 13800138000a",
        "订单号2013800138000123 编号:13800138000.5",
        "上证A股1258·491265·861322 1998-1999 3-2-1",
        "1.2.3 v1.2.3.4 山西1.30.90.5 1.2.3.4.500 256.1.1.1",
        "12:30:45:67 ::: a::b 比分3:2:1:0",
        "a@b @某人 me@localhost x@y.z",
        "(1997)12345678 第0123456789号",
        "一加一等于二",
        "1200-1500 18-25岁 10-20-30 2020-2021-2022",
        "10000000000 19999999999999",
        "T+1 2+3 +5 +10%",
    ],
)
def test_leaves_other_numbers(text: str) -> None:
    assert masked(text) == text


def test_only_the_kinds_that_are_named() -> None:
    draft = Draft("a@b.com 13800138000")
    pii_step(tokens={"phone": "<电话>"})(draft)
    assert draft.text == "a@b.com <电话>"


def test_spans_and_words_follow() -> None:
    text = "张三的电话是13800138000,信箱是a@b.com。"
    words = [0, 2, 3, 5, 6, 10, 17, 18, 20, 21, 28]
    draft = Draft(text, spans=[(0, 2, "PER"), (8, 12, "X"), (21, 28, "MAIL")], word_starts=words, breaks=(18,))
    _MASK(draft)
    assert draft.text == "张三的电话是[PHONE],信箱是[EMAIL]。"
    assert [draft.text[start:end] for start, end, _ in draft.spans] == ["张三", "[PHONE]", "[EMAIL]"]
    assert [draft.text[start] for start in draft.word_starts or ()] == list("张的电是[,信是[。")
    assert draft.text[draft.breaks[0]] == "信"


@given(st.text("0123456789 ()+-.:@aXx转元,", max_size=60), st.sets(st.integers(0, 59)))
def test_what_follows_does_not_change_the_text(text: str, places: set[int]) -> None:
    draft = Draft(text, word_starts=sorted(place for place in places if place < len(text)))
    _MASK(draft)
    assert draft.text == masked(text)


@given(st.integers(10**14, 10**15 - 1))
def test_luhn_finds_every_wrong_digit(number: int) -> None:
    good = luhn(f"4{number:015d}"[:15])
    assert is_bank_card(good)
    for place in range(1, 16):
        for other in "0123456789".replace(good[place], ""):
            assert not is_bank_card(good[:place] + other + good[place + 1 :])


def test_check_character_finds_every_wrong_digit() -> None:
    good = "11010519491231002X"
    for place in range(17):
        for other in "0123456789".replace(good[place], ""):
            assert not is_id_number(good[:place] + other + good[place + 1 :])


@pytest.mark.parametrize("piece", ["1", "1-", "+1 ", "a.", "1.", "a@", ":", "(010)", "138 ", "a1"])
def test_time_grows_linearly(piece: str) -> None:
    seconds = []
    for count in (10_000, 40_000):
        start = time.process_time()
        masked(piece * count + "@")
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0] + 0.2
