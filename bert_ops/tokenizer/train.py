"""Stage ``tokenizer``: learn or adapt the vocabulary on the training split, and on nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from bert_ops.io import atomic_folder
from bert_ops.progress import note
from bert_ops.schema import load_section
from bert_ops.tokenizer import learning, wordpiece
from bert_ops.tokenizer.params import TokenizerParams
from bert_ops.tokenizer.sentences import training_texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.parquet, as ingest writes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and vocab.txt")


def run(arguments: argparse.Namespace) -> None:
    """Learn or adapt a vocabulary and save the tokenizer.

    Raises:
        InputError: the vocabulary is smaller than the alphabet, a given one cannot be used, or there is no text.
        ArtifactError: the sentences are missing or damaged.

    """
    params = load_section(arguments.params, "tokenizer", TokenizerParams)
    seen = _Seen()
    words = learning.count(seen.watch(training_texts(arguments.sentences)), params)
    if params.vocabulary is None:
        tokenizer = learning.train(words, params)
    else:
        tokenizer = learning.adapt(words, params, vocabulary=Path(params.vocabulary))
    with atomic_folder(arguments.out) as folder:
        wordpiece.save(tokenizer, folder, params)
    note(
        f"tokenizer: {tokenizer.get_vocab_size():,} pieces from {seen.texts:,} sentences; "
        f"for example {_example(tokenizer, seen.example)}"
    )


class _Seen:
    """Counts texts as they pass and keeps one of middling length to show."""

    def __init__(self) -> None:
        self.texts, self.example = 0, ""

    def watch(self, batches: Iterator[list[str]]) -> Iterator[list[str]]:
        for texts in batches:
            self.texts += len(texts)
            self.example = min([self.example, *texts], key=lambda text: abs(len(text) - 16))
            yield texts


def _example(tokenizer: Tokenizer, text: str) -> str:
    return f"{text} -> {' '.join(tokenizer.encode(text, add_special_tokens=False).tokens)}"
