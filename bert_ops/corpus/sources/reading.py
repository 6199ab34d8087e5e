"""What the readers of all kinds share: what is read, what was read so far, and how a row is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_ops.corpus.records import Rejection, excerpt
from bert_ops.corpus.source_params import ReadingParams, Source

#: Why a row or a file was not read, and what that means, in the words of the report.
REASONS = {
    "empty_file": "the file holds no row",
    "broken_file": "the file is truncated or damaged; what stood before the break was read",
    "unreadable_file": "the file cannot be opened: no permission, or a link that leads nowhere",
    "special_file": "neither a file nor a folder: a pipe, a socket or a device",
    "binary_file": "the file is not text",
    "unknown_encoding": "the encoding of the file could not be told with enough confidence",
    "bad_bytes": "bytes that do not belong to the encoding of the file",
    "row_too_long": "the row is longer than ingest.reading.max_row_mebibytes",
    "bad_json": "not valid JSON",
    "not_an_object": "a JSON value that is not an object",
    "deep_json": "JSON that is nested deeper than ingest.reading.max_json_depth",
    "duplicate_key": "a JSON object that has a key twice",
    "bad_csv": "quotation marks that do not fit together",
    "wrong_columns": "more or fewer values than the header has columns, or another header than the first file's",
}

#: What a person can do about it, for the message when the policy is to fail.
REMEDIES = {
    "binary_file": "name a file of text; save the sheet of a workbook as CSV (UTF-8)",
    "unknown_encoding": "declare the source's encoding, or convert the file to UTF-8, for example with "
    "`iconv -f BIG5 -t UTF-8` or `iconv -f WINDOWS-1252 -t UTF-8`",
    "bad_bytes": "set the source's encoding to auto or gb18030, or convert the file to UTF-8, for example with "
    "`iconv -f GB18030 -t UTF-8`",
    "bad_csv": "close or double the quotation marks, or read them as they stand with the source's `quote: ''`",
    "wrong_columns": "put values that hold the delimiter between quotation marks, or set the source's delimiter",
    "missing_field": "check the names of the source's fields",
    "null_label": "fill the column, or name another one",
    "bad_label": "name a column of labels; numbers are `value`, lists are `labels`",
    "bad_labels": "name the sign that divides them in the source's label_separator, or write JSON lists",
    "bad_value": "name a column of numbers; words are `label`",
    "unreadable_file": "check the file and its permissions",
    "row_too_long": "check the file, or raise ingest.reading.max_row_mebibytes",
    "deep_json": "check the file, or raise ingest.reading.max_json_depth",
}

#: Files that a report lists one by one; of more, it gives the sums.
LISTED_FILES = 200


@dataclass(slots=True)
class FileFacts:
    """What is known of a file of a source.

    Attributes:
        path: as messages name it.
        bytes: its size as it is stored.
        encoding: of text files, declared or found; None where it has none or nothing but ASCII was seen.
        confidence: how certain the encoding is, 0 to 1; 1 where it is declared.
        compression: gzip, zstd, xz or None.
        rows: rows read from it.
        rejected: rows (or the file itself) refused.

    """

    path: str
    bytes: int = 0
    encoding: str | None = None
    confidence: float | None = None
    compression: str | None = None
    rows: int = 0
    rejected: int = 0


@dataclass(slots=True)
class QueryFacts:
    """What is known of the result of a query.

    Attributes:
        query: the SELECT.
        rows: rows of the result.
        content_hash: SHA-256 of the rows, as 64 hexadecimal digits.

    """

    query: str
    rows: int
    content_hash: str


@dataclass(slots=True)
class SourceReport:
    """What was read from a source; filled while its rows are drawn."""

    files: list[FileFacts] = field(default_factory=list)
    query: QueryFacts | None = None
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        """JSON values, in a fixed order; sums over all files and the first of them one by one."""
        confidences = [file.confidence for file in self.files if file.confidence is not None]
        result: dict[str, Any] = {
            "rows": self.rows,
            "rejected": dict(sorted(self.rejected.items())),
            "files": {
                "count": len(self.files),
                "bytes": sum(file.bytes for file in self.files),
                "encodings": _tally(file.encoding for file in self.files),
                "compressions": _tally(file.compression for file in self.files),
                "lowest_confidence": min(confidences, default=None),
                "listed": [
                    {name: getattr(file, name) for name in FileFacts.__slots__} for file in self.files[:LISTED_FILES]
                ],
            },
        }
        if self.query is not None:
            result["query"] = {name: getattr(self.query, name) for name in QueryFacts.__slots__}
        return result


def _tally(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(value for value in values if value is not None).items()))


class Stop(Exception):
    """A file cannot be read any further; what was read of it stays."""

    def __init__(self, reason: str, detail: str, *, location: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.location = reason, detail, location


@dataclass(slots=True)
class Reading:
    """One pass over a source.

    Attributes:
        name: the source's name in params.yaml.
        source: what to read.
        params: how, with the source's own words on it applied.
        inputs: folders that the stage depends on; every file must lie in one of them.
        snapshots: folder of what the snapshot stage copied, or None.
        report: filled on the way.
        proven: whether a row had all the fields; until then, a missing one is a slip in params.yaml.

    """

    name: str
    source: Source
    params: ReadingParams
    inputs: Sequence[Path]
    snapshots: Path | None
    report: SourceReport
    proven: bool = False

    @property
    def max_bytes(self) -> int:
        """Bytes that a row may have at most."""
        return self.params.max_row_mebibytes << 20

    def reject(self, location: str, reason: str, detail: str, text: object = None) -> Rejection:
        """Build the rejection of a row or a file."""
        assert reason in REASONS
        return Rejection(self.name, location, reason, detail, excerpt(text))
