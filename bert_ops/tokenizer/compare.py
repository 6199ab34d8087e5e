"""Command ``compare_tokenizers``: sizes of vocabulary, learned on training text, measured on held-out text."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import rerun, write_json, write_text
from bert_ops.progress import note
from bert_ops.schema import load_section
from bert_ops.tokenizer import learning
from bert_ops.tokenizer.comparison_page import comparison_page
from bert_ops.tokenizer.fast import FastEncoder
from bert_ops.tokenizer.params import TokenizerParams
from bert_ops.tokenizer.sentences import batches, row_groups, training_texts
from bert_ops.tokenizer.wordpiece import CONTINUATION, special_ids

#: Shares of documents of which the length is given: half of them, nine in ten, all but one in a hundred.
QUANTILES = (0.5, 0.9, 0.99, 1.0)

#: Bounds of the distribution of lengths, in tokens.
LENGTHS = tuple(2**power for power in range(2, 14))

_COLUMNS = ("doc_id", "split", "text")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.parquet, as ingest writes it")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[],
        help="vocabulary sizes (default: half, once and twice that of params)",
    )
    parser.add_argument("--out", type=Path, required=True, help="HTML page to write")
    parser.add_argument("--json", type=Path, default=None, help="JSON file for the figures (default: beside the page)")


def run(arguments: argparse.Namespace) -> None:
    """Learn a vocabulary of each size, measure it, and write the page and its figures.

    Raises:
        InputError: a size cannot hold the alphabet, or there is no text.
        ArtifactError: the sentences are missing or damaged, or none is held out.

    """
    params = load_section(arguments.params, "tokenizer", TokenizerParams)
    sizes = sorted(set(arguments.sizes or [params.vocab_size // 2, params.vocab_size, 2 * params.vocab_size]))
    row_groups(arguments.sentences, columns=_COLUMNS)
    words = learning.count(training_texts(arguments.sentences), params)
    held_out = _held_out_words(arguments.sentences, params)
    figures = []
    for size in sizes:
        if size < 16:
            raise InputError(f"--sizes has {size}", allowed="at least 16")
        chosen = params.model_copy(update={"vocab_size": size})
        if params.vocabulary is None:
            tokenizer = learning.train(words, chosen)
        else:
            tokenizer = learning.adapt(words, chosen, vocabulary=Path(params.vocabulary))
        figures.append(
            {"asked": size, "coverage": coverage(held_out, tokenizer), **measure(arguments.sentences, tokenizer)}
        )
        note(
            f"{tokenizer.get_vocab_size():,} pieces: {figures[-1]['tokens_per_character']:.3f} tokens a character, "
            f"{figures[-1]['unknown_share']:.3%} unknown"
        )
    write_json(arguments.json or arguments.out.with_suffix(".json"), {"sizes": figures})
    write_text(arguments.out, comparison_page(figures))


def measure(sentences: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Encode the validation split and measure how many tokens it takes.

    Returns:
        ``vocab_size``; ``characters``, ``words`` (as BERT splits text: a Chinese character is one) and ``tokens`` of
        the split; ``tokens_per_character``, ``tokens_per_word``, ``unknown_share`` of all tokens; ``document_tokens``,
        the quantiles of document lengths with ``[CLS]`` and ``[SEP]``; ``at_most``, the share of documents that are at
        most so many tokens long; ``longer_than_512``, of them.

    """
    encoder, unknown = FastEncoder(tokenizer), special_ids(tokenizer).unk
    characters = words = tokens = missed = 0
    lengths: list[int] = []
    last: str | None = None
    for documents, texts in _held_out(sentences):
        encoded = encoder.encode(texts)
        characters += sum(len("".join(text.split())) for text in texts)
        tokens += len(encoded.ids)
        words += int(encoded.word_starts.sum())
        missed += int((encoded.ids == unknown).sum())
        for document, length in zip(documents, np.diff(encoded.offsets).tolist(), strict=True):
            if document != last:
                lengths.append(2)
            lengths[-1] += length
            last = document
    if not tokens:
        raise ArtifactError(f"{sentences} has no validation sentence", remedy=rerun("ingest"))
    sizes: NDArray[np.int64] = np.array(lengths)
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "documents": len(sizes),
        "characters": characters,
        "words": words,
        "tokens": tokens,
        "tokens_per_character": tokens / characters,
        "tokens_per_word": tokens / words,
        "unknown_share": missed / tokens,
        "document_tokens": {f"{share:g}": int(np.quantile(sizes, share, method="higher")) for share in QUANTILES},
        "at_most": {str(bound): float((sizes <= bound).mean()) for bound in LENGTHS},
        "longer_than_512": float((sizes > 512).mean()),
    }


def coverage(words: Counter[str], tokenizer: Tokenizer) -> float:
    """Share of the characters of words for which the vocabulary has a piece, alone or inside a word."""
    pieces = tokenizer.get_vocab(with_added_tokens=False)
    known = total = 0
    for word, times in words.items():
        for place, character in enumerate(word):
            total += times
            known += times * ((CONTINUATION + character if place else character) in pieces)
    return known / max(total, 1)


def _held_out(sentences: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Documents and texts of the validation split, in batches."""
    for batch in batches(sentences, columns=_COLUMNS, rows=8192):
        rows = [
            (document, text)
            for document, split, text in zip(batch["doc_id"], batch["split"], batch["text"], strict=True)
            if split == "validation"
        ]
        if rows:
            yield [document for document, _ in rows], [text for _, text in rows]


def _held_out_words(sentences: Path, params: TokenizerParams) -> Counter[str]:
    counter = learning.WordCounter(params)
    for _, texts in _held_out(sentences):
        counter.add(texts)
    return counter.result()
