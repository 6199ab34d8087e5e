from __future__ import annotations

import pytest
from cleaning_params import cleaning_params
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning.lines import lines_step
from bert_ops.corpus.records import Draft
from bert_ops.corpus.sentences import split_offsets, split_sentences

_LINES = lines_step(cleaning_params().lines)


@pytest.mark.parametrize(
    "marked",
    [
        # Chinese; | stands where a sentence ends
        "今天下雨。|我们不去。",
        "真的吗?!|是的!!!|好",
        "一是好;|二是便宜。",
        "“你好。”|他说:“再见!”|走了。",
        "他问:“为什么?为了什么?”|没有人回答。",
        "他说:“你好。你来吗?”|然后走了。",
        "「他说『好。』我走了。」|后来呢?",
        "『一。二。』|『三。四。』|五",
        '他说:"好的。明天见。"|然后走了。|没回来。',
        '屏幕15"大。|很好。|"真的吗?不会吧?"|走了',
        "“一”和“二”。|“三",
        "“没有关上。|引号也不要紧。",
        "”多了一个。|也不要紧。”",
        "‘别走。等我。’|她说。",
        "我等......|他没来",
        "“我……我不知道。真的。”|他哭了。",
        "《你好!世界》是一本书。|(见第3页。谢谢!)后来呢?",
        "性价比好.|房间干净.|下次再来",
        "一九九六.四.五",
        "价格3.14元。|2。不好。|3.还行",
        "标题没有句号",
        "。。。|".rstrip("|"),
        "好!|「不。」|『是。』",
        "好。 |坏。".replace(" |", "| "),
        # Latin
        "It rains. |We stay!| Why? |Because.",
        "Mr. Smith met Dr. J. R. Brown at 3.14 p.m. yesterday. |They left.",
        "See Fig. 3 and No. 5. |No. |I will not.",
        "Apples, pears, etc. are fruit. |Apples, pears, etc. |Others too.",
        "The U.S. army, e.g. the navy (see p. 5), costs $1.5 bn. |Really?",
        '"Stop!" |he said. |"Why?" |Nobody knew.',
        "“Stop! Don’t go.” |He’s gone. |It’s the dogs’ bowl.",
        'He said "No. Never." |Then he left. |"Yes!',
        "«Non. Jamais.» |Il part.",
        "Visit http://a.cn/x?id=3;y=4!z now. |Thanks",
        "Wait... |what?| A...b",
        "1. Introduction is here. |2. Methods follow.",
        "node.js and file.txt stay. |Good.",
        "用iPhone打电话. |很好",
        # other scripts
        "यह ठीक है। |वह भी।",
        "هل هذا جيد؟ |نعم.",
    ],
)
def test_splits_where_marked(marked: str) -> None:
    expected = [part.strip() for part in marked.split("|")]
    assert split_sentences(" ".join(marked.replace("|", "").split())) == expected


@pytest.mark.parametrize("bracket", ["()", "《》", "【】", "[]"])
def test_brackets_protect_only_if_they_are_near_and_closed(bracket: str) -> None:
    opening, closing = bracket
    assert split_sentences(f"甲{opening}乙。丙{closing}丁") == [f"甲{opening}乙。丙{closing}丁"]
    assert split_sentences(f"甲{opening}乙。丙丁") == [f"甲{opening}乙。", "丙丁"]
    far = "字" * 200
    assert split_sentences(f"甲{opening}乙。{far}{closing}丁") == [f"甲{opening}乙。", f"{far}{closing}丁"]


def test_long_quotations_are_cut() -> None:
    speech = "字" * 60 + "。"
    assert split_sentences(f"他说:“{speech}{speech}”走了。") == [f"他说:“{speech}", f"{speech}”", "走了。"]
    short = "字" * 30 + "。"
    assert split_sentences(f"他说:“{short}{short}”走了。") == [f"他说:“{short}{short}”", "走了。"]
    # a short one within a long one stays whole
    assert split_sentences(f"“{speech}我说‘好。走。’{speech}”") == [f"“{speech}", "我说‘好。走。’", f"{speech}”"]


def test_offsets_are_those_of_the_sentences() -> None:
    text = " 标题 今天下雨。 我们不去。!! "
    assert split_offsets(text, breaks=[3]) == [(1, 3), (4, 9), (10, 17)]
    assert [text[start:end] for start, end in split_offsets(text, breaks=[3])] == split_sentences(text, breaks=[3])
    assert split_offsets("") == []
    assert split_offsets("。", breaks=[1]) == [(0, 1)]


def test_punctuation_alone_is_no_sentence() -> None:
    assert split_sentences("好。 !!! 坏。") == ["好。 !!!", "坏。"]
    assert split_sentences("!!! 好。坏。") == ["!!! 好。", "坏。"]
    assert split_sentences("") == []


def test_breaks_end_sentences_without_punctuation() -> None:
    cleaned = Draft("春天\n\n今天下雨。我们\n不去")
    _LINES(cleaned)
    assert split_sentences(cleaned.text, breaks=cleaned.breaks) == ["春天", "今天下雨。", "我们", "不去"]


PIECES = st.lists(
    st.one_of(
        st.sampled_from(list("。！？!?;…..\"'“”‘’「」()《》[]{}【】 \n好江1a")),
        st.sampled_from(["...", "Mr.", "3.14", "e.g.", "?!", " ", "\n\n", "A.", "今天", "No. 5"]),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
).map("".join)


@given(PIECES)
def test_sentences_together_are_the_text(raw: str) -> None:
    cleaned = Draft(raw)
    _LINES(cleaned)
    sentences = split_sentences(cleaned.text, breaks=cleaned.breaks)
    assert "".join("".join(sentences).split()) == "".join(cleaned.text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)
    position = 0
    for sentence in sentences:  # each stands in the text as it is, one after the other
        position = cleaned.text.index(sentence, position) + len(sentence)


@pytest.mark.parametrize("opening", ["(", "“", "「", '"', "’", ")"])
def test_time_grows_linearly_with_what_is_not_closed(opening: str) -> None:
    far = "好" * 130
    for piece in (f"{opening}{far}。", f"{far}。{opening}"):
        count = 3000
        pieces = split_sentences(piece * count)
        assert len(pieces) in (count, count + 1)
        assert "".join(pieces) == piece * count
