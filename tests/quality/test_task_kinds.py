"""What a task asks for is told by the counts of ingest, and its examples are checked by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from quality_corpus import Corpus, add_tasks, write_corpus

from bert_ops.corpus.own_examples import examples_from_file
from bert_ops.corpus.params import IngestParams
from bert_ops.errors import ArtifactError
from bert_ops.quality.corpus import corpus_tables
from bert_ops.quality.engine import run_suites
from bert_ops.quality.examples import TaskKind, is_label_list, is_number
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.read import corpus_files
from bert_ops.quality.suites import corpus_suites
from bert_ops.quality.survey import survey

INGEST = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8"))["ingest"]
ROWS = [
    {"a": f"第{n // 2}个前提说的是天气", "b": f"第{n}个假设", "l": "ab"[n % 2], "m": ["x"] * (n % 2), "v": n % 5}
    for n in range(120)
]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"text": "b", "label": "l"}, TaskKind("label")),
        ({"text": "b", "labels": "m"}, TaskKind("labels")),
        ({"text": "b", "value": "v"}, TaskKind("value")),
        ({"text": "a", "pair": "b", "label": "l"}, TaskKind("label", pairs=True)),
        ({"text": "a", "pair": "b", "value": "v"}, TaskKind("value", pairs=True)),
    ],
)
def test_what_ingest_writes_is_what_is_expected(
    tmp_path: Path, params: ValidateCorpusParams, arguments: dict[str, Any], kind: TaskKind
) -> None:
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    ingest = IngestParams.model_validate(INGEST)
    found = examples_from_file(tmp_path / "own.jsonl", task="own", out=tmp_path / "out", ingest=ingest, **arguments)
    assert found.used == 120
    files = corpus_files(tmp_path / "out", tmp_path / "out" / "metrics.json")
    surveyed = survey(files)
    assert surveyed.examples["own"].kind == kind
    tables = corpus_tables(files, surveyed, params)
    (frame,) = tables["task_own"]()
    flags = [name for name in frame if frame[name].dtype == bool and name not in ("labels_are_json", "is_number")]
    assert {"as_many_texts", "is_document", "on_one_side"} <= set(flags)
    assert frame[flags].all(axis=None)
    assert frame["labels_are_json"].all() or kind.target != "labels"
    assert frame["is_number"].all() or kind.target != "value"
    assert ("first_text_on_one_side" in frame) == kind.pairs


def test_labels_that_training_never_saw_are_named(corpus: Corpus, params: ValidateCorpusParams, tmp_path: Path) -> None:
    table = add_tasks(corpus).examples["topics"]
    table.loc[table["split"] == "test", "label"] = '["art", "rowing", "yoga"]'
    write_corpus(corpus, tmp_path / "corpus")
    files = corpus_files(tmp_path / "corpus", tmp_path / "ingest.json")
    found = survey(files)
    suites = [s for s in corpus_suites({"topics": found.examples["topics"].kind}, params) if s.name.endswith("_splits")]
    summary = run_suites(corpus_tables(files, found, params), suites).summary
    result = next(r for r in summary["results"] if r["what"] == "Training saw every label of each split")
    assert not result["success"]
    assert result["severity"] == "critical"
    assert result["examples"] == [{"split": "test", "examples": 6, "unseen_labels": "rowing, yoga"}]


def test_without_counts_the_columns_tell(corpus: Corpus, tmp_path: Path) -> None:
    del add_tasks(corpus).metrics["tasks"]
    write_corpus(corpus, tmp_path / "corpus")
    found = survey(corpus_files(tmp_path / "corpus", tmp_path / "ingest.json"))
    assert found.examples["entities"].kind == TaskKind("spans")
    assert found.examples["sentiment"].kind == TaskKind("label")
    assert found.examples["inference"].kind == TaskKind("label", pairs=True)


def test_a_target_that_there_is_not(corpus: Corpus, tmp_path: Path) -> None:
    corpus.metrics["tasks"]["sentiment"] = {"target": "mood", "pairs": False}
    write_corpus(corpus, tmp_path / "corpus")
    with pytest.raises(ArtifactError, match="give the task sentiment the target 'mood'"):
        survey(corpus_files(tmp_path / "corpus", tmp_path / "ingest.json"))


@pytest.mark.parametrize("text", ['["b", "a"]', '["a", "a"]', '["a", 1]', '[""]', '"a"', "a", '{"a": 1}', "[" * 2000])
def test_lists_that_are_none(text: str) -> None:
    assert not is_label_list(text)


@pytest.mark.parametrize("text", ["1", "1.50", "nan", "inf", "1e3", "1,5", "x", " 1.0", "1_0.0"])
def test_numbers_that_are_none(text: str) -> None:
    assert not is_number(text)


def test_lists_and_numbers_that_are_some() -> None:
    assert all(map(is_label_list, (None, "[]", '["a"]', '["乙", "甲"]', '["a", "b"]')))
    assert all(map(is_number, (None, "1.0", "-0.5", "1e+30", "0.1")))
