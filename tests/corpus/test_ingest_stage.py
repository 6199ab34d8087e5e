from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from corpus_workspace import INGEST, Workspace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_ops.corpus.tables import DOCUMENTS, EXAMPLES, SENTENCES, TableWriter
from bert_ops.io import folder_sha256

#: One character too many, and none twice: other steps shorten or refuse repetition.
LONG = "".join(chr(0x4E00 + place) for place in range(201))
REVIEWS = {"kind": "jsonl", "path": "raw/reviews.jsonl", "text": "text", "task": "sentiment", "label": "label"}
NAMES = {"kind": "jsonl", "path": "raw/names.jsonl", "text": "text", "task": "entities", "spans": "spans"}


def test_a_corpus_from_three_sources(workspace: Workspace) -> None:
    workspace.text("news.txt", "今天ＡＢＣ下雨。我们不去！\n很好。\n。。。\n今天abc下雨,我们不去\n")
    workspace.jsonl("reviews.jsonl", [{"text": "很好", "label": "p"}, {"text": "很差！", "label": "n"}])
    workspace.jsonl("names.jsonl", [{"text": "１２月江泽民", "spans": [[3, 6, "PER"]]}])
    sources = {"news": INGEST["sources"]["news"], "reviews": REVIEWS, "names": NAMES}
    assert workspace.ingest(sources) == 0

    documents = workspace.table("documents")
    assert list(documents.columns) == DOCUMENTS.names
    assert (documents["cluster"] == documents["doc_id"]).all()
    assert (documents["repeats"] == 1).all()
    assert documents["pretrain"].all()
    assert documents[["source", "text", "characters"]].to_numpy().tolist() == [
        ["news", "今天ABC下雨。我们不去!", 13],
        ["reviews", "很好", 2],
        ["reviews", "很差!", 3],
        ["names", "12月江泽民", 6],
    ]
    assert (documents["doc_id"] == documents["content_hash"].str[:16]).all()
    sentences = workspace.table("sentences")
    assert list(sentences.columns) == SENTENCES.names
    first = sentences[sentences["doc_id"] == documents["doc_id"][0]]
    assert first[["position", "text"]].to_numpy().tolist() == [[0, "今天ABC下雨。"], [1, "我们不去!"]]
    entities = workspace.table("examples/entities")
    assert list(entities.columns) == EXAMPLES.names
    assert json.loads(entities["spans"][0]) == [[3, 6, "PER"]]
    assert workspace.table("examples/sentiment")["label"].tolist() == ["p", "n"]
    assert workspace.table("examples/sentiment")["spans"].isna().all()
    quarantine = workspace.table("quarantine")
    assert quarantine.to_numpy().tolist() == [
        ["news", "raw/news.txt:3", "length", "no_letters", "only punctuation or symbols", "。。。"]
    ]
    duplicates = workspace.table("duplicates")
    assert duplicates[["source", "location", "kind"]].to_numpy().tolist() == [
        ["news", "raw/news.txt:2", "exact"],
        ["news", "raw/news.txt:4", "exact"],
    ]
    assert duplicates["doc_id"].tolist() == [documents["doc_id"][1], documents["doc_id"][0]]
    metrics = workspace.metrics
    assert (metrics["read"], metrics["documents"], metrics["rejected"], metrics["duplicates_removed"]) == (7, 4, 1, 2)
    assert metrics["duplicates_by_source"] == {"news": 2}
    assert metrics["by_source"] == {"news": 1, "reviews": 2, "names": 1}
    assert sum(metrics["by_split"].values()) == 4
    assert sum(sum(split.values()) for split in metrics["examples"]["sentiment"].values()) == 2
    splits = documents.set_index("doc_id")["split"]
    assert (splits[entities["example_id"]].to_numpy() == entities["split"]).all()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"label": "p"}, "missing_field"),
        ({"text": "没有标签"}, "missing_field"),
        ({"text": None, "label": "p"}, "not_text"),
        ({"text": 5, "label": "p"}, "not_text"),
        ({"text": ["很好"], "label": "p"}, "not_text"),
        ({"text": "坏\ud83d的", "label": "p"}, "invalid_text"),
        ({"text": "", "label": "p"}, "empty"),
        ({"text": " \u200b\u3000", "label": "p"}, "empty"),
        ({"text": "?!……", "label": "p"}, "no_letters"),
        ({"text": "好 ", "label": "p"}, "too_short"),
        ({"text": LONG, "label": "p"}, "too_long"),
        ({"text": "标签是空", "label": None}, "null_label"),
        ({"text": "标签空白", "label": " "}, "null_label"),
        ({"text": "标签小数", "label": 0.5}, "bad_label"),
        ({"text": "标签列表", "label": ["p"]}, "bad_label"),
    ],
)
def test_a_bad_row_goes_to_quarantine(
    workspace: Workspace, row: dict, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace.jsonl("reviews.jsonl", [{"text": "很好", "label": "p"}])
    with path.open("a") as handle:
        handle.write(json.dumps(row) + "\n")
    assert workspace.ingest({"reviews": REVIEWS}) == 0
    [[source, location, step, found, detail, excerpt]] = workspace.table("quarantine").to_numpy().tolist()
    assert (source, location, found) == ("reviews", "raw/reviews.jsonl:2", reason)
    assert detail
    assert step in {entry["name"] for entry in workspace.metrics["steps"]}
    assert len(excerpt) <= 200
    assert workspace.metrics["rejected_by_reason"] == {reason: 1}
    assert workspace.metrics["read"] == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "spans",
    [
        None,
        "not json",
        {"start": 0},
        [[0, 3]],
        [[0, 3, ""]],
        [[0, 3, 7]],
        [["0", 3, "PER"]],
        [[True, 3, "PER"]],
        [[0.0, 3, "PER"]],
        [[3, 3, "PER"]],
        [[2, 1, "PER"]],
        [[-1, 2, "PER"]],
        [[0, 99, "PER"]],
        [[0, 3, "PER"], [2, 4, "LOC"]],
        [[3, 4, "PER"]],  # white space
    ],
)
def test_bad_spans_go_to_quarantine(workspace: Workspace, spans: Any) -> None:
    workspace.jsonl("names.jsonl", [{"text": "很好", "spans": []}, {"text": "江泽民 在北京", "spans": spans}])
    assert workspace.ingest({"names": NAMES}) == 0
    assert list(workspace.metrics["rejected_by_reason"]) in (["bad_spans"], ["lost_span"])
    assert workspace.table("examples/entities")["spans"].tolist() == ["[]"]


@pytest.mark.parametrize(("value", "label"), [(True, "true"), (0, "0"), (-3, "-3"), (" 好 ", "好")])
def test_labels_become_strings(workspace: Workspace, value: Any, label: str) -> None:
    workspace.jsonl("reviews.jsonl", [{"text": "很好", "label": value}])
    assert workspace.ingest({"reviews": REVIEWS}) == 0
    assert workspace.table("examples/sentiment")["label"].tolist() == [label]


def test_conflicting_labels_are_dropped_and_counted(workspace: Workspace) -> None:
    rows = [("很好", "p"), ("很好！", "n"), ("很 好", "p"), ("很差", "n")]
    workspace.jsonl("reviews.jsonl", [{"text": text, "label": label} for text, label in rows])
    assert workspace.ingest({"reviews": REVIEWS}) == 0
    metrics = workspace.metrics
    assert metrics["label_conflicts"] == 1
    assert metrics["rejected_by_reason"] == {"label_conflict": 3}
    assert (metrics["read"], metrics["documents"], metrics["duplicates_removed"]) == (4, 1, 0)
    quarantine = workspace.table("quarantine")
    assert quarantine["detail"].tolist()[0] == "p; raw/reviews.jsonl:2: n"
    assert quarantine["excerpt"].tolist() == ["很好", "很好!", "很 好"]


def test_conflicting_labels_fail_if_so_decided(workspace: Workspace, fails: Callable[..., str]) -> None:
    workspace.jsonl("reviews.jsonl", [{"text": "很好", "label": "p"}, {"text": "很好!", "label": "n"}])
    message = fails({"reviews": REVIEWS}, label_conflicts="fail")
    assert "raw/reviews.jsonl:1 says p" in message
    assert "raw/reviews.jsonl:2 says n" in message


def test_a_source_of_which_nothing_is_left(workspace: Workspace, fails: Callable[..., str]) -> None:
    workspace.text("news.txt", "。。。\n好\n坏\n")
    message = fails()
    assert "not one of the 3 rows of the source news" in message
    assert "2 too_short, 1 no_letters" in message
    assert "raw/news.txt:1" in message


def test_a_corpus_of_which_nothing_is_left(workspace: Workspace, fails: Callable[..., str]) -> None:
    workspace.jsonl("reviews.jsonl", [{"text": "很好", "label": "p"}, {"text": "很好!", "label": "n"}])
    assert "no document is left of the 2 texts" in fails({"reviews": REVIEWS})


def test_two_runs_give_the_same_bytes(workspace: Workspace) -> None:
    workspace.text("news.txt", "".join(f"第{number}个故事。很好！\n" for number in range(50)) + "好\n")
    sums = []
    for _ in range(2):
        assert workspace.ingest() == 0
        sums.append((folder_sha256(workspace.out), workspace.metrics_file.read_bytes()))
    assert sums[0] == sums[1]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    few=st.lists(st.text("好坏大小天地人AB12", min_size=2, max_size=5), min_size=1, max_size=8),
    more=st.lists(st.text("好坏大小天地人AB12!。", min_size=2, max_size=5), min_size=1, max_size=8),
)
def test_no_text_changes_sides_when_others_come(workspace: Workspace, few: list[str], more: list[str]) -> None:
    sides = []
    for lines in (few, more + few):
        workspace.text("news.txt", "".join(line + "\n" for line in lines))
        assert workspace.ingest() == 0
        sides.append(workspace.table("documents").set_index("content_hash")["split"].to_dict())
    assert sides[0].items() <= sides[1].items()


def test_full_disk_keeps_the_old_corpus(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.text("news.txt", "今天下雨\n")
    assert workspace.ingest() == 0
    before = folder_sha256(workspace.out), workspace.metrics_file.read_bytes()
    workspace.text("news.txt", "今天下雪\n")
    usual = TableWriter.write

    def full(self: TableWriter, table: pa.Table) -> None:
        usual(self, table)
        if self.schema == SENTENCES:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TableWriter, "write", full)
    assert workspace.ingest() == 5
    message = capsys.readouterr().err
    assert "the disk is full" in message
    assert "Traceback" not in message
    assert (folder_sha256(workspace.out), workspace.metrics_file.read_bytes()) == before
    assert sorted(path.name for path in workspace.out.parent.iterdir()) == ["card.html", "corpus", "metrics.json"]


def test_says_what_went_in_and_what_did_not(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.text("news.txt", "今天下雨\n今天下雨!\n好\n")
    assert workspace.ingest() == 0
    said = capsys.readouterr().err
    assert "news: 2 texts from raw/news.txt; rejected 1 too_short" in said
    assert "read 3 texts: 1 documents, 1 duplicates removed (0 of them near), 1 rejected" in said
