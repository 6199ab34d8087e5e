"""Stage ``validate_tokens``: the token store against the tokenizer and the sentences that it was made of."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders

from bert_ops.io import file_sha256, missing
from bert_ops.quality.engine import run_suites
from bert_ops.quality.frames import SENTENCE_COLUMNS, excerpts, read_table
from bert_ops.quality.params import ValidateTokensParams
from bert_ops.quality.report import conclude
from bert_ops.quality.token_suites import token_suites
from bert_ops.schema import load_section
from bert_ops.seeding import generator
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.store import SPLITS, SplitView, TokenStore, dtype_for

#: Ids that frame sequences; ``[UNK]`` may stand in a sentence.
_FRAME_IDS = (wordpiece.PAD, wordpiece.CLS, wordpiece.SEP, wordpiece.MASK)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tokens", type=Path, required=True, help="token store, as tokenize writes it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json and vocab.txt")
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.parquet, as ingest writes it")
    parser.add_argument(
        "--report", type=Path, required=True, help="folder for the report: index.html is its first page"
    )
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the verdict and every result")


def run(arguments: argparse.Namespace) -> None:
    """Check the token store, write the report, then fail if a critical expectation does not hold.

    Raises:
        ArtifactError: store, tokenizer or sentences are missing, truncated or damaged.
        ValidationFailed: a critical expectation does not hold; the report says which.

    """
    params = load_section(arguments.params, "validate_tokens", ValidateTokensParams)
    tokenizer = wordpiece.load(arguments.tokenizer)
    vocabulary = arguments.tokenizer / "vocab.txt"
    if not vocabulary.is_file():
        raise missing(vocabulary, made_by="tokenizer")
    store = TokenStore.open(arguments.tokens)
    sentences = with_text(read_table(arguments.sentences, SENTENCE_COLUMNS), tokenizer)
    counts = {split: count(view, vocab_size=store.vocab_size) for split, view in store.views.items()}
    sample = draw(sentences, tokenizer, amount=params.round_trip_sentences, seed=params.seed)
    tables = {
        "store": store_table(store, counts, vocabulary=vocabulary, tokenizer=tokenizer),
        "splits": split_table(store, counts, sentences),
        "shards": shard_table(store),
        "sources": source_table(store, counts, sentences),
        "round_trip": round_trip_table(sample, store, tokenizer, sentences),
    }
    validation = run_suites(tables, token_suites(params))
    conclude(
        validation,
        stage="validate_tokens",
        about=f"the token store in {arguments.tokens}",
        report=arguments.report,
        metrics=arguments.metrics,
    )


@dataclass(frozen=True)
class Counts:
    """What the ids of a split hold; ``unknown`` is (S,), tokens that are ``[UNK]`` in each sentence.

    ``unknown`` is None if the boundaries of the sentences do not ascend, so that no sentence can be told apart.
    """

    out_of_range: int
    special: int
    unknown_total: int
    unknown: NDArray[np.int64] | None


def count(view: SplitView, *, vocab_size: int) -> Counts:
    """Read every id of a split once, a shard at a time."""
    out_of_range = special = first = 0
    running = np.zeros(view.tokens + 1, np.int64)
    for ids in view.shard_ids():
        out_of_range += int((ids >= vocab_size).sum())
        special += int(np.isin(ids, _FRAME_IDS).sum())
        np.cumsum(ids == wordpiece.UNK, out=running[first + 1 : first + 1 + len(ids)])
        running[first + 1 : first + 1 + len(ids)] += running[first]
        first += len(ids)
    ascending = view.sentence_ends[0] == 0 and bool((view.lengths() > 0).all())
    unknown = np.diff(running[view.sentence_ends]) if ascending else None
    return Counts(out_of_range, special, int(running[-1]), unknown)


def with_text(sentences: pd.DataFrame, tokenizer: Tokenizer) -> pd.DataFrame:
    """Sentences that hold something after the tokenizer's normalisation; the store leaves the others out."""
    kept = [bool(tokenizer.normalizer.normalize_str(text or "").strip()) for text in sentences["text"]]
    return sentences[kept].reset_index(drop=True)


def store_table(
    store: TokenStore, counts: dict[str, Counts], *, vocabulary: Path, tokenizer: Tokenizer
) -> pd.DataFrame:
    """Table ``store``: one row with the figures of the whole."""
    tokens = sum(store[split].tokens for split in counts)
    unknown = sum(found.unknown_total for found in counts.values())
    return pd.DataFrame(
        {
            "store": ["all splits"],
            "tokens": [tokens],
            "unknown_share": [unknown / tokens if tokens else np.nan],
            "vocab_sha256": [store.manifest["vocab_sha256"]],
            "vocab_sha256_of_tokenizer": [file_sha256(vocabulary)],
            "vocab_size": [store.vocab_size],
            "vocab_size_of_tokenizer": [tokenizer.get_vocab_size()],
            "dtype": [store.manifest["dtype"]],
            "dtype_of_vocabulary": [dtype_for(store.vocab_size).str],
        }
    )


def split_table(store: TokenStore, counts: dict[str, Counts], sentences: pd.DataFrame) -> pd.DataFrame:
    """Table ``splits``: a row a split, those of the corpus that the store lacks included."""
    rows = []
    for split in dict.fromkeys([*SPLITS, *store.views]):
        part = sentences[sentences["split"] == split]
        row: dict[str, Any] = {
            "split": split,
            "tokens": 0,
            "sentences": 0,
            "documents": 0,
            "sentences_of_corpus": len(part),
            "documents_of_corpus": part["doc_id"].nunique(),
        }
        if split in counts:
            row |= _split_figures(store[split], counts[split])
        rows.append(row)
    return pd.DataFrame(rows)


def _split_figures(view: SplitView, found: Counts) -> dict[str, Any]:
    return {
        "tokens": view.tokens,
        "sentences": view.sentences,
        "documents": view.documents,
        "out_of_range": found.out_of_range,
        "special_tokens": found.special,
        "shortest_sentence": int(view.lengths().min(initial=2**62)),
        "shortest_document": int(np.diff(view.document_ends).min(initial=2**62)),
        "unknown_share": found.unknown_total / view.tokens if view.tokens else None,
    }


def shard_table(store: TokenStore) -> pd.DataFrame:
    """Table ``shards``: length and checksum of each file, and what index and manifest say."""
    rows = []
    for view in store.views.values():
        for shard in view.entry["shards"]:
            path = store.folder / shard["file"]
            rows.append(
                {
                    "file": shard["file"],
                    "bytes": path.stat().st_size,
                    "bytes_of_index": shard["tokens"] * view.dtype.itemsize,
                    "sha256": file_sha256(path),
                    "sha256_of_manifest": shard["sha256"],
                }
            )
    return pd.DataFrame(rows, columns=["file", "bytes", "bytes_of_index", "sha256", "sha256_of_manifest"])


def source_table(store: TokenStore, counts: dict[str, Counts], sentences: pd.DataFrame) -> pd.DataFrame:
    """Table ``sources``: tokens of each source and split; a split that does not fit the corpus is left out."""
    parts = []
    for split, found in counts.items():
        part = sentences[sentences["split"] == split]
        if found.unknown is not None and len(part) == len(found.unknown):
            parts.append(part[["source", "split"]].assign(tokens=store[split].lengths(), unknown=found.unknown))
    if not parts:
        empty = pd.DataFrame(columns=["source", "split", "tokens", "unknown", "unknown_share"])
        return empty.astype({"tokens": "int64", "unknown": "int64", "unknown_share": "float64"})
    table = pd.concat(parts).groupby(["source", "split"], as_index=False)[["tokens", "unknown"]].sum()
    return table.assign(unknown_share=table["unknown"] / table["tokens"])


def draw(sentences: pd.DataFrame, tokenizer: Tokenizer, *, amount: int, seed: int) -> pd.DataFrame:
    """Draw sentences without unknown tokens, in a seeded order; fewer if there are fewer.

    Returns:
        rows of ``sentences`` with their ids (list of int) in the column ``ids``.

    """
    order = generator(seed, "round_trip").permutation(len(sentences))
    rows: list[int] = []
    ids: list[list[int]] = []
    for start in range(0, len(order), max(amount, 1)):
        batch = order[start : start + amount]
        encoded = tokenizer.encode_batch_fast(sentences["text"].iloc[batch].tolist(), add_special_tokens=False)
        for row, encoding in zip(batch, encoded, strict=True):
            if len(rows) < amount and wordpiece.UNK not in encoding.ids:
                rows.append(int(row))
                ids.append(encoding.ids)
        if len(rows) >= amount:
            break
    return sentences.iloc[rows].assign(ids=pd.Series(ids, index=sentences.index[rows], dtype=object))


def round_trip_table(
    sample: pd.DataFrame, store: TokenStore, tokenizer: Tokenizer, sentences: pd.DataFrame
) -> pd.DataFrame:
    """Table ``round_trip``: whether the ids of a sentence are stored, and whether they decode to it."""
    # The tokenizer's own decoder also contracts English ("do not" to "don't"); here nothing may change but spaces.
    decoder = decoders.WordPiece(prefix=wordpiece.CONTINUATION, cleanup=False)
    place = sentences.groupby("split").cumcount()
    decoded, comes_back, is_stored = [], [], []
    for row, split, text, ids in zip(sample.index, sample["split"], sample["text"], sample["ids"], strict=True):
        back = decoder.decode([str(tokenizer.id_to_token(token)) for token in ids])
        decoded.append(back)
        comes_back.append(_without_spaces(back) == _without_spaces(tokenizer.normalizer.normalize_str(text)))
        view, index = store.views.get(split), int(place[row])
        is_stored.append(view is not None and index < view.sentences and view.sentence(index).tolist() == ids)
    return pd.DataFrame(
        {
            "doc_id": sample["doc_id"].to_numpy(),
            "position": sample["position"].to_numpy(),
            "excerpt": excerpts(sample["text"]).to_numpy(),
            "decoded": excerpts(pd.Series(decoded, dtype=object)).to_numpy(),
            "comes_back": np.array(comes_back, dtype=bool),
            "is_stored": np.array(is_stored, dtype=bool),
        }
    )


def _without_spaces(text: str) -> str:
    return "".join(text.split())
