"""Values of a database: text that is not UTF-8, and a hash over rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

#: Key of the object that stands for text that is not UTF-8, and says what is wrong with it.
NOT_UTF8 = "not UTF-8"


class BadText(bytes):
    """Bytes that a database holds as text and that are not UTF-8."""

    what: str

    @classmethod
    def or_text(cls, raw: bytes) -> str | BadText:
        """Decode bytes, or keep them with what is wrong."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = cls(raw)
            bad.what = f"byte {raw[error.start]:#04x} at offset {error.start} of the value"
            return bad


def as_json(value: Any) -> str:
    """A value of a database as JSON text: what JSON lacks (dates, decimals) as its string, bytes as hexadecimal."""
    if isinstance(value, BadText):
        value = {NOT_UTF8: value.what, "bytes": value.hex()}
    return json.dumps(value, ensure_ascii=True, allow_nan=True, default=_plain, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value).hex()}
    return str(value)


class RowsHash:
    """SHA-256 over rows in their order, each value as JSON, so that equal results have equal hashes."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.rows = 0

    def add(self, values: Sequence[Any]) -> None:
        """Add a row."""
        self.rows += 1
        self._digest.update(("\x1f".join(map(as_json, values)) + "\n").encode())

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()
