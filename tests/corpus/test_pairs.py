"""Pairs of texts through the ingest stage: cleaned, compared, split and looked for as the two texts that they are."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from corpus_workspace import INGEST, Workspace

from bert_ops.corpus.keys import PAIR, content_hash, key
from bert_ops.io import folder_sha256

ALPHABET = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"
NLI = {"kind": "jsonl", "path": "raw/nli.jsonl", "text": "a", "pair": "b", "task": "nli", "label": "label"}
NEWS = INGEST["sources"]["news"]


def text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(length))


def write(workspace: Workspace, rows: list[tuple[Any, Any, Any]]) -> None:
    lines = [json.dumps({"a": a, "b": b, "label": label}) + "\n" for a, b, label in rows]
    workspace.text("nli.jsonl", "".join(lines))


def test_a_pair_is_an_example_and_a_document_of_both_texts(workspace: Workspace) -> None:
    write(workspace, [("今天ＡＢＣ下雨。我们不去！", "他们 在家", "e"), ("很好的一天", "天气不好。真的！", "c")])
    assert workspace.ingest({"nli": NLI}) == 0
    examples = workspace.table("examples/nli")
    assert list(examples.columns)[3:6] == ["text", "pair", "label"]
    assert examples[["text", "pair", "label"]].to_numpy().tolist() == [
        ["今天ABC下雨。我们不去!", "他们 在家", "e"],
        ["很好的一天", "天气不好。真的!", "c"],
    ]
    documents, sentences = workspace.table("documents"), workspace.table("sentences")
    assert documents["text"].tolist() == ["今天ABC下雨。我们不去!\n他们 在家", "很好的一天\n天气不好。真的!"]
    assert documents["characters"].tolist() == [len(text) for text in documents["text"]]
    assert documents["content_hash"][0] == content_hash(key("今天ABC下雨我们不去") + PAIR + key("他们在家"))
    first = sentences[sentences["doc_id"] == documents["doc_id"][0]]
    assert first["text"].tolist() == ["今天ABC下雨。", "我们不去!", "他们 在家"]
    assert workspace.metrics["tasks"] == {"nli": {"target": "label", "pairs": True}}
    assert workspace.metrics["characters"] == documents["characters"].sum()


def test_single_texts_have_no_second_one(workspace: Workspace) -> None:
    workspace.jsonl("nli.jsonl", [{"a": "很好", "b": "很差", "label": "p"}])
    assert workspace.ingest({"nli": {k: v for k, v in NLI.items() if k != "pair"}}) == 0
    assert workspace.table("examples/nli")["pair"].isna().all()
    assert workspace.table("documents")["text"].tolist() == ["很好"]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (None, "not_text"),
        (5, "not_text"),
        ("", "empty"),
        ("……!", "no_letters"),
        ("好", "too_short"),
        ("坏\ud83d的", "invalid_text"),
        ("长" * 7 + "".join(chr(0x4E00 + place) for place in range(201)), "too_long"),
    ],
)
def test_a_second_text_that_fails_rejects_the_pair(workspace: Workspace, second: Any, reason: str) -> None:
    write(workspace, [("很好的", "不差的", "e"), ("第一个没事", second, "e")])
    assert workspace.ingest({"nli": NLI}) == 0
    [[location, found, detail]] = workspace.table("quarantine")[["location", "reason", "detail"]].to_numpy().tolist()
    assert (location, found) == ("raw/nli.jsonl:2", reason)
    assert "second text" in detail or reason == "no_letters"
    rows = workspace.metrics["read"]
    for step in workspace.metrics["steps"]:
        assert step["rows_in"] == rows
        rows = step["rows_out"]


def test_pairs_are_equal_if_both_texts_are_in_their_order(workspace: Workspace) -> None:
    rows = [
        ("很好的", "不差的", "e"),
        ("很好的!", "不差 的", "e"),
        ("不差的", "很好的", "e"),
        ("很好", "的不差的", "e"),
    ]
    write(workspace, rows)
    workspace.text("news.txt", "很好的不差的\n")
    assert workspace.ingest({"nli": NLI, "news": NEWS}) == 0
    assert workspace.metrics["by_source"] == {"nli": 3, "news": 1}
    assert workspace.table("duplicates")[["location", "kind", "excerpt"]].to_numpy().tolist() == [
        ["raw/nli.jsonl:2", "exact", "很好的!\n不差 的"]
    ]


def test_pairs_that_contradict_each_other(workspace: Workspace, fails: Callable[..., str]) -> None:
    write(workspace, [("很好的", "不差的", "e"), ("很好的!", "不差的", "c"), ("很好的", "很差的", "n")])
    assert "raw/nli.jsonl:2 says c" in fails({"nli": NLI}, label_conflicts="fail")
    assert workspace.ingest({"nli": NLI}) == 0
    assert workspace.metrics["rejected_by_reason"] == {"label_conflict": 2}
    assert workspace.table("quarantine")["excerpt"].tolist() == ["很好的\n不差的", "很好的!\n不差的"]
    assert workspace.table("examples/nli")["label"].tolist() == ["n"]


def test_one_premise_with_hypotheses_of_one_label_is_several_examples_on_one_side(workspace: Workspace) -> None:
    rng = random.Random(1)
    rows = [(premise, text(rng, 8), "ecn"[i % 2]) for premise in (text(rng, 150) for _ in range(60)) for i in range(3)]
    rng.shuffle(rows)
    write(workspace, rows)
    assert workspace.ingest({"nli": NLI}) == 0
    examples = workspace.table("examples/nli")
    assert len(examples) == 180, "alike as a whole, but not the same examples"
    by_premise = examples.groupby("text")
    assert (by_premise["split"].nunique() == 1).all()
    assert (by_premise["cluster"].nunique() == 1).all()
    assert examples["cluster"].nunique() == 60
    assert examples["split"].nunique() == 3


def test_near_pairs_are_removed_if_both_texts_are_near(workspace: Workspace) -> None:
    rng = random.Random(2)
    a, b = text(rng, 90), text(rng, 90)
    write(workspace, [(a, b, "e"), (a + "天", "地" + b, "e"), (b, a, "e"), (a, text(rng, 9), "e")])
    assert workspace.ingest({"nli": NLI}) == 0
    [duplicate] = workspace.table("duplicates").to_dict("records")
    assert (duplicate["location"], duplicate["kind"]) == ("raw/nli.jsonl:2", "near")
    assert duplicate["similarity"] == pytest.approx(86 / 87)
    assert workspace.table("examples/nli")["cluster"].nunique() == 1


@pytest.mark.parametrize("remove", [True, False])
def test_swapped_pairs_and_the_first_text_alone_share_the_side(workspace: Workspace, remove: bool) -> None:
    rng = random.Random(3)
    rows = [(text(rng, 9), text(rng, 9), "e") for _ in range(60)]
    write(workspace, rows + [(b, a, "e") for a, b, _ in rows])
    workspace.text("news.txt", "".join(f"{a}\n" for a, _, _ in rows))
    near = INGEST["near_duplicates"] | {"remove": remove}
    assert workspace.ingest({"nli": NLI, "news": NEWS}, near_duplicates=near) == 0
    documents = workspace.table("documents")
    texts = documents["text"].str.split("\n").map(lambda parts: tuple(sorted(parts)))
    sides = dict(zip(documents["text"], documents["split"], strict=True))
    assert documents.groupby(texts)["split"].nunique().max() == 1
    assert all(sides[a] == sides[f"{a}\n{b}"] == sides[f"{b}\n{a}"] for a, b, _ in rows)
    assert len(set(sides.values())) == 3


def test_no_pair_changes_sides_when_others_come(workspace: Workspace) -> None:
    rng = random.Random(4)
    premises = [text(rng, 20) for _ in range(40)]
    few = [(premise, text(rng, 9), "e") for premise in premises]
    more = [(premise, text(rng, 9), "c") for premise in premises for _ in range(2)]
    sides = []
    for rows in (few, more + few):
        write(workspace, rows)
        assert workspace.ingest({"nli": NLI}) == 0
        sides.append(workspace.table("documents").set_index("content_hash")["split"].to_dict())
    assert sides[0].items() <= sides[1].items()


def test_a_test_pair_of_which_either_text_is_quoted_is_a_leak(workspace: Workspace) -> None:
    rng = random.Random(5)
    pairs = [(text(rng, 40), text(rng, 30)) for _ in range(80)]
    write(workspace, [(a, b, "ec"[i % 2]) for i, (a, b) in enumerate(pairs)])
    quoted = [pair[i % 2] for i, pair in enumerate(pairs)]
    workspace.text("news.txt", "".join(f"{text(rng, 50)}。{quote}{text(rng, 50)}\n" for quote in quoted))
    assert workspace.ingest({"nli": NLI, "news": NEWS}) == 0
    examples = workspace.table("examples/nli").set_index("example_id")
    documents, leaks = workspace.table("documents").set_index("doc_id"), workspace.table("leaks")
    tests = set(examples.index[examples["split"] == "test"])
    expected = {
        (document, example)
        for document, row in documents.iterrows()
        for example in tests
        if row["split"] == "train" and any(examples.loc[example, side] in row["text"] for side in ("text", "pair"))
    }
    assert set(zip(leaks["doc_id"], leaks["example_id"], strict=True)) == expected
    assert {examples.loc[e, "text"] in documents.loc[d, "text"] for d, e in expected} == {True, False}
    assert not leaks.duplicated(["doc_id", "example_id"]).any()
    assert workspace.metrics["leakage"]["examples_checked"] == len(tests)


def test_a_training_pair_that_quotes_a_test_text_is_kept_out_of_pretraining(workspace: Workspace) -> None:
    rng = random.Random(6)
    reviews = [text(rng, 40) for _ in range(60)]
    workspace.jsonl("reviews.jsonl", [{"text": t, "label": "pn"[i % 2]} for i, t in enumerate(reviews)])
    write(workspace, [(text(rng, 50), text(rng, 9) + review, "e") for review in reviews])
    source = {"kind": "jsonl", "path": "raw/reviews.jsonl", "text": "text", "task": "sentiment", "label": "label"}
    assert workspace.ingest({"reviews": source, "nli": NLI}) == 0
    leaks = workspace.table("leaks")
    assert set(leaks["task"]) == {"sentiment"}
    assert not set(workspace.table("sentences")["doc_id"]) & set(leaks["doc_id"])
    assert set(leaks["doc_id"]) <= set(workspace.table("examples/nli")["example_id"])


def test_workers_and_chunks_do_not_change_pairs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    premises = [text(rng, 60) for _ in range(40)]
    rows = [(rng.choice(premises), text(rng, 12), rng.choice("ec")) for _ in range(200)]
    write(workspace, rows + rows[:20] + [(a + "天", b, label) for a, b, label in rows[:20]])
    found = []
    for workers, size in ((1, 4000), (2, 16)):
        workspace.workers = workers
        monkeypatch.setattr("bert_ops.corpus.ingest._CHUNK_ROWS", size)
        assert workspace.ingest({"nli": NLI}) == 0
        found.append((folder_sha256(workspace.out), workspace.metrics_file.read_bytes()))
    assert found[0] == found[1]


def test_caps_count_both_texts(workspace: Workspace) -> None:
    rng = random.Random(8)
    write(workspace, [(text(rng, 20), text(rng, 20), "e") for _ in range(20)])
    assert workspace.ingest({"nli": NLI | {"max_characters": 100}}) == 0
    assert workspace.metrics["documents"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": None, "label": None}, "pair is set but task is not"),
        ({"words": "w"}, "words and pair are both set"),
    ],
)
def test_pairs_that_cannot_be(
    workspace: Workspace, fails: Callable[..., str], change: dict[str, Any], message: str
) -> None:
    write(workspace, [("很好的", "不差的", "e")])
    source = {name: value for name, value in (NLI | change).items() if value is not None}
    assert message in fails({"nli": source})


def test_a_task_takes_pairs_or_single_texts(workspace: Workspace, fails: Callable[..., str]) -> None:
    write(workspace, [("很好的", "不差的", "e")])
    single = {name: value for name, value in NLI.items() if name != "pair"}
    message = fails({"one": single, "two": NLI})
    assert "sources.two gives the task 'nli' pairs, but sources.one single texts" in message


def test_a_missing_column_is_named(workspace: Workspace, fails: Callable[..., str]) -> None:
    workspace.text("nli.csv", "premise,hypothesis,label\n很好的,不差的,e\n")
    source = NLI | {"kind": "csv", "path": "raw/nli.csv", "text": "premise", "pair": "second"}
    message = fails({"nli": source})
    assert "the header of raw/nli.csv has no column second" in message
    assert "it has premise, hypothesis, label" in message
