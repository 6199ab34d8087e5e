"""Snapshots of files behind URLs: in memory, over HTTP and in S3, byte for byte, and without credentials."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from corpus_workspace import INGEST, Workspace
from source_reading import put, read

from bert_ops.corpus import snapshot, snapshot_urls
from bert_ops.corpus.source_params import is_url, public_url
from bert_ops.errors import ArtifactError, InputError

NEWS = {"kind": "text", "path": "memory://news/*.txt", "layout": "line"}


def take(sources: dict[str, Any]) -> Any:
    """Run the stage; returns its metrics."""
    Path("params.yaml").write_text(yaml.safe_dump({"ingest": INGEST | {"sources": sources}}, allow_unicode=True))
    snapshot.run(
        argparse.Namespace(
            params=Path("params.yaml"), input=[Path("raw")], out=Path("snapshots"), metrics=Path("snapshot.json")
        )
    )
    return json.loads(Path("snapshot.json").read_text())["sources"]


def record() -> Any:
    return json.loads(Path("snapshots/s/snapshot.json").read_text())


@pytest.fixture
def memory(workspace: Workspace) -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def test_files_are_copied_byte_for_byte(memory: Any) -> None:
    contents = {"a.txt": "甲\n".encode(), "b.txt": gzip.compress("乙\n丙\n".encode(), mtime=0), "c.md": b"no"}
    for name, content in contents.items():
        memory.pipe(f"/news/{name}", content)
    metrics = take({"s": NEWS})
    result = read(NEWS, snapshots="snapshots")
    assert result.texts == ["甲", "乙", "丙"]
    assert result.rows[0].location == "memory:///news/a.txt:1"
    written = record()
    assert [(file["name"], file["sha256"]) for file in written["files"]] == [
        (name, hashlib.sha256(contents[name]).hexdigest()) for name in ("a.txt", "b.txt")
    ]
    assert metrics["s"] == {"files": 2, "bytes": written["bytes"], "content_hash": written["content_hash"]}
    memory.pipe("/news/a.txt", b"changed\n")
    memory.rm("/news/b.txt")
    assert read(NEWS, snapshots="snapshots").items == result.items
    assert take({"s": NEWS}) != metrics


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("memory://news/a.txt", None, ["a"]),
        ("memory://news", "*.txt", ["a"]),
        ("memory://news", "**/*.txt", ["a", "b"]),
        ("memory://news/**/*.txt", None, ["a", "b"]),
        ("memory://n*/deep/*.txt", None, ["b"]),
    ],
)
def test_what_a_url_may_name(memory: Any, path: str, pattern: str | None, expected: list[str]) -> None:
    memory.pipe("/news/a.txt", b"a\n")
    memory.pipe("/news/deep/b.txt", b"b\n")
    source = NEWS | {"path": path} | ({"pattern": pattern} if pattern else {})
    take({"s": source})
    assert sorted(read(source, snapshots="snapshots").texts) == expected


def test_other_kinds_of_files(memory: Any) -> None:
    memory.pipe("/d/rows.json", json.dumps({"data": [{"body": "甲"}, {"body": "乙"}]}).encode())
    source = {"kind": "json", "path": "memory://d/rows.json", "rows": "data[*]", "text": "body"}
    take({"s": source})
    assert read(source, snapshots="snapshots").texts == ["甲", "乙"]


def test_a_saved_dataset(memory: Any) -> None:
    from datasets import Dataset

    Dataset.from_dict({"body": ["甲", "乙"]}).save_to_disk("here")
    for path in Path("here").iterdir():
        memory.pipe(f"/saved/{path.name}", path.read_bytes())
    source = {"kind": "huggingface", "path": "memory://saved", "text": "body"}
    take({"s": source})
    assert read(source, snapshots="snapshots").texts == ["甲", "乙"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"path": "memory://news/nothing.txt"}, "it does not exist"),
        ({"path": "memory://news/*.nothing"}, "nothing is there to read"),
        ({"path": "memory://news"}, "needs a `pattern`"),
        ({"path": "memory://news", "pattern": "*.nothing"}, "nothing matches"),
        ({"path": "nosuch://news/a.txt"}, "Protocol not known"),
        ({"path": "file:///etc/hostname"}, "name a local file by its path"),
        ({"path": "zip://a.txt::memory://news/a.zip"}, "no URL within another"),
        ({"path": "ftp://me:secret@host/a.txt"}, "names a user or password"),
    ],
)
def test_what_cannot_be_copied(memory: Any, changes: dict[str, Any], expected: str) -> None:
    memory.pipe("/news/a.txt", b"a\n")
    with pytest.raises(InputError, match=expected) as caught:
        take({"s": NEWS | changes})
    assert "ingest.sources.s.path" in str(caught.value).replace(".text.path", ".path")
    assert "secret" not in str(caught.value)
    assert not Path("snapshots").exists()


def test_a_snapshot_of_files_that_is_missing_or_damaged(memory: Any) -> None:
    memory.pipe("/news/a.txt", b"a\n")
    with pytest.raises(InputError, match="--snapshots"):
        read(NEWS)
    with pytest.raises(ArtifactError, match="single-item snapshot"):
        read(NEWS, snapshots="snapshots")
    take({"s": NEWS})
    with pytest.raises(ArtifactError, match="snapshot of another source: path"):
        read(NEWS | {"path": "memory://news/a.*"}, snapshots="snapshots")
    Path("snapshots/s/files/a.txt").write_text("b\n")
    with pytest.raises(ArtifactError, match=r"a\.txt is damaged"):
        read(NEWS, snapshots="snapshots")
    Path("snapshots/s/snapshot.json").write_text("[]")
    with pytest.raises(ArtifactError, match="holds no object"):
        read(NEWS, snapshots="snapshots")


def test_a_download_that_ends_too_early(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/news/a.txt", b"a\n" * 100)
    usual = type(memory).info
    monkeypatch.setattr(type(memory), "info", lambda self, path, **more: usual(self, path, **more) | {"size": 201})
    with pytest.raises(InputError, match="ended after 200 of 201 bytes"):
        take({"s": NEWS})


def test_names_that_would_lie_outside(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/news/a.txt", b"a\n")
    monkeypatch.setattr(snapshot_urls, "_list", lambda *_, **__: {"/news/a.txt": "../../a.txt"})
    with pytest.raises(InputError, match="would lie outside"):
        take({"s": NEWS})
    assert not Path("a.txt").exists()


def test_credentials_in_what_a_library_says_are_hidden() -> None:
    def fail() -> None:
        raise RuntimeError("cannot reach https://me:hush-hush@host/path")

    with pytest.raises(InputError, match=r"RuntimeError: cannot reach https://\*\*\*@host") as caught:
        snapshot_urls._ask(fail, where="here", shown="https://host")
    assert "hush-hush" not in str(caught.value)
    assert caught.value.__context__ is None


def test_urls_for_people() -> None:
    assert public_url("https://me:pw@host:1/a/b?token=x#y") == "https://host:1/a/b"
    assert public_url("s3://bucket/a@b.txt") == "s3://bucket/a@b.txt"
    assert is_url("s3://bucket/x")
    assert not is_url("data/raw/s3:/x")
    assert not is_url("C://x")


@pytest.fixture
def web(workspace: Workspace) -> Iterator[str]:
    put("a.jsonl", '{"body": "很好"}\n')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: Quiet(*arguments, directory=str(workspace.raw))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_http(web: str) -> None:
    pytest.importorskip("aiohttp")
    source = {"kind": "jsonl", "path": f"{web}/a.jsonl?token=hush-hush", "text": "body"}
    take({"s": source})
    assert read(source, snapshots="snapshots").texts == ["很好"]
    assert "hush-hush" not in Path("snapshots/s/snapshot.json").read_text()
    with pytest.raises(InputError, match="cannot be read") as caught:
        take({"s": source | {"path": f"{web}/nothing.jsonl?token=hush-hush"}})
    assert "hush-hush" not in str(caught.value)


@pytest.fixture
def bucket(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("corpus")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.slow
def test_s3(bucket: Any) -> None:
    whole = "很好\n" * 700_000  # more than a block
    bucket.pipe("corpus/news/a.txt", whole.encode())
    bucket.pipe("corpus/news/deep/b.txt", gzip.compress("很坏\n".encode()))
    bucket.touch("corpus/news/")
    source = NEWS | {"path": "s3://corpus/news", "pattern": "**/*.txt"}
    take({"s": source})
    result = read(source, snapshots="snapshots")
    assert len(result.texts) == 700_001
    assert result.rows[-1].location == "s3://corpus/news/deep/b.txt:1"
    files = record()["files"]
    assert (files[0]["url"], files[0]["bytes"]) == ("s3://corpus/news/a.txt", len(whole.encode()))
    assert all(file["etag"] for file in files)
    for path, expected in (
        ("s3://corpus/nothing/*.txt", "nothing is there"),
        ("s3://no-such-bucket/a.txt", "cannot be read"),
    ):
        with pytest.raises(InputError, match=expected) as caught:
            take({"s": NEWS | {"path": path}})
        assert "hush-hush" not in str(caught.value)
