"""Snapshots of databases: the rows as they were, read-only, and no password in any message."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from corpus_workspace import INGEST, Workspace
from source_reading import read

from bert_ops.corpus import snapshot
from bert_ops.corpus.snapshot_sql import hide_secrets, require_select
from bert_ops.errors import ArtifactError, BertOpsError, InputError
from tests.deploy.postgres_server import PASSWORD, Server, as_postgres, postgres, programs

LOCAL: dict[str, Any] = {
    "kind": "sql",
    "url": "sqlite:///raw/s.sqlite",
    "query": "SELECT id, body, good FROM t WHERE good <> :hidden ORDER BY id",
    "parameters": {"hidden": 5},
    "id": "id",
    "text": "body",
    "task": "sentiment",
    "label": "good",
}


def take(sources: dict[str, Any], folder: Path = Path()) -> Any:
    """Run the stage; returns its metrics."""
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump({"ingest": INGEST | {"sources": sources}}, allow_unicode=True))
    snapshot.run(
        argparse.Namespace(params=params, input=[Path("raw")], out=Path("snapshots"), metrics=Path("snapshot.json"))
    )
    return json.loads(Path("snapshot.json").read_text())["sources"]


def record() -> Any:
    return json.loads(Path("snapshots/s/snapshot.json").read_text())


def test_the_rows_stay_as_they_were(workspace: Workspace) -> None:
    path = workspace.sqlite("s.sqlite", [("很好", 1), ("很坏", 0), ("藏", 5), (None, "x")])
    metrics = take({"s": LOCAL})
    before = read(LOCAL, snapshots="snapshots")
    assert [(row.text, row.label) for row in before.rows] == [("很好", 1), ("很坏", 0), (None, "x")]
    assert before.rows[2].location == "s (query) id 4"
    assert before.report.query is not None
    assert before.report.query.rows == 3
    assert metrics == {"s": {"rows": 3, "content_hash": before.report.query.content_hash}}
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM t")
    assert read(LOCAL, snapshots="snapshots").items == before.items
    written = record()
    assert written["query"] == LOCAL["query"]
    assert written["parameters"] == ["hidden"]
    assert written["columns"] == ["id", "body", "good"]
    assert written["url"] == "sqlite:///raw/s.sqlite"
    assert json.loads(Path("snapshots/snapshot.json").read_text()) == ["s"]


def test_equal_tables_give_equal_bytes(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [(f"第{n}行", n % 2) for n in range(5000)])
    take({"s": LOCAL})
    first = {path.name: path.read_bytes() for path in Path("snapshots/s").iterdir()}
    take({"s": LOCAL})
    assert {path.name: path.read_bytes() for path in Path("snapshots/s").iterdir()} == first


def test_values_keep_their_types(workspace: Workspace) -> None:
    path = workspace.sqlite(
        "s.sqlite",
        [("很好", 1.5), (b"\xff", "text"), ("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), None)],
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO t (body, good) VALUES (CAST(x'C4E3' AS TEXT), 2)")
    source = LOCAL | {"query": "SELECT * FROM t ORDER BY id", "parameters": None}
    take({"s": source})
    result = read(source, snapshots="snapshots")
    assert [(row.text, row.label) for row in result.rows] == [("很好", 1.5), ({"bytes": "ff"}, "text"), ("😀", None)]
    assert result.reasons == ["bad_bytes"]
    assert "row 4 of the query, is not UTF-8" in result.rejections[0].detail


def test_a_whole_table_comes_in_the_order_of_its_key(workspace: Workspace) -> None:
    path = workspace.sqlite("s.sqlite", [])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO t VALUES (?, ?, 1)", [(3, "丙"), (1, "甲"), (2, "乙")])
        connection.execute("CREATE TABLE bare (body, good)")
    table = {key: value for key, value in LOCAL.items() if key not in ("query", "parameters")} | {"table": "t"}
    take({"s": table})
    assert read(table, snapshots="snapshots").texts == ["甲", "乙", "丙"]
    for changes, expected in (
        ({"table": "u"}, "there is no such table"),
        ({"table": "bare", "id": None}, "no primary key"),
        ({"text": "content"}, "the table has no column content"),
        ({"table": "t; DROP TABLE t"}, "there is no such table"),
    ):
        with pytest.raises(InputError, match=expected):
            take({"s": {key: value for key, value in (table | changes).items() if value is not None}})


def test_nothing_to_copy(workspace: Workspace) -> None:
    workspace.text("news.txt", "很好\n")
    assert take(INGEST["sources"]) == {}
    assert json.loads(Path("snapshots/snapshot.json").read_text()) == []


def test_a_snapshot_that_is_missing_or_damaged(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [("很好", 1)])
    with pytest.raises(InputError, match="--snapshots"):
        read(LOCAL)
    with pytest.raises(ArtifactError, match="single-item snapshot"):
        read(LOCAL, snapshots="snapshots")
    take({"s": LOCAL})
    with pytest.raises(ArtifactError, match="snapshot of another source: query"):
        read(LOCAL | {"query": LOCAL["query"] + " DESC"}, snapshots="snapshots")
    with pytest.raises(ArtifactError, match="snapshot of another source: fields"):
        read(LOCAL | {"group": "id"}, snapshots="snapshots")
    rows = Path("snapshots/s/rows.parquet")
    rows.write_bytes(rows.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match=r"rows\.parquet is damaged"):
        read(LOCAL, snapshots="snapshots")
    rows.unlink()
    with pytest.raises(ArtifactError, match=r"rows\.parquet does not exist"):
        read(LOCAL, snapshots="snapshots")


def test_a_failed_snapshot_leaves_the_last_one(workspace: Workspace) -> None:
    workspace.sqlite("s.sqlite", [("很好", 1)])
    take({"s": LOCAL})
    with pytest.raises(InputError):
        take({"s": LOCAL, "t": LOCAL | {"query": "SELECT nothing FROM t"}})
    assert read(LOCAL, snapshots="snapshots").texts == ["很好"]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "  /* SELECT */ INSERT INTO t VALUES (1)",
        "SELECT 1; DELETE FROM t",
        "SELECT 1; COMMIT; DELETE FROM t;",
        "EXPLAIN SELECT 1",
        "",
        "selection",
    ],
)
def test_statements_that_are_not_one_select(query: str) -> None:
    with pytest.raises(InputError, match=r"s\.query"):
        require_select(query, where="s")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        " select 1 ; ",
        "(SELECT 1)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "-- c\nSELECT 1",
        "/* a\nb */VALUES (1)",
    ],
)
def test_statements_that_read(query: str) -> None:
    require_select(query, where="s")


def test_sqlite_is_opened_read_only(workspace: Workspace) -> None:
    path = workspace.sqlite("s.sqlite", [("很好", 1)])
    before = path.read_bytes()
    for query in ("WITH a AS (SELECT 1) INSERT INTO t (body) SELECT 2", "SELECT body FROM pragma_table_info('t')"):
        with pytest.raises(InputError, match="cannot be queried"):
            take({"s": LOCAL | {"query": query, "parameters": None}})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": "sqlite:///raw/nowhere.sqlite"}, "does not exist"),
        ({"url": "sqlite:////etc/hostname"}, "outside the stage's inputs"),
        ({"url": "sqlite://"}, "names no SQLite file"),
        ({"url": "nothing"}, "is no SQLAlchemy URL"),
        ({"url": "nosuch://host/db"}, "nosuch"),
        ({"query": "SELECT body FROM nowhere", "parameters": None}, "no such table"),
        ({"query": "SELECT body FROM t WHERE id = :other"}, "other"),
        ({"query": "SELECT 1 AS one", "parameters": None}, "the query returns no column body, good, id"),
        ({"url": None, "url_from": "NOT_SET"}, "NOT_SET, an environment variable that is not set"),
    ],
)
def test_what_cannot_be_queried(workspace: Workspace, changes: dict[str, Any], expected: str) -> None:
    workspace.sqlite("s.sqlite", [("很好", 1)])
    source = {key: value for key, value in (LOCAL | changes).items() if value is not None}
    with pytest.raises(InputError, match=expected):
        take({"s": source})
    assert not Path("snapshots").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": "postgresql://me:secret@host/db"}, "holds a password"),
        ({"url": "postgresql://me@host/db?password=secret"}, "holds a password"),
        ({"url_from": "X"}, "set one"),
        ({"url": None}, "neither of url and url_from"),
        ({"table": "t"}, "set one"),
        ({"query": None}, "neither of query and table|only a query takes"),
        ({"url": None, "url_from": "a b"}, "url_from"),
    ],
)
def test_params_that_do_not_fit(workspace: Workspace, changes: dict[str, Any], expected: str) -> None:
    source = {key: value for key, value in (LOCAL | changes).items() if value is not None}
    with pytest.raises(InputError, match=expected) as caught:
        take({"s": source})
    assert "secret" not in str(caught.value)


def test_secrets_are_hidden_in_all_their_forms() -> None:
    url = sa.make_url("postgresql://me:p%40s%2F%25@host/db?sslpassword=other%20one")
    text = "p@s/% p%40s%2F%25 p%40s/%25 other one other+one other%20one"
    assert hide_secrets(text, url) == "*** *** *** *** *** ***"


def assert_hidden(error: BertOpsError, *secrets: str) -> None:
    seen: BaseException | None = error
    chain = []
    while seen is not None:
        chain += [str(seen), repr(seen)]
        seen = seen.__cause__ or seen.__context__
    text = "\n".join([*chain, "".join(traceback.format_exception(error))])
    for secret in secrets:
        assert secret not in text


def test_a_url_that_cannot_be_parsed_is_not_shown(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {key: value for key, value in LOCAL.items() if key != "url"} | {"url_from": "DATABASE"}
    for url in ("me:hush-hush@host", "postgresql://me:hush-hush@host:port/db", "nosuch://me:hush-hush@host/db"):
        monkeypatch.setenv("DATABASE", url)
        with pytest.raises(InputError, match="DATABASE") as caught:
            take({"s": source})
        assert_hidden(caught.value, "hush-hush")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if programs() is None:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    if os.geteuid() == 0:
        try:
            as_postgres()
        except KeyError:
            pytest.skip("no user `postgres` to run the server as")
    with postgres() as made:
        engine = sa.create_engine(made.url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE SCHEMA news"))
            connection.execute(
                sa.text("CREATE TABLE news.t (id int PRIMARY KEY, body text, good boolean, names json, at timestamp)")
            )
            connection.execute(
                sa.text(
                    "INSERT INTO news.t SELECT n, '第' || n || '行', n % 2 = 0, '[[0, 1, \"PER\"]]', '2020-01-01'"
                    "FROM generate_series(1, 5000) AS n"
                )
            )
        engine.dispose()
        yield made


REMOTE: dict[str, Any] = {
    "kind": "sql",
    "url_from": "DATABASE",
    "query": "SELECT id, body, good, at FROM news.t WHERE id <= :last ORDER BY id DESC",
    "parameters": {"last": 4000},
    "id": "id",
    "text": "body",
    "task": "sentiment",
    "label": "good",
    "group": "at",
}


@pytest.fixture
def database(workspace: Workspace, server: Server, monkeypatch: pytest.MonkeyPatch) -> sa.URL:
    monkeypatch.setenv("DATABASE", server.url.render_as_string(hide_password=False))
    return server.url


@pytest.mark.slow
def test_postgresql(database: sa.URL) -> None:
    metrics = take({"s": REMOTE})
    assert metrics["s"]["rows"] == 4000
    before = read(REMOTE, snapshots="snapshots")
    assert [(row.text, row.label) for row in before.rows[:2]] == [("第4000行", True), ("第3999行", False)]
    assert before.rows[0].group == "2020-01-01 00:00:00"
    written = Path("snapshots/s/snapshot.json").read_text()
    assert "dagster@127.0.0.1" in record()["url"]
    assert PASSWORD not in written
    assert "p%40ss" not in written
    engine = sa.create_engine(database, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE news.t SET body = 'changed' WHERE id = 1"))
    try:
        assert read(REMOTE, snapshots="snapshots").items == before.items
        assert take({"s": REMOTE})["s"]["content_hash"] != metrics["s"]["content_hash"]
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE news.t SET body = '第1行' WHERE id = 1"))
    assert take({"s": REMOTE}) == metrics


@pytest.mark.slow
def test_a_table_of_postgresql(database: sa.URL) -> None:
    table = {"kind": "sql", "url_from": "DATABASE", "table": "news.t", "text": "body", "task": "n", "spans": "names"}
    take({"s": table})
    result = read(table, snapshots="snapshots")
    assert len(result.rows) == 5000
    assert result.rows[0].text == "第1行"
    assert result.rows[0].spans == [[0, 1, "PER"]]
    with pytest.raises(InputError, match="there is no such table"):
        take({"s": table | {"table": "t"}})


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (DELETE FROM news.t RETURNING *) SELECT * FROM gone",
        "SELECT id, body, good, at FROM news.t FOR UPDATE",
        "SELECT nextval('news.counter') AS id, 'x' AS body, true AS good, 1 AS at",
    ],
)
def test_postgresql_refuses_to_write(database: sa.URL, query: str) -> None:
    engine = sa.create_engine(database, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SEQUENCE IF NOT EXISTS news.counter"))
    with pytest.raises(InputError, match="cannot be queried"):
        take({"s": REMOTE | {"query": query, "parameters": None}})
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM news.t")).scalar() == 5000


@pytest.mark.slow
def test_no_error_of_postgresql_shows_the_password(database: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        wrong = {
            "closed port": database.set(port=free),
            "no such host": database.set(host="host.invalid"),
            "wrong password": database.set(password="wr@ng/secret%"),
            "no such database": database.set(database="nowhere"),
            "bad option": database.update_query_dict({"nonsense": "1", "sslpassword": "hush-hush"}),
        }
        for what, url in wrong.items():
            monkeypatch.setenv("DATABASE", url.render_as_string(hide_password=False))
            with pytest.raises(InputError, match=r"ingest\.sources\.s: postgresql\+psycopg2://dagster@") as caught:
                take({"s": REMOTE})
            secrets = [PASSWORD, "p%40ss%3Aword", "wr@ng/secret", "wr%40ng", "hush-hush"]
            assert_hidden(caught.value, *secrets)
            assert re.search("cannot be queried: .{10}", str(caught.value)), what
    monkeypatch.setenv("DATABASE", database.render_as_string(hide_password=False))
    for query in ("SELECT nothing FROM news.t", "SELECT (", f"SELECT '{PASSWORD}'::int AS body"):
        with pytest.raises(InputError) as caught:
            take({"s": REMOTE | {"query": query, "parameters": None}})
        if PASSWORD not in query:
            assert_hidden(caught.value, PASSWORD, "p%40ss%3Aword")
    assert not Path("snapshots").exists()


@pytest.mark.slow
def test_rows_are_drawn_from_the_server_as_they_are_written(database: sa.URL) -> None:
    import tracemalloc

    query = "SELECT n AS id, repeat('很好', 1500) AS body, true AS good, 1 AS at FROM generate_series(1, 12000) AS n"
    source = REMOTE | {"query": query, "parameters": None}
    tracemalloc.start()
    try:
        assert take({"s": source})["s"]["rows"] == 12_000
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
        tracemalloc.reset_peak()
        assert len(read(source, snapshots="snapshots").texts) == 12_000
    finally:
        tracemalloc.stop()
