"""Files of a source: compression, damage, encodings, links, pipes and rows that are too long."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from source_reading import put, read

from bert_ops.corpus.sources import streams
from bert_ops.corpus.sources.encoding import chinese, guess
from bert_ops.errors import InputError

pytestmark = pytest.mark.usefixtures("workspace")

TEXT = {"kind": "text", "path": "raw/news.txt", "layout": "line"}
#: Ordinary prose, as a file of one line would hold it.
PROSE = "今天的天气很好，我们一起去公园里玩吧。他说这本书是他在北京买的，已经看了三天了。"

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
}


def noise(lines: int) -> str:
    """Lines that do not compress to nothing."""
    draw = random.Random(7)
    return "".join(f"第{i}行 {draw.getrandbits(256):x}\n" for i in range(lines))


@pytest.mark.parametrize("name", COMPRESS)
def test_compression_is_told_by_content(name: str) -> None:
    content = noise(2000)
    put("news.txt", COMPRESS[name](content.encode()))
    result = read(TEXT)
    assert result.texts == content.splitlines()
    assert result.report.files[0].compression == name
    assert read(TEXT | {"compression": name}).texts == content.splitlines()


@pytest.mark.parametrize("name", COMPRESS)
def test_members_follow_one_another(name: str) -> None:
    compress = COMPRESS[name]
    put("news.txt", compress("甲\n".encode()) + compress("乙\n丙".encode()) + compress("\n丁".encode()))
    assert read(TEXT).texts == ["甲", "乙", "丙", "丁"]


def test_padding_after_a_stream_is_no_damage() -> None:
    put("news.txt", gzip.compress("甲\n".encode()) + b"\0" * 4096)
    assert read(TEXT).texts == ["甲"]
    assert not read(TEXT).rejections


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_stream_keeps_what_stood_before_the_break(name: str, keep: float) -> None:
    content = noise(20_000)
    whole = COMPRESS[name](content.encode())
    put("news.txt", whole[: int(len(whole) * keep)])
    result = read(TEXT)
    lines = content.splitlines()
    assert result.texts == lines[: len(result.texts)]
    assert len(result.texts) >= len(lines) * keep * 0.5
    assert result.reasons == ["broken_file"]
    assert "ends too early" in result.rejections[0].detail
    with pytest.raises(InputError, match=r"raw/news\.txt: the .* stream ends too early"):
        read(TEXT, bad_rows="fail")


@pytest.mark.parametrize("name", COMPRESS)
def test_a_damaged_stream(name: str) -> None:
    content = noise(20_000)
    whole = bytearray(COMPRESS[name](content.encode()))
    whole[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    put("news.txt", bytes(whole))
    result = read(TEXT)
    assert result.reasons[-1] == "broken_file"
    assert set(result.reasons) <= {"broken_file", "bad_bytes", "row_too_long"}
    good = set(content.splitlines())
    assert sum(text in good for text in result.texts) > 3000


def test_garbage_after_a_stream() -> None:
    put("news.txt", gzip.compress("甲\n".encode()) + b"garbage")
    assert read(TEXT).texts == ["甲"]
    assert read(TEXT).reasons == ["broken_file"]


def test_declared_compression_that_does_not_fit() -> None:
    put("news.txt", "很好\n")
    assert read(TEXT | {"compression": "gzip"}).reasons == ["broken_file"]
    put("news.txt", gzip.compress("很好\n".encode()))
    assert read(TEXT | {"compression": "none", "encoding": "utf-8"}).reasons == ["binary_file"]


@pytest.mark.parametrize("name", COMPRESS)
def test_a_compression_bomb_is_streamed(name: str) -> None:
    put("news.txt", COMPRESS[name](b"x" * (200 << 20) + "\n很好\n".encode()))
    tracemalloc.start()
    try:
        result = read(TEXT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.texts == ["很好"]
    assert result.reasons == ["row_too_long"]
    assert f"{200 << 20:,} bytes" in result.rejections[0].detail
    assert peak < 100 << 20


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv", "json"])
def test_a_line_of_200_megabytes_is_passed_over(kind: str) -> None:
    with put("news.txt", b"").open("wb") as handle:
        handle.write({"csv": b"body\nx\n", "json": b'[{"body": "x"},\n{"body": "'}.get(kind, b'{"body": "x"}\n'))
        for _ in range(200):
            handle.write(b"y" * (1 << 20))
        handle.write(b'"},\n{"body": "z"}]' if kind == "json" else b'\n{"body": "z"}\n' if kind != "csv" else b"\nz\n")
    source = TEXT if kind == "text" else {"kind": kind, "path": "raw/news.txt", "text": "body"}
    tracemalloc.start()
    try:
        result = read(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(result.texts) == 2
    assert result.reasons == ["row_too_long"]
    assert result.rejections[0].location == {"json": "raw/news.txt row 2", "csv": "raw/news.txt:3"}.get(
        kind, "raw/news.txt:2"
    )
    assert peak < 20 << 20


def test_a_long_document_is_refused_whole() -> None:
    put("news.txt", f"{'长' * 99}\n" * 4_000 + "\n短\n")
    assert read(TEXT | {"layout": "paragraph"}).texts == ["短"]
    assert read(TEXT | {"layout": "paragraph"}).reasons == ["row_too_long"]
    assert read(TEXT | {"layout": "file"}).reasons == ["row_too_long"]
    assert len(read(TEXT).texts) == 4_001


@pytest.mark.parametrize("block", [1, 2, 3, 7])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-32"])
def test_blocks_may_end_anywhere(encoding: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = f"{PROSE}\n\n{PROSE}𠀀\r\nplain\n最后"
    put("news.txt", content.encode(encoding))
    monkeypatch.setattr(streams, "BLOCK", block)
    # The guess needs more than a byte to go by, and is not what this is about.
    declared = {"encoding": encoding} if encoding in ("utf-8", "gb18030") else {}
    if encoding == "utf-8-sig" or encoding.startswith("utf-1") or encoding == "utf-32":
        monkeypatch.setattr(streams, "BLOCK", max(block, 4))
    assert read(TEXT | declared).texts == [PROSE, f"{PROSE}𠀀", "plain", "最后"]


def test_gb18030_is_found_with_a_confidence() -> None:
    put("news.txt", f"{PROSE}\n".encode("gb18030"))
    result = read(TEXT)
    assert result.texts == [PROSE]
    facts = result.report.files[0]
    assert facts.encoding == "gb18030"
    assert facts.confidence is not None
    assert facts.confidence > 0.99


def test_gb18030_after_a_long_ascii_beginning() -> None:
    put("news.txt", b"plain text and no more\n" * 100_000 + f"{PROSE}\n".encode("gb18030"))
    assert read(TEXT).texts[-1] == PROSE


def test_gb18030_with_its_mark() -> None:
    put("news.txt", "\ufeff很好\n".encode("gb18030"))
    result = read(TEXT)
    assert result.texts == ["很好"]
    assert result.report.files[0].confidence == 1.0


def test_a_bad_line_in_gb18030() -> None:
    put("news.txt", f"{PROSE}\n".encode("gb18030") + b"\xff\xff\n" + f"{PROSE}\n".encode("gb18030"))
    result = read(TEXT | {"encoding": "gb18030"})
    assert result.texts == [PROSE, PROSE]
    assert result.reasons == ["bad_bytes"]
    assert "is not GB18030" in result.rejections[0].detail


def test_mixed_encodings() -> None:
    put("news.txt", f"{PROSE}\n".encode() * 3 + f"{PROSE}\n".encode("gb18030") * 2)
    result = read(TEXT)
    assert result.reasons == ["unknown_encoding"]
    assert "confidence of 0.60" in result.rejections[0].detail
    result = read(TEXT, min_encoding_confidence=0.5)
    assert result.texts == [PROSE] * 3
    assert result.reasons == ["bad_bytes"] * 2
    assert result.report.files[0].confidence == 0.6
    with pytest.raises(InputError, match="declare the source's encoding"):
        read(TEXT, bad_rows="fail")


#: Texts in encodings that bytes alone do not tell from GB18030.
_OTHERS = {
    "big5": "今天的天氣很好，我們一起去公園裡玩吧。他說這本書是他在北京買的，已經看了三天了。",
    "euc-kr": "오늘은 날씨가 아주 좋아서 우리는 함께 공원에 놀러 갔습니다. 그는 이 책을 샀다고 말했습니다.",
    "euc-jp": "今日は天気がとても良いので、私たちは一緒に公園へ遊びに行きました。彼は本を買ったと言った。",
    "shift_jis": "今日は天気がとても良いので、私たちは一緒に公園へ遊びに行きました。彼は本を買ったと言った。",
    "latin-1": "Der Bär läuft über die Straße, wo früher größere Häuser für Gäste standen; später fällt Schnee.",
    "cp1251": "Сегодня хорошая погода, и мы вместе пошли гулять в парк. Он сказал, что купил эту книгу.",
}


@pytest.mark.parametrize("encoding", _OTHERS)
def test_other_encodings_are_not_taken_for_gb18030(encoding: str) -> None:
    put("news.txt", (_OTHERS[encoding] + "\n").encode(encoding))
    result = read(TEXT)
    assert result.texts == []
    assert result.reasons == ["unknown_encoding"]
    assert result.report.files[0].confidence is not None
    assert result.report.files[0].confidence < 0.8


def test_confidence_grows_with_the_text() -> None:
    assert chinese("") == 0.0
    assert chinese("abc") == 0.0
    assert 0.5 < chinese(PROSE[:2]) < chinese(PROSE[:6]) < chinese(PROSE) <= 1.0
    assert guess(PROSE.encode()[:-1]).encoding == "utf-8"
    assert guess(PROSE.encode("gb18030")[:-1]).encoding == "gb18030"


def test_binary_files_are_no_text() -> None:
    put("news.txt", bytes(range(256)) * 10 + bytes(200))
    assert read(TEXT).reasons == ["binary_file"]
    put("news.txt", "no mark, two bytes a letter".encode("utf-16-le"))
    assert read(TEXT).reasons == ["binary_file"]


def test_broken_utf16() -> None:
    put("news.txt", "很好\n很坏\n".encode("utf-16") + b"\x00\xd8x")
    result = read(TEXT)
    assert result.reasons == ["broken_file"]


@pytest.mark.filterwarnings("error")
def test_what_a_pattern_finds_besides_files() -> None:
    put("d/a.txt", "很好\n")
    folder = Path("raw/d")
    os.mkfifo(folder / "pipe.txt")
    (folder / "folder.txt").mkdir()
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "around").symlink_to("../d")
    result = read({"kind": "text", "path": "raw/d", "pattern": "**/*.txt", "layout": "line"})
    assert result.texts == ["很好"]
    assert [(one.location, one.reason) for one in result.rejections] == [
        ("raw/d/gone.txt", "unreadable_file"),
        ("raw/d/loop.txt", "unreadable_file"),
        ("raw/d/pipe.txt", "special_file"),
    ]


@pytest.mark.parametrize("name", ["pipe.txt", "loop.txt", "gone.txt"])
def test_what_is_named_itself_and_is_no_file(name: str) -> None:
    os.mkfifo("raw/pipe.txt")
    Path("raw/loop.txt").symlink_to("loop.txt")
    Path("raw/gone.txt").symlink_to("nowhere")
    for source in (TEXT, {"kind": "sqlite", "query": "SELECT 1", "text": "x"}, {"kind": "parquet", "text": "x"}):
        with pytest.raises(InputError, match=r"does not exist|neither a file|no file"):
            read({key: value for key, value in source.items() if key != "path"} | {"path": f"raw/{name}"})


def test_a_gzip_step_that_ends_at_a_block_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    content = noise(500)
    put("news.txt", zlib.compress(content.encode(), wbits=31))
    for block in (1, 13, 64, 1000):
        monkeypatch.setattr(streams, "BLOCK", block)
        assert read(TEXT | {"encoding": "utf-8"}).texts == content.splitlines()


def test_report_sums_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_ops.corpus.sources.reading.LISTED_FILES", 2)
    for number in range(3):
        put(f"{number}.txt", gzip.compress(f"{PROSE}\n".encode("gb18030")))
    put("3.txt", f"{PROSE}\n")
    facts: Any = read(TEXT | {"path": "raw/*.txt"}).report.facts()["files"]
    assert facts["count"] == 4
    assert facts["encodings"] == {"gb18030": 3, "utf-8": 1}
    assert facts["compressions"] == {"gzip": 3}
    assert facts["lowest_confidence"] > 0.9
    assert len(facts["listed"]) == 2
    assert facts["bytes"] == sum(path.stat().st_size for path in Path("raw").iterdir())
