"""Every check of every corpus suite: it holds on good data and fails on data that is planted for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pytest

from bert_ops.quality import datadocs
from bert_ops.quality.engine import run_suites
from bert_ops.quality.frames import Corpus
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.suites import corpus_suites, corpus_tables


@dataclass(frozen=True)
class Case:
    """A rule and how to break it: in the corpus, or (where reading already refuses it) in the derived table."""

    suite: str
    what: str
    corpus: Callable[[Corpus], Corpus] | None = None
    table: Callable[[pd.DataFrame], pd.DataFrame] | None = None


def put(frame: pd.DataFrame, rows: int | slice, column: str, value: Any) -> pd.DataFrame:
    """Replace values, by position."""
    changed = frame.copy()
    changed.iloc[rows, changed.columns.get_loc(column)] = value
    return changed


def documents(rows: int | slice, column: str, value: Any) -> Callable[[Corpus], Corpus]:
    return lambda c: replace(c, documents=put(c.documents, rows, column, value))


def sentences(rows: int | slice, column: str, value: Any) -> Callable[[Corpus], Corpus]:
    return lambda c: replace(c, sentences=put(c.sentences, rows, column, value))


def examples(task: str, rows: int | slice, column: str, value: Any) -> Callable[[Corpus], Corpus]:
    return lambda c: replace(c, examples=c.examples | {task: put(c.examples[task], rows, column, value)})


def no_examples(task: str) -> Callable[[Corpus], Corpus]:
    return lambda c: replace(c, examples=c.examples | {task: c.examples[task].iloc[:0]})


def only_train(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(split="train")


def rejected(source: str, count: int) -> Callable[[Corpus], Corpus]:
    return lambda c: replace(c, quarantine=pd.concat([c.quarantine.assign(source=source)] * count, ignore_index=True))


def same_content_twice(c: Corpus) -> Corpus:
    """Two documents with one hash, in different splits."""
    first, other = 0, int((c.documents["split"] == "test").to_numpy().argmax())
    return documents(other, "content_hash", c.documents["content_hash"].iloc[first])(c)


def same_example_twice(task: str) -> Callable[[Corpus], Corpus]:
    """Two examples with one hash, in different splits and with different answers."""

    def plant(c: Corpus) -> Corpus:
        table = c.examples[task]
        other = int((table["split"] == "test").to_numpy().argmax())
        table = put(table, other, "content_hash", table["content_hash"].iloc[0])
        if task == "entities":
            table = put(table, other, "spans", "[]")
        else:
            answer = {"positive": "negative", "negative": "positive"}[table["label"].iloc[0]]
            table = put(table, other, "label", answer)
        return replace(c, examples=c.examples | {task: table})

    return plant


def odd_label_in_test(task: str) -> Callable[[Corpus], Corpus]:
    def plant(c: Corpus) -> Corpus:
        row = int((c.examples[task]["split"] == "test").to_numpy().argmax())
        column, value = ("spans", '[[0, 1, "ODD"]]') if task == "entities" else ("label", "odd")
        return examples(task, row, column, value)(c)

    return plant


def task_cases(task: str) -> list[Case]:
    suite, splits = f"task_{task}", f"task_{task}_splits"
    entities = task == "entities"
    answer, column, one = ("spans", "spans", '[[0, 1, "LOC"]]') if entities else ("label", "label", "positive")
    few = lambda c: replace(c, examples=c.examples | {task: c.examples[task].iloc[:30]})  # noqa: E731
    none_at_all = examples(task, slice(None), "spans", "[]") if entities else examples(task, slice(None), "label", one)
    no_labels = examples(task, slice(None), column, "[]" if entities else None)
    cases = [
        Case(suite, "There are examples", no_examples(task)),
        Case(suite, "The required columns are there", table=lambda t: t.drop(columns="source")),
        Case(suite, "Each example has an id", examples(task, 3, "example_id", None)),
        Case(suite, "No id occurs twice", examples(task, slice(0, 2), "example_id", "x")),
        Case(suite, "No content occurs twice", same_example_twice(task)),
        Case(suite, "Each example is a document, with the same split and hash", examples(task, 0, "split", "test")),
        Case(suite, "The split is known", examples(task, 0, "split", "dev")),
        Case(suite, "No content stands in two splits (leakage)", same_example_twice(task)),
        Case(suite, "Equal contents have equal labels", same_example_twice(task)),
        Case(suite, "No text is empty", examples(task, 0, "text", " \u3000\n")),
        Case(suite, f"Each example has {'spans' if entities else 'a label'}", examples(task, 0, answer, None)),
        Case(splits, "The three splits are counted", table=lambda t: t.iloc[:2]),
        Case(splits, "Each split has enough examples", few),
        Case(splits, "There are labels to tell apart", none_at_all),
        Case(splits, "Each split has the labels of train", odd_label_in_test(task)),
        Case(splits, "Each split has labels", no_labels),
        Case(
            splits,
            "No label outnumbers the others by far (share of the most frequent)",
            examples(task, slice(0, 60), column, one),
        ),
    ]
    if entities:
        cases += [
            Case(
                suite, "Spans are a JSON list of [start, end, label]", examples(task, 0, "spans", '[[0, "2", "PER"]]')
            ),
            Case(suite, "Spans are not empty and lie within the text", examples(task, 0, "spans", '[[0, 999, "PER"]]')),
            Case(suite, "Spans do not overlap", examples(task, 0, "spans", '[[0, 3, "PER"], [2, 4, "LOC"]]')),
        ]
    return cases


CASES = [
    Case("corpus", "The corpus has enough documents", lambda c: replace(c, documents=c.documents.iloc[:49])),
    Case("corpus", "Ingest rejected few of the texts that it read", rejected("reviews", 60)),
    Case("corpus", "Enough of the visible characters are CJK ideographs", documents(slice(None), "text", "Latin")),
    Case("corpus", "There is a task with labelled examples", lambda c: replace(c, examples={})),
    Case("documents", "There are documents", lambda c: replace(c, documents=c.documents.iloc[:0])),
    Case("documents", "The required columns are there", table=lambda t: t.drop(columns="source")),
    Case("documents", "Each document has an id", documents(4, "doc_id", None)),
    Case("documents", "No id occurs twice", documents(slice(4, 6), "doc_id", "same")),
    Case("documents", "Each document has a content hash", documents(4, "content_hash", None)),
    Case("documents", "A content hash is SHA-256", documents(4, "content_hash", "A" * 64)),
    Case("documents", "No content occurs twice", same_content_twice),
    Case("documents", "The id is made of the first 16 digits of the hash", documents(4, "doc_id", "0" * 16)),
    Case("documents", "Each document names its source", documents(4, "source", None)),
    Case("documents", "Each document has a split", documents(4, "split", None)),
    Case("documents", "The split is known", documents(4, "split", "dev")),
    Case("documents", "Each split has documents", lambda c: replace(c, documents=only_train(c.documents))),
    Case("documents", "No content stands in two splits (leakage)", same_content_twice),
    Case("documents", "No text is empty", documents(4, "text", "")),
    Case("documents", "The recorded length is that of the text", documents(4, "characters", 1)),
    Case("documents", "Texts are neither too short nor too long", documents(slice(0, 3), "text", "长" * 201)),
    Case(
        "documents", "Texts hold no U+FFFD, the trace of a wrong encoding", documents(slice(0, 3), "text", "天\ufffd")
    ),
    Case("documents", "Each document has sentences", lambda c: replace(c, sentences=c.sentences.iloc[2:])),
    Case("splits", "The three splits are counted", table=lambda t: t.iloc[:2]),
    Case("splits", "Each split has documents", lambda c: replace(c, documents=only_train(c.documents))),
    Case(
        "splits",
        "Shares of the splits are near 0.8 / 0.1 / 0.1 (distance of each)",
        documents(slice(0, 50), "split", "test"),
    ),
    Case("sources", "There is a source", table=lambda t: t.iloc[:0]),
    Case("sources", "Each source gave documents", rejected("lost", 1)),
    Case("sources", "Ingest rejected few texts of each source", rejected("reviews", 200)),
    Case("sentences", "There are sentences", lambda c: replace(c, sentences=c.sentences.iloc[:0])),
    Case("sentences", "The required columns are there", table=lambda t: t.drop(columns="source")),
    Case("sentences", "A sentence stands in the split of its document (leakage)", sentences(4, "split", "test")),
    Case("sentences", "Sentences stand together and are numbered from 0 in each document", sentences(5, "position", 7)),
    Case("sentences", "No sentence is empty", sentences(5, "text", " ")),
    Case("sentences", "Each split has sentences", lambda c: replace(c, sentences=only_train(c.sentences))),
    Case("sentences", "Sentences are not too long", sentences(slice(0, 9), "text", "长" * 101)),
    *task_cases("entities"),
    *task_cases("sentiment"),
]


def test_every_check_has_a_case(corpus: Corpus, params: ValidateCorpusParams) -> None:
    listed = {(suite.name, check.what) for suite in corpus_suites(corpus, params) for check in suite.checks}
    assert {(case.suite, case.what) for case in CASES} == listed


def test_good_data_passes_every_check(corpus: Corpus, params: ValidateCorpusParams) -> None:
    summary = run_suites(corpus_tables(corpus, params), corpus_suites(corpus, params)).summary
    assert [r for r in summary["results"] if not r["success"]] == []
    assert summary["evaluated"] == len(CASES)
    assert (summary["success"], summary["failed_critical"], summary["failed_warning"]) == (True, 0, 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.suite}: {case.what}")
def test_planted_data_fails_the_check(case: Case, corpus: Corpus, params: ValidateCorpusParams) -> None:
    kinds = {suite.name: suite for suite in corpus_suites(corpus, params)}
    broken = case.corpus(corpus) if case.corpus else corpus
    tables = corpus_tables(broken, params)
    if case.table:
        tables[case.suite] = case.table(tables[case.suite])
    suite = kinds[case.suite] if case.suite.startswith("task_") else _suite(broken, params, case.suite)
    check = next(check for check in suite.checks if check.what == case.what)
    summary = run_suites(tables, [replace(suite, checks=(check,))]).summary
    (result,) = summary["results"]
    assert not result["success"], result
    assert summary["success"] == (check.severity == "warning")
    assert summary["failed_critical"] + summary["failed_warning"] == 1
    assert len(result["examples"]) <= 5
    assert all(len(v) <= 80 for row in result["examples"] for v in row.values() if isinstance(v, str))
    if result["unexpected_count"]:
        assert result["examples"], "a failing row must be named"


def _suite(corpus: Corpus, params: ValidateCorpusParams, name: str) -> Any:
    return next(suite for suite in corpus_suites(corpus, params) if suite.name == name)


def test_empty_tables_fail_in_every_suite(corpus: Corpus, params: ValidateCorpusParams) -> None:
    tables = {name: table.iloc[:0] for name, table in corpus_tables(corpus, params).items()}
    for suite in corpus_suites(corpus, params):
        assert not run_suites(tables, [suite]).summary["success"], suite.name


def test_scattered_sentences_are_out_of_order(corpus: Corpus, params: ValidateCorpusParams) -> None:
    order = [0, 2, 1, *range(3, len(corpus.sentences))]
    scattered = replace(corpus, sentences=corpus.sentences.iloc[order].reset_index(drop=True))
    table = corpus_tables(scattered, params)["sentences"]
    assert table["in_order"].tolist()[:4] == [False, False, False, False]
    assert table["in_order"].iloc[4:].all()


def test_a_check_that_cannot_be_evaluated_fails_and_says_why(corpus: Corpus, params: ValidateCorpusParams) -> None:
    tables = corpus_tables(corpus, params)
    tables["sources"] = tables["sources"].drop(columns="rejected_share")
    validation = run_suites(tables, [_suite(corpus, params, "sources")])
    failed = [r for r in validation.summary["results"] if not r["success"]]
    assert len(failed) == 1
    assert 'The column "rejected_share"' in failed[0]["observed"]
    assert failed[0]["observed"].startswith("not evaluated:")
    page = datadocs.render(validation)["sources"]
    assert 'The column "rejected_share" in BatchData' in page
    assert "Traceback (most" not in page


def test_absent_members_of_a_set_are_named(corpus: Corpus, params: ValidateCorpusParams) -> None:
    broken = replace(corpus, documents=only_train(corpus.documents))
    tables = corpus_tables(broken, params)
    tables["documents"] = tables["documents"].drop(columns="source")
    results = run_suites(tables, [_suite(broken, params, "documents")]).summary["results"]
    observed = {r["what"]: r["observed"] for r in results}
    assert observed["Each split has documents"] == "missing: test, validation"
    assert observed["The required columns are there"] == "missing: source"


def test_failing_rows_are_named_by_id_and_excerpt(corpus: Corpus, params: ValidateCorpusParams) -> None:
    broken = documents(4, "split", "dev")(corpus)
    summary = run_suites(corpus_tables(broken, params), [_suite(broken, params, "documents")]).summary
    result = next(r for r in summary["results"] if r["what"] == "The split is known")
    row = corpus.documents.iloc[4]
    assert result["examples"] == [{"doc_id": row["doc_id"], "excerpt": row["text"], "split": "dev"}]
    assert result["observed"] == "1 of 200 rows fail"
    assert result["unexpected_percent"] == 0.5
