"""Near-duplicates, groups, weights, caps, leaks, given words and worker processes, through the stage."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from corpus_workspace import INGEST, Workspace

from bert_ops.corpus import prepare, tables
from bert_ops.io import folder_sha256

ALPHABET = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"
NEWS = INGEST["sources"]["news"]
#: One character too many, and none twice: other steps shorten or refuse repetition.
LONG = "".join(chr(0x4E00 + place) for place in range(201))
REVIEWS = {"kind": "jsonl", "path": "raw/reviews.jsonl", "text": "text", "task": "sentiment", "label": "label"}


def text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(length))


def test_near_duplicates_are_removed_and_named(workspace: Workspace) -> None:
    rng = random.Random(1)
    one, other = text(rng, 90), text(rng, 90)
    workspace.text("news.txt", f"{one}\n{other}\n{one}天\n{one}！\n")
    assert workspace.ingest() == 0
    duplicates = workspace.table("duplicates")
    assert duplicates[["location", "kind"]].to_numpy().tolist() == [
        ["raw/news.txt:3", "near"],
        ["raw/news.txt:4", "exact"],
    ]
    assert duplicates["similarity"][0] == pytest.approx(86 / 87)
    assert set(duplicates["doc_id"]) == {workspace.table("documents")["doc_id"][0]}
    metrics = workspace.metrics
    assert (metrics["documents"], metrics["duplicates_removed"], metrics["near_duplicates_removed"]) == (2, 2, 1)
    assert [step["name"] for step in metrics["steps"]][-2:] == ["exact_duplicates", "near_duplicates"]


def test_near_duplicates_stay_if_so_decided(workspace: Workspace) -> None:
    one = text(random.Random(1), 90)
    workspace.text("news.txt", f"{one}\n{one}天\n")
    assert workspace.ingest(near_duplicates=INGEST["near_duplicates"] | {"remove": False}) == 0
    assert workspace.metrics["documents"] == 2


def test_near_texts_with_labels_of_their_own_stay_on_one_side(workspace: Workspace) -> None:
    rng = random.Random(2)
    bodies = [text(rng, 80) for _ in range(60)]
    rows = [{"text": body + tail, "label": label} for body in bodies for tail, label in (("好", "p"), ("差", "n"))]
    workspace.jsonl("reviews.jsonl", rows)
    assert workspace.ingest({"reviews": REVIEWS}) == 0
    documents = workspace.table("documents")
    assert len(documents) == 120
    assert documents["cluster"].nunique() == 60
    assert (documents.groupby("cluster")["split"].nunique() == 1).all()
    assert documents["split"].nunique() == 3
    examples = workspace.table("examples/sentiment")
    assert examples["cluster"].tolist() == documents["cluster"].tolist()
    assert workspace.metrics["clusters"] == {"with_many": 60, "largest": 2}


def test_a_near_text_without_a_label_goes_and_one_with_the_same_label_too(workspace: Workspace) -> None:
    one = text(random.Random(3), 80)
    workspace.text("news.txt", f"{one}天\n")
    workspace.jsonl("reviews.jsonl", [{"text": one, "label": "p"}, {"text": one + "地", "label": "p"}])
    assert workspace.ingest({"news": NEWS, "reviews": REVIEWS}) == 0
    assert workspace.table("documents")["source"].tolist() == ["reviews"]
    assert workspace.table("examples/sentiment")["text"].tolist() == [one]
    assert workspace.metrics["near_duplicates_removed"] == 2


def test_a_group_stays_together(workspace: Workspace) -> None:
    rng = random.Random(4)
    rows = [{"text": text(rng, 30), "author": number // 5} for number in range(200)]
    workspace.jsonl("books.jsonl", rows)
    source = {"kind": "jsonl", "path": "raw/books.jsonl", "text": "text", "group": "author"}
    assert workspace.ingest({"books": source}) == 0
    documents = workspace.table("documents")
    assert documents["split"].nunique() == 3
    for start in range(0, 200, 5):
        assert documents["split"][start : start + 5].nunique() == 1
        assert documents["cluster"][start : start + 5].nunique() == 1
    assert documents["cluster"].nunique() == 40


@pytest.mark.parametrize("group", [1.5, ["a"], True])
def test_a_bad_group_goes_to_quarantine(workspace: Workspace, group: object) -> None:
    workspace.jsonl("books.jsonl", [{"text": "很好", "author": "a"}, {"text": "不好", "author": group}])
    source = {"kind": "jsonl", "path": "raw/books.jsonl", "text": "text", "group": "author"}
    assert workspace.ingest({"books": source}) == 0
    assert workspace.metrics["rejected_by_reason"] == {"bad_group": 1}


def test_a_weight_says_how_often_a_text_is_read(workspace: Workspace) -> None:
    rng = random.Random(5)
    workspace.text("news.txt", "".join(text(rng, 30) + "\n" for _ in range(400)))
    assert workspace.ingest({"news": NEWS | {"weight": 2.25}}) == 0
    documents = workspace.table("documents")
    train = documents[documents["split"] == "train"]["repeats"]
    assert set(train) == {2, 3}
    assert 2.15 < train.mean() < 2.35
    assert set(documents[documents["split"] != "train"]["repeats"]) == {1}
    assert workspace.ingest({"news": NEWS | {"weight": 0.5}}) == 0
    documents = workspace.table("documents")
    train = documents[documents["split"] == "train"]
    assert 0.4 < train["repeats"].mean() < 0.6
    read = workspace.table("sentences")
    assert set(read["doc_id"]) == set(documents[documents["repeats"] > 0]["doc_id"])


def test_a_cap_ends_a_source_early(workspace: Workspace) -> None:
    rng = random.Random(6)
    lines = [text(rng, 30) for _ in range(50)]
    lines[3] = "。。。"
    workspace.text("news.txt", "".join(line + "\n" for line in lines))
    assert workspace.ingest({"news": NEWS | {"max_documents": 10}}) == 0
    assert workspace.table("documents")["text"].tolist() == [line for line in lines[:11] if line != "。。。"]
    metrics = workspace.metrics
    assert (metrics["read"], metrics["documents"], metrics["rejected"]) == (11, 10, 1)
    assert metrics["sources"]["news"]["capped"]
    assert workspace.ingest({"news": NEWS | {"max_characters": 100}}) == 0
    assert workspace.metrics["documents"] == 3
    assert workspace.ingest({"news": NEWS | {"max_documents": 50}}) == 0
    assert not workspace.metrics["sources"]["news"]["capped"]


def test_a_test_example_quoted_in_a_training_text_is_kept_out(workspace: Workspace) -> None:
    rng = random.Random(7)
    reviews = [text(rng, 40) for _ in range(60)]
    workspace.jsonl("reviews.jsonl", [{"text": t, "label": "pn"[i % 2]} for i, t in enumerate(reviews)])
    workspace.text("news.txt", "".join(f"{text(rng, 60)}。{review}{text(rng, 60)}\n" for review in reviews))
    sources = {"news": NEWS, "reviews": REVIEWS}
    assert workspace.ingest(sources) == 0
    leaks, documents = workspace.table("leaks"), workspace.table("documents").set_index("doc_id")
    examples = workspace.table("examples/sentiment").set_index("example_id")
    assert len(leaks) > 0
    assert leaks["dropped"].all()
    assert set(documents.loc[leaks["doc_id"], "split"]) == {"train"}
    assert set(examples.loc[leaks["example_id"], "split"]) == {"test"}
    assert not documents.loc[leaks["doc_id"], "pretrain"].any()
    assert documents["pretrain"].sum() == len(documents) - leaks["doc_id"].nunique()
    assert not set(workspace.table("sentences")["doc_id"]) & set(leaks["doc_id"])
    for doc_id, example_id in zip(leaks["doc_id"], leaks["example_id"], strict=True):
        assert examples.loc[example_id, "text"] in documents.loc[doc_id, "text"]
    found = workspace.metrics["leakage"]
    assert found["examples_checked"] == (examples["split"] == "test").sum()
    assert found["documents_dropped"] == leaks["doc_id"].nunique()

    assert workspace.ingest(sources, leakage=INGEST["leakage"] | {"action": "report"}) == 0
    assert not workspace.table("leaks")["dropped"].any()
    assert workspace.table("documents")["pretrain"].all()
    assert workspace.metrics["leakage"]["documents_dropped"] == 0
    assert workspace.ingest(sources, leakage=INGEST["leakage"] | {"action": "off"}) == 0
    assert len(workspace.table("leaks")) == 0


def test_given_words_follow_the_text(workspace: Workspace) -> None:
    rows = [
        {"text": "我们 喜欢ＡＢＣ。今天下雨！", "words": ["我们", "喜欢", "ＡＢＣ", "。", "今天", "下雨", "！"]},
        {"text": "没有词的文章", "words": None},
    ]
    workspace.jsonl("words.jsonl", rows)
    source = {"kind": "jsonl", "path": "raw/words.jsonl", "text": "text", "words": "words"}
    assert workspace.ingest({"words": source}) == 0
    sentences = workspace.table("sentences")
    given = {s: None if w is None else w.tolist() for s, w in zip(sentences["text"], sentences["words"], strict=True)}
    assert given.pop("没有词的文章") is None
    for sentence, lengths in given.items():
        assert sum(lengths) == len("".join(sentence.split()))
    assert given["今天下雨!"] == [2, 2, 1]


@pytest.mark.parametrize("words", [["我们", "讨厌"], ["我们"], "x", 5, ["我们", 5]])
def test_words_that_are_not_the_text(workspace: Workspace, words: object) -> None:
    rows = [{"text": "很好", "words": ["很", "好"]}, {"text": "我们喜欢", "words": words}]
    workspace.jsonl("words.jsonl", rows)
    source = {"kind": "jsonl", "path": "raw/words.jsonl", "text": "text", "words": "words"}
    assert workspace.ingest({"words": source}) == 0
    assert workspace.metrics["rejected_by_reason"] == {"bad_words": 1}


def test_a_bad_row_ends_the_stage_if_so_decided(workspace: Workspace, fails: Callable[..., str]) -> None:
    workspace.text("news.txt", "今天下雨\n。。。\n")
    message = fails({"news": NEWS | {"bad_rows": "fail"}})
    assert "raw/news.txt:2 cannot be used: no_letters" in message


def test_every_step_accounts_for_its_rows(workspace: Workspace) -> None:
    rng = random.Random(8)
    lines = [text(rng, 40) for _ in range(30)] + ["。。。", "好", LONG]
    workspace.text("news.txt", "".join(line + "\n" for line in [*lines, *lines[:5]]))
    labelled = [("一样的话", "p"), ("一样的话", "n"), ("另一句话", "p")]
    workspace.jsonl("reviews.jsonl", [{"text": t, "label": label} for t, label in labelled])
    assert workspace.ingest({"news": NEWS, "reviews": REVIEWS}) == 0
    metrics = workspace.metrics
    rows = metrics["read"]
    for step in metrics["steps"]:
        assert step["rows_in"] == rows
        assert step["rows_out"] == step["rows_in"] - step["rejected"]
        rows = step["rows_out"]
    assert rows == metrics["documents"] == len(workspace.table("documents"))
    for facts in metrics["sources"].values():
        assert facts["read"] == facts["documents"] + facts["duplicates"] + facts["rejected"]
    assert len(workspace.table("quarantine")) == metrics["rejected"]
    assert len(workspace.table("duplicates")) == metrics["duplicates_removed"]


def test_workers_chunks_and_row_groups_do_not_change_the_result(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(9)
    bodies = [text(rng, 50) for _ in range(300)]
    lines = [*bodies, *(body + "天" for body in bodies[:40]), *bodies[:20], *["。。。"] * 9]
    rng.shuffle(lines)
    workspace.text("news.txt", "".join(line + "\n" for line in lines))
    monkeypatch.setattr("bert_ops.corpus.ingest._CHUNK_ROWS", 16)
    assert workspace.ingest() == 0
    alone = folder_sha256(workspace.out), workspace.metrics_file.read_bytes(), workspace.page.read_bytes()
    workspace.workers = 2
    assert workspace.ingest() == 0
    assert (folder_sha256(workspace.out), workspace.metrics_file.read_bytes(), workspace.page.read_bytes()) == alone
    expected = workspace.table("documents").to_dict("records")
    monkeypatch.setattr("bert_ops.corpus.ingest._CHUNK_ROWS", 4000)
    monkeypatch.setattr(tables.TableWriter.__init__, "__kwdefaults__", {"row_group_bytes": 1000})
    assert workspace.ingest() == 0
    assert workspace.table("documents").to_dict("records") == expected
    sentences = workspace.table("sentences")
    assert (sentences.groupby("doc_id")["position"].apply(lambda p: p.tolist() == list(range(len(p))))).all()


def test_a_cap_gives_the_same_facts_with_any_workers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(10)
    workspace.text("news.txt", "".join(text(rng, 30) + "\n" for _ in range(500)))
    monkeypatch.setattr("bert_ops.corpus.ingest._CHUNK_ROWS", 8)
    found = []
    for workers in (1, 2):
        workspace.workers = workers
        assert workspace.ingest({"news": NEWS | {"max_documents": 50}}) == 0
        found.append((workspace.metrics, folder_sha256(workspace.out)))
    assert found[0] == found[1]
    assert found[0][0]["documents"] == 50


def test_no_scratch_is_left_behind(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.text("news.txt", "今天下雨\n")

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(prepare.Cleaner, "clean", broken)
    with pytest.raises(RuntimeError):
        workspace.ingest()
    assert list((workspace.folder / "out").iterdir()) == []


def test_the_readme_and_the_page_are_written(workspace: Workspace) -> None:
    workspace.text("news.txt", "今天下雨\n今天下雪\n。。。\n")
    assert workspace.ingest() == 0
    readme = (workspace.out / "README.md").read_text(encoding="utf-8")
    page = workspace.page.read_text(encoding="utf-8")
    assert "no_letters" in readme + page
    assert "今天下雨" in page
    assert json.loads(workspace.metrics_file.read_text())["documents"] == 2
