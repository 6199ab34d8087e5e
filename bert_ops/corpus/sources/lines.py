"""Text of a file as it streams by: by line, in blocks, or whole; bytes are decoded a block at a time."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from bert_ops.corpus.sources.encoding import byte_order_mark, guess
from bert_ops.corpus.sources.files import SourceFile
from bert_ops.corpus.sources.reading import FileFacts, Reading, Stop
from bert_ops.corpus.sources.streams import blocks, compression_of, first_bytes

#: Share of NUL bytes in the first block above which a file is no text.
_MAX_NULS = 0.05

#: First bytes of ZIP (which .xlsx is), OLE (.xls), PDF and Parquet files.
_ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"%PDF-", b"PAR1")

_WIDE = ("utf-16", "utf-32")


class Refused(NamedTuple):
    """A line that is not text, in place of its text."""

    reason: str
    detail: str


def byte_blocks(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[bytes]:
    """Yield the decompressed bytes of a file without its byte order mark; UTF-16 and UTF-32 come as UTF-8.

    ``facts.encoding`` is set before the first block where the mark or params.yaml decides; else it stays None until
    :func:`settle` is called.

    Raises:
        Stop: the file breaks off, or is no text.

    """
    declared = getattr(reading.source, "compression", None)
    found = compression_of(first_bytes(file.path))
    facts.compression = found if declared is None else None if declared == "none" else declared
    if facts.compression is not None and found != facts.compression and facts.bytes:
        raise Stop("broken_file", f"it is declared as {declared}, but its first bytes are not those of {declared}")
    stream = blocks(file.path, facts.compression)
    start = next(stream, b"")
    mark = byte_order_mark(start)
    if reading.params.encoding != "auto":
        facts.encoding, facts.confidence = reading.params.encoding, 1.0
        if mark is not None and mark[0] in _WIDE:
            raise Stop(
                "bad_bytes",
                f"is not {reading.params.encoding.upper()}: its first bytes are those of {mark[0].upper()}",
            )
    elif mark is not None:
        facts.encoding, facts.confidence = mark[0], 1.0
    if facts.encoding in _WIDE:
        yield from _as_utf8(start, stream, facts)
        return
    if start.startswith(_ARCHIVES):
        raise Stop("binary_file", "it is a workbook (such as .xlsx or .xls) or an archive, not text")
    if start.count(0) > _MAX_NULS * len(start):
        raise Stop("binary_file", f"{start.count(0) / len(start):.0%} of its first bytes are zero")
    if mark is not None and mark[0] == facts.encoding:
        start = start[mark[1] :]
    if start:
        yield start
    yield from stream


def _as_utf8(start: bytes, stream: Iterator[bytes], facts: FileFacts) -> Iterator[bytes]:
    assert facts.encoding is not None
    decoder = codecs.getincrementaldecoder(facts.encoding)()
    block: bytes | None = start
    try:
        while block is not None:
            if text := decoder.decode(block):
                yield text.encode()
            block = next(stream, None)
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise Stop("broken_file", f"it is not {facts.encoding.upper()} throughout: {error}") from error


def settle(reading: Reading, facts: FileFacts, sample: bytes) -> None:
    """Decide on the encoding by the first bytes that are not ASCII.

    Raises:
        Stop: it is less certain than ``min_encoding_confidence``.

    """
    found = guess(sample)
    facts.encoding, facts.confidence = found.encoding, round(found.confidence, 4)
    least = reading.params.min_encoding_confidence
    if found.confidence < least:
        raise Stop(
            "unknown_encoding",
            f"{'UTF-8' if found.encoding == 'utf-8' else 'GB18030'} is the best guess at its encoding, with a "
            f"confidence of {found.confidence:.2f}; ingest.reading.min_encoding_confidence is {least:g}",
        )


def codec(facts: FileFacts) -> str:
    """Codec of what :func:`byte_blocks` yields."""
    return "gb18030" if facts.encoding == "gb18030" else "utf-8"


def lines(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[tuple[int, str | Refused]]:
    """Yield (number from 1, text without its line end) of each line; only a line feed ends one.

    Neither a line feed nor any other ASCII byte below 0x30 is part of a longer character in UTF-8 or GB18030, so bytes
    are cut into lines before they are decoded. At most a line of the length allowed and a block are held.

    Raises:
        Stop: the file breaks off or its encoding is uncertain; complete lines before the break were yielded.

    """
    held, number, offset, skipped = b"", 0, 0, 0
    stream = byte_blocks(reading, file, facts)
    broken: Stop | None = None
    while True:
        try:
            block = next(stream, b"")
        except Stop as stop:
            # The line that the break cuts goes with it.
            block, held, skipped, broken = b"", b"", 0, stop
        data = held + block
        cut = data.rfind(b"\n") + 1 if block else len(data)
        if not cut or not data:
            if not block:
                break
            held = data
            if len(held) > reading.max_bytes:
                skipped, held = skipped + len(held), b""
            continue
        whole, held = data[:cut], data[cut:]
        if skipped:
            first, _, whole = whole.partition(b"\n")
            number += 1
            skipped += len(first)
            yield number, _too_long(skipped, reading)
            offset, skipped = offset + skipped + 1, 0
        if facts.encoding is None and not whole.isascii():
            settle(reading, facts, whole)
        for line in _decode(whole, facts, offset, reading.max_bytes):
            number += 1
            yield number, line
        offset += len(whole)
        if not block:
            break
    if skipped:
        yield number + 1, _too_long(skipped, reading)
    if broken is not None:
        raise broken


def _too_long(length: int, reading: Reading) -> Refused:
    return Refused("row_too_long", f"{length:,} bytes; ingest.reading.max_row_mebibytes allows {reading.max_bytes:,}")


def _decode(whole: bytes, facts: FileFacts, offset: int, max_bytes: int) -> Iterator[str | Refused]:
    """Decode complete lines: all at once, or one by one where one of them is not valid."""
    name = codec(facts)
    if len(whole) <= max_bytes:
        try:
            texts = whole.decode(name).split("\n")
        except UnicodeDecodeError:
            pass
        else:
            if not texts[-1]:
                texts.pop()
            for text in texts:
                yield text.rstrip("\r") if text.endswith("\r") else text
            return
    raws = whole.split(b"\n")
    if not raws[-1]:
        raws.pop()
    for raw in raws:
        if len(raw) > max_bytes:
            yield Refused("row_too_long", f"{len(raw):,} bytes; ingest.reading.max_row_mebibytes allows {max_bytes:,}")
        else:
            yield decode_line(raw, name, offset=offset)
        offset += len(raw) + 1


def decode_line(raw: bytes, name: str, *, offset: int) -> str | Refused:
    """Decode a line, or say which byte is wrong."""
    try:
        return raw.decode(name).rstrip("\r\n")
    except UnicodeDecodeError as error:
        return Refused(
            "bad_bytes",
            f"is not {name.upper()}: byte {raw[error.start]:#04x} at offset {offset + error.start} of the file",
        )


def is_blank(text: str) -> bool:
    """Whether a line holds nothing but white space."""
    return not text or text.isspace()


def text_blocks(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[str]:
    """Yield the text of a file in blocks of about 1 MiB; a byte that does not decode comes as a lone surrogate.

    Raises:
        Stop: the file breaks off or its encoding is uncertain.

    """
    decoder: codecs.IncrementalDecoder | None = None
    for block in byte_blocks(reading, file, facts):
        if facts.encoding is None and not block.isascii():
            settle(reading, facts, block)
        if decoder is None and facts.encoding is not None:
            decoder = codecs.getincrementaldecoder(codec(facts))("surrogateescape")
        yield block.decode("ascii") if decoder is None else decoder.decode(block)
    if decoder is not None:
        yield decoder.decode(b"", final=True)
