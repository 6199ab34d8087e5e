"""The suites over the labelled examples of a task, by what the task asks for."""

from __future__ import annotations

from bert_ops.quality.checks import (
    Check,
    Suite,
    between,
    columns,
    equal,
    holds,
    in_set,
    not_null,
    row_count,
    within,
)
from bert_ops.quality.examples import TaskKind
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.read import SPLITS

_SECTION = "validate_corpus"


def examples_suite(task: str, kind: TaskKind) -> Suite:
    """List the checks on each labelled example of a task."""
    checks = (
        row_count("There are examples", low=1),
        columns(["example_id", "source", "split", "label", "spans", "content_hash", "cluster"]),
        not_null("example_id", "Each example has an id"),
        holds("id_is_unique", "No id occurs twice"),
        holds("content_is_unique", "No content occurs twice"),
        holds("is_document", "Each example is a document, with the same split and hash"),
        in_set("split", "The split is known", list(SPLITS)),
        holds("on_one_side", "No content stands in two splits (leakage)"),
        holds("cluster_on_one_side", "No near-duplicate stands in another split (leakage)"),
        holds("agrees_with_equals", "Equal contents have equal labels"),
        between("visible_characters", "No text is empty", low=1),
        holds("as_many_texts", "All examples are pairs" if kind.pairs else "No example is a pair"),
        *(_of_pairs() if kind.pairs else ()),
        *_answers(kind),
    )
    return Suite(f"task_{task}", f"Examples of the task {task}", ("example_id", "excerpt"), checks, "examples")


def _of_pairs() -> tuple[Check, ...]:
    return (
        between("visible_characters_of_pair", "No second text is empty", low=1),
        holds("first_text_on_one_side", "No first text of a pair stands in two splits (leakage)"),
    )


def _answers(kind: TaskKind) -> tuple[Check, ...]:
    if kind.target == "label":
        return (not_null("label", "Each example has a label"),)
    if kind.target == "labels":
        return (
            not_null("label", "Each example has a list of labels, be it empty"),
            holds("labels_are_json", "Labels are a JSON list of texts, sorted and without repeats"),
        )
    if kind.target == "value":
        return (
            not_null("label", "Each example has a value"),
            holds("is_number", "A value is a finite number, as Python writes a float"),
        )
    return (
        not_null("spans", "Each example has spans"),
        holds("spans_are_json", "Spans are a JSON list of [start, end, label]"),
        holds("spans_within_text", "Spans are not empty and lie within the text"),
        holds("spans_apart", "Spans do not overlap"),
    )


def task_splits_suite(task: str, kind: TaskKind, params: ValidateCorpusParams) -> Suite:
    """List the checks on each split of a task."""
    value = kind.target == "value"
    checks = (
        row_count("The three splits are counted", low=len(SPLITS)),
        _within("examples", "Each split has enough examples", params, "examples_per_split"),
        between(
            "label_count",
            "There are values to tell apart" if value else "There are labels to tell apart",
            # A list of labels, or spans, may hold a label or not: one is enough to be told from none.
            low=2 if kind.target in ("label", "value") else 1,
        ),
        *(() if value else _labels(kind)),
        not_null("majority_share", "Each split has values" if value else "Each split has labels"),
        _within(
            "majority_share",
            f"No {'value' if value else 'label'} outnumbers the others by far (share of the most frequent)",
            params,
            "majority_share",
        ),
    )
    return Suite(f"task_{task}_splits", f"Splits of the task {task}", ("split", "examples"), checks, "examples")


def _labels(kind: TaskKind) -> tuple[Check, ...]:
    return (
        Check(
            "ExpectColumnValuesToBeInSet",
            "Training saw every label of each split",
            "no other label; failing rows name them",
            arguments={"column": "unseen_labels", "value_set": [""]},
        ),
        equal(
            "labels",
            "labels_of_train",
            "Each split has the labels of train",
            # A rare label of several, or a rare kind of entity, may well be absent from a small split.
            severity="critical" if kind.target == "label" else "warning",
        ),
    )


def _within(column: str, what: str, params: ValidateCorpusParams, key: str) -> Check:
    return within(column, what, getattr(params, key), f"{_SECTION}.{key}")
