"""Bytes of a file as they stream by, decompressed; a break in a compressed stream keeps what stood before it."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import zstandard

from bert_ops.corpus.sources.reading import Stop

BLOCK = 1 << 20

#: Compressed bytes a step. A step of Zstandard yields up to 128 KiB for each 4 bytes: 64 MiB at the very worst.
_STEP = 1 << 16
_ZSTD_STEP = 1 << 11

#: Memory that decompression may ask for: xz at its highest preset takes 65 MiB, `zstd --long=27` 128 MiB.
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 1 << 27

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
)


class _Decompressor(Protocol):
    """What one member of a compressed file is fed to."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def compression_of(start: bytes) -> str | None:
    """Compression by the first bytes of a file."""
    return next((name for magic, name in _MAGIC if start.startswith(magic)), None)


def first_bytes(path: Path, count: int = 16) -> bytes:
    """First bytes of a file."""
    with path.open("rb") as handle:
        return handle.read(count)


def blocks(path: Path, compression: str | None) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks of at most about 1 MiB (a little more if compressed), never empty.

    Raises:
        Stop: the stream breaks; everything before the break was yielded.

    """
    with path.open("rb") as handle:
        if compression is None:
            while block := handle.read(BLOCK):
                yield block
        else:
            yield from _gather(_decompressed(handle, compression))


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces to blocks; what was gathered before a break is still yielded."""
    held: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= BLOCK:
                yield b"".join(held)
                held, size = [], 0
    except Stop:
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


def _decompressed(handle: BufferedReader, compression: str) -> Iterator[bytes]:
    """Yield pieces of the content; a file may hold several members, and zeros after the last one (padding)."""
    step = _ZSTD_STEP if compression == "zstd" else _STEP
    make, feed = _MEMBERS[compression]
    member = make()
    started = False
    data = b""
    while True:
        if not data:
            data = handle.read(step)
            if not data:
                break
        if not started and not data.strip(b"\0"):
            data = b""
            continue
        try:
            started = True
            yield from feed(member, data)
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile, EOFError) as error:
            raise Stop(
                "broken_file", f"the {compression} stream is damaged before byte {handle.tell()}: {error}"
            ) from error
        data = b""
        if member.eof:
            data = member.unused_data
            member, started = make(), False
    if started:
        raise Stop("broken_file", f"the {compression} stream ends too early, at byte {handle.tell()}")


def _feed_gzip(member: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    while not member.eof:
        piece = member.decompress(data, BLOCK)
        data = member.unconsumed_tail
        if piece:
            yield piece
        if not data and len(piece) < BLOCK:
            return


def _feed_xz(member: lzma.LZMADecompressor, data: bytes) -> Iterator[bytes]:
    piece = member.decompress(data, BLOCK)
    while True:
        if piece:
            yield piece
        if member.eof or member.needs_input:
            return
        piece = member.decompress(b"", BLOCK)


def _feed_zstd(member: zstandard.ZstdDecompressionObj, data: bytes) -> Iterator[bytes]:
    piece = member.decompress(data)
    for start in range(0, len(piece), BLOCK):
        yield piece[start : start + BLOCK]


_MEMBERS: dict[str, tuple[Callable[[], _Decompressor], Callable[..., Iterator[bytes]]]] = {
    "gzip": (lambda: zlib.decompressobj(wbits=31), _feed_gzip),
    "xz": (lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), _feed_xz),
    "zstd": (lambda: zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj(), _feed_zstd),
}
