"""Sources as rows: what is read, what is refused with file and line, and what ends the stage with one message."""

from __future__ import annotations

import importlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from corpus_workspace import Workspace
from source_reading import READING, put, read

from bert_ops.corpus.records import MISSING, Row
from bert_ops.corpus.source_params import ReadingParams, Source, TextSource
from bert_ops.corpus.sources import READERS, SourceReport, read_source
from bert_ops.errors import InputError

pytestmark = pytest.mark.usefixtures("workspace")


def jsonl(**more: Any) -> dict[str, Any]:
    return {"kind": "jsonl", "path": "raw/s.jsonl", "text": "body"} | more


def sqlite(**more: Any) -> dict[str, Any]:
    return {"kind": "sqlite", "path": "raw/s.sqlite", "query": "SELECT * FROM t", "text": "body"} | more


def text(layout: str = "line", path: str = "raw/news.txt", **more: Any) -> dict[str, Any]:
    return {"kind": "text", "path": path, "layout": layout} | more


def fails(source: dict[str, Any], **reading: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(source, **reading)
    return str(caught.value)


def test_every_kind_has_a_reader_and_a_section() -> None:
    sections = get_args(get_args(Source)[0])
    kinds = [kind for section in sections for kind in get_args(section.model_fields["kind"].annotation)]
    assert list(READERS) == kinds


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("line", ["第一行", "第二行", "第三行\u2028仍是"]),
        ("paragraph", ["第一行\n第二行", "第三行\u2028仍是"]),
        ("file", ["第一行\n第二行\n\n \n第三行\u2028仍是"]),
    ],
)
def test_layouts(layout: str, expected: list[str]) -> None:
    put("news.txt", "\ufeff第一行\r\n第二行\n\n \n第三行\u2028仍是\n")
    assert read(text(layout)).texts == expected


def test_locations_and_report() -> None:
    put("news.txt", "\n很好\n\n很坏\n还行\n")
    assert [row.location for row in read(text()).rows] == ["raw/news.txt:2", "raw/news.txt:4", "raw/news.txt:5"]
    result = read(text("paragraph"))
    assert [row.location for row in result.rows] == ["raw/news.txt:2", "raw/news.txt:4"]
    facts = result.report.facts()
    assert facts["rows"] == 2
    assert facts["files"]["listed"] == [
        {
            "path": "raw/news.txt",
            "bytes": 23,
            "encoding": "utf-8",
            "confidence": 1.0,
            "compression": None,
            "rows": 2,
            "rejected": 0,
        }
    ]


def test_folder_is_read_in_the_order_of_names() -> None:
    for name in ("b.txt", "a.txt", "deep/c.txt", "d.md"):
        put(f"news/{name}", f"文件{Path(name).stem}\n")
    assert read(text(path="raw/news", pattern="*.txt")).texts == ["文件a", "文件b"]
    assert read(text(path="raw/news", pattern="**/*.txt")).texts == ["文件a", "文件b", "文件c"]
    assert read(text(path="raw/news/*.txt")).texts == ["文件a", "文件b"]
    assert read(text(path="raw/**/*.txt")).texts == ["文件a", "文件b", "文件c"]


def test_a_name_with_brackets_is_no_glob() -> None:
    put("a[1].txt", "很好\n")
    assert read(text(path="raw/a[1].txt")).texts == ["很好"]


def test_jsonl_takes_all_fields() -> None:
    put("s.jsonl", '{"body": "江泽民在北京", "names": [[4, 6, "LOC"]], "words": ["江泽民", "在", "北京"], "who": 3}\n')
    row = read(jsonl(task="entities", spans="names", words="words", group="who")).rows[0]
    assert row.spans == [[4, 6, "LOC"]]
    assert row.words == ["江泽民", "在", "北京"]
    assert row.group == 3
    assert row.label is None


def test_jsonl_fields_by_path() -> None:
    put("s.jsonl", '{"a": {"b": [{"c.d": "很好"}]}}\n{"a": {"b": []}}\n{"a": null}\n{"a": {"b": [{"c.d": null}]}}\n')
    assert read(jsonl(text='a.b[0]."c.d"')).texts == ["很好", MISSING, MISSING, None]


@pytest.mark.parametrize("path", ["", ".", "a..b", "a.", ".a", "a[", "a[x]", "a[-1]", "a[*]", 'a."b', "a]b", 'a"b"'])
def test_paths_that_cannot_be_parsed(path: str) -> None:
    with pytest.raises(ValueError, match="text"):
        read(jsonl(text=path))


def test_sqlite_binds_parameters(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [("很好啊", 1), ("很差啊", 0), ("一般吧", 5)])
    query = "SELECT id, body, good FROM t WHERE good <> :hidden AND body <> :quote ORDER BY id DESC"
    parameters = {"hidden": 5, "quote": "'; DROP TABLE t; --"}
    result = read(sqlite(query=query, parameters=parameters, task="sentiment", label="good", id="id"))
    assert [(row.text, row.label) for row in result.rows] == [("很差啊", 0), ("很好啊", 1)]
    assert result.rows[0].location == "raw/s.sqlite id 2"
    assert result.report.query is not None
    assert (result.report.query.query, result.report.query.rows) == (query, 2)


def test_the_hash_of_a_result_follows_its_rows(workspace: Workspace) -> None:
    path = workspace.sqlite("s.sqlite", [("很好", 1)])

    def digest() -> str:
        query = read(sqlite()).report.query
        assert query is not None
        return query.content_hash

    first = digest()
    assert digest() == first
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE t SET good = 0")
    assert digest() != first


@pytest.mark.parametrize("source", [text(), jsonl(), sqlite(), text(path="raw/nothing")])
def test_missing_source(source: dict[str, Any]) -> None:
    message = fails(source)
    assert "`ingest.sources.s.path`" in message
    assert "does not exist" in message
    assert "data/raw/README.md" in message


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
@pytest.mark.parametrize("source", [text(), text("paragraph"), text("file"), jsonl()])
def test_empty_source(source: dict[str, Any], content: str) -> None:
    put("news.txt", content)
    put("s.jsonl", content)
    assert "the source s is empty" in fails(source)


def test_empty_table(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [])
    assert "the source s is empty" in fails(sqlite())


def test_an_empty_file_among_others_is_listed() -> None:
    put("a.txt", "很好\n")
    put("b.txt", "")
    put("c.txt", " \n\n")
    result = read(text(path="raw/*.txt"))
    assert result.texts == ["很好"]
    assert [(one.location, one.reason) for one in result.rejections] == [
        ("raw/b.txt", "empty_file"),
        ("raw/c.txt", "empty_file"),
    ]


def test_pattern_that_matches_nothing() -> None:
    put("news/a.md", "很好")
    assert "matches the pattern '*.txt'" in fails(text(path="raw/news", pattern="*.txt"))
    assert "matches the pattern '*.txt'" in fails(text(path="raw/news/*.txt"))
    assert "needs a `pattern`" in fails(text(path="raw/news"))
    assert "would do nothing" in fails(text(path="raw/news/a.md", pattern="*.md"))
    assert "would do nothing" in fails(text(path="raw/news/*", pattern="*.md"))
    assert "does not exist" in fails(text(path="raw/nowhere/*.txt"))


@pytest.mark.parametrize("layout", ["line", "paragraph", "file"])
def test_text_that_is_not_utf8(layout: str) -> None:
    put("news.txt", "很好\n".encode() + "很坏\n".encode("gb18030"))
    message = fails(text(layout), bad_rows="fail", encoding="utf-8")
    assert "raw/news.txt:2 is not UTF-8" in message
    assert "byte 0xba at offset 7" in message
    assert "iconv" in message


def test_a_line_that_is_not_utf8_is_refused_alone() -> None:
    put("news.txt", "很好\n\n".encode() + "很坏\n".encode("gb18030") + "还行\n".encode())
    result = read(text(encoding="utf-8"))
    assert result.texts == ["很好", "还行"]
    assert [(one.location, one.reason) for one in result.rejections] == [("raw/news.txt:3", "bad_bytes")]
    assert "offset 8" in result.rejections[0].detail
    assert read(text("paragraph", encoding="utf-8")).texts == ["很好"]
    assert read(text("paragraph", encoding="utf-8")).reasons == ["bad_bytes"]
    assert read(text("file", encoding="utf-8")).reasons == ["bad_bytes"]


def test_utf16_is_recognised() -> None:
    put("news.txt", "很好\n".encode("utf-16"))
    assert "UTF-16" in fails(text(), bad_rows="fail", encoding="utf-8")
    assert read(text()).texts == ["很好"]


def test_jsonl_that_is_not_utf8() -> None:
    put("s.jsonl", b'{"body": "fine"}\n{"body": "\xff"}\n')
    message = fails(jsonl(), bad_rows="fail", encoding="utf-8")
    assert "raw/s.jsonl:2 is not UTF-8" in message
    assert "offset 27" in message


@pytest.mark.parametrize(
    ("line", "reason", "expected"),
    [
        ('{"body": "cut', "bad_json", "is not valid JSON"),
        ("{'body': 'quotes'}", "bad_json", "is not valid JSON"),
        ('["body"]', "not_an_object", "holds a JSON list"),
        ("3", "not_an_object", "holds a JSON int"),
        ("null", "not_an_object", "holds a JSON NoneType"),
        ("[" * 100_000, "deep_json", "nested deeper than 32"),
        ('{"body": ' + "[" * 33 + "]" * 33 + "}", "deep_json", "nested deeper than 32"),
        ("1" * 5000, "bad_json", "JSON"),
        ('{"body": "很好", "n": ' + "9" * 100_000 + "}", "bad_json", "JSON"),
        ('{"body": "很好", "body": "很坏"}', "duplicate_key", "'body' twice"),
        ('{"body": "很好", "a": {"x": 1, "x": 1}}', "duplicate_key", "'x' twice"),
        ('{"body": "很好"} {"body": "很坏"}', "bad_json", "Extra data"),
        ('{"body": "' + "x" * (1 << 20) + '"}', "row_too_long", "1,048,576"),
    ],
)
def test_malformed_json_line(line: str, reason: str, expected: str) -> None:
    put("s.jsonl", f'{{"body": "很好"}}\n\n{line}\n{{"body": "还行"}}\n')
    message = fails(jsonl(), bad_rows="fail")
    assert "raw/s.jsonl:3" in message
    assert expected in message
    result = read(jsonl())
    assert result.texts == ["很好", "还行"]
    assert [(one.location, one.reason) for one in result.rejections] == [("raw/s.jsonl:3", reason)]
    assert len(result.rejections[0].excerpt) <= 200


def test_brackets_in_strings_are_no_depth() -> None:
    put("s.jsonl", '{"body": "' + '[{\\"' * 100 + '"}\n')
    assert read(jsonl()).texts == ['[{"' * 100]


def test_a_source_decides_on_its_bad_rows_itself() -> None:
    put("s.jsonl", '{"body": "很好"}\n3\n')
    assert "holds a JSON int" in fails(jsonl(bad_rows="fail"))
    assert read(jsonl(bad_rows="quarantine"), bad_rows="fail").reasons == ["not_an_object"]


def test_lone_surrogates_and_nul_reach_the_cleaner() -> None:
    put("s.jsonl", '{"body": "a\\ud800b"}\n{"body": "a\\u0000b"}\n')
    assert read(jsonl()).texts == ["a\ud800b", "a\0b"]
    put("news.txt", b"very good text and much of it, a\0b\n")
    assert read(text()).texts == ["very good text and much of it, a\0b"]


def test_jsonl_without_the_field() -> None:
    put("s.jsonl", '{"text": "很好", "stars": 5}\n')
    message = fails(jsonl(task="t", label="polarity"))
    assert "raw/s.jsonl:1 has no field body, polarity" in message
    assert "it has text, stars" in message


def test_sqlite_without_the_column(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [("很好", 1)])
    message = fails(sqlite(text="content", task="t", label="good"))
    assert "has no column content" in message
    assert "it has id, body, good" in message
    assert "no such column: content" in fails(sqlite(query="SELECT content FROM t"))
    assert "no such table" in fails(sqlite(query="SELECT body FROM nowhere"))
    assert "has the column body twice" in fails(sqlite(query="SELECT body, body FROM t"))


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
def test_a_query_can_only_read(workspace: Workspace, query: str) -> None:
    path = workspace.sqlite("s.sqlite", [("很好", 1)])
    before = path.read_bytes()
    message = fails(sqlite(query=query))
    assert "raw/s.sqlite cannot be queried" in message
    assert query in message
    assert path.read_bytes() == before
    assert not (workspace.folder / "other.sqlite").exists()


def test_not_a_database() -> None:
    put("s.sqlite", "this is no database, whatever its name says\n" * 30)
    assert "file is not a database" in fails(sqlite())
    Path("raw/folder").mkdir()
    assert "is a folder" in fails(sqlite(path="raw/folder"))
    assert "is a folder" in fails(jsonl(path="raw/folder"))


def test_sqlite_text_that_is_not_utf8(workspace: Workspace) -> None:
    path = workspace.sqlite("s.sqlite", [("很好", 1)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO t (body) VALUES (CAST(x'C4E3BAC3' AS TEXT))")
        connection.execute("INSERT INTO t (body) VALUES ('还行')")
    assert "row 2 of the query, is not UTF-8" in fails(sqlite(), bad_rows="fail")
    result = read(sqlite())
    assert result.texts == ["很好", "还行"]
    assert result.reasons == ["bad_bytes"]


def test_paths_outside_the_inputs(workspace: Workspace) -> None:
    outside = workspace.folder / "outside.txt"
    outside.write_text("很好\n", encoding="utf-8")
    (workspace.raw / "link.txt").symlink_to(outside)
    (workspace.raw / "gone.txt").symlink_to(workspace.folder / "nowhere")
    for path in ("outside.txt", "raw/../outside.txt", "raw/link.txt", str(outside), "raw/../out*.txt"):
        message = fails(text(path=path))
        assert "outside the stage's inputs" in message
        assert "dvc.yaml" in message
    assert str(outside) in fails(text(path="raw/link.txt"))
    assert "does not exist" in fails(text(path="raw/gone.txt"))
    assert "outside the stage's inputs" in fails(text(path="raw", pattern="l*.txt"))
    assert "outside the stage's inputs" in fails(jsonl(path="raw/link.txt"))
    assert "outside the stage's inputs" in fails(sqlite(path="raw/link.txt"))


def test_links_within_the_inputs_are_fine() -> None:
    put("news.txt", "很好\n")
    Path("raw/link.txt").symlink_to("news.txt")
    assert read(text(path="raw/link.txt")).texts == ["很好"]


def test_links_into_a_content_addressed_cache_are_fine(workspace: Workspace) -> None:
    cached = workspace.folder / ".dvc/cache/files/md5/ab" / ("0" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_text("很好\n", encoding="utf-8")
    Path("raw/link.txt").symlink_to(cached)
    assert read(text(path="raw/link.txt")).texts == ["很好"]


def test_a_database_with_an_odd_name(workspace: Workspace) -> None:
    workspace.sqlite("why? 100% #1 数据.sqlite", [("很好", 1)])
    assert read(sqlite(path="raw/why? 100% #1 数据.sqlite")).texts == ["很好"]
    assert [path.name for path in workspace.raw.iterdir()] == ["why? 100% #1 数据.sqlite"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file() -> None:
    put("news.txt", "很好\n").chmod(0)
    assert "raw/news.txt cannot be read" in fails(text())


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    usual = Path.open

    def broken(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "b.txt":
            raise PermissionError(13, "Permission denied", str(self))
        return usual(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", broken)
    yield "b.txt"


def test_read_error_is_told_as_one(unreadable: str) -> None:
    put("a.txt", "very good text\n")
    put("c.txt", "very good text\n")
    (Path("raw") / unreadable).touch()
    assert "raw/b.txt cannot be read: Permission denied" in fails(text(path="raw/b.txt"))
    result = read(text(path="raw/*.txt"))
    assert result.texts == ["very good text"] * 2
    assert [(one.location, one.reason) for one in result.rejections] == [("raw/b.txt", "unreadable_file")]


def test_stopping_early_closes_the_file() -> None:
    put("news.txt", "很好\n" * 100)
    before = len(list(Path("/proc/self/fd").iterdir()))
    rows = read_source(
        "s",
        TextSource(kind="text", path="raw/news.txt", layout="line"),  # type: ignore[call-arg]
        reading=ReadingParams.model_validate(READING),
        inputs=[Path("raw")],
        snapshots=None,
        report=SourceReport(),
    )
    next(rows)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    rows.close()  # type: ignore[attr-defined]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_kind_that_the_documentation_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/sources.md, as it stands there."""
    page = (Path(__file__).resolve().parents[2] / "docs/sources.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0].split("# bert_ops/corpus/sources/__init__.py")[0]
    names: dict[str, Any] = {}
    for module in ("source_params", "records", "sources.files", "sources.lines", "sources.reading"):
        names |= vars(importlib.import_module(f"bert_ops.corpus.{module}"))
    names |= {"Iterator": Iterator, "__name__": "example"}
    code = compile(example, "docs/sources.md", "exec", flags=annotations.compiler_flag, dont_inherit=True)
    exec(code, names)
    monkeypatch.setitem(READERS, "subtitles", names["read_subtitles"])
    names["SubtitleSource"].model_rebuild(_types_namespace=names)
    put("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n很好\n\n2\n00:00:03,000 --> 00:00:04,000\n再见\n")
    rows = read_source(
        "s",
        names["SubtitleSource"](kind="subtitles", path="raw/*.srt"),
        reading=ReadingParams.model_validate(READING),
        inputs=[Path("raw")],
        snapshots=None,
        report=SourceReport(),
    )
    assert [row.text for row in rows if isinstance(row, Row)] == ["很好\n再见"]
