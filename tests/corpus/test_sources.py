"""Bad input: each case ends with one message that names the file and the line, and with no output."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from corpus_workspace import Workspace

from bert_ops.__main__ import main

Fails = Callable[..., str]


def jsonl(**more: Any) -> dict[str, Any]:
    return {"s": {"kind": "jsonl", "path": "raw/s.jsonl", "text": "body"} | more}


def sqlite(**more: Any) -> dict[str, Any]:
    return {"s": {"kind": "sqlite", "path": "raw/s.sqlite", "query": "SELECT * FROM t", "text": "body"} | more}


def text(layout: str = "line", path: str = "raw/news.txt", **more: Any) -> dict[str, Any]:
    return {"s": {"kind": "text", "path": path, "layout": layout} | more}


def read(workspace: Workspace, sources: dict[str, Any]) -> list[str]:
    assert workspace.ingest(sources) == 0
    return workspace.table("documents")["text"].tolist()


def test_layouts(workspace: Workspace) -> None:
    workspace.text("news.txt", "\ufeff第一行\r\n第二行\n\n \n第三行\u2028仍是\n")
    assert read(workspace, text("line")) == ["第一行", "第二行", "第三行 仍是"]
    assert read(workspace, text("paragraph")) == ["第一行 第二行", "第三行 仍是"]
    assert read(workspace, text("file")) == ["第一行 第二行 第三行 仍是"]
    assert workspace.table("sentences")["text"].tolist() == ["第一行 第二行", "第三行 仍是"]


def test_folder_is_read_in_the_order_of_names(workspace: Workspace) -> None:
    for name in ("b.txt", "a.txt", "deep/c.txt", "d.md"):
        workspace.text(f"news/{name}", f"文件{Path(name).stem}\n")
    assert read(workspace, text(path="raw/news", pattern="*.txt")) == ["文件a", "文件b"]
    assert read(workspace, text(path="raw/news", pattern="**/*.txt")) == ["文件a", "文件b", "文件c"]


def test_jsonl_with_labels_and_spans(workspace: Workspace) -> None:
    workspace.jsonl("s.jsonl", [{"body": "江泽民在北京", "names": [[4, 6, "LOC"], [0, 3, "PER"]]}])
    read(workspace, jsonl(task="entities", spans="names"))
    examples = workspace.table("examples/entities")
    assert examples["spans"].tolist() == ['[[0, 3, "PER"], [4, 6, "LOC"]]']
    assert examples["label"].isna().all()


def test_sqlite_binds_parameters(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [("很好啊", 1), ("很差啊", 0), ("一般吧", 5)])
    query = "SELECT id, body, good FROM t WHERE good <> :hidden AND body <> :quote ORDER BY id DESC"
    parameters = {"hidden": 5, "quote": "'; DROP TABLE t; --"}
    sources = sqlite(query=query, parameters=parameters, task="sentiment", label="good", id="id")
    assert read(workspace, sources) == ["很差啊", "很好啊"]
    assert workspace.table("examples/sentiment")["label"].tolist() == ["0", "1"]


def test_sqlite_holds_spans_as_json_text(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [("去北京", '[[1, 3, "LOC"]]')])
    read(workspace, sqlite(task="entities", spans="good"))
    assert workspace.table("examples/entities")["spans"].tolist() == ['[[1, 3, "LOC"]]']


@pytest.mark.parametrize("sources", [text(), jsonl(), sqlite()])
def test_missing_source(fails: Fails, sources: dict[str, Any]) -> None:
    message = fails(sources)
    assert "`ingest.sources.s.path`" in message
    assert "does not exist" in message
    assert "data/raw/README.md" in message


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_source(workspace: Workspace, fails: Fails, content: str) -> None:
    workspace.text("news.txt", content)
    workspace.text("s.jsonl", content)
    workspace.sqlite("s.sqlite", [])
    for sources in (text(), text("paragraph"), text("file"), jsonl(), sqlite()):
        assert "the source s is empty" in fails(sources)


def test_pattern_that_matches_nothing(workspace: Workspace, fails: Fails) -> None:
    workspace.text("news/a.md", "很好")
    assert "matches the pattern '*.txt'" in fails(text(path="raw/news", pattern="*.txt"))
    assert "needs a `pattern`" in fails(text(path="raw/news"))
    assert "would do nothing" in fails(text(path="raw/news/a.md", pattern="*.md"))


@pytest.mark.parametrize("layout", ["line", "paragraph", "file"])
def test_text_that_is_not_utf8(workspace: Workspace, fails: Fails, layout: str) -> None:
    workspace.text("news.txt", "很好\n".encode() + "很坏\n".encode("gb18030"))
    message = fails(text(layout))
    assert "raw/news.txt:2 is not UTF-8" in message
    assert "byte 0xba at offset 7" in message
    assert "iconv" in message


def test_utf16_is_recognised(workspace: Workspace, fails: Fails) -> None:
    workspace.text("news.txt", "很好\n".encode("utf-16"))
    assert "UTF-16" in fails(text())


def test_jsonl_that_is_not_utf8(workspace: Workspace, fails: Fails) -> None:
    workspace.text("s.jsonl", b'{"body": "fine"}\n{"body": "\xff"}\n')
    message = fails(jsonl())
    assert "raw/s.jsonl:2 is not UTF-8" in message
    assert "offset 27" in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"body": "cut', "is not valid JSON"),
        ("{'body': 'quotes'}", "is not valid JSON"),
        ('["body"]', "holds a JSON list"),
        ("3", "holds a JSON int"),
        ("null", "holds a JSON NoneType"),
        ("[" * 100_000, "JSON"),
        ("1" * 5000, "JSON"),
    ],
)
def test_malformed_json_line(workspace: Workspace, fails: Fails, line: str, expected: str) -> None:
    workspace.text("s.jsonl", f'{{"body": "很好"}}\n\n{line}\n')
    message = fails(jsonl())
    assert "raw/s.jsonl:3" in message
    assert expected in message


def test_jsonl_without_the_field(workspace: Workspace, fails: Fails) -> None:
    workspace.jsonl("s.jsonl", [{"text": "很好", "stars": 5}])
    message = fails(jsonl(task="t", label="polarity"))
    assert "raw/s.jsonl:1 has no field body, polarity" in message
    assert "it has text, stars" in message


def test_sqlite_without_the_column(workspace: Workspace, fails: Fails) -> None:
    workspace.sqlite("s.sqlite", [("很好", 1)])
    message = fails(sqlite(text="content", task="t", label="good"))
    assert "returns no column content" in message
    assert "it returns id, body, good" in message
    assert "no such column: content" in fails(sqlite(query="SELECT content FROM t"))
    assert "no such table" in fails(sqlite(query="SELECT body FROM nowhere"))


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "INSERT INTO t (body) VALUES ('x')",
        "ATTACH DATABASE 'other.sqlite' AS other",
        "PRAGMA table_info(t)",
        "CREATE TABLE u (x)",
        "SELECT body FROM t; DELETE FROM t",
        "SELEC body",
        "SELECT body FROM t WHERE id = :missing",
    ],
)
def test_a_query_can_only_read(workspace: Workspace, fails: Fails, query: str) -> None:
    path = workspace.sqlite("s.sqlite", [("很好", 1)])
    before = path.read_bytes()
    message = fails(sqlite(query=query))
    assert "raw/s.sqlite cannot be queried" in message
    assert query in message
    assert path.read_bytes() == before
    assert not (workspace.folder / "other.sqlite").exists()


def test_not_a_database(workspace: Workspace, fails: Fails) -> None:
    workspace.text("s.sqlite", "this is no database, whatever its name says\n" * 30)
    assert "file is not a database" in fails(sqlite())
    (workspace.raw / "folder").mkdir()
    assert "is a folder" in fails(sqlite(path="raw/folder"))
    assert "is a folder" in fails(jsonl(path="raw/folder"))


def test_sqlite_text_that_is_not_utf8(workspace: Workspace, fails: Fails) -> None:
    path = workspace.sqlite("s.sqlite", [("很好", 1)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO t (body) VALUES (CAST(x'C4E3BAC3' AS TEXT))")
    message = fails(sqlite())
    assert "row 2 of the query, is not UTF-8" in message


def test_paths_outside_the_inputs(workspace: Workspace, fails: Fails) -> None:
    outside = workspace.folder / "outside.txt"
    outside.write_text("很好\n", encoding="utf-8")
    (workspace.raw / "link.txt").symlink_to(outside)
    (workspace.raw / "gone.txt").symlink_to(workspace.folder / "nowhere")
    for path in ("outside.txt", "raw/../outside.txt", "raw/link.txt", str(outside)):
        message = fails(text(path=path))
        assert "outside the stage's inputs" in message
        assert "dvc.yaml" in message
    assert str(outside) in fails(text(path="raw/link.txt"))
    assert "does not exist" in fails(text(path="raw/gone.txt"))
    assert "outside the stage's inputs" in fails(text(path="raw", pattern="*.txt"))
    assert "outside the stage's inputs" in fails(jsonl(path="raw/link.txt"))


def test_links_within_the_inputs_are_fine(workspace: Workspace) -> None:
    workspace.text("news.txt", "很好\n")
    (workspace.raw / "link.txt").symlink_to("news.txt")
    assert read(workspace, text(path="raw/link.txt")) == ["很好"]


def test_links_into_a_content_addressed_cache_are_fine(workspace: Workspace) -> None:
    cached = workspace.folder / ".dvc/cache/files/md5/ab" / ("0" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_text("很好\n", encoding="utf-8")
    (workspace.raw / "link.txt").symlink_to(cached)
    assert read(workspace, text(path="raw/link.txt")) == ["很好"]


def test_a_database_with_an_odd_name(workspace: Workspace) -> None:
    workspace.sqlite("why? 100% #1 数据.sqlite", [("很好", 1)])
    assert read(workspace, sqlite(path="raw/why? 100% #1 数据.sqlite")) == ["很好"]
    assert [path.name for path in workspace.raw.iterdir()] == ["why? 100% #1 数据.sqlite"]


def test_missing_input_folder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.text("news.txt", "很好啊\n")
    assert workspace.ingest() == 0
    arguments = ["ingest", "--params", "params.yaml", "--input", "nowhere", "--out", "x", "--metrics", "y"]
    assert main(arguments) != 0
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not Path("x").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(workspace: Workspace, fails: Fails) -> None:
    workspace.text("news.txt", "很好\n").chmod(0)
    assert "raw/news.txt cannot be read" in fails(text())


def test_read_error_is_told_as_one(workspace: Workspace, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workspace.text("news.txt", "很好\n")
    usual = Path.open

    def broken(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == path.name:
            raise PermissionError(13, "Permission denied", str(self))
        return usual(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", broken)
    assert "raw/news.txt cannot be read: Permission denied" in fails(text())
