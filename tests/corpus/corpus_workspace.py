"""Sources and params.yaml files that the tests of the corpus package make for themselves, and a way to run on them."""

from __future__ import annotations

import copy
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bert_ops.__main__ import main

_USUAL = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8"))["ingest"]

#: The project's own values, but for bounds that small tests need.
INGEST: dict[str, Any] = _USUAL | {
    "sources": {"news": {"kind": "text", "path": "raw/news.txt", "layout": "line"}},
    "clean": _USUAL["clean"] | {"length": {"min_characters": 2, "max_characters": 200}},
    "leakage": {"action": "drop", "ngram": 10, "min_share": 0.8},
}


@dataclass
class Workspace:
    """A folder with raw inputs and a way to run the ingest stage on them, as the command line does."""

    folder: Path
    workers: int = 1

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def out(self) -> Path:
        return self.folder / "out" / "corpus"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "out" / "metrics.json"

    @property
    def page(self) -> Path:
        return self.folder / "out" / "card.html"

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
        return main(["ingest", *map(str, [*arguments, "--page", self.page, "--workers", self.workers])])

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.out / f"{name}.parquet")

    @property
    def metrics(self) -> Any:
        return json.loads(self.metrics_file.read_text(encoding="utf-8"))
