"""The suites over the token store; :mod:`bert_ops.tokenizer.validate` makes their tables."""

from __future__ import annotations

from dataclasses import replace

from bert_ops.quality.checks import Suite, between, equal, figure, holds, in_set, row_count, within
from bert_ops.quality.params import ValidateTokensParams
from bert_ops.quality.read import SPLITS

_SECTION = "validate_tokens"


def token_suites(params: ValidateTokensParams) -> list[Suite]:
    """List the suites over a token store."""
    return [
        store_suite(params),
        splits_suite(params),
        shards_suite(),
        sources_suite(params),
        fertility_suite(params),
        round_trip_suite(),
    ]


def store_suite(params: ValidateTokensParams) -> Suite:
    """List the checks on the store as a whole."""
    checks = (
        figure("tokens", "There are enough tokens", params.tokens, f"{_SECTION}.tokens"),
        figure("unknown_share", "Few tokens are [UNK] (share)", params.unknown_share, f"{_SECTION}.unknown_share"),
        equal("vocab_sha256", "vocab_sha256_of_tokenizer", "The store was made with this vocabulary (hash)"),
        equal("vocab_size", "vocab_size_of_tokenizer", "The store was made with this vocabulary (size)"),
        equal("special_ids", "special_ids_of_tokenizer", "Special tokens have the tokenizer's ids"),
        equal("dtype", "dtype_of_vocabulary", "Ids are stored in the smallest type that holds the vocabulary"),
        equal("checksum", "checksum_of_manifest", "The manifest is what was written (checksum)"),
    )
    return Suite("store", "The token store as a whole", ("store",), checks, "tokens")


def splits_suite(params: ValidateTokensParams) -> Suite:
    """List the checks on each split."""
    checks = (
        row_count("The three splits are counted", low=len(SPLITS)),
        in_set("split", "The split is known", list(SPLITS)),
        between("sentences", "Each split has sentences", low=1),
        equal("sentences", "sentences_of_corpus", "As many sentences as sentences.parquet has with text"),
        equal("documents", "documents_of_corpus", "As many documents as sentences.parquet has with text"),
        between("misplaced_documents", "Documents begin where they do in sentences.parquet", high=0),
        between("differing_repeats", "Documents are repeated as often as in sentences.parquet", high=0),
        between("out_of_range", "Every id is in the vocabulary (ids beyond it)", high=0),
        between("special_tokens", "No [PAD], [CLS], [SEP] or [MASK] stands inside the sentences", high=0),
        between("unbegun_sentences", "The first token of every sentence begins a word", high=0),
        between("begun_continuations", "No piece that continues a word begins one", high=0),
        between("shortest_sentence", "Every sentence has a token", low=1),
        between("shortest_document", "Every document has a sentence", low=1),
        within(
            "unknown_share",
            "Few tokens of each split are [UNK] (share)",
            params.unknown_share,
            f"{_SECTION}.unknown_share",
        ),
    )
    return Suite("splits", "Splits", ("split", "tokens"), checks, "tokens")


def shards_suite() -> Suite:
    """List the checks on each file."""
    checks = (
        row_count("There are shards", low=1),
        equal("bytes", "bytes_of_index", "A file is as long as the index says"),
        equal("sha256", "sha256_of_manifest", "A file is what was written (checksum)"),
    )
    return Suite("shards", "Files", ("file",), checks, "tokens")


def sources_suite(params: ValidateTokensParams) -> Suite:
    """List the checks on each source of each split."""
    checks = (
        row_count("Tokens can be counted by source", low=1),
        within(
            "unknown_share",
            "Few tokens of each source are [UNK] (share)",
            params.unknown_share_of_source,
            f"{_SECTION}.unknown_share_of_source",
        ),
    )
    return Suite("sources", "Sources", ("source", "split", "tokens", "unknown"), checks, "tokens")


def fertility_suite(params: ValidateTokensParams) -> Suite:
    """List the checks on the fertility of each source: tokens a visible character."""
    drift = within(
        "drift",
        "Fertility is near that of the last accepted version (relative difference)",
        params.fertility_drift,
        f"{_SECTION}.fertility_drift",
    )
    checks = (
        row_count("Fertility can be told by source", low=1),
        replace(drift, remembers=True),
    )
    return Suite("fertility", "Fertility by source", ("source", "fertility", "accepted"), checks, "tokens")


def round_trip_suite() -> Suite:
    """List the checks on each sentence that was drawn for the round trip."""
    checks = (
        row_count("There are sentences without [UNK] to draw", low=1),
        holds("comes_back", "Decoding the ids gives the normalised sentence, spaces apart"),
        holds("is_stored", "The store holds the ids that the tokenizer gives"),
    )
    return Suite("round_trip", "Round trip", ("doc_id", "position", "excerpt", "decoded"), checks, "tokens")
