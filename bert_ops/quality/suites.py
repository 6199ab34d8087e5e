"""The suites over the corpus."""

from __future__ import annotations

import pandas as pd

from bert_ops.quality import frames
from bert_ops.quality.checks import (
    Check,
    Suite,
    between,
    columns,
    equal,
    figure,
    has_all,
    holds,
    in_set,
    matches,
    not_null,
    row_count,
    unique,
)
from bert_ops.quality.frames import SPLITS, Corpus
from bert_ops.quality.params import ValidateCorpusParams

_SECTION = "validate_corpus"


def corpus_tables(corpus: Corpus, params: ValidateCorpusParams) -> dict[str, pd.DataFrame]:
    """Derive the table of each suite of :func:`corpus_suites`."""
    documents = corpus.documents
    tables = {
        "corpus": frames.corpus_table(documents, corpus.quarantine, tasks=len(corpus.examples)),
        "documents": frames.document_table(documents, corpus.sentences),
        "splits": frames.split_table(documents, params.split_shares.model_dump()),
        "sources": frames.source_table(documents, corpus.quarantine),
        "sentences": frames.sentence_table(corpus.sentences, documents),
    }
    for task, examples in corpus.examples.items():
        tables[f"task_{task}"] = frames.example_table(examples, documents)
        tables[f"task_{task}_splits"] = frames.task_split_table(examples)
    return tables


def corpus_suites(corpus: Corpus, params: ValidateCorpusParams) -> list[Suite]:
    """List the suites over a corpus; which tasks there are, and of which kind, is read from it."""
    suites = [
        corpus_suite(params),
        documents_suite(params),
        splits_suite(params),
        sources_suite(params),
        sentences_suite(params),
    ]
    for task, examples in corpus.examples.items():
        classification = frames.is_classification(examples)
        suites.append(examples_suite(task, classification=classification))
        suites.append(task_splits_suite(task, params, classification=classification))
    return suites


def corpus_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on the figures of the whole corpus."""
    checks = (
        figure(
            "documents",
            "The corpus has enough documents",
            low=params.min_documents,
            setting=f"{_SECTION}.min_documents",
        ),
        figure(
            "rejected_share",
            "Ingest rejected few of the texts that it read",
            high=params.max_rejected_share,
            setting=f"{_SECTION}.max_rejected_share",
        ),
        figure(
            "cjk_share",
            "Enough of the visible characters are CJK ideographs",
            low=params.min_cjk_share,
            setting=f"{_SECTION}.min_cjk_share",
        ),
        figure("tasks", "There is a task with labelled examples", low=1, severity="warning"),
    )
    return Suite("corpus", "The corpus as a whole", ("corpus",), checks)


def documents_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each document."""
    names = [name for name in frames.DOCUMENT_COLUMNS if name != "text"]
    checks = (
        row_count("There are documents", low=1),
        columns(names),
        not_null("doc_id", "Each document has an id"),
        unique("doc_id", "No id occurs twice"),
        not_null("content_hash", "Each document has a content hash"),
        matches("content_hash", "A content hash is SHA-256", "^[0-9a-f]{64}$", allowed="64 hexadecimal digits"),
        unique("content_hash", "No content occurs twice"),
        equal("doc_id", "id_of_hash", "The id is made of the first 16 digits of the hash"),
        not_null("source", "Each document names its source"),
        not_null("split", "Each document has a split"),
        in_set("split", "The split is known", list(SPLITS)),
        has_all("split", "Each split has documents", list(SPLITS)),
        holds("on_one_side", "No content stands in two splits (leakage)"),
        between("visible_characters", "No text is empty", low=1),
        equal("characters", "text_length", "The recorded length is that of the text"),
        between(
            "text_length",
            "Texts are neither too short nor too long",
            low=params.min_document_characters,
            high=params.max_document_characters,
            mostly=params.mostly,
            setting=f"{_SECTION}.min_document_characters, max_document_characters, mostly",
        ),
        between(
            "replacement_characters",
            "Texts hold no U+FFFD, the trace of a wrong encoding",
            high=0,
            mostly=params.mostly,
            severity="warning",
            setting=f"{_SECTION}.mostly",
        ),
        holds("has_sentences", "Each document has sentences", severity="warning"),
    )
    return Suite("documents", "Documents", ("doc_id", "excerpt"), checks)


def splits_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each split."""
    checks = (
        row_count("The three splits are counted", low=len(SPLITS)),
        between("documents", "Each split has documents", low=1),
        between(
            "deviation",
            "Shares of the splits are near "
            + " / ".join(f"{getattr(params.split_shares, split):.4g}" for split in SPLITS)
            + " (distance of each)",
            high=params.max_split_deviation,
            severity="warning",
            setting=f"{_SECTION}.split_shares, max_split_deviation",
        ),
    )
    return Suite("splits", "Splits", ("split", "documents", "share"), checks)


def sources_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each source."""
    checks = (
        row_count("There is a source", low=1),
        between("documents", "Each source gave documents", low=1, severity="warning"),
        between(
            "rejected_share",
            "Ingest rejected few texts of each source",
            high=params.max_rejected_share_of_source,
            severity="warning",
            setting=f"{_SECTION}.max_rejected_share_of_source",
        ),
    )
    return Suite("sources", "Sources", ("source", "documents", "rejected"), checks)


def sentences_suite(params: ValidateCorpusParams) -> Suite:
    """List the checks on each sentence."""
    names = [name for name in frames.SENTENCE_COLUMNS if name != "text"]
    checks = (
        row_count("There are sentences", low=1),
        columns(names),
        equal("split", "split_of_document", "A sentence stands in the split of its document (leakage)"),
        holds("in_order", "Sentences stand together and are numbered from 0 in each document"),
        between("visible_characters", "No sentence is empty", low=1),
        has_all("split", "Each split has sentences", list(SPLITS)),
        between(
            "text_length",
            "Sentences are not too long",
            high=params.max_sentence_characters,
            mostly=params.mostly,
            severity="warning",
            setting=f"{_SECTION}.max_sentence_characters, mostly",
        ),
    )
    return Suite("sentences", "Sentences", ("doc_id", "position", "excerpt"), checks)


def examples_suite(task: str, *, classification: bool) -> Suite:
    """List the checks on each labelled example of a task."""
    names = [name for name in frames.EXAMPLE_COLUMNS if name != "text"]
    if classification:
        answers: tuple[Check, ...] = (not_null("label", "Each example has a label"),)
    else:
        answers = (
            not_null("spans", "Each example has spans"),
            holds("spans_are_json", "Spans are a JSON list of [start, end, label]"),
            holds("spans_within_text", "Spans are not empty and lie within the text"),
            holds("spans_apart", "Spans do not overlap"),
        )
    checks = (
        row_count("There are examples", low=1),
        columns(names),
        not_null("example_id", "Each example has an id"),
        unique("example_id", "No id occurs twice"),
        unique("content_hash", "No content occurs twice"),
        holds("is_document", "Each example is a document, with the same split and hash"),
        in_set("split", "The split is known", list(SPLITS)),
        holds("on_one_side", "No content stands in two splits (leakage)"),
        holds("agrees_with_equals", "Equal contents have equal labels"),
        between("visible_characters", "No text is empty", low=1),
        *answers,
    )
    return Suite(f"task_{task}", f"Examples of the task {task}", ("example_id", "excerpt"), checks)


def task_splits_suite(task: str, params: ValidateCorpusParams, *, classification: bool) -> Suite:
    """List the checks on each split of a task."""
    checks = (
        row_count("The three splits are counted", low=len(SPLITS)),
        between(
            "examples",
            "Each split has enough examples",
            low=params.min_examples_per_split,
            setting=f"{_SECTION}.min_examples_per_split",
        ),
        between("label_count", "There are labels to tell apart", low=2 if classification else 1),
        equal(
            "labels",
            "labels_of_train",
            "Each split has the labels of train",
            # A rare kind of entity may well be absent from a small split; a class of texts may not.
            severity="critical" if classification else "warning",
        ),
        not_null("majority_share", "Each split has labels"),
        between(
            "majority_share",
            "No label outnumbers the others by far (share of the most frequent)",
            high=params.max_majority_share,
            severity="warning",
            setting=f"{_SECTION}.max_majority_share",
        ),
    )
    return Suite(f"task_{task}_splits", f"Splits of the task {task}", ("split", "examples"), checks)
