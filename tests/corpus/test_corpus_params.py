"""Wrong values in the section ``ingest``: the message names the dotted key as it stands in params.yaml."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from corpus_workspace import INGEST, Workspace

from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.sample_params import SampleParams
from bert_ops.schema import load_section

TEXT = INGEST["sources"]["news"]
JSONL = {"kind": "jsonl", "path": "raw/a.jsonl", "text": "text"}
SPLIT = INGEST["split"]


NEAR = INGEST["near_duplicates"]


def clean(**changes: Any) -> dict[str, Any]:
    return {"clean": INGEST["clean"] | changes}


def sources(**one: Any) -> dict[str, Any]:
    return {"sources": one}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"surprise": 1}, "`ingest.surprise` is not a known key"),
        (clean(length={"min_characters": "two", "max_characters": 9}), "`ingest.clean.length.min_characters` is 'two'"),
        (clean(length={"min_characters": 300, "max_characters": 200}), "must not exceed max_characters = 200"),
        (clean(normalization="NFX"), "`ingest.clean.normalization` is 'NFX'"),
        ({"near_duplicates": NEAR | {"threshold": 2.0}}, "`ingest.near_duplicates.threshold` is 2.0"),
        ({"near_duplicates": NEAR | {"threshold": 0.1, "permutations": 8}}, "permutations do not reach it"),
        ({"leakage": {"action": "drop", "ngram": 1, "min_share": 0.5}}, "`ingest.leakage.ngram` is 1"),
        ({"reading": INGEST["reading"] | {"bad_rows": "ignore"}}, "`ingest.reading.bad_rows` is 'ignore'"),
        (sources(a=TEXT | {"weight": 0.0}), "`ingest.sources.a.weight` is 0.0"),
        (sources(a=TEXT | {"max_documents": 0}), "`ingest.sources.a.max_documents` is 0"),
        ({"label_conflicts": "keep"}, "`ingest.label_conflicts` is 'keep'"),
        ({"sources": {}}, "`ingest.sources`"),
        ({"split": SPLIT | {"train": 0.9}}, "must add up to 1"),
        ({"split": SPLIT | {"train": "most"}}, "`ingest.split.train` is 'most'"),
        ({"split": {"train": 0.8, "validation": 0.1, "test": 0.1}}, "`ingest.split.salt` is missing"),
        (sources(a=TEXT | {"layout": "page"}), "`ingest.sources.a.layout` is 'page'"),
        (sources(a={"kind": "text", "path": "x"}), "`ingest.sources.a.layout` is missing"),
        (sources(a=TEXT | {"kind": "pdf"}), "`ingest.sources.a.kind` is 'pdf': allowed are 'text', 'json', 'jsonl'"),
        (sources(a={"path": "x"}), "`ingest.sources.a.kind` is missing"),
        (sources(a=TEXT | {"query": "x"}), "`ingest.sources.a.query` is not a known key"),
        (sources(a=TEXT | {"pattern": "../*.txt"}), "`ingest.sources.a.pattern`"),
        (sources(a=TEXT | {"pattern": "/etc/*"}), "must be relative"),
        (sources(A=TEXT), "a source named 'A'"),
        (sources(**{"../a": TEXT}), "a source named '../a'"),
        (sources(a=JSONL | {"label": "x"}), "label is set but task is not"),
        (sources(a=JSONL | {"task": "t"}), "`ingest.sources.a`: task is 't' with 0 targets"),
        (sources(a=JSONL | {"task": "t", "label": "x", "spans": "y"}), "with 2 targets"),
        (sources(a=JSONL | {"task": "../t", "label": "x"}), "task is '../t'"),
        (
            sources(a=JSONL | {"task": "t", "label": "x"}, b=JSONL | {"task": "t", "spans": "x"}),
            "sources.b.task is 't' with spans, but sources.a gives that task label",
        ),
    ],
)
def test_wrong_value(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], expected: str
) -> None:
    workspace.text("news.txt", "今天下雨\n")
    assert workspace.ingest(**changes) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message
    assert "remedy" in message
    assert not workspace.out.exists()


@pytest.mark.parametrize("key", sorted(INGEST))
def test_missing_key(workspace: Workspace, capsys: pytest.CaptureFixture[str], key: str) -> None:
    value = copy.deepcopy(INGEST)
    del value[key]
    assert workspace.ingest_raw({"ingest": value}) == 2
    assert f"`ingest.{key}` is missing" in capsys.readouterr().err


def test_missing_section(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert workspace.ingest_raw({"other": {}}) == 2
    assert "no section `ingest`" in capsys.readouterr().err


def test_the_committed_file_is_valid(root: Path) -> None:
    ingest = load_section(root / "params.yaml", "ingest", IngestParams)
    assert {source.kind for source in ingest.sources.values()} == {"text", "jsonl", "sqlite"}
    load_section(root / "params.yaml", "sample", SampleParams)


def test_the_snippets_for_own_data_are_valid(root: Path) -> None:
    """data/raw/README.md: its YAML blocks together are one list of sources that the schema takes."""
    blocks = (root / "data" / "raw" / "README.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    text = "".join(block.split("```")[0] for block in blocks)
    value = yaml.safe_load(text)["ingest"]
    params = IngestParams.model_validate(copy.deepcopy(INGEST) | value)
    assert [source.kind for source in params.sources.values()] == ["text", "jsonl", "sqlite"]
    assert all(source.path.startswith("data/raw/") for source in params.sources.values())
