"""Copying files from wherever fsspec reaches, byte for byte."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from bert_ops.corpus.source_params import HuggingFaceSource, Source, SqlSource, public_url
from bert_ops.errors import InputError

_BLOCK = 4 << 20
_GLOB = re.compile(r"[*?\[]")
_CREDENTIALS = re.compile(r"//[^/@\s]*@")

T = TypeVar("T")


def copy_files(name: str, source: Source, *, out: Path) -> dict[str, Any]:
    """Copy the files of a source to ``out/files``; returns what snapshot.json says of them.

    Raises:
        InputError: the protocol is unknown, nothing is there, or it cannot be read.

    """
    assert not isinstance(source, SqlSource)
    where = f"`ingest.sources.{name}.path`"
    shown = public_url(source.path)

    def ask(action: Callable[[], T]) -> T:
        return _ask(action, where=where, shown=shown)

    import fsspec  # type: ignore[import-untyped]

    system, root = ask(lambda: fsspec.core.url_to_fs(source.path))
    pattern = getattr(source, "pattern", None)
    found = ask(lambda: _list(system, root, pattern, whole=isinstance(source, HuggingFaceSource)))
    if not found:
        raise InputError(
            f"{where}: nothing is there to read at {shown}" + (f", or nothing matches {pattern!r}" if pattern else ""),
            remedy="correct path or pattern",
        )
    files = []
    for path, relative in sorted(found.items(), key=lambda item: item[1]):
        if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts or "\0" in relative:
            raise InputError(f"{where}: {relative!r} would lie outside of the snapshot", remedy="rename it there")
        facts = _copy(system, path, out / "files" / relative, ask=ask)
        files.append({"name": relative, "url": public_url(system.unstrip_protocol(path))} | facts)
    digest = hashlib.sha256("".join(f"{file['name']}\0{file['sha256']}\n" for file in files).encode())
    return {
        "kind": "files",
        "path": shown,
        "pattern": pattern,
        "files": files,
        "bytes": sum(file["bytes"] for file in files),
        "content_hash": digest.hexdigest(),
    }


def _list(system: Any, root: str, pattern: str | None, *, whole: bool) -> dict[str, str]:
    """Remote path to its name in the snapshot."""
    # A question mark in a web address begins the query, which may hold a token.
    is_web = root.startswith(("http://", "https://"))
    wildcard = None if is_web and "*" not in root else _GLOB.search(root)
    if wildcard is not None:
        base = root[: wildcard.start()].rpartition("/")[0]
        found = system.glob(root, detail=True)
    elif system.info(root)["type"] != "directory":
        return {root: PurePosixPath(public_url(root) if is_web else root).name}
    elif whole:
        base, found = root, system.find(root, detail=True)
    elif pattern is None:
        raise InputError("it is a folder, so the source needs a `pattern`", remedy="add pattern: '*.txt' to the source")
    else:
        base, found = root, system.glob(f"{root.rstrip('/')}/{pattern}", detail=True)
    base = base.rstrip("/")
    return {
        path: path[len(base) :].lstrip("/")
        for path, info in found.items()
        if info["type"] == "file" and not path.endswith("/")
    }


def _copy(system: Any, path: str, target: Path, *, ask: Callable[[Callable[[], Any]], Any]) -> dict[str, Any]:
    """Copy a file; its size, hash and, where the server has one, its entity tag."""
    target.parent.mkdir(parents=True, exist_ok=True)
    info = ask(lambda: system.info(path))
    digest, size = hashlib.sha256(), 0
    handle = ask(lambda: system.open(path, "rb"))
    try:
        with target.open("wb") as copy:
            while block := ask(lambda: handle.read(_BLOCK)):
                copy.write(block)
                digest.update(block)
                size += len(block)
    finally:
        handle.close()
    expected = info.get("size")
    if expected is not None and size != expected:
        raise InputError(
            f"{public_url(system.unstrip_protocol(path))} ended after {size:,} of {expected:,} bytes",
            remedy="run the snapshot stage again; if it happens again, check the file there",
        )
    tag = info.get("ETag") or info.get("etag")
    facts: dict[str, Any] = {"bytes": size, "sha256": digest.hexdigest()}
    return facts | ({"etag": str(tag).strip('"')} if tag else {})


def _ask(action: Callable[[], T], *, where: str, shown: str) -> T:
    """Do something remote; whatever a library of storage raises becomes one message without credentials."""
    remedy = "check the URL, the network and the credentials in the environment"
    try:
        return action()
    except InputError as error:
        problem, remedy = error.what, error.remedy or remedy
    except FileNotFoundError:
        problem = "it does not exist"
    except ImportError as error:
        problem, remedy = str(error), "install the package that fsspec needs for this protocol"
    except Exception as error:  # noqa: BLE001, RUF100 - each kind of storage raises errors of its own
        problem = " ".join(f"{type(error).__name__}: {error}".split())
    # Outside of the `except`, so that no traceback leads to what the library said.
    raise InputError(f"{where}: {shown} cannot be read: {_CREDENTIALS.sub('//***@', problem)}", remedy=remedy)
