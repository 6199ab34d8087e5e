"""Comma- and tab-separated values with a header.

A quotation mark that is never closed would swallow the rest of the file as one value. A record that turns out broken is
therefore refused with its first line only, and the lines after it are read anew.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from bert_ops.corpus.fields import named_fields
from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import CsvSource
from bert_ops.corpus.sources.files import SourceFile, read_files
from bert_ops.corpus.sources.lines import Refused, is_blank, lines
from bert_ops.corpus.sources.reading import FileFacts, Reading, Stop
from bert_ops.corpus.sources.rows import find_columns

#: Lines are read anew up to this many times their number; it bounds the time that a hostile file takes.
_REREADS = 4

#: Delimiters that are looked for in a header that lacks a column.
DELIMITERS = (",", ";", "\t", "|")

_Line = tuple[int, str | Refused]


def read_delimited(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the rows of CSV or TSV files."""
    return read_files(reading, _read)


def _read(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[Row | Rejection]:
    records = _Records(lines(reading, file, facts), reading)
    header: list[str] | None = None
    places: list[int | None] = []
    for number, record in records:
        location = f"{file.shown}:{number}"
        if header is None:
            if isinstance(record, Refused):
                raise Stop(record.reason, f"its header cannot be read: {record.detail}", location=location)
            header = [name.strip() for name in record]
            hint = _delimiter_hint(reading.source, records.first_line)
            places = find_columns(reading, header, where=f"the header of {file.shown}", hint=hint)
        elif isinstance(record, Refused):
            yield reading.reject(location, record.reason, record.detail, records.first_line)
        elif len(record) != len(header):
            detail = f"it has {len(record)} values, the header {len(header)}"
            yield reading.reject(location, "wrong_columns", detail, records.first_line)
        else:
            yield Row(location, *(None if place is None else record[place] for place in places))


def _plain(error: csv.Error) -> str:
    """What Python's csv says, where it would puzzle."""
    if "new-line character" in str(error):
        return "a carriage return stands within the line; if all lines end so (old Mac), convert them: tr '\\r' '\\n'"
    return str(error)


def _format(source: CsvSource) -> dict[str, Any]:
    """What Python's csv is told."""
    quote = ('"' if source.kind == "csv" else "") if source.quote is None else source.quote
    how: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    return {"delimiter": source.delimiter or ("," if source.kind == "csv" else "\t"), "strict": True, **how}


def delimiter_of(header: str, wanted: Iterable[str], *, first: str = ",") -> str | None:
    """Which delimiter divides a header so that all columns that are wanted are there; ``first`` is tried first."""
    names = list(wanted)
    for delimiter in (first, *DELIMITERS):
        columns = {name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])}
        if columns.issuperset(names):
            return delimiter
    return None


def _delimiter_hint(source: Any, header: str) -> str | None:
    wanted = list(named_fields(source).values())
    found = delimiter_of(header, wanted)
    if found is None or found == _format(source)["delimiter"]:
        return None
    shown = '"\\t"' if found == "\t" else f'"{found}"'
    return f"the columns are divided by {'tabs' if found == chr(9) else found}: set the source's delimiter: {shown}"


class _BrokenRecord(Exception):
    """A record cannot be put together from lines."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.refused = refused


class _Records:
    """Iterates over (number of the first line, values or why there are none).

    Attributes:
        first_line: the first line of the record that was yielded last.

    """

    def __init__(self, source: Iterator[_Line], reading: Reading) -> None:
        assert isinstance(reading.source, CsvSource)
        self._source, self._max = source, reading.max_bytes
        self._format = _format(reading.source)
        self._again: deque[_Line] = deque()
        self._used: list[tuple[int, str]] = []
        self._read = self._reread = 0
        self._broken: Stop | None = None
        self.first_line = ""

    def __iter__(self) -> Iterator[tuple[int, list[str] | Refused]]:
        csv.field_size_limit(2**31 - 1)
        reader = csv.reader(self._feed(), **self._format)
        while True:
            self._used = []
            try:
                record = next(reader, None)
            except _BrokenRecord as broken:
                yield self._give_up(broken.refused)
            except csv.Error as error:
                yield self._give_up(Refused("bad_csv", _plain(error)))
            else:
                if record is None:
                    break
                number, self.first_line = self._used[0]
                if record and not (len(self._used) == 1 and is_blank(self.first_line)):
                    yield number, record
                continue
            reader = csv.reader(self._feed(), **self._format)
        if self._broken is not None:
            raise self._broken

    def _give_up(self, refused: Refused) -> tuple[int, Refused]:
        """Refuse the first line of a broken record and put back the others."""
        if not self._used:
            number, line = self._again.popleft()
            assert isinstance(line, Refused)
            self.first_line = ""
            return number, line
        (number, self.first_line), *others = self._used
        if refused.reason == "bad_csv" and others:
            last = others[-1][0]
            if self._reread + len(others) > _REREADS * self._read:
                return number, Refused("bad_csv", f"{refused.detail}; the record is given up up to line {last}")
            refused = Refused("bad_csv", f"{refused.detail}, in the record that would end at line {last}")
        self._reread += len(others)
        self._again.extendleft(reversed(others))
        return number, refused

    def _feed(self) -> Iterator[str]:
        """Lines for csv.reader, those that were put back first."""
        size = 0
        while True:
            if not self._used:
                size = 0
            again = bool(self._again)
            line = self._again.popleft() if again else self._draw()
            if line is None:
                return
            number, text = line
            if isinstance(text, Refused):
                self._again.appendleft(line)
                raise _BrokenRecord(
                    Refused("bad_csv", f"line {number} within the record cannot be read: {text.detail}")
                )
            self._used.append((number, text))
            size += len(text) + 1
            if size > self._max:
                raise _BrokenRecord(
                    Refused("bad_csv", "a quotation mark opens here that is not closed within the length of a row")
                )
            yield text + "\n"

    def _draw(self) -> _Line | None:
        try:
            line = next(self._source, None)
        except Stop as stop:
            self._broken = stop
            return None
        self._read += line is not None
        return line
