"""The suites over the corpus; :mod:`~bert_ops.quality.rows` and :mod:`~bert_ops.quality.figures` make their tables."""

from __future__ import annotations

from bert_ops.quality.checks import (
    Check,
    Suite,
    between,
    columns,
    equal,
    figure,
    holds,
    in_set,
    matches,
    not_null,
    row_count,
    within,
)
from bert_ops.quality.examples import TaskKind
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.read import SPLITS
from bert_ops.quality.task_suites import examples_suite, task_splits_suite

_SECTION = "validate_corpus"
_ALL_SPLITS = list(SPLITS)


def corpus_suites(tasks: dict[str, TaskKind], params: ValidateCorpusParams) -> list[Suite]:
    """List the suites over a corpus.

    Args:
        tasks: its tasks, and what each asks for.
        params: thresholds and severities.

    """
    suites = [
        corpus_suite(params),
        files_suite(params),
        sources_suite(params),
        documents_suite(params),
        duplicates_suite(),
        splits_suite(params),
        sentences_suite(params),
        leaks_suite(),
        leakage_suite(params),
    ]
    for task, kind in tasks.items():
        suites.append(examples_suite(task, kind))
        suites.append(task_splits_suite(task, kind, params))
    return suites


def corpus_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on the figures of the whole corpus."""
    checks = (
        _figure("documents", "The corpus has enough documents", params),
        equal("read", "accounted_for", "Every row read is a document, rejected or a duplicate"),
        _figure("rejected_share", "Ingest rejected few of the rows that it read", params),
        _figure("cjk_share", "Enough of the visible characters are CJK ideographs", params),
        _figure("median_characters", "The median length of a document is plausible", params),
        _figure("longest_characters", "Hardly any document is longer (quantile of the lengths)", params),
        _figure("near_duplicates_left", "Few documents have near-duplicates, or a group, in the corpus", params),
        _figure("label_conflict_share", "Few rows were set aside for contradicting labels", params),
        between("tasks", "There is a task with labelled examples", low=1, severity="warning"),
    )
    return Suite("corpus", "The corpus as a whole", ("corpus",), checks, "documents")


def files_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each file of text."""
    check = within(
        "confidence",
        "The encoding of each file is known with confidence",
        params.encoding_confidence,
        f"{_SECTION}.encoding_confidence",
    )
    return Suite("files", "Encodings of the files", ("source", "file", "encoding"), (check,), "documents")


def sources_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each source."""
    checks = (
        row_count("There is a source", low=1),
        equal("read", "accounted_for", "Every row read from each source is accounted for"),
        between("documents", "Each source gave documents", low=1, severity="warning"),
        _within("rejected_share", "Ingest rejected few rows of each source", params, "rejected_share_of_source"),
        _within("duplicate_share", "Few rows of each source are duplicates", params, "duplicate_share_of_source"),
        _within("cjk_share", "Enough characters of each source are CJK ideographs", params, "cjk_share_of_source"),
    )
    return Suite("sources", "Sources", ("source", "documents", "rejected", "duplicates"), checks, "documents")


def documents_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each document."""
    checks = (
        row_count("There are documents", low=1),
        columns(["doc_id", "source", "split", "characters", "content_hash", "language", "cluster", "repeats"]),
        not_null("doc_id", "Each document has an id"),
        holds("id_is_unique", "No id occurs twice"),
        not_null("content_hash", "Each document has a content hash"),
        matches("content_hash", "A content hash is SHA-256", "^[0-9a-f]{64}$", allowed="64 hexadecimal digits"),
        holds("content_is_unique", "No content occurs twice"),
        equal("doc_id", "id_of_hash", "The id is made of the first 16 digits of the hash"),
        not_null("source", "Each document names its source"),
        not_null("cluster", "Each document names its cluster"),
        matches("language", "A language is an ISO 639 code", "^[a-z]{2,3}$", allowed="2 or 3 lower-case letters"),
        not_null("split", "Each document has a split"),
        in_set("split", "The split is known", _ALL_SPLITS),
        holds("on_one_side", "No content stands in two splits (leakage)"),
        holds("cluster_on_one_side", "No near-duplicates or groups stand in two splits (leakage)"),
        between("visible_characters", "No text is empty", low=1),
        equal("characters", "text_length", "The recorded length is that of the text"),
        _within("text_length", "Texts are neither too short nor too long", params, "document_characters"),
        _within("replacement_characters", "Texts hold no U+FFFD", params, "replacement_characters", high=0),
        _within(
            "sign_share",
            f"Texts were decoded by the right encoding (share of signs against it; `{_SECTION}.mojibake.signs`)",
            params,
            "mojibake",
            high=params.mojibake.signs,
        ),
        between("repeats", "Passes over a document are counted", low=0, high=255),
        holds("sentences_if_used", "Each document of the pretraining text has sentences", severity="warning"),
        holds("no_sentences_if_kept_out", "A document that is kept out of pretraining has no sentences"),
    )
    return Suite("documents", "Documents", ("doc_id", "excerpt"), checks, "documents")


def duplicates_suite() -> Suite:
    """List the checks on each text that was removed as a duplicate."""
    checks = (
        in_set("kind", "The kind of duplicate is known", ["exact", "near"]),
        holds("is_document", "The document that was kept instead is in the corpus"),
        holds("similarity_fits_kind", "Near-duplicates have a similarity, equal texts none"),
        between("similarity", "A similarity is a share", low=0, high=1),
    )
    return Suite("duplicates", "Duplicates that were removed", ("location", "excerpt"), checks, "documents")


def splits_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each split."""
    checks = (
        row_count("The three splits are counted", low=len(SPLITS)),
        between("documents", "Each split has documents", low=1),
        between("sentences", "Each split has sentences", low=1),
        _within(
            "deviation", "The share of each split is near the one that ingest was given", params, "split_deviation"
        ),
    )
    return Suite("splits", "Splits", ("split", "documents", "share", "share_wanted"), checks, "documents")


def sentences_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each sentence."""
    checks = (
        row_count("There are sentences", low=1),
        columns(["doc_id", "source", "split", "position", "repeats"]),
        equal("split", "split_of_document", "A sentence stands in the split of its document (leakage)"),
        holds("is_pretraining_text", "A sentence belongs to a document that may be pretraining text"),
        equal("repeats", "repeats_of_document", "A sentence is repeated as often as its document"),
        holds("in_order", "Sentences stand together and are numbered from 0 in each document"),
        between("visible_characters", "No sentence is empty", low=1),
        holds("words_fit", "The lengths of given words add up to the sentence"),
        _within("text_length", "Sentences are not too long", params, "sentence_characters"),
    )
    return Suite("sentences", "Sentences", ("doc_id", "position", "excerpt"), checks, "documents")


def leaks_suite() -> Suite:
    """List the checks on each document that holds a test example."""
    checks = (
        holds("is_document", "The document is in the corpus"),
        holds("is_test_example", "The example is a test example of its task"),
        between("share", "The share of the example that was found is a share", low=0, high=1),
        holds("is_kept_out", "A document that was dropped is kept out of pretraining"),
    )
    return Suite("leaks", "Test examples in other documents", ("doc_id", "task", "example_id"), checks, "examples")


def leakage_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on the leakage of each task."""
    check = _within("leaked_share", "Few test examples stand in pretraining text", params, "leaked_share")
    identity = ("task", "test_examples", "leaked", "dropped")
    return Suite("leakage", "Leakage from tasks into pretraining text", identity, (check,), "examples")


def _figure(name: str, what: str, params: ValidateCorpusParams) -> Check:
    """Compare a figure of the whole with the limit of the same name."""
    return figure(name, what, getattr(params, name), f"{_SECTION}.{name}")


def _within(column: str, what: str, params: ValidateCorpusParams, key: str, *, high: float | None = None) -> Check:
    return within(column, what, getattr(params, key), f"{_SECTION}.{key}", high=high)
