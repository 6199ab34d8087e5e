"""Stage ``tokenize``: sentences to a token store, a row group of ``sentences.parquet`` at a time, on all cores.

Finished row groups wait in a work folder, so that a stage that was killed goes on where it was; the store is put
together from them in the order of the file and is the same whatever the number of processes.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import atomic_folder, dump_json, file_sha256, missing, rerun, write_json, write_text
from bert_ops.processes import cores, map_in_order
from bert_ops.progress import Progress, note
from bert_ops.schema import load_section
from bert_ops.tokenizer import parts, segment, wordpiece
from bert_ops.tokenizer.fast import FastEncoder
from bert_ops.tokenizer.params import TokenizeParams
from bert_ops.tokenizer.sentences import batches, row_groups
from bert_ops.tokenizer.store import FORMAT, SPLITS, dtype_for
from bert_ops.tokenizer.store_writer import SplitWriter, write_manifest

_PREVIEW_SENTENCES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.parquet, as ingest writes it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the token shards")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the counts")
    parser.add_argument(
        "--work", type=Path, default=Path(".bert_ops/tokenize"), help="folder for finished parts (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=cores(), help="processes (default: all cores, %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Encode every sentence and write the store and its counts.

    Raises:
        ArtifactError: sentences or tokenizer are missing or damaged, or there is no training sentence.
        InputError: another process works in the same folder, or the number of workers is not positive.

    """
    if arguments.workers < 1:
        raise InputError(f"--workers is {arguments.workers}", allowed="at least 1")
    params = load_section(arguments.params, "tokenize", TokenizeParams)
    tokenizer = wordpiece.load(arguments.tokenizer)
    vocabulary = arguments.tokenizer / "vocab.txt"
    if not vocabulary.is_file():
        raise missing(vocabulary, made_by="tokenizer")
    rows = row_groups(arguments.sentences, columns=["doc_id", "source", "split", "text"])
    key = _key(arguments, params)
    with _work_folder(arguments.work, key) as work, atomic_folder(arguments.out) as folder:
        splits, by_source = _fill(folder, work, arguments, params, rows=rows, tokenizer=tokenizer)
        if not splits["train"]["sentences"]:
            raise ArtifactError(f"{arguments.sentences} has no training sentence", remedy=rerun("ingest"))
        write_text(folder / "preview.jsonl", preview(arguments.sentences, tokenizer, params))
        write_manifest(
            folder,
            vocab_size=tokenizer.get_vocab_size(),
            vocab_sha256=file_sha256(vocabulary),
            special_ids=wordpiece.special_ids(tokenizer),
            splits=splits,
        )
    metrics = summarise(splits, by_source, vocab_size=tokenizer.get_vocab_size())
    write_json(arguments.metrics, metrics)
    _discard(arguments.work, key)
    note(
        f"tokenize: {metrics['tokens']:,} tokens in {metrics['sentences']:,} sentences "
        f"of {metrics['documents']:,} documents, {metrics['unknown_share']:.3%} unknown"
    )


def _fill(
    folder: Path,
    work: Path,
    arguments: argparse.Namespace,
    params: TokenizeParams,
    *,
    rows: list[int],
    tokenizer: Tokenizer,
) -> tuple[dict[str, dict[str, Any]], dict[str, Counter[str]]]:
    """Write the shards from finished parts and those that are made now; returns splits and figures by source."""
    done = {number: facts for number in range(len(rows)) if (facts := parts.finished(work, number))}
    if done:
        note(f"tokenize: {len(done)} of {len(rows)} parts were finished before")
    made = map_in_order(
        parts.make_part,
        (number for number in range(len(rows)) if number not in done),
        workers=arguments.workers,
        initialise=parts.start_worker,
        arguments=(arguments.sentences, arguments.tokenizer, work, params.model_dump()),
    )
    dtype = dtype_for(tokenizer.get_vocab_size())
    writers = {split: SplitWriter(folder, split, dtype=dtype, shard_tokens=params.shard_tokens) for split in SPLITS}
    by_source: dict[str, Counter[str]] = defaultdict(Counter)
    last: dict[str, str | None] = dict.fromkeys(SPLITS)
    progress, begin, read = Progress("tokenizing", total=sum(rows), unit="sentences"), time.monotonic(), 0
    for number in range(len(rows)):
        facts = done[number] if number in done else next(made)[1]
        for split, part in parts.read_part(work, number, facts).items():
            _append(writers[split], part, after=last[split])
            last[split] = part.last_document or last[split]
        for source, figures in facts["by_source"].items():
            by_source[source].update(figures)
        read += 0 if number in done else facts["bytes"]
        seconds = max(time.monotonic() - begin, 1e-9)
        progress.update(sum(rows[: number + 1]), also=None, **({"MB/s": read / 1e6 / seconds} if read else {}))
    return {split: writer.close() for split, writer in writers.items()}, by_source


def _append(writer: SplitWriter, part: parts.SplitPart, *, after: str | None) -> None:
    """Append a part; a document that the part before it began goes on."""
    if not len(part.lengths):
        return
    begins, repeats = part.begins, part.repeats
    if part.first_document == after:
        begins = begins.copy()
        begins[0], repeats = False, repeats[1:]
    writer.extend(part.ids, part.word_starts, part.lengths, begins, repeats=repeats)


def preview(sentences: Path, tokenizer: Tokenizer, params: TokenizeParams) -> str:
    """The first training sentences with their pieces and words, as JSON Lines: for people."""
    texts: list[str] = []
    given: list[list[int] | None] = []
    for batch in batches(sentences, columns=["split", "text", "words"], rows=256):
        for split, text, words in zip(batch["split"], batch["text"], batch["words"], strict=True):
            if split == "train" and len(texts) < _PREVIEW_SENTENCES:
                texts.append(text)
                given.append(words)
        if len(texts) == _PREVIEW_SENTENCES:
            break
    inside = segment.inside_words(texts, segmentation=params.segmentation, given=given)
    encoded = FastEncoder(tokenizer).encode(texts, inside=inside)
    rows = []
    for number, text in enumerate(texts):
        pieces = [str(tokenizer.id_to_token(int(token))) for token in encoded.text(number)]
        begins = encoded.word_starts[encoded.offsets[number] : encoded.offsets[number + 1]]
        words = "".join(
            f" {piece}" if start else piece.removeprefix("##") for piece, start in zip(pieces, begins, strict=True)
        )
        rows.append({"text": text, "pieces": " ".join(pieces), "words": words.strip()})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def summarise(
    splits: dict[str, dict[str, Any]], by_source: dict[str, Counter[str]], *, vocab_size: int
) -> dict[str, Any]:
    """Counts over all splits, as ``metrics/tokenize.json`` holds them."""
    sums = {key: sum(entry[key] for entry in splits.values()) for key in ("tokens", "sentences", "documents")}
    return {
        **sums,
        "unknown_share": sum(figures["unknown"] for figures in by_source.values()) / max(sums["tokens"], 1),
        "vocab_size": vocab_size,
        "by_split": {name: {key: entry[key] for key in sums} for name, entry in splits.items()},
        "by_source": {
            source: {
                "sentences": figures["sentences"],
                "tokens": figures["tokens"],
                "unknown_share": figures["unknown"] / max(figures["tokens"], 1),
                "tokens_per_character": figures["tokens"] / max(figures["characters"], 1),
                "tokens_per_word": figures["tokens"] / max(figures["words"], 1),
            }
            for source, figures in sorted(by_source.items())
        },
    }


def _key(arguments: argparse.Namespace, params: TokenizeParams) -> str:
    """Hash of all that the parts depend on."""
    facts = {
        "sentences": file_sha256(arguments.sentences),
        "tokenizer": file_sha256(arguments.tokenizer / "tokenizer.json"),
        "params": params.model_dump(exclude={"shard_tokens"}),
        "format": FORMAT,
        "versions": [version(package) for package in ("tokenizers", "rjieba")],
    }
    return hashlib.sha256(dump_json(facts).encode()).hexdigest()[:16]


@contextmanager
def _work_folder(work: Path, key: str) -> Iterator[Path]:
    """The folder of finished parts, held by this process alone.

    Raises:
        InputError: another process holds it.

    """
    folder = work / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{folder} is in use by another process", remedy="wait for it, or name another folder with --work"
            ) from error
        yield folder


def _discard(work: Path, key: str) -> None:
    """Remove the parts of this run, and those that killed runs with other inputs left."""
    for folder in sorted(work.iterdir()):
        if not re.fullmatch("[0-9a-f]{16}", folder.name):
            continue
        try:
            with _work_folder(work, folder.name):
                shutil.rmtree(folder)
        except InputError:
            if folder.name == key:
                raise
