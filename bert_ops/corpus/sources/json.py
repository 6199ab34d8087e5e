"""JSON documents: an array of rows, streamed, wherever in the document it stands.

Rows are cut out of the text by their brackets and each is parsed as a line of JSON Lines is. So a row that is broken is
refused alone, a number too long or a lone surrogate is the same as there, and a row that is longer than allowed is
passed over without being held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from bert_ops.corpus.field_paths import Step, parse_path
from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import JsonSource
from bert_ops.corpus.sources.files import SourceFile, read_files
from bert_ops.corpus.sources.json_scan import Depth
from bert_ops.corpus.sources.jsonl import parse_object
from bert_ops.corpus.sources.lines import Refused, text_blocks
from bert_ops.corpus.sources.reading import FileFacts, Reading, Stop
from bert_ops.corpus.sources.rows import row_maker
from bert_ops.errors import InputError

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*+")
_SCALAR = re.compile(r"[^,\]}\s]*+")


def read_json(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the rows of JSON documents; the first row must have every field, a later one may lack it."""
    make = row_maker(reading)
    source = reading.source
    assert isinstance(source, JsonSource)
    steps = None if source.rows is None else parse_path(source.rows, key="rows", stars=True)

    def read(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[Row | Rejection]:
        document = _Document(text_blocks(reading, file, facts), max_length=reading.max_bytes)
        if not document.peek():
            return
        number = 0
        try:
            for number, raw in enumerate(document.rows(steps), start=1):
                location = f"{file.shown} row {number}"
                value = _parse(raw, reading)
                if isinstance(value, Refused):
                    yield reading.reject(location, *value, raw)
                else:
                    yield make(location, value)
            document.expect_end()
        except Stop as stop:
            raise Stop(stop.reason, stop.detail, location=f"{file.shown} after row {number}") from stop
        if not document.found:
            _nothing_there(reading, file)

    return read_files(reading, read)


def _parse(raw: str | Refused, reading: Reading) -> dict[str, object] | Refused:
    if isinstance(raw, Refused):
        return raw
    if not raw.isascii():
        try:
            raw.encode()
        except UnicodeEncodeError as error:
            return Refused(
                "bad_bytes", f"holds bytes that are not of the file's encoding, after {error.start} characters"
            )
    return parse_object(raw, max_depth=reading.params.max_json_depth)


def _nothing_there(reading: Reading, file: SourceFile) -> None:
    assert isinstance(reading.source, JsonSource)
    if reading.proven:
        raise Stop("wrong_columns", f"it has nothing at {reading.source.rows}, where rows should be")
    raise InputError(
        f"{file.shown} has nothing at {reading.source.rows}, where ingest.sources.{reading.name}.rows says that the "
        "rows are",
        allowed="a path like data[*].items[*]; [*] is each element of a list",
        remedy="correct rows; without it, the elements of the outermost array are the rows",
    )


class _Document:
    """A place in JSON text that is drawn in chunks.

    Attributes:
        found: whether anything stood where rows should be.

    """

    def __init__(self, chunks: Iterator[str], *, max_length: int) -> None:
        self.found = False
        self._chunks, self._max = chunks, max_length
        self._text, self._place = "", 0

    def rows(self, steps: list[Step] | None) -> Iterator[str | Refused]:
        """Yield the text of each row; one that is too long is refused and passed over."""
        if steps is None:
            steps = [True] if self.peek() == "[" else []
        if not steps:
            self.found = True
            row = self._value(keep=True)
            yield Refused("row_too_long", f"more than {self._max:,} characters") if row is None else row
        elif isinstance(steps[0], str):
            yield from self._in_object(steps[0], steps[1:])
        else:
            yield from self._in_array(steps[0], steps[1:])

    def _in_object(self, name: str, rest: list[Step]) -> Iterator[str | Refused]:
        if self.peek() != "{":
            self._value(keep=False)
            return
        self._place += 1
        while (mark := self.peek()) != "}":
            if mark != '"':
                raise Stop("bad_json", f"is not valid JSON: {_show(mark)} where a key should be")
            key = self._value(keep=True)
            if self.peek() != ":":
                raise Stop("bad_json", "is not valid JSON: no colon after a key")
            self._place += 1
            if key is not None and _string(key) == name:
                yield from self.rows(rest)
            else:
                self._value(keep=False)
            self._comma("}")
        self._place += 1

    def _in_array(self, which: int | bool, rest: list[Step]) -> Iterator[str | Refused]:
        if self.peek() != "[":
            self._value(keep=False)
            return
        self._place += 1
        self.found |= which is True and not rest
        number = 0
        while self.peek() != "]":
            if which is True or number == which:
                yield from self.rows(rest)
            else:
                self._value(keep=False)
            number += 1
            self._comma("]")
        self._place += 1

    def _comma(self, end: str) -> None:
        mark = self.peek()
        if mark == ",":
            self._place += 1
        elif mark != end:
            raise Stop("bad_json", f"is not valid JSON: {_show(mark)} where a comma or {end} should be")

    def expect_end(self) -> None:
        """Check that nothing follows the document."""
        if self.peek():
            raise Stop("bad_json", "more text follows the document; a document a line is the kind jsonl")

    def peek(self) -> str:
        """Next character that is not white space, or nothing at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _more(self) -> bool:
        self._text, self._place = next((chunk for chunk in self._chunks if chunk), ""), 0
        return bool(self._text)

    def _value(self, *, keep: bool) -> str | None:
        """Pass over a value; its text, or None if it is longer than allowed or not kept."""
        mark = self.peek()
        if mark in ("", ",", "]", "}", ":"):
            raise Stop("bad_json", f"is not valid JSON: {_show(mark)} where a value should be")
        if keep and mark == "{" and (end := self._quick_end()):
            piece, self._place = self._text[self._place : end], end
            return piece
        depth = Depth() if mark in '"{[' else None
        pieces: list[str] = []
        length = 0
        while True:
            if depth is None:
                match = _SCALAR.match(self._text, self._place)
                end = match.end() if match and match.end() < len(self._text) else None
            else:
                end = depth.feed(self._text, self._place)
            piece = self._text[self._place : end]
            length += len(piece)
            keep = keep and length <= self._max
            if keep:
                pieces.append(piece)
            else:
                pieces.clear()
            self._place = len(self._text) if end is None else end
            if end is not None:
                break
            if not self._more():
                if depth is None:
                    break
                raise Stop("bad_json", "is not valid JSON: the document ends within a value")
        return "".join(pieces) if keep else None

    def _quick_end(self) -> int | None:
        """End of an object that is whole, valid and not too long, by the parser itself, which is quicker than Depth."""
        try:
            _, end = _DECODER.raw_decode(self._text, self._place)
        except (ValueError, RecursionError):
            return None
        return end if end - self._place <= self._max else None


def _string(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _show(mark: str) -> str:
    return repr(mark) if mark else "the end"
