"""Reading a source in a test as the engine does, with everything that came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import ReadingParams, Source
from bert_ops.corpus.sources import SourceReport, read_source

READING: dict[str, Any] = {
    "bad_rows": "quarantine",
    "encoding": "auto",
    "min_encoding_confidence": 0.8,
    "max_row_mebibytes": 1,
    "max_json_depth": 32,
}

_SOURCE: TypeAdapter[Any] = TypeAdapter(Source)


@dataclass(frozen=True)
class Read:
    """What came of a source."""

    items: list[Row | Rejection]
    report: SourceReport

    @property
    def rows(self) -> list[Row]:
        return [item for item in self.items if isinstance(item, Row)]

    @property
    def texts(self) -> list[Any]:
        return [row.text for row in self.rows]

    @property
    def rejections(self) -> list[Rejection]:
        return [item for item in self.items if isinstance(item, Rejection)]

    @property
    def reasons(self) -> list[str]:
        return [rejection.reason for rejection in self.rejections]


def read(source: dict[str, Any], *, snapshots: str | None = None, **reading: Any) -> Read:
    """Read a source below the folder `raw` of the current folder, to its end."""
    report = SourceReport()
    items = list(
        read_source(
            "s",
            _SOURCE.validate_python(source),
            reading=ReadingParams.model_validate(READING | reading),
            inputs=[Path("raw")],
            snapshots=None if snapshots is None else Path(snapshots),
            report=report,
        )
    )
    result = Read(items, report)
    assert report.rows == len(result.rows)
    assert sum(report.rejected.values()) == len(result.rejections)
    for rejection in result.rejections:
        assert rejection.source == "s"
        assert rejection.location
        assert rejection.detail
    return result


def put(name: str, content: str | bytes) -> Path:
    """Write a file below `raw`."""
    path = Path("raw") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
