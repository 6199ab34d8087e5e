"""Every check of every corpus suite: it holds on good data and fails on data that is planted for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from quality_corpus import KINDS, Corpus, add_tasks, make_corpus, write_corpus
from task_cases import Case, position, put, task_cases

from bert_ops.quality import datadocs, engine, read
from bert_ops.quality.corpus import corpus_tables
from bert_ops.quality.engine import Frames, Validation, run_suites
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.read import corpus_files
from bert_ops.quality.suites import corpus_suites
from bert_ops.quality.survey import survey

#: 天气很好 in UTF-8, read as Latin-1.
MOJIBAKE = "å¤©æ°\x94å¾\x88å¥½"


def documents(rows: int | slice, column: str, value: Any) -> Callable[[Corpus], None]:
    return lambda c: put(c.documents, rows, column, value)


def sentences(rows: int | slice, column: str, value: Any) -> Callable[[Corpus], None]:
    return lambda c: put(c.sentences, rows, column, value)


def duplicates(rows: int | slice, column: str, value: Any) -> Callable[[Corpus], None]:
    return lambda c: put(c.duplicates, rows, column, value)


def leaks(rows: int | slice, column: str, value: Any) -> Callable[[Corpus], None]:
    return lambda c: put(c.leaks, rows, column, value)


def keep(name: str, rows: slice) -> Callable[[Corpus], None]:
    return lambda c: setattr(c, name, getattr(c, name).iloc[rows].reset_index(drop=True))


def more(name: str, source: str, count: int) -> Callable[[Corpus], None]:
    """Repeat the first row of a table for a source."""

    def plant(c: Corpus) -> None:
        table = getattr(c, name)
        added = [table.iloc[[0]].assign(source=source)] * count
        setattr(c, name, pd.concat([table, *added], ignore_index=True))

    return plant


def metric(*keys: str, value: Any) -> Callable[[Corpus], None]:
    def plant(c: Corpus) -> None:
        found = c.metrics
        for key in keys[:-1]:
            found = found[key]
        found[keys[-1]] = value

    return plant


def unsure_file(c: Corpus) -> None:
    c.metrics["sources"]["entities"]["files"][1] |= {"encoding": "gb18030", "confidence": 0.4}


def same_in_two_splits(column: str) -> Callable[[Corpus], None]:
    """Two documents with one content hash or cluster, in different splits."""

    def plant(c: Corpus) -> None:
        put(c.documents, position(c.documents, "test"), column, c.documents[column].iloc[0])

    return plant


def leaked(c: Corpus) -> None:
    """Two of the seven test examples of a task in a document that stays."""
    table = c.examples["sentiment"]
    tests = table.loc[table["split"] == "test", "example_id"].tolist()[:2]
    rows = [{**c.leaks.iloc[0], "task": "sentiment", "example_id": test, "dropped": False} for test in tests]
    c.leaks = pd.DataFrame(rows)


CASES = [
    Case("corpus", "The corpus has enough documents", keep("documents", slice(49))),
    Case("corpus", "Every row read is a document, rejected or a duplicate", metric("read", value=204)),
    Case("corpus", "Ingest rejected few of the rows that it read", more("quarantine", "reviews", 60)),
    Case("corpus", "Enough of the visible characters are CJK ideographs", documents(slice(None), "text", "Latin")),
    Case("corpus", "The median length of a document is plausible", documents(slice(None), "text", "天气")),
    Case("corpus", "Hardly any document is longer (quantile of the lengths)", documents(slice(5), "text", "长" * 160)),
    Case(
        "corpus",
        "Few documents have near-duplicates, or a group, in the corpus",
        documents(slice(0, 24), "cluster", "one"),
    ),
    Case(
        "corpus",
        "Few rows were set aside for contradicting labels",
        metric("rejected_by_reason", value={"label_conflict": 5}),
    ),
    Case("corpus", "There is a task with labelled examples", lambda c: c.examples.clear()),
    Case("files", "The encoding of each file is known with confidence", unsure_file),
    Case("sources", "There is a source", table=lambda t: t.iloc[:0]),
    Case(
        "sources",
        "Every row read from each source is accounted for",
        metric("sources", "reviews", "read", value=99),
    ),
    Case("sources", "Each source gave documents", more("quarantine", "lost", 1)),
    Case("sources", "Ingest rejected few rows of each source", more("quarantine", "reviews", 200)),
    Case("sources", "Few rows of each source are duplicates", more("duplicates", "reviews", 200)),
    Case(
        "sources",
        "Enough characters of each source are CJK ideographs",
        lambda c: c.documents.loc[c.documents["source"] == "reviews", "text"].index.map(
            lambda row: put(c.documents, int(row), "text", "Latin letters")
        ),
    ),
    Case("documents", "There are documents", keep("documents", slice(0))),
    Case("documents", "The required columns are there", table=lambda t: t.drop(columns="source")),
    Case("documents", "Each document has an id", documents(4, "doc_id", None)),
    Case("documents", "No id occurs twice", documents(slice(4, 6), "doc_id", "same")),
    Case("documents", "Each document has a content hash", documents(4, "content_hash", None)),
    Case("documents", "A content hash is SHA-256", documents(4, "content_hash", "A" * 64)),
    Case("documents", "No content occurs twice", same_in_two_splits("content_hash")),
    Case("documents", "The id is made of the first 16 digits of the hash", documents(4, "doc_id", "0" * 16)),
    Case("documents", "Each document names its source", documents(4, "source", None)),
    Case("documents", "Each document names its cluster", documents(4, "cluster", None)),
    Case("documents", "A language is an ISO 639 code", documents(4, "language", "Chinese")),
    Case("documents", "Each document has a split", documents(4, "split", None)),
    Case("documents", "The split is known", documents(4, "split", "dev")),
    Case("documents", "No content stands in two splits (leakage)", same_in_two_splits("content_hash")),
    Case("documents", "No near-duplicates or groups stand in two splits (leakage)", same_in_two_splits("cluster")),
    Case("documents", "No text is empty", documents(4, "text", "")),
    Case("documents", "The recorded length is that of the text", documents(4, "characters", 1)),
    Case("documents", "Texts are neither too short nor too long", documents(slice(0, 3), "text", "长" * 201)),
    Case("documents", "Texts hold no U+FFFD", documents(slice(0, 3), "text", "天\ufffd")),
    Case(
        "documents",
        "Texts were decoded by the right encoding (share of signs against it; `validate_corpus.mojibake.signs`)",
        documents(slice(0, 3), "text", MOJIBAKE),
    ),
    Case("documents", "Passes over a document are counted", documents(4, "repeats", None)),
    Case("documents", "Each document of the pretraining text has sentences", keep("sentences", slice(2, None))),
    Case("documents", "A document that is kept out of pretraining has no sentences", documents(4, "pretrain", False)),
    Case("duplicates", "The kind of duplicate is known", duplicates(0, "kind", "similar")),
    Case("duplicates", "The document that was kept instead is in the corpus", duplicates(0, "doc_id", "nowhere")),
    Case("duplicates", "Near-duplicates have a similarity, equal texts none", duplicates(1, "similarity", None)),
    Case("duplicates", "A similarity is a share", duplicates(1, "similarity", 1.5)),
    Case("splits", "The three splits are counted", table=lambda t: t.iloc[:2]),
    Case("splits", "Each split has documents", documents(slice(None), "split", "train")),
    Case("splits", "Each split has sentences", sentences(slice(None), "split", "train")),
    Case(
        "splits",
        "The share of each split is near the one that ingest was given",
        documents(slice(0, 50), "split", "test"),
    ),
    Case("sentences", "There are sentences", keep("sentences", slice(0))),
    Case("sentences", "The required columns are there", table=lambda t: t.drop(columns="source")),
    Case("sentences", "A sentence stands in the split of its document (leakage)", sentences(4, "split", "test")),
    Case(
        "sentences",
        "A sentence belongs to a document that may be pretraining text",
        documents(4, "pretrain", False),
    ),
    Case("sentences", "A sentence is repeated as often as its document", sentences(4, "repeats", 7)),
    Case("sentences", "Sentences stand together and are numbered from 0 in each document", sentences(5, "position", 7)),
    Case("sentences", "No sentence is empty", sentences(5, "text", " ")),
    Case("sentences", "The lengths of given words add up to the sentence", sentences(0, "text", "天气。")),
    Case("sentences", "Sentences are not too long", sentences(slice(0, 9), "text", "长" * 101)),
    Case("leaks", "The document is in the corpus", leaks(0, "doc_id", "nowhere")),
    Case("leaks", "The example is a test example of its task", leaks(0, "task", "sentiment")),
    Case("leaks", "The share of the example that was found is a share", leaks(0, "share", 1.5)),
    Case("leaks", "A document that was dropped is kept out of pretraining", documents(0, "pretrain", True)),
    Case("leakage", "Few test examples stand in pretraining text", leaked),
    *(case for task, kind in KINDS.items() for case in task_cases(task, kind)),
]


def evaluate(
    corpus: Corpus,
    folder: Path,
    params: ValidateCorpusParams,
    *,
    suite: str | None = None,
    what: str | None = None,
    change: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> Validation:
    """Write a corpus and check it, or one suite, or one check of it over a changed table."""
    write_corpus(corpus, folder / "corpus")
    files = corpus_files(folder / "corpus", folder / "ingest.json")
    found = survey(files)
    tasks = {task: part.kind for task, part in found.examples.items()}
    suites = [s for s in corpus_suites(tasks, params) if suite in {None, s.name}]
    if what is not None:
        suites = [replace(s, checks=tuple(check for check in s.checks if check.what == what)) for s in suites]
    tables: dict[str, Frames] = dict(corpus_tables(files, found, params))
    if change is not None and suite is not None:
        original = tables[suite]
        tables[suite] = lambda: map(change, original())
    return run_suites(tables, suites)


@pytest.fixture
def corpus() -> Corpus:
    """A corpus with a task of every kind."""
    return add_tasks(make_corpus())


def test_every_check_has_a_case(params: ValidateCorpusParams) -> None:
    suites = corpus_suites(KINDS, params)
    listed = [(suite.name, check.what) for suite in suites for check in suite.checks]
    assert sorted((case.suite, case.what) for case in CASES) == sorted(listed)


def test_every_threshold_stands_in_params(params: ValidateCorpusParams) -> None:
    suites = corpus_suites(KINDS, params)
    settings = {check.setting for suite in suites for check in suite.checks if check.setting}
    assert settings == {f"validate_corpus.{name}" for name in ValidateCorpusParams.model_fields}
    for suite in suites:
        for check in suite.checks:
            if check.setting:
                limit = getattr(params, check.setting.split(".")[1])
                assert check.severity == limit.severity, check


@pytest.mark.parametrize("rows", [engine._ROWS, 90], ids=["one batch", "many batches"])
def test_good_data_passes_every_check(
    rows: int, corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_ROWS", rows)
    monkeypatch.setattr(read, "BATCH_ROWS", 30)
    validation = evaluate(corpus, tmp_path, params)
    summary = validation.summary
    assert [r for r in summary["results"] if not r["success"]] == []
    assert summary["evaluated"] == len(CASES)
    assert (summary["success"], summary["failed_critical"], summary["failed_warning"]) == (True, 0, 0)
    assert validation.rows["documents"] == 200
    assert all(suite["success"] for suite in summary["suites"].values())
    assert set(summary["groups"]) == {"documents", "examples"}
    assert sum(group["evaluated"] for group in summary["groups"].values()) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.suite}: {case.what}")
def test_planted_data_fails_the_check(case: Case, corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path) -> None:
    if case.corpus:
        case.corpus(corpus)
    validation = evaluate(corpus, tmp_path, params, suite=case.suite, what=case.what, change=case.table)
    ((check,),) = (suite.checks for suite in validation.suites)
    (result,) = validation.summary["results"]
    assert not result["success"], result
    assert "not evaluated" not in str(result["observed"])
    assert validation.summary["success"] == (check.severity == "warning")
    assert validation.summary["suites"][case.suite]["success"] == (check.severity == "warning")
    assert validation.summary["failed_critical"] + validation.summary["failed_warning"] == 1
    assert len(result["examples"]) <= 5
    assert all(len(v) <= 80 for row in result["examples"] for v in row.values() if isinstance(v, str))
    if result["unexpected_count"]:
        assert result["examples"], "a failing row must be named"


def test_batches_give_the_same_results_as_one_table(
    corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plant in (
        documents(slice(2, 9), "text", "天\ufffd"),
        documents(150, "split", "dev"),
        documents(30, "doc_id", None),
        documents(slice(95, 110), "characters", 1),
        documents(199, "language", "?"),
        sentences(slice(90, 130), "position", 9),
    ):
        plant(corpus)
    whole = evaluate(corpus, tmp_path, params).summary
    monkeypatch.setattr(engine, "_ROWS", 90)
    monkeypatch.setattr(read, "BATCH_ROWS", 7)
    split = evaluate(corpus, tmp_path, params).summary
    assert split == whole
    assert whole["failed_critical"] > 4


def test_sentences_of_one_document_may_cross_row_groups(
    corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "BATCH_ROWS", 1)
    assert evaluate(corpus, tmp_path, params, suite="sentences").summary["success"]


def test_scattered_sentences_are_not_in_order(corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path) -> None:
    rows = [1, 0, *range(2, len(corpus.sentences)), 3]
    corpus.sentences = corpus.sentences.iloc[rows].reset_index(drop=True)
    summary = evaluate(corpus, tmp_path, params, suite="sentences").summary
    result = next(r for r in summary["results"] if r["what"].startswith("Sentences stand together"))
    # the two that changed places, and the three of the document that begins twice
    assert result["unexpected_count"] == 5


def test_a_check_that_cannot_be_evaluated_fails_and_says_why(
    corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path
) -> None:
    validation = evaluate(corpus, tmp_path, params, suite="sources", change=lambda t: t.drop(columns="rejected_share"))
    failed = [r for r in validation.summary["results"] if not r["success"]]
    assert len(failed) == 1
    assert 'The column "rejected_share"' in failed[0]["observed"]
    assert failed[0]["observed"].startswith("not evaluated:")
    page = datadocs.render(validation)["sources"]
    assert 'The column "rejected_share" in BatchData' in page
    assert "Traceback (most" not in page


def test_absent_columns_are_named(corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path) -> None:
    validation = evaluate(corpus, tmp_path, params, suite="documents", change=lambda t: t.drop(columns="source"))
    observed = {r["what"]: r["observed"] for r in validation.summary["results"]}
    assert observed["The required columns are there"] == "missing: source"


def test_failing_rows_are_named_by_id_and_excerpt(corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path) -> None:
    documents(4, "split", "dev")(corpus)
    validation = evaluate(corpus, tmp_path, params, suite="documents")
    result = next(r for r in validation.summary["results"] if r["what"] == "The split is known")
    row = corpus.documents.iloc[4]
    assert result["examples"] == [{"doc_id": row["doc_id"], "excerpt": row["text"], "split": "dev"}]
    assert result["observed"] == "1 of 200 rows fail"
    assert result["unexpected_percent"] == 0.5
    page = datadocs.render(validation)["documents"]
    assert "Failing rows" in page
    assert row["doc_id"] in page


def test_dropped_leaks_do_not_count_against_a_task(
    corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path
) -> None:
    leaked(corpus)
    corpus.leaks["dropped"] = True
    assert evaluate(corpus, tmp_path, params, suite="leakage").summary["failed_warning"] == 0
