from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bert_ops.corpus.card import write_card
from bert_ops.corpus.card_words import encodings, label_tables, number, percent, removals, visible
from bert_ops.corpus.profile import Profile

PLANTED = '<script>alert("x")</script> | `a` [b](c)'


def facts() -> dict[str, Any]:
    profile = Profile()
    profile.add("news", "train", ["天气很好。" * n for n in range(1, 40)] + [PLANTED])
    profile.add("reviews", "test", ["Sunny day", "カラオケ"])
    return {
        "metrics": {
            "read": 60,
            "documents": 42,
            "rejected": 6,
            "duplicates_removed": 12,
            "near_duplicates_removed": 5,
            "rejected_by_reason": {"too_short": 5, "label_conflict": 1},
            "by_source": {"news": 40, "reviews": 2},
            "examples": {"mood": {"train": {"good": 3, "bad": 1}, "test": {"good": 1}}},
            "leakage": {
                "action": "drop",
                "examples_found": 2,
                "examples_checked": 9,
                "documents_found": 3,
                "documents_dropped": 3,
            },
        },
        "sources": [
            {
                "name": "news",
                "kind": "text",
                "rows": 50,
                "weight": 2.0,
                "max_documents": 100,
                "licence": "CC0",
                "files": [
                    {"path": "a.txt", "bytes": 2_000_000, "encoding": "gb18030", "confidence": 0.875},
                    {"path": "b.txt", "bytes": 10, "encoding": "utf-8", "confidence": 1.0},
                ],
            },
            {
                "name": "reviews",
                "kind": "sql",
                "rows": 10,
                "query": "SELECT a\n  FROM b | c",
                "row_count": 10,
                "content_hash": "ab" * 32,
            },
        ],
        "steps": [
            {"name": "read", "rows_in": 60, "rejected": 0},
            {"name": "unicode", "rows_in": 60, "changed": 7, "rejected": 0, "characters_in": 9, "characters_out": 8},
            {"name": "length", "rows_in": 60, "changed": 0, "rejected": 5, "characters_in": 8, "characters_out": 8},
            {"name": "label_conflicts", "rows_in": 55, "rejected": 1},
            {"name": "exact_duplicates", "rows_in": 54, "rejected": 7},
            {"name": "near_duplicates", "rows_in": 47, "rejected": 5},
        ],
        "profile": profile.result(),
        "reasons": {"too_short": "fewer characters than allowed"},
        "examples": {
            "kept": [{"source": "news", "location": "a.txt:1", "excerpt": PLANTED}],
            "dropped": {
                "too_short": [{"source": "news", "location": PLANTED, "detail": PLANTED, "excerpt": "天\u200b气"}],
                "near_duplicate": [{"source": "news", "location": "a:3", "detail": "as x", "excerpt": "好" * 500}],
            },
            "changed": {"unicode": [{"before": "Ａ\x07", "after": "A"}] * 9},
        },
    }


@pytest.fixture
def card(tmp_path: Path) -> tuple[str, str]:
    return written(facts(), tmp_path)


def written(values: dict[str, Any], folder: Path) -> tuple[str, str]:
    readme, page = folder / "corpus" / "README.md", folder / "reports" / "corpus" / "index.html"
    write_card(values, readme=readme, page=page)
    return readme.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Checks that tags are closed in order, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        if tag in {"script", "link", "img", "iframe", "object"} or any(
            name in {"src", "onclick", "onerror"} or (name == "href" and not (value or "").startswith("#"))
            for name, value in attrs
        ):
            self.loads.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing(card: tuple[str, str]) -> None:
    parser = Structure()
    parser.feed(card[1])
    assert parser.open == []
    assert parser.loads == []
    assert not re.search(r"@import|url\(", card[1])
    assert "&lt;script&gt;" in card[1]


def test_links_of_the_page_lead_somewhere(card: tuple[str, str]) -> None:
    anchors = set(re.findall(r'id="([^"]+)"', card[1]))
    targets = re.findall(r'href="#([^"]+)"', card[1])
    assert targets == ["dropped-too_short"]
    assert set(targets) <= anchors


def test_page_shows_what_was_kept_dropped_and_changed(card: tuple[str, str]) -> None:
    text = card[1]
    for shown in (
        "12</b><span>duplicates removed, 5 of them near",
        "2 of 9 test examples that were looked for stand in 3 training documents",
        '天<span class="hidden">U+200B</span>气',
        'Ａ<span class="hidden">U+0007</span>',
        "CC0",
        "not declared",
        "weight 2; at most 100 documents",
        "gb18030 (confidence 0.88), utf-8",
        "SELECT a FROM b | c",
        "fewer characters than allowed",
        "Kana",
        '3 <span class="soft">(75%)</span>',
    ):
        assert shown in text, shown
    assert text.count("Ａ") == 3, "only a few changes of a step are shown"
    assert "好" * 121 not in text, "an excerpt is no document"


def test_readme_has_the_counts_and_the_way_to_the_page(card: tuple[str, str]) -> None:
    text = card[0]
    assert "42 documents with" in text
    assert "(../reports/corpus/index.html)" in text
    assert "| length | 60 | 5 | 0 | 55 |" in text
    assert "| `too_short` | 5 | fewer characters than allowed |" in text
    assert "| train | 1 | 3 |" in text
    assert "CC0" in text
    assert "SELECT a FROM b \\| c" in text
    for line in text.splitlines():
        if line.startswith("|"):
            columns = len(re.findall(r"(?<!\\)\|", line))
            assert columns in {3, 4, 5, 6, 9}, line
    assert "<script>" not in text
    assert "天气很好。天气很好。" not in text, "the card is no copy of the corpus"


def test_equal_facts_give_equal_bytes(tmp_path: Path) -> None:
    assert written(facts(), tmp_path / "one") == written(copy.deepcopy(facts()), tmp_path / "two")


def test_a_card_needs_no_more_than_counts_and_a_profile(tmp_path: Path) -> None:
    metrics = {"read": 0, "documents": 0, "rejected": 0, "duplicates_removed": 0}
    readme, page = written({"metrics": metrics, "profile": Profile().result()}, tmp_path)
    assert "0 documents" in readme
    assert "No row was rejected" in page
    assert "There are no documents" in page


def test_nothing_disappears_between_two_steps() -> None:
    values = facts()
    del values["steps"][2], values["steps"][-1]
    listed = removals(values)
    assert [(row["name"], row["removed"]) for row in listed if row["removed"]] == [
        ("between the steps", 5),
        ("label_conflicts", 1),
        ("exact_duplicates", 7),
        ("between the steps", 5),
    ]
    assert listed[0]["rows_in"] == 60
    assert listed[-1]["rows_out"] == 42


def test_figures_as_people_write_them() -> None:
    assert [number(value) for value in (None, 0, 1234567, 85.7923, 123456.7)] == [
        "–",
        "0",
        "1,234,567",
        "85.79",
        "123,457",
    ]
    shares = [percent(share) for share in (0.0, 0.00001, 0.0123, 0.5, 0.9999, 1.0)]
    assert shares == ["0%", "< 0.01%", "1.23%", "50%", "99.99%", "100%"]


def test_lowest_confidence_of_an_encoding_is_shown() -> None:
    files = [{"encoding": "gb18030", "confidence": c} for c in (0.9, 0.7, None)] + [{"encoding": None}]
    assert encodings({"files": files}) == "gb18030 (confidence 0.70)"
    assert encodings({}) == ""


def test_hidden_characters_are_told_apart() -> None:
    assert list(visible("a b\u3000c\ufffd")) == [("a b", True), ("U+3000", False), ("c", True), ("U+FFFD", False)]


def test_of_many_labels_the_most_frequent_have_columns() -> None:
    counts = {"train": {f"l{number:02}": 100 - number for number in range(40)}, "test": {"l39": 5, "l00": 1}}
    [(title, names, rows)] = label_tables({"examples": {"topics": counts}})
    assert title == "Labels of the task `topics`"
    assert names == [*(f"l{number:02}" for number in range(30)), "10 others"]
    assert rows[0] == ("train", [*(100 - number for number in range(30)), sum(range(61, 71))])
    assert rows[1] == ("test", [1, *[0] * 29, 5])
