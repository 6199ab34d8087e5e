"""Plain text: a document a line, a paragraph or a file."""

from __future__ import annotations

from collections.abc import Iterator

from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import TextSource
from bert_ops.corpus.sources.files import FileReader, SourceFile, read_files
from bert_ops.corpus.sources.lines import Refused, is_blank, lines
from bert_ops.corpus.sources.reading import FileFacts, Reading


def read_text(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the documents of text files; blank lines separate and are no documents."""
    assert isinstance(reading.source, TextSource)
    layouts: dict[str, FileReader] = {"line": _by_line, "paragraph": _by_paragraph, "file": _by_file}
    return read_files(reading, layouts[reading.source.layout])


def _by_line(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[Row | Rejection]:
    for number, line in lines(reading, file, facts):
        if isinstance(line, Refused):
            yield reading.reject(f"{file.shown}:{number}", *line)
        elif not is_blank(line):
            yield Row(f"{file.shown}:{number}", line)


def _by_paragraph(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[Row | Rejection]:
    """A line that cannot be read refuses its whole paragraph: half of a document is no document."""
    return _documents(reading, file, facts, blank_ends=True)


def _by_file(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[Row | Rejection]:
    return _documents(reading, file, facts, blank_ends=False)


def _documents(reading: Reading, file: SourceFile, facts: FileFacts, *, blank_ends: bool) -> Iterator[Row | Rejection]:
    held: list[str] = []
    first, size = 1, 0
    refused: tuple[int, Refused] | None = None

    def finish() -> Iterator[Row | Rejection]:
        if refused is not None:
            yield reading.reject(f"{file.shown}:{refused[0]}", *refused[1], "\n".join(held))
        elif any(not is_blank(line) for line in held):
            yield Row(f"{file.shown}:{first}", "\n".join(held))

    for number, line in lines(reading, file, facts):
        if isinstance(line, str) and blank_ends and is_blank(line):
            yield from finish()
            held, size, refused = [], 0, None
            continue
        if not held and refused is None:
            first = number if blank_ends else 1
        if refused is not None:
            continue
        if isinstance(line, Refused):
            refused = number, line
            continue
        size += len(line.encode()) + 1
        if size > reading.max_bytes:
            refused = first, Refused("row_too_long", f"more than the {reading.max_bytes:,} bytes that a row may have")
            held = held[:1]
            continue
        held.append(line)
    yield from finish()
