"""Lists of labels and numbers: as they are read, stored, compared and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from corpus_workspace import Workspace
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.answers import as_labels, as_value
from bert_ops.corpus.records import Unfit

TOPICS = {"kind": "jsonl", "path": "raw/rows.jsonl", "text": "text", "task": "topics", "labels": "topics"}
STARS = {"kind": "jsonl", "path": "raw/rows.jsonl", "text": "text", "task": "stars", "value": "stars"}


@pytest.mark.parametrize(
    ("value", "separator", "expected"),
    [
        (["b", "a", "b"], None, ["a", "b"]),
        ([], None, []),
        ([1, True, " x "], None, ["1", "true", "x"]),
        ('["乙", "甲"]', None, ["乙", "甲"]),
        ("[]", None, []),
        ("b|a| c ", "|", ["a", "b", "c"]),
        ("a||a|", "|", ["a"]),
        ("", "|", []),
        (" ", "|", []),
        ("one", "|", ["one"]),
        ("a, b", ", ", ["a", "b"]),
        (["a"], "|", ["a"]),
    ],
)
def test_lists_of_labels(value: Any, separator: str | None, expected: list[str]) -> None:
    assert as_labels(value, separator=separator) == json.dumps(expected, ensure_ascii=False)


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "null_label", "null"),
        ("a|b", "bad_labels", "label_separator"),
        ("", "bad_labels", "not a JSON list"),
        ('{"a": 1}', "bad_labels", "dict"),
        ("3", "bad_labels", "int"),
        (5, "bad_labels", "int"),
        ([None], "bad_labels", "the label is null"),
        ([["a"]], "bad_labels", "list"),
        ([0.5], "bad_labels", "float"),
        (["a", " "], "bad_labels", "the label is empty"),
        (["坏\ud83d的"], "bad_labels", "surrogate"),
    ],
)
def test_what_is_no_list_of_labels(value: Any, reason: str, detail: str) -> None:
    with pytest.raises(Unfit) as caught:
        as_labels(value)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)))
def test_equal_sets_of_labels_are_stored_as_equal_texts(labels: list[str]) -> None:
    stored = as_labels(labels)
    assert as_labels([*reversed(labels), *labels]) == stored == as_labels(stored)
    assert json.loads(stored) == sorted({label.strip() for label in labels})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "3.0"),
        (2.5, "2.5"),
        ("4", "4.0"),
        (" -1.50 ", "-1.5"),
        ("+.5", "0.5"),
        ("1e3", "1000.0"),
        (Decimal("0.10"), "0.1"),
        (-0.0, "0.0"),
        ("-0", "0.0"),
    ],
)
def test_numbers(value: Any, expected: str) -> None:
    assert as_value(value) == expected


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "nan", "-inf", "Infinity", "1e999", 10**400, Decimal("NaN")]
)
def test_numbers_that_are_not_finite(value: Any) -> None:
    with pytest.raises(Unfit) as caught:
        as_value(value)
    assert caught.value.reason == "bad_value"


@pytest.mark.parametrize("value", [True, [1], "three", "1_000", "0x1", "1 000", "", None, "3,5"])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(Unfit) as caught:
        as_value(value)
    assert caught.value.reason == ("null_label" if value in (None, "") else "bad_value")
    if value == "3,5":
        assert "decimal point" in caught.value.detail


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_comes_back_as_it_was(value: float) -> None:
    assert float(as_value(value)) == value
    assert as_value(as_value(value)) == as_value(value)


def rows(workspace: Workspace, key: str, answers: list[tuple[str, Any]]) -> None:
    workspace.jsonl("rows.jsonl", [{"text": text, key: answer} for text, answer in answers])


def test_lists_through_the_stage(workspace: Workspace) -> None:
    given = [("很好看", ["b", "a"]), ("不好看", []), ("还不错", "a"), ("很一般", None), ("没什么", ["a"])]
    rows(workspace, "topics", given)
    assert workspace.ingest({"topics": TOPICS}) == 0
    examples = workspace.table("examples/topics")
    assert examples["label"].tolist() == ['["a", "b"]', "[]", '["a"]']
    assert examples["spans"].isna().all()
    metrics = workspace.metrics
    assert metrics["rejected_by_reason"] == {"bad_labels": 1, "null_label": 1}
    counted = pd.DataFrame(metrics["examples"]["topics"]).fillna(0).sum(axis=1).to_dict()
    assert counted == {"a": 2, "b": 1, "(none)": 1}
    assert metrics["tasks"]["topics"] == {"target": "labels", "pairs": False}


def test_lists_that_differ_contradict_each_other(workspace: Workspace, fails: Callable[..., str]) -> None:
    given = [("很好看", ["a", "b"]), ("很好看!", ["b", "a"]), ("不好看", ["a"]), ("不好看!", []), ("还不错", [])]
    rows(workspace, "topics", given)
    assert workspace.ingest({"topics": TOPICS}) == 0
    assert workspace.metrics["rejected_by_reason"] == {"label_conflict": 2}
    assert workspace.metrics["duplicates_removed"] == 1
    assert workspace.table("quarantine")["detail"].tolist()[0] == '["a"]; raw/rows.jsonl:4: []'
    assert workspace.table("examples/topics")["label"].tolist() == ['["a", "b"]', "[]"]


def test_numbers_through_the_stage(workspace: Workspace) -> None:
    given = [
        ("很好看", 5),
        ("不好看", "1.5"),
        ("还不错", "很多"),
        ("还可以", 5.0),
        ("还可以!", 5),
        ("差得远", 1),
        ("差得远!", 2),
    ]
    rows(workspace, "stars", given)
    assert workspace.ingest({"stars": STARS}) == 0
    assert workspace.table("examples/stars")["label"].tolist() == ["5.0", "1.5", "5.0"]
    metrics = workspace.metrics
    assert metrics["rejected_by_reason"] == {"bad_value": 1, "label_conflict": 2}
    assert metrics["duplicates_removed"] == 1
    assert sum(split["numbers"] for split in metrics["examples"]["stars"].values() if split) == 3
    values = metrics["tasks"]["stars"]["values"]
    assert sum(split["count"] for split in values.values()) == 3
    assert max(split["max"] for split in values.values() if split["count"]) == 5.0
    page, readme = workspace.page.read_text(encoding="utf-8"), (workspace.out / "README.md").read_text(encoding="utf-8")
    assert "Numbers of the task" in page
    assert "Numbers of the task `stars`" in readme


def test_numbers_that_contradict_each_other_fail_if_so_decided(workspace: Workspace, fails: Callable[..., str]) -> None:
    rows(workspace, "stars", [("差得远", 1), ("差得远!", 2)])
    message = fails({"stars": STARS}, label_conflicts="fail")
    assert "raw/rows.jsonl:1 says 1.0" in message
    assert "raw/rows.jsonl:2 says 2.0" in message


def test_a_table_with_a_separator(workspace: Workspace) -> None:
    workspace.text("rows.csv", 'text,topics\n很好看,"运动|音乐"\n不好看,\n还不错,音乐\n')
    source = TOPICS | {"kind": "csv", "path": "raw/rows.csv", "label_separator": "|"}
    assert workspace.ingest({"topics": source}) == 0
    assert workspace.table("examples/topics")["label"].tolist() == ['["运动", "音乐"]', "[]", '["音乐"]']


def test_lists_and_numbers_of_parquet(workspace: Workspace) -> None:
    frame = pd.DataFrame({"text": ["很好看", "不好看"], "topics": [[2, 1], []], "stars": [Decimal("4.50"), None]})
    frame.to_parquet(workspace.raw / "rows.parquet")
    source = TOPICS | {"kind": "parquet", "path": "raw/rows.parquet"}
    assert workspace.ingest({"topics": source}) == 0
    assert workspace.table("examples/topics")["label"].tolist() == ['["1", "2"]', "[]"]
    source = STARS | {"kind": "parquet", "path": "raw/rows.parquet"}
    assert workspace.ingest({"stars": source}) == 0
    assert workspace.table("examples/stars")["label"].tolist() == ["4.5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"value": "stars"},
            "with 2 targets (labels, value); a task needs exactly one of label, labels, value and spans",
        ),
        ({"labels": None}, "with 0 targets (none)"),
        ({"labels": None, "label": "l", "label_separator": "|"}, "label_separator is set but labels is not"),
        ({"task": None}, "labels is set but task is not"),
        ({"labels": "a..b"}, "labels is 'a..b'"),
    ],
)
def test_targets_that_cannot_be(
    workspace: Workspace, fails: Callable[..., str], change: dict[str, Any], message: str
) -> None:
    rows(workspace, "topics", [("很好看", ["a"])])
    assert message in fails({"s": {key: value for key, value in (TOPICS | change).items() if value is not None}})


def test_a_task_has_one_kind_of_target(workspace: Workspace, fails: Callable[..., str]) -> None:
    rows(workspace, "topics", [("很好看", ["a"])])
    message = fails({"one": TOPICS | {"task": "t"}, "two": STARS | {"task": "t"}})
    assert "sources.two.task is 't' with value, but sources.one gives that task labels" in message
