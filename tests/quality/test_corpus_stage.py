"""The stage as `dvc` runs it: exit codes, files, pages that open without a network, the same bytes every time."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from quality_corpus import VALUES, Corpus, make_corpus, write_corpus

from bert_ops.__main__ import main
from bert_ops.quality import datadocs

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
        *("--params", str(params), "--corpus", str(folder / "corpus"), "--ingest", str(folder / "ingest.json")),
        *("--report", str(folder / "report"), "--metrics", str(folder / "metrics.json")),
        *("--history", str(folder / "history.jsonl")),
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
    assert len(pages) == 14
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


@pytest.mark.slow
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


TABLES = ["documents", "sentences", "quarantine", "duplicates", "leaks", "examples/sentiment"]


@pytest.mark.parametrize("name", TABLES)
def test_damaged_artifacts_end_with_one_message(
    name: str, tmp_path: Path, params_file: Path, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_corpus(corpus, tmp_path / "corpus") / f"{name}.parquet"
    column = "task" if name == "leaks" else "source"
    whole, table = path.read_bytes(), pq.read_table(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert main(options(tmp_path, params_file)) == 3
    # the footer is whole, a page of values is not
    path.write_bytes(whole[:4] + bytes(byte ^ 0xFF for byte in whole[4:200]) + whole[200:])
    assert main(options(tmp_path, params_file)) == 3
    pq.write_table(table.drop_columns([column]), path)
    assert main(options(tmp_path, params_file)) == 3
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, [[1] * len(table)]), path)
    assert main(options(tmp_path, params_file)) == 3
    messages = capfd.readouterr().err
    assert messages.count("is damaged") == 2
    assert f"has no column {column}" in messages
    assert f"column {column} holds values of type int64" in messages
    assert messages.count("remedy:") == 4
    assert "Traceback" not in messages
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "history.jsonl").exists()


@pytest.mark.parametrize("name", ["documents", "sentences", "quarantine", "duplicates", "leaks"])
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


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_missing_or_damaged_counts_are_named(
    content: str | None, tmp_path: Path, params_file: Path, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    write_corpus(corpus, tmp_path / "corpus")
    path = tmp_path / "ingest.json"
    path.unlink() if content is None else path.write_text(content)
    assert main(options(tmp_path, params_file)) == 3
    message = capfd.readouterr().err
    assert str(path) in message
    assert "--single-item ingest" in message


def test_empty_documents_end_the_stage(tmp_path: Path, params_file: Path, corpus: Corpus) -> None:
    corpus.documents = corpus.documents.iloc[:0]
    write_corpus(corpus, tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 4
    assert (tmp_path / "report" / "index.html").is_file()


def test_an_empty_corpus_is_reported(tmp_path: Path, params_file: Path, corpus: Corpus) -> None:
    for name in ("documents", "sentences", "quarantine", "duplicates", "leaks"):
        setattr(corpus, name, getattr(corpus, name).iloc[:0])
    corpus.examples = {task: table.iloc[:0] for task, table in corpus.examples.items()}
    write_corpus(corpus, tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 4
    assert (tmp_path / "report" / "index.html").is_file()


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_history_grows_with_the_data_and_not_with_the_runs(tmp_path: Path, params_file: Path, corpus: Corpus) -> None:
    write_corpus(corpus, tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 0
    assert main(options(tmp_path, params_file)) == 0
    first = contents(tmp_path)
    (record,) = history(tmp_path)
    assert record["counts"] == {"documents": 200, "examples": 133}
    assert (record["failed"], record["warned"]) == ([], [])
    write_corpus(planted(), tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 4
    records = history(tmp_path)
    assert len(records) == 2
    assert "documents: No id occurs twice" in records[1]["failed"]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "2 (this one)" in page
    assert record["data"][:12] in page
    # the earlier data again: its report shows what it showed then
    write_corpus(corpus, tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 0
    assert contents(tmp_path) == first
    assert history(tmp_path) == records


def test_changed_thresholds_make_a_version_of_their_own(
    tmp_path: Path, params_file: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datadocs, "render", lambda validation: {})
    write_corpus(corpus, tmp_path / "corpus")
    assert main(options(tmp_path, params_file)) == 0
    change = {"documents": {"min": 201, "severity": "warning"}}
    params_file.write_text(yaml.safe_dump({"validate_corpus": {**VALUES, **change}}), encoding="utf-8")
    assert main(options(tmp_path, params_file)) == 0
    one, other = history(tmp_path)
    assert one["data"] == other["data"]
    assert other["warned"] == ["corpus: The corpus has enough documents"]


def test_lines_that_are_no_records_are_left_out(
    tmp_path: Path, params_file: Path, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    write_corpus(corpus, tmp_path / "corpus")
    (tmp_path / "history.jsonl").write_bytes(b'{"data": 1}\nnot JSON \xff\n[]\n')
    assert main(options(tmp_path, params_file)) == 0
    assert capfd.readouterr().err.count("is no record of an earlier validation") == 3
    assert len(history(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mojibake": {**VALUES["mojibake"], "mostly": "much"}}, "`validate_corpus.mojibake.mostly` is 'much'"),
        (
            {"document_characters": {"min": 2, "max": 1, "mostly": 1.0, "severity": "critical"}},
            "`validate_corpus.document_characters`: min is 2; it may not exceed max, 1",
        ),
        (
            {"documents": {"min": 1, "severity": "fatal"}},
            "`validate_corpus.documents.severity` is 'fatal'",
        ),
        ({"documents": {"min": 1}}, "`validate_corpus.documents.severity` is missing"),
        ({"cjk_share": {"min": 1.1, "severity": "warning"}}, "`validate_corpus.cjk_share.min` is 1.1"),
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
