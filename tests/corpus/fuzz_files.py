"""Bad files, made from a seed: what a generator of hostile input can think of for each kind of source.

Each case is a folder with one bad file and, where the kind can read several, a good one, so that the source as a whole
stays usable. A case says which good rows were planted in the bad file and what may become of them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

_WORDS = ["今天", "天气", "很好", "我们", "一起", "公园", "散步", "北京", "老师", "学生", "介绍", "这本书", "故事"]
_WORDS += ["音乐", "早饭", "城市", "the", "old", "city", "of", "letters"]

#: How good rows fare: all come out; those before a break do; or any may be lost with damage that a rejection tells of.
Fate = Literal["all", "prefix", "any"]


@dataclass
class Case:
    """A source, and what is known of its bad file.

    Attributes:
        name: what is wrong with it.
        source: its section of params.yaml.
        good: texts planted in the bad file, in order.
        fate: what must become of them.
        beside: texts of the good file; they always come out.
        rejected: whether there must be a rejection.
        error: the source as a whole is unusable: an InputError, and nothing else, is right.
        may_error: an InputError is right, too.

    """

    name: str
    source: dict[str, Any]
    good: list[str]
    fate: Fate = "all"
    beside: list[str] = field(default_factory=list)
    rejected: bool = True
    error: bool = False
    may_error: bool = False


class Maker:
    """Makes one case below a folder.

    Args:
        seed: of all draws.
        folder: a folder of the case's own, below the stage's input.
        big: bytes of the longest line.

    """

    def __init__(self, seed: int, folder: Path, *, big: int) -> None:
        self.draw = random.Random(seed)
        self.seed, self.folder, self.big = seed, folder, big
        self.count = 0
        folder.mkdir(parents=True)

    def text(self) -> str:
        self.count += 1
        words = "".join(self.draw.choices(_WORDS, k=self.draw.randint(3, 12)))
        return f"{words}，第{self.seed}之{self.count}。"

    def texts(self, least: int = 3, most: int = 40) -> list[str]:
        return [self.text() for _ in range(self.draw.randint(least, most))]

    def source(self, kind: str, suffix: str | None = None, **more: Any) -> dict[str, Any]:
        path = (self.folder / f"*.{suffix or kind}").as_posix()
        return {"kind": kind, "path": path, **({"layout": "line"} if kind == "text" else {"text": "body"}), **more}

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def encode(self, kind: str, texts: list[str]) -> bytes:
        """A whole file of a kind of text files."""
        if kind == "text":
            return "".join(f"{text}\n" for text in texts).encode()
        if kind == "jsonl":
            return "".join(json.dumps({"body": text}, ensure_ascii=False) + "\n" for text in texts).encode()
        if kind == "json":
            return json.dumps([{"body": text} for text in texts], ensure_ascii=False).encode()
        out = io.StringIO()
        rows = [["id", "body"], *([str(number), text] for number, text in enumerate(texts))]
        csv.writer(out, lineterminator="\n", delimiter="\t" if kind == "tsv" else ",").writerows(rows)
        return out.getvalue().encode()

    def beside(self, kind: str) -> list[str]:
        """Write a good file that is read first."""
        texts = self.texts(1, 3)
        if kind == "parquet":
            pq.write_table(pa.table({"body": texts}), self.folder / "a.parquet")
        else:
            self.write(f"a.{kind}", self.encode(kind, texts))
        return texts

    def with_lines(self, good: list[str], lines: list[bytes], kind: str) -> bytes:
        """Good rows of a file of lines, with other lines strewn among them."""
        whole = self.encode(kind, good).splitlines(keepends=True)
        header = 1 if kind in ("csv", "tsv") else 0
        for line in lines:
            whole.insert(self.draw.randint(header, len(whole)), line + b"\n")
        return b"".join(whole)

    def line_kind(self) -> str:
        return self.draw.choice(["text", "jsonl", "csv", "tsv"])


def broken_utf8(make: Maker) -> Case:
    kind, good = make.line_kind(), make.texts()
    bad = [
        bytes([make.draw.randint(0x80, 0xFF)]) + b"\xff" + make.text().encode()[:-1]
        for _ in range(make.draw.randint(1, 5))
    ]
    beside = make.beside(kind)
    make.write(f"b.{kind}", make.with_lines(good, bad, kind))
    return Case("broken UTF-8", make.source(kind, encoding="utf-8"), good, beside=beside)


def mixed_encodings(make: Maker) -> Case:
    good = make.texts(5)
    beside = make.beside("text")
    others = [
        make.text().encode(make.draw.choice(["gb18030", "big5", "shift_jis"]), "ignore")
        for _ in range(make.draw.randint(1, 9))
    ]
    make.write("b.text", make.with_lines(good, others, "text"))
    return Case("mixed encodings", make.source("text"), good, "any", beside)


def other_encoding(make: Maker) -> Case:
    good = make.texts(5)
    encoding = make.draw.choice(["gb18030", "utf-8-sig", "utf-16", "utf-32"])
    beside = make.beside("text")
    make.write("b.text", "".join(f"{text}\n" for text in good).encode(encoding))
    return Case(f"{encoding}, detected", make.source("text"), good, beside=beside, rejected=False)


def cut_utf16(make: Maker) -> Case:
    good = make.texts(5)
    whole = "".join(f"{text}\n" for text in good).encode("utf-16")
    beside = make.beside("text")
    make.write("b.text", whole[: make.draw.randint(3, len(whole) // 2) * 2 - 1])
    return Case("UTF-16 cut within a character", make.source("text"), good, "prefix", beside)


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lzma.compress,
}


def truncated_stream(make: Maker) -> Case:
    kind, good = make.draw.choice(["text", "jsonl", "csv", "json"]), make.texts(50, 3000)
    name = make.draw.choice(list(_COMPRESS))
    whole = _COMPRESS[name](make.encode(kind, good))
    beside = make.beside(kind)
    make.write(f"b.{kind}", whole[: make.draw.randint(7, len(whole) - 1)])
    return Case(f"truncated {name} of {kind}", make.source(kind), good, "prefix", beside)


def damaged_stream(make: Maker) -> Case:
    kind, good = make.draw.choice(["text", "jsonl", "csv", "json"]), make.texts(50, 500)
    name = make.draw.choice(list(_COMPRESS))
    whole = bytearray(_COMPRESS[name](make.encode(kind, good)))
    for _ in range(make.draw.randint(1, 8)):
        whole[make.draw.randrange(6, len(whole))] ^= 1 << make.draw.randrange(8)
    beside = make.beside(kind)
    make.write(f"b.{kind}", bytes(whole))
    return Case(f"damaged {name} of {kind}", make.source(kind), good, "any", beside, rejected=False)


def _parquet(make: Maker, texts: list[str]) -> bytes:
    out = io.BytesIO()
    options = {
        "row_group_size": make.draw.choice([7, 50, 10_000]),
        "compression": make.draw.choice(["zstd", "snappy", "NONE"]),
    }
    pq.write_table(pa.table({"id": list(range(len(texts))), "body": texts}), out, **options)
    return out.getvalue()


def truncated_parquet(make: Maker) -> Case:
    good = make.texts(5, 300)
    whole = _parquet(make, good)
    beside = make.beside("parquet")
    make.write("b.parquet", whole[: make.draw.randint(0, len(whole) - 1)])
    return Case("truncated Parquet", make.source("parquet"), good, "any", beside)


def damaged_parquet(make: Maker) -> Case:
    good = make.texts(5, 300)
    whole = bytearray(_parquet(make, good))
    for _ in range(make.draw.randint(1, 20)):
        whole[make.draw.randrange(len(whole))] ^= 1 << make.draw.randrange(8)
    beside = make.beside("parquet")
    make.write("b.parquet", bytes(whole))
    return Case("damaged Parquet", make.source("parquet"), good, "any", beside, rejected=False)


def parquet_with_other_columns(make: Maker) -> Case:
    beside = make.beside("parquet")
    pq.write_table(pa.table({"text": make.texts()}), make.folder / "b.parquet")
    return Case("Parquet with other columns", make.source("parquet"), [], beside=beside)


def bad_json_rows(make: Maker) -> Case:
    kind, good = make.draw.choice(["jsonl", "json"]), make.texts()
    depth = make.draw.choice([33, 1000, 100_000, 400_000])
    odd = [
        "[" * depth + "]" * depth,
        '{"a":' * depth + "1" + "}" * depth,
        '{"body": "x", "n": ' + "9" * make.draw.choice([5000, 100_000, 2_000_000]) + "}",
        '{"body": "x", "body": "y"}',
        "null",
        "-1e999999999999",
        '"body"',
        '{"body": tru}',
        "{}}",
        '{"body": "\\u12"}',
        '{"body": "\x01"}',
    ]
    if kind == "json":
        odd.remove("{}}")
    bad = make.draw.sample(odd, make.draw.randint(1, 4))
    beside = make.beside(kind)
    if kind == "jsonl":
        make.write("b.jsonl", make.with_lines(good, [line.encode() for line in bad], kind))
    else:
        rows = [json.dumps({"body": text}, ensure_ascii=False) for text in good]
        for row in bad:
            rows.insert(make.draw.randint(0, len(rows)), row)
        make.write("b.json", f"[{', '.join(rows)}]".encode())
    return Case(f"{kind} rows that are bombs or broken", make.source(kind), good, beside=beside)


def open_json_bomb(make: Maker) -> Case:
    good = make.texts()
    whole = make.encode("json", good)[:-1]
    beside = make.beside("json")
    bomb = (
        make.draw.choice([b', {"body": "', b', {"body": ["', b", ["])
        + make.draw.choice([b"[", b'{"a":', b"9", b'"', b"\\"]) * 300_000
    )
    make.write("b.json", whole + bomb)
    return Case("JSON that opens and never closes", make.source("json"), good, beside=beside)


def long_line(make: Maker) -> Case:
    kind, good = make.draw.choice(["text", "jsonl", "csv", "tsv"]), make.texts()
    length = make.draw.randint(make.big * 3 // 4, make.big)
    character = make.draw.choice([b"x", b'"', b"[", "长".encode(), b" y"])
    if kind == "csv":
        character = character.replace(b'"', b"'")
    beside = make.beside(kind)
    whole = make.encode(kind, good).splitlines(keepends=True)
    at = make.draw.randint(1, len(whole))
    with make.write(f"b.{kind}", b"".join(whole[:at])).open("ab") as handle:
        for _ in range(length >> 16):
            handle.write(character * ((1 << 16) // len(character)))
        handle.write(b"\n" + b"".join(whole[at:]))
    return Case("a very long line", make.source(kind, encoding="utf-8"), good, beside=beside)


def nul_bytes(make: Maker) -> Case:
    kind, good = make.line_kind(), make.texts()
    beside = make.beside(kind)
    lines = [make.draw.choice([b"\0", b"\0\0\0", "很\0好".encode()]) for _ in range(make.draw.randint(1, 30))]
    make.write(f"b.{kind}", make.with_lines(good, lines, kind))
    return Case("NUL bytes", make.source(kind), good, "any", beside, rejected=False)


def surrogates(make: Maker) -> Case:
    good = make.texts()
    if make.draw.random() < 0.5:
        beside = make.beside("jsonl")
        lines = [b'{"body": "\\ud800"}', b'{"body": "a\\udc00b"}', b'{"\\ud800": 1, "body": "x"}']
        make.write("b.jsonl", make.with_lines(good, lines, "jsonl"))
        return Case("escaped surrogates", make.source("jsonl"), good, beside=beside, rejected=False)
    beside = make.beside("text")
    make.write("b.text", make.with_lines(good, [b"a\xed\xa0\x80b", b"\xed\xb0\x80"], "text"))
    return Case("surrogates in UTF-8", make.source("text", encoding="utf-8"), good, beside=beside)


def empty(make: Maker) -> Case:
    kind = make.draw.choice(["text", "jsonl", "json", "csv", "tsv", "parquet"])
    beside = make.beside(kind)
    content = [b"", b"\n", b" \n\r\n", b"\xef\xbb\xbf", b"\xff\xfe", gzip.compress(b""), zstandard.compress(b"")]
    make.write(f"b.{kind}", make.draw.choice(content))
    return Case("an empty file", make.source(kind), [], beside=beside)


def wrong_columns(make: Maker) -> Case:
    kind, good = make.draw.choice(["csv", "tsv"]), make.texts()
    between = b"," if kind == "csv" else b"\t"
    beside = make.beside(kind)
    if make.draw.random() < 0.3:
        make.write(f"b.{kind}", make.encode(kind, good).replace(b"body", b"text", 1))
        return Case("another header", make.source(kind), good, "any", beside)
    lines = [between.join([b"x"] * make.draw.choice([1, 3, 4, 50_000])) for _ in range(make.draw.randint(1, 6))]
    make.write(f"b.{kind}", make.with_lines(good, lines, kind))
    return Case("rows of another width", make.source(kind), good, beside=beside)


def missing_fields(make: Maker) -> Case:
    good = make.texts()
    beside = make.beside("jsonl")
    lines = [b"{}", b'{"text": 1}', b'{"body": null}', b'{"body": [1]}', b'{"body": {}}']
    make.write("b.jsonl", make.with_lines(good, lines, "jsonl"))
    return Case("rows without the field", make.source("jsonl"), good, beside=beside, rejected=False)


def open_quotes(make: Maker) -> Case:
    good = make.texts(5, 200)
    beside = make.beside("csv")
    line = make.draw.choice([b'7,"open', b'"7,open', b'7,"a"b', b'"', b'7,""x"'])
    make.write("b.csv", make.with_lines(good, [line], "csv"))
    return Case("a quotation mark that is not closed", make.source("csv"), good, beside=beside)


def links(make: Maker) -> Case:
    beside = make.beside("text")
    bad = make.folder / "b.text"
    which = make.draw.choice(["loop", "pair", "gone", "pipe", "folder loop"])
    if which == "loop":
        bad.symlink_to("b.text")
    elif which == "pair":
        bad.symlink_to("c.text")
        (make.folder / "c.text").symlink_to("b.text")
    elif which == "gone":
        bad.symlink_to("nowhere")
    elif which == "pipe":
        os.mkfifo(bad)
    else:
        (make.folder / "down").symlink_to(make.folder.resolve())
        source = make.source("text") | {"path": make.folder.as_posix(), "pattern": "**/*.text"}
        return Case("a folder that holds itself", source, [], beside=beside, rejected=False)
    return Case(f"link or pipe: {which}", make.source("text"), [], beside=beside)


def outside(make: Maker) -> Case:
    source = make.source("text")
    where = make.draw.choice(["link", "pattern", "dots", "absolute", "device"])
    make.beside("text")
    if where == "link":
        (make.folder / "b.text").symlink_to("/etc/hostname")
    elif where == "pattern":
        (make.folder / "d").symlink_to("/etc")
        source |= {"path": make.folder.as_posix(), "pattern": "d/host*"}
    elif where == "dots":
        source["path"] = f"{make.folder.as_posix()}/../../../../../../../../../../../../etc/hostname"
    elif where == "absolute":
        source["path"] = "/etc/host*"
    else:
        (make.folder / "b.text").symlink_to("/dev/zero")
        source["path"] = (make.folder / "b.text").as_posix()
    return Case(f"outside of the root: {where}", source, [], error=True)


def noise(make: Maker) -> Case:
    kind = make.draw.choice(["text", "jsonl", "json", "csv", "tsv", "parquet"])
    beside = make.beside(kind)
    start = make.draw.choice(
        [b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"PAR1", b"\xff\xfe", b"[", b'{"body": "']
    )
    make.write(f"b.{kind}", start + make.draw.randbytes(make.draw.randint(1, 30_000)))
    return Case(f"noise as {kind}", make.source(kind), [], "any", beside, rejected=False)


def mutated(make: Maker) -> Case:
    kind, good = make.draw.choice(["text", "jsonl", "json", "csv", "tsv"]), make.texts(5, 100)
    whole = bytearray(make.encode(kind, good))
    for _ in range(make.draw.randint(1, 12)):
        at, size = make.draw.randrange(len(whole)), make.draw.randint(1, 30)
        how = make.draw.choice(["flip", "cut", "insert", "repeat"])
        if how == "flip":
            whole[at] ^= 1 << make.draw.randrange(8)
        elif how == "cut" and len(whole) > 200:
            del whole[at : at + size]
        elif how == "insert":
            whole[at:at] = make.draw.choice([make.draw.randbytes(size), b'"', b"[", b"}", b"\n", b"\0", b"\r", b","])
        else:
            whole[at:at] = whole[at : at + size]
    beside = make.beside(kind)
    make.write(f"b.{kind}", bytes(whole))
    return Case(f"mutated {kind}", make.source(kind), good, "any", beside, rejected=False)


def damaged_sqlite(make: Maker) -> Case:
    path, good = make.folder / "b.sqlite", make.texts(50, 300)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body)")
        connection.executemany("INSERT INTO t (body) VALUES (?)", ((text,) for text in good))
    whole = bytearray(path.read_bytes())
    if make.draw.random() < 0.3:
        whole = whole[: make.draw.randrange(len(whole))]
    for _ in range(make.draw.randint(1, 40) if whole else 0):
        whole[make.draw.randrange(len(whole))] = make.draw.randrange(256)
    path.write_bytes(bytes(whole))
    source = {"kind": "sqlite", "path": path.as_posix(), "query": "SELECT id, body FROM t ORDER BY id", "text": "body"}
    return Case("damaged SQLite", source, good, "any", rejected=False, may_error=True)


def damaged_dataset(make: Maker) -> Case:
    good, beside = make.texts(20, 300), make.texts(1, 3)
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, texts in zip(names, (beside, good), strict=True):
        with (
            pa.OSFile(str(make.folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, pa.schema([("body", pa.string())])) as out,
        ):
            for start in range(0, len(texts), 50):
                out.write_batch(pa.record_batch({"body": texts[start : start + 50]}))
    (make.folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    path = make.folder / names[1]
    whole = bytearray(path.read_bytes())
    if make.draw.random() < 0.4:
        whole = whole[: make.draw.randrange(len(whole))]
    else:
        for _ in range(make.draw.randint(1, 20)):
            whole[make.draw.randrange(len(whole))] ^= 1 << make.draw.randrange(8)
    path.write_bytes(bytes(whole))
    source = {"kind": "huggingface", "path": make.folder.as_posix(), "text": "body"}
    return Case("damaged saved dataset", source, good, "any", beside, rejected=False)


CASES: list[Callable[[Maker], Case]] = [
    broken_utf8,
    mixed_encodings,
    other_encoding,
    cut_utf16,
    truncated_stream,
    damaged_stream,
    truncated_parquet,
    damaged_parquet,
    parquet_with_other_columns,
    bad_json_rows,
    open_json_bomb,
    long_line,
    nul_bytes,
    surrogates,
    empty,
    wrong_columns,
    missing_fields,
    open_quotes,
    links,
    outside,
    noise,
    mutated,
    damaged_sqlite,
    damaged_dataset,
]


def make_case(seed: int, folder: Path, *, big: int = 3 << 20) -> Case:
    """Make the case of a seed: the kinds take turns, so that each comes equally often."""
    return CASES[seed % len(CASES)](Maker(seed, folder, big=big))
