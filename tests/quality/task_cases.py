"""How to break every rule about the examples of a task, by what the task asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from quality_corpus import Corpus

from bert_ops.quality.examples import TaskKind


@dataclass(frozen=True)
class Case:
    """A rule and how to break it: in the corpus, or (where reading already refuses it) in the derived table."""

    suite: str
    what: str
    corpus: Callable[[Corpus], None] | None = None
    table: Callable[[pd.DataFrame], pd.DataFrame] | None = None


def put(frame: pd.DataFrame, rows: int | slice, column: str, value: Any) -> None:
    """Replace values, by position."""
    frame[column] = frame[column].astype(object)
    frame.iloc[rows, frame.columns.get_loc(column)] = value


def examples(task: str, rows: int | slice, column: str, value: Any) -> Callable[[Corpus], None]:
    return lambda c: put(c.examples[task], rows, column, value)


def only(task: str, rows: slice) -> Callable[[Corpus], None]:
    return lambda c: c.examples.update({task: c.examples[task].iloc[rows].reset_index(drop=True)})


def position(table: pd.DataFrame, split: str) -> int:
    return int((table["split"] == split).to_numpy().argmax())


@dataclass(frozen=True)
class Answers:
    """Answers of a task: one, another, one that training never saw, one that holds no label, and one of a bad form."""

    one: str
    other: str
    odd: str
    empty: str | None
    bad: str | None = None


ANSWERS = {
    "entities": Answers('[[0, 1, "LOC"]]', "[]", '[[0, 1, "ODD"]]', "[]", '[[0, "2", "PER"]]'),
    "sentiment": Answers("positive", "negative", "odd", None),
    "topics": Answers('["sport"]', "[]", '["odd"]', "[]", '["sport", "art"]'),
    "stars": Answers("3.5", "4.5", "9.5", None, "nan"),
    "inference": Answers("follows", "contradicts", "odd", None),
}


def same_example_twice(task: str, kind: TaskKind) -> Callable[[Corpus], None]:
    """Two examples with one hash, in different splits and with different answers."""

    def plant(c: Corpus) -> None:
        table = c.examples[task]
        other = position(table, "test")
        put(table, other, "content_hash", table["content_hash"].iloc[0])
        put(table, 0, kind.column, ANSWERS[task].one)
        put(table, other, kind.column, ANSWERS[task].other)

    return plant


def same_first_text_in_two_splits(task: str) -> Callable[[Corpus], None]:
    """Two pairs that share their first text but for a full stop, in different splits."""

    def plant(c: Corpus) -> None:
        table = c.examples[task]
        put(table, position(table, "test"), "text", table["text"].iloc[0] + "。")

    return plant


def example_near_training_text(task: str) -> Callable[[Corpus], None]:
    """A test example in the cluster of a training document."""

    def plant(c: Corpus) -> None:
        table = c.examples[task]
        put(table, position(table, "test"), "cluster", c.documents["cluster"].iloc[0])

    return plant


def odd_label_in_test(task: str, kind: TaskKind) -> Callable[[Corpus], None]:
    return lambda c: put(c.examples[task], position(c.examples[task], "test"), kind.column, ANSWERS[task].odd)


def one_label_in_test(task: str, kind: TaskKind) -> Callable[[Corpus], None]:
    """A test split that lacks a label which train has."""

    def plant(c: Corpus) -> None:
        c.examples[task].loc[c.examples[task]["split"] == "test", kind.column] = ANSWERS[task].one

    return plant


def task_cases(task: str, kind: TaskKind) -> list[Case]:
    """A case for each check on the examples and the splits of a task."""
    suite, splits, column, answers = f"task_{task}", f"task_{task}_splits", kind.column, ANSWERS[task]
    what = "value" if kind.target == "value" else "label"
    return [
        Case(suite, "There are examples", only(task, slice(0))),
        Case(suite, "The required columns are there", table=lambda t: t.drop(columns="source")),
        Case(suite, "Each example has an id", examples(task, 3, "example_id", None)),
        Case(suite, "No id occurs twice", examples(task, slice(0, 2), "example_id", "x")),
        Case(suite, "No content occurs twice", same_example_twice(task, kind)),
        Case(suite, "Each example is a document, with the same split and hash", examples(task, 0, "split", "test")),
        Case(suite, "The split is known", examples(task, 0, "split", "dev")),
        Case(suite, "No content stands in two splits (leakage)", same_example_twice(task, kind)),
        Case(suite, "No near-duplicate stands in another split (leakage)", example_near_training_text(task)),
        Case(suite, "Equal contents have equal labels", same_example_twice(task, kind)),
        Case(suite, "No text is empty", examples(task, 0, "text", " \u3000\n")),
        Case(
            suite,
            "All examples are pairs" if kind.pairs else "No example is a pair",
            examples(task, 0, "pair", None if kind.pairs else "天气很好"),
        ),
        *_pair_cases(task, kind),
        *_answer_cases(task, kind),
        Case(splits, "The three splits are counted", table=lambda t: t.iloc[:2]),
        Case(splits, "Each split has enough examples", only(task, slice(30))),
        Case(
            splits,
            f"There are {what}s to tell apart",
            examples(task, slice(None), column, answers.one if answers.empty is None else answers.empty),
        ),
        *_label_cases(task, kind),
        Case(splits, f"Each split has {what}s", examples(task, slice(None), column, answers.empty)),
        Case(
            splits,
            f"No {what} outnumbers the others by far (share of the most frequent)",
            examples(task, slice(0, 60), column, answers.one),
        ),
    ]


def _pair_cases(task: str, kind: TaskKind) -> list[Case]:
    if not kind.pairs:
        return []
    suite = f"task_{task}"
    return [
        Case(suite, "No second text is empty", examples(task, 0, "pair", " \u3000")),
        Case(suite, "No first text of a pair stands in two splits (leakage)", same_first_text_in_two_splits(task)),
    ]


def _label_cases(task: str, kind: TaskKind) -> list[Case]:
    if kind.target == "value":
        return []
    splits = f"task_{task}_splits"
    return [
        Case(splits, "Training saw every label of each split", odd_label_in_test(task, kind)),
        Case(splits, "Each split has the labels of train", one_label_in_test(task, kind)),
    ]


def _answer_cases(task: str, kind: TaskKind) -> list[Case]:
    suite, bad, absent = f"task_{task}", ANSWERS[task].bad, examples(task, 0, kind.column, None)
    if kind.target == "label":
        return [Case(suite, "Each example has a label", absent)]
    if kind.target == "labels":
        return [
            Case(suite, "Each example has a list of labels, be it empty", absent),
            Case(suite, "Labels are a JSON list of texts, sorted and without repeats", examples(task, 0, "label", bad)),
        ]
    if kind.target == "value":
        return [
            Case(suite, "Each example has a value", absent),
            Case(suite, "A value is a finite number, as Python writes a float", examples(task, 0, "label", bad)),
        ]
    return [
        Case(suite, "Each example has spans", absent),
        Case(suite, "Spans are a JSON list of [start, end, label]", examples(task, 0, "spans", bad)),
        Case(suite, "Spans are not empty and lie within the text", examples(task, 0, "spans", '[[0, 999, "PER"]]')),
        Case(suite, "Spans do not overlap", examples(task, 0, "spans", '[[0, 3, "PER"], [2, 4, "LOC"]]')),
    ]
