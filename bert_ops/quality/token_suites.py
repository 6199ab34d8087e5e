"""The suites over the token store; :mod:`bert_ops.tokenizer.validate` makes their tables."""

from __future__ import annotations

from bert_ops.quality.checks import Suite, between, equal, figure, holds, in_set, row_count
from bert_ops.quality.frames import SPLITS
from bert_ops.quality.params import ValidateTokensParams

_SECTION = "validate_tokens"


def token_suites(params: ValidateTokensParams) -> list[Suite]:
    """List the suites over a token store."""
    return [store_suite(params), splits_suite(params), shards_suite(), sources_suite(params), round_trip_suite()]


def store_suite(params: ValidateTokensParams) -> Suite:
    """List the checks on the store as a whole."""
    checks = (
        figure("tokens", "There are enough tokens", low=params.min_tokens, setting=f"{_SECTION}.min_tokens"),
        figure(
            "unknown_share",
            "Few tokens are [UNK] (share)",
            high=params.max_unknown_share,
            setting=f"{_SECTION}.max_unknown_share",
        ),
        equal("vocab_sha256", "vocab_sha256_of_tokenizer", "The store was made with this vocabulary (hash)"),
        equal("vocab_size", "vocab_size_of_tokenizer", "The store was made with this vocabulary (size)"),
        equal("dtype", "dtype_of_vocabulary", "Ids are stored in the smallest type that holds the vocabulary"),
    )
    return Suite("store", "The token store as a whole", ("store",), checks)


def splits_suite(params: ValidateTokensParams) -> Suite:
    """List the checks on each split."""
    checks = (
        row_count("The three splits are counted", low=len(SPLITS)),
        in_set("split", "The split is known", list(SPLITS)),
        between("sentences", "Each split has sentences", low=1),
        equal("sentences", "sentences_of_corpus", "As many sentences as sentences.parquet has with text"),
        equal("documents", "documents_of_corpus", "As many documents as sentences.parquet has with text"),
        between("out_of_range", "Every id is in the vocabulary (ids beyond it)", high=0),
        between("special_tokens", "No [PAD], [CLS], [SEP] or [MASK] stands inside the sentences", high=0),
        between("shortest_sentence", "Every sentence has a token", low=1),
        between("shortest_document", "Every document has a sentence", low=1),
        between(
            "unknown_share",
            "Few tokens of each split are [UNK] (share)",
            high=params.max_unknown_share,
            setting=f"{_SECTION}.max_unknown_share",
        ),
    )
    return Suite("splits", "Splits", ("split", "tokens"), checks)


def shards_suite() -> Suite:
    """List the checks on each shard."""
    checks = (
        row_count("There are shards", low=1),
        equal("bytes", "bytes_of_index", "A shard is as long as the index says"),
        equal("sha256", "sha256_of_manifest", "A shard is what was written (checksum)"),
    )
    return Suite("shards", "Shards", ("file",), checks)


def sources_suite(params: ValidateTokensParams) -> Suite:
    """List the checks on each source of each split."""
    checks = (
        row_count("Tokens can be counted by source", low=1),
        between(
            "unknown_share",
            "Few tokens of each source are [UNK] (share)",
            high=params.max_unknown_share_of_source,
            severity="warning",
            setting=f"{_SECTION}.max_unknown_share_of_source",
        ),
    )
    return Suite("sources", "Sources", ("source", "split", "tokens", "unknown"), checks)


def round_trip_suite() -> Suite:
    """List the checks on each sentence that was drawn for the round trip."""
    checks = (
        row_count("There are sentences without [UNK] to draw", low=1),
        holds("comes_back", "Decoding the ids gives the normalised sentence, spaces apart"),
        holds("is_stored", "The store holds the ids that the tokenizer gives"),
    )
    return Suite("round_trip", "Round trip", ("doc_id", "position", "excerpt", "decoded"), checks)
