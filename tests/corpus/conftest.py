"""Sources and params.yaml files that the tests of the corpus package make for themselves."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from bert_ops.__main__ import main
from bert_ops.corpus.params import IngestParams

INGEST: dict[str, Any] = {
    "sources": {"news": {"kind": "text", "path": "raw/news.txt", "layout": "line"}},
    "normalization": "NFKC",
    "min_characters": 2,
    "max_characters": 200,
    "label_conflicts": "drop",
    "split": {"train": 0.8, "validation": 0.1, "test": 0.1, "salt": ""},
}


def ingest_params(**changes: Any) -> IngestParams:
    """The section ``ingest`` with some keys changed."""
    return IngestParams.model_validate(copy.deepcopy(INGEST) | changes)


@dataclass
class Workspace:
    """A folder with raw inputs and a way to run the ingest stage on them, as the command line does."""

    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def out(self) -> Path:
        return self.folder / "out" / "corpus"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "out" / "metrics.json"

    def text(self, name: str, text: str | bytes) -> Path:
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def jsonl(self, name: str, rows: list[Any]) -> Path:
        return self.text(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def sqlite(self, name: str, rows: list[tuple[Any, ...]]) -> Path:
        path = self.raw / name
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body, good)")
            connection.executemany("INSERT INTO t (body, good) VALUES (?, ?)", rows)
        return path

    def ingest(self, sources: dict[str, Any] | None = None, **changes: Any) -> int:
        """Run the stage through the command line; returns its exit code."""
        value = copy.deepcopy(INGEST) | changes
        if sources is not None:
            value["sources"] = sources
        return self.ingest_raw({"ingest": value})

    def ingest_raw(self, value: Any) -> int:
        params = self.folder / "params.yaml"
        params.write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")
        arguments = ["--params", params, "--input", "raw", "--out", self.out, "--metrics", self.metrics_file]
        return main(["ingest", *map(str, arguments)])

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.out / f"{name}.parquet")

    @property
    def metrics(self) -> Any:
        return json.loads(self.metrics_file.read_text(encoding="utf-8"))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace; it is the current folder, as the project's root is for a stage."""
    monkeypatch.chdir(tmp_path)
    # The command line asks the kernel to end the process with its parent; a test process must not.
    monkeypatch.setattr("bert_ops.__main__.die_with_parent", lambda: None)
    (tmp_path / "raw").mkdir()
    return Workspace(tmp_path)


@pytest.fixture
def fails(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the stage, expect one clear message without a traceback and no output, and return the message."""

    def run(*arguments: Any, **changes: Any) -> str:
        code = workspace.ingest(*arguments, **changes)
        message = capsys.readouterr().err
        assert code != 0, "the stage should have failed"
        assert "Traceback" not in message
        assert not workspace.out.exists()
        assert not workspace.metrics_file.exists()
        return message

    return run
