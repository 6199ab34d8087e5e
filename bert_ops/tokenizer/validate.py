"""Stage ``validate_tokens``: the token store against the tokenizer and the sentences that it was made of."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.io import file_sha256, missing
from bert_ops.quality.accepted import Accepted
from bert_ops.quality.engine import Frames, Validation, run_suites
from bert_ops.quality.history import data_hash
from bert_ops.quality.params import ValidateTokensParams
from bert_ops.quality.read import TableFile
from bert_ops.quality.report import Outputs, conclude
from bert_ops.quality.token_suites import token_suites
from bert_ops.schema import load_section
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.round_trip import draw, round_trip_table
from bert_ops.tokenizer.store import SPLITS, TokenStore, dtype_for, manifest_checksum
from bert_ops.tokenizer.walk import SENTENCES, Counts, Walk, count, walk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tokens", type=Path, required=True, help="token store, as tokenize writes it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json and vocab.txt")
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.parquet, as ingest writes it")
    parser.add_argument(
        "--report", type=Path, required=True, help="folder for the report: index.html is its first page"
    )
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the verdict and every result")
    parser.add_argument("--history", type=Path, required=True, help="JSON Lines file with the earlier verdicts")
    parser.add_argument(
        "--accepted", type=Path, required=True, help="JSON file with the fertility of the versions that passed"
    )


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
    sentences = TableFile(arguments.sentences, SENTENCES)
    sentences.check()
    accepted = Accepted.read(arguments.accepted)
    data = data_hash([arguments.tokens / "manifest.json", vocabulary, arguments.sentences])
    counts = {split: count(view, tokenizer=tokenizer) for split, view in store.views.items()}
    drawn = draw(sentences.rows, amount=params.round_trip_sentences, seed=params.seed)
    found = walk(sentences, store, counts, tokenizer=tokenizer, sampled=drawn)
    before = accepted.before(data, version=params.fertility_drift.version)
    validation = run_suites(
        token_tables(
            store,
            counts,
            found,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            accepted=before,
            drawn=drawn,
            params=params,
        ),
        token_suites(params),
    )
    fertility = found.fertility()
    conclude(
        validation,
        stage="validate_tokens",
        about=f"the token store in {arguments.tokens}",
        outputs=Outputs(report=arguments.report, metrics=arguments.metrics, history=arguments.history),
        data=data,
        params=params,
        counts={"tokens": sum(view.tokens for view in store.views.values())},
        figures={"fertility": fertility},
        remedy=None if _keeps_fertility(validation) else _how_to_accept(arguments.accepted, params),
    )
    if _keeps_fertility(validation):
        accepted.accept(data, version=params.fertility_drift.version, figures=fertility)


def token_tables(
    store: TokenStore,
    counts: dict[str, Counts],
    found: Walk,
    *,
    tokenizer: Tokenizer,
    vocabulary: Path,
    accepted: dict[str, float],
    drawn: NDArray[np.int64],
    params: ValidateTokensParams,
) -> dict[str, Frames]:
    """Say how to derive the table of each suite of :func:`bert_ops.quality.token_suites.token_suites`."""
    return {
        "store": lambda: [store_table(store, counts, vocabulary=vocabulary, tokenizer=tokenizer)],
        "splits": lambda: [split_table(store, counts, found)],
        "shards": lambda: [shard_table(store)],
        "sources": lambda: [source_table(found)],
        "fertility": lambda: [fertility_table(found, accepted)],
        "round_trip": lambda: [
            round_trip_table(found.sample, store, tokenizer, order=drawn, amount=params.round_trip_sentences)
        ],
    }


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
            "special_ids": [json.dumps(store.special._asdict())],
            "special_ids_of_tokenizer": [json.dumps(wordpiece.special_ids(tokenizer)._asdict())],
            "dtype": [store.manifest["dtype"]],
            "dtype_of_vocabulary": [dtype_for(store.vocab_size).str],
            "checksum": [manifest_checksum(store.manifest)],
            "checksum_of_manifest": [store.manifest.get("checksum")],
        }
    )


def split_table(store: TokenStore, counts: dict[str, Counts], found: Walk) -> pd.DataFrame:
    """Table ``splits``: a row a split, those of the corpus that the store lacks included."""
    rows = []
    for split in dict.fromkeys([*SPLITS, *store.views]):
        row = {
            "split": split,
            "tokens": 0,
            "sentences": 0,
            "documents": 0,
            "sentences_of_corpus": found.sentences[split],
            "documents_of_corpus": found.documents[split],
            "misplaced_documents": found.misplaced[split],
            "differing_repeats": found.repeats_differ[split],
        }
        if split in counts:
            view, of_split = store[split], counts[split]
            row |= {
                "tokens": view.tokens,
                "sentences": view.sentences,
                "documents": view.documents,
                "out_of_range": of_split.out_of_range,
                "special_tokens": of_split.special,
                "unbegun_sentences": of_split.unbegun_sentences,
                "begun_continuations": of_split.begun_continuations,
                "shortest_sentence": int(view.lengths().min(initial=2**62)),
                "shortest_document": int(np.diff(view.document_ends).min(initial=2**62)),
                "unknown_share": of_split.unknown_total / view.tokens if view.tokens else None,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def shard_table(store: TokenStore) -> pd.DataFrame:
    """Table ``shards``: length and checksum of each file, and what index and manifest say."""
    rows = [
        {
            "file": name,
            "bytes": (store.folder / name).stat().st_size,
            "bytes_of_index": size,
            "sha256": file_sha256(store.folder / name),
            "sha256_of_manifest": checksum,
        }
        for view in store.views.values()
        for name, size, checksum in view.files()
    ]
    return pd.DataFrame(rows, columns=["file", "bytes", "bytes_of_index", "sha256", "sha256_of_manifest"])


def source_table(found: Walk) -> pd.DataFrame:
    """Table ``sources``: tokens of each source and split; a split that does not fit the corpus is left out."""
    rows = [
        {
            "source": source,
            "split": split,
            "tokens": figures["tokens"],
            "unknown": figures["unknown"],
            "unknown_share": figures["unknown"] / max(figures["tokens"], 1),
        }
        for (source, split), figures in sorted(found.by_source.items())
    ]
    table = pd.DataFrame(rows, columns=["source", "split", "tokens", "unknown", "unknown_share"])
    return table.astype({"tokens": "int64", "unknown": "int64", "unknown_share": "float64"})


def fertility_table(found: Walk, accepted: dict[str, float]) -> pd.DataFrame:
    """Table ``fertility``: tokens a visible character of each source, now and in the last accepted version.

    A source that the accepted version did not have has no drift.
    """
    now = found.fertility()
    before = [accepted.get(source, np.nan) for source in now]
    values = np.array(list(now.values()), np.float64)
    drift = np.abs(values / np.array(before, np.float64) - 1.0) if len(now) else values
    return pd.DataFrame(
        {
            "source": pd.Series(list(now), dtype=object),
            "fertility": values,
            "accepted": np.array(before, np.float64),
            "drift": np.nan_to_num(drift, nan=0.0, posinf=np.inf),
        }
    )


def _keeps_fertility(validation: Validation) -> bool:
    return all(r["success"] for r in validation.summary["results"] if r["suite"] == "fertility")


def _how_to_accept(path: Path, params: ValidateTokensParams) -> str:
    version = params.fertility_drift.version
    return (
        f"if the new fertility is meant, raise `validate_tokens.fertility_drift.version` from {version} to "
        f"{version + 1}, which accepts it (the figures of earlier versions stand in {path})"
    )
