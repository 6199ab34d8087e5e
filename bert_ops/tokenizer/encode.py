"""Stage ``tokenize``: sentences to a token store."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from bert_ops.errors import ArtifactError
from bert_ops.io import atomic_folder, file_sha256, read_parquet, rerun, write_json, write_text
from bert_ops.progress import Progress, note
from bert_ops.schema import load_section
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.params import TokenizeParams
from bert_ops.tokenizer.store import SPLITS, Ids, SplitWriter, dtype_for, write_manifest

_PREVIEW_SENTENCES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.parquet, as ingest writes it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the token shards")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the counts")


def run(arguments: argparse.Namespace) -> None:
    """Encode every sentence and write the store and its counts.

    Raises:
        ArtifactError: sentences or tokenizer are missing or damaged, or there is no training sentence.

    """
    params = load_section(arguments.params, "tokenize", TokenizeParams)
    tokenizer = wordpiece.load(arguments.tokenizer)
    frame = read_parquet(arguments.sentences, columns=["doc_id", "split", "text"], made_by="ingest")
    if not (frame["split"] == "train").any():
        raise ArtifactError(f"{arguments.sentences} has no training sentence", remedy=rerun("ingest"))
    vocab_size = tokenizer.get_vocab_size()
    progress = Progress("tokenizing", total=len(frame), unit="sentences")
    counts: Counter[str] = Counter()
    with atomic_folder(arguments.out) as folder:
        splits: dict[str, dict[str, Any]] = {}
        for split in SPLITS:
            part = frame[frame["split"] == split]
            writer = SplitWriter(folder, split, dtype=dtype_for(vocab_size), shard_tokens=params.shard_tokens)
            for document in _documents(part, tokenizer, params.batch_sentences):
                writer.add(document)
                counts["sentences"] += len(document)
                counts["unknown"] += sum(int((ids == wordpiece.UNK).sum()) for ids in document)
                progress.update(counts["sentences"])
            splits[split] = writer.close()
        vocab_sha256 = file_sha256(arguments.tokenizer / "vocab.txt")
        write_text(folder / "preview.jsonl", preview(frame, tokenizer))
        write_manifest(folder, vocab_size=vocab_size, vocab_sha256=vocab_sha256, splits=splits)
    metrics = summarise(splits, unknown=counts["unknown"], vocab_size=vocab_size)
    write_json(arguments.metrics, metrics)
    note(
        f"tokenize: {metrics['tokens']:,} tokens in {metrics['sentences']:,} sentences "
        f"of {metrics['documents']:,} documents, {metrics['unknown_share']:.3%} unknown"
    )


def preview(frame: pd.DataFrame, tokenizer: Tokenizer) -> str:
    """The first training sentences with their pieces, as JSON Lines: for people."""
    texts = frame.loc[frame["split"] == "train", "text"].head(_PREVIEW_SENTENCES)
    rows = (
        {"text": text, "pieces": " ".join(tokenizer.encode(text, add_special_tokens=False).tokens)} for text in texts
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def summarise(splits: dict[str, dict[str, Any]], *, unknown: int, vocab_size: int) -> dict[str, Any]:
    """Counts over all splits, as ``metrics/tokenize.json`` holds them."""
    sums = {key: sum(entry[key] for entry in splits.values()) for key in ("tokens", "sentences", "documents")}
    return {
        **sums,
        "unknown_share": unknown / max(sums["tokens"], 1),
        "vocab_size": vocab_size,
        "by_split": {name: {key: entry[key] for key in sums} for name, entry in splits.items()},
    }


def _documents(frame: pd.DataFrame, tokenizer: Tokenizer, batch: int) -> Iterator[list[Ids]]:
    """Yield the documents of a split as lists of id arrays; a batch may end inside a document."""
    document: list[Ids] = []
    current: str | None = None
    for start in range(0, len(frame), batch):
        rows = frame.iloc[start : start + batch]
        encoded = tokenizer.encode_batch_fast(rows["text"].tolist(), add_special_tokens=False)
        for doc_id, encoding in zip(rows["doc_id"], encoded, strict=True):
            if doc_id != current and document:
                yield document
                document = []
            current = doc_id
            document.append(np.asarray(encoding.ids, dtype=np.uint32))
    if document:
        yield document
