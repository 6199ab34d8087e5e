"""Stage ``tokenizer``: train the vocabulary on the training split, and on nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Tokenizer

from bert_ops.io import atomic_folder, read_parquet
from bert_ops.progress import note
from bert_ops.schema import load_section
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.params import TokenizerParams


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.parquet, as ingest writes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and vocab.txt")


def run(arguments: argparse.Namespace) -> None:
    """Train and save a tokenizer.

    Raises:
        InputError: the vocabulary is smaller than the alphabet, or there is no text.
        ArtifactError: the sentences are missing or damaged.

    """
    params = load_section(arguments.params, "tokenizer", TokenizerParams)
    frame = read_parquet(arguments.sentences, columns=["split", "text"], made_by="ingest")
    texts = frame.loc[frame["split"] == "train", "text"].tolist()
    tokenizer = wordpiece.train(texts, params)
    with atomic_folder(arguments.out) as folder:
        wordpiece.save(tokenizer, folder, params)
    note(
        f"tokenizer: {tokenizer.get_vocab_size():,} pieces from {len(texts):,} sentences; "
        f"for example {_example(tokenizer, texts)}"
    )


def _example(tokenizer: Tokenizer, texts: list[str]) -> str:
    text = min(texts, key=lambda t: abs(len(t) - 16))
    return f"{text} -> {' '.join(tokenizer.encode(text, add_special_tokens=False).tokens)}"
