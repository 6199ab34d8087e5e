"""The stage as `dvc` runs it: exit codes, files, pages that open without a network, the same bytes every time."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from quality_corpus import VALUES, make_corpus, write_corpus

from bert_ops.__main__ import main
from bert_ops.io import write_parquet
from bert_ops.quality.frames import Corpus

PLANTED = '<img src="http://planted.example/x.png">'


def planted() -> Corpus:
    """A corpus with failures of several kinds, HTML among its values."""
    corpus = make_corpus()
    corpus.documents.loc[5, "split"] = PLANTED
    corpus.documents.loc[7:9, "doc_id"] = "same"
    corpus.documents.loc[11, "text"] = "<script>alert(1)</script>" * 50
    corpus.sentences["split"] = "train"
    corpus.examples["sentiment"].loc[3, "label"] = None
    corpus.examples["sentiment"].loc[4, "label"] = PLANTED
    corpus.examples["entities"].loc[3, "spans"] = '[[0, 900, "<PER>"]]'
    corpus.examples["entities"].loc[4, "spans"] = "not JSON"
    return corpus


def options(folder: Path, params: Path) -> list[str]:
    return [
        "validate_corpus",
        *("--params", str(params), "--corpus", str(folder / "corpus")),
        *("--report", str(folder / "report"), "--metrics", str(folder / "metrics.json")),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "report").rglob("*")) if p.is_file()}


class Loads(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed", "base"}:
            self.found.append(tag)
        for name, value in attrs:
            loads = name in {"src", "srcset", "poster", "data", "action", "background"} or name.startswith("on")
            leaves = name == "href" and not re.match(r"#|\.\./index\.html|datadocs/[\w.]+\.html", value or "")
            if loads or leaves:
                self.found.append(f"{tag} {name}={value}")


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the stage ran over the planted corpus."""
    folder = tmp_path_factory.mktemp("failed")
    write_corpus(planted(), folder / "corpus")
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump({"validate_corpus": VALUES}), encoding="utf-8")
    assert main(options(folder, params)) == 4
    return folder


def test_good_corpus_passes_quietly_and_without_a_connection(
    tmp_path: Path,
    params_file: Path,
    corpus: Corpus,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    write_corpus(corpus, tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("validate_corpus: passed: all ")
    assert err.count("\n") == 1
    summary = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert summary["success"] is True
    assert summary == json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))
    assert "Passed: all" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_critical_failure_is_reported_first_and_then_ends_the_stage(
    failed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((failed / "metrics.json").read_text(encoding="utf-8"))
    assert not summary["success"]
    assert summary["failed_critical"] > 3
    (failed / "report" / "index.html").unlink()
    assert main(options(failed, failed / "params.yaml")) == 4
    assert (failed / "report" / "index.html").is_file()
    message = capfd.readouterr().err
    assert "Traceback" not in message
    for result in summary["results"]:
        shown = f"- {result['suite']}: {result['what']}: " in message
        assert shown == (not result["success"] and result["severity"] == "critical"), result
    assert "3 of 200 rows fail (1.5%); allowed: every row; for example doc_id same" in message
    assert str(failed / "report" / "index.html") in message


def test_pages_load_nothing_and_show_planted_html_as_text(failed: Path) -> None:
    pages = sorted((failed / "report").rglob("*.html"))
    assert len(pages) == 10
    for path in pages:
        html = path.read_text(encoding="utf-8")
        parser = Loads()
        parser.feed(html)
        assert parser.found == [], path
        assert not re.search(r"@import|url\(", html), path
        assert "unexpected Exception" not in html, path
    assert "&lt;img src=" in (failed / "report" / "index.html").read_text(encoding="utf-8")
    assert "&lt;img src=" in (failed / "report" / "datadocs" / "documents.html").read_text(encoding="utf-8")


def test_links_of_the_pages_lead_somewhere(failed: Path) -> None:
    for path in (failed / "report").rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        anchors = set(re.findall(r'id="([^"]+)"', html))
        for target in re.findall(r'href="([^"]+)"', html):
            assert target[1:] in anchors if target.startswith("#") else (path.parent / target).is_file(), (path, target)


def test_second_run_in_a_new_process_gives_the_same_bytes(failed: Path) -> None:
    before = contents(failed)
    environment = os.environ | {"PYTHONHASHSEED": "12345", "TZ": "Asia/Shanghai"}
    command = [sys.executable, "-m", "bert_ops", *options(failed, failed / "params.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert contents(failed) == before


def test_order_of_examples_follows_the_data_not_the_results(failed: Path) -> None:
    summary = json.loads((failed / "metrics.json").read_text(encoding="utf-8"))
    result = next(r for r in summary["results"] if r["what"] == "No id occurs twice")
    assert [row["excerpt"][:4] for row in result["examples"]] == ["第7篇文", "第8篇文", "第9篇文"]


@pytest.mark.parametrize("name", ["documents", "sentences", "quarantine", "examples/sentiment"])
def test_damaged_artifacts_end_with_one_message(
    name: str, tmp_path: Path, params_file: Path, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_corpus(corpus, tmp_path / "corpus") / f"{name}.parquet"
    whole, frame = path.read_bytes(), pd.read_parquet(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert main(options(tmp_path, params_file)) == 3
    write_parquet(path, frame.drop(columns="source"))
    assert main(options(tmp_path, params_file)) == 3
    write_parquet(path, frame.assign(source=1))
    assert main(options(tmp_path, params_file)) == 3
    messages = capfd.readouterr().err
    assert "is damaged" in messages
    assert "has no column source" in messages
    assert "column source holds integer values" in messages
    assert messages.count("remedy:") == 3
    assert "Traceback" not in messages
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("name", ["documents", "sentences", "quarantine"])
def test_missing_artifact_is_named(
    name: str, tmp_path: Path, params_file: Path, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_corpus(corpus, tmp_path / "corpus") / f"{name}.parquet"
    path.unlink()
    assert main(options(tmp_path, params_file)) == 3
    assert f"{path} does not exist" in capfd.readouterr().err


def test_missing_folder_is_named(tmp_path: Path, params_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(options(tmp_path, params_file)) == 3
    assert f"{tmp_path / 'corpus'} does not exist" in capfd.readouterr().err


def test_empty_documents_end_the_stage(tmp_path: Path, params_file: Path, corpus: Corpus) -> None:
    write_corpus(replace(corpus, documents=corpus.documents.iloc[:0]), tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 4
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mostly": "much"}, "`validate_corpus.mostly` is 'much'"),
        ({"max_document_characters": 1}, "validate_corpus.min_document_characters is 2; it may not exceed"),
        ({"split_shares": {"train": 0.8, "validation": 0.1, "test": 0.2}}, "validate_corpus.split_shares sum to 1.1"),
        ({"unknown_key": 1}, "`validate_corpus.unknown_key` is not a known key"),
    ],
)
def test_bad_thresholds_are_refused(
    change: dict[str, object], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"validate_corpus": {**VALUES, **change}}), encoding="utf-8")
    assert main(options(tmp_path, params)) == 2
    assert message in capfd.readouterr().err
