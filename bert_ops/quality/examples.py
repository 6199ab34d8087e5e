"""The examples of a task: what they ask for, and what rules that span rows need to know of them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bert_ops.corpus.keys import Keys as TextKeys
from bert_ops.errors import ArtifactError
from bert_ops.io import rerun
from bert_ops.quality.columns import Keys, column, keys, split_numbers
from bert_ops.quality.read import TableFile

if TYPE_CHECKING:
    import pyarrow as pa

#: What a task asks for: one label of a text, any number of labels, a number, or labelled spans.
Target = Literal["label", "labels", "value", "spans"]


@dataclass(frozen=True)
class TaskKind:
    """What the examples of a task are: what is asked for, and whether of one text or of two."""

    target: Target
    pairs: bool = False

    @property
    def column(self) -> str:
        """Column of examples.parquet that holds the answer."""
        return "spans" if self.target == "spans" else "label"


@dataclass(frozen=True)
class Examples:
    """The N examples of a task.

    Attributes:
        kind: what they are.
        ids, contents, clusters, answers: (N,) keys; the answer is the label, labels, value or spans.
        firsts: (N,) keys of the first texts of pairs, as ingest compares texts; (0,) for single texts.
        split: (N,) index into SPLITS, or NO_SPLIT.

    """

    kind: TaskKind
    ids: Keys
    contents: Keys
    clusters: Keys
    answers: Keys
    firsts: Keys
    split: NDArray[np.int8]


def read_examples(file: TableFile, said: dict[str, Any] | None) -> Examples:
    """Pass over the examples of a task once.

    Args:
        file: its table.
        said: what the counts of ingest say of the task: ``target`` and ``pairs``; None: told by the columns.

    Raises:
        ArtifactError: the table is damaged, or the counts name a target that there is not.

    """
    parts: dict[str, list[NDArray[Any]]] = {}
    filled = {"label": 0, "spans": 0, "pair": 0}
    names = ("example_id", "content_hash", "cluster", "label", "spans")
    may_be_pairs = said is None or bool(said.get("pairs"))
    for table in file.batches([*names, "split", "pair", "text"]):
        found: dict[str, NDArray[Any]] = {name: keys(column(table, name)) for name in names}
        found["split"] = split_numbers(column(table, "split"))
        found["first"] = keys(text_keys(column(table, "text"))) if may_be_pairs else np.zeros(0, np.uint64)
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
        for name in filled:
            filled[name] += len(table) - table.column(name).null_count
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    kind = _kind(file, said, filled)
    return Examples(
        kind=kind,
        ids=whole["example_id"],
        contents=whole["content_hash"],
        clusters=whole["cluster"],
        answers=whole[kind.column],
        firsts=whole["first"],
        split=whole["split"],
    )


def _kind(file: TableFile, said: dict[str, Any] | None, filled: dict[str, int]) -> TaskKind:
    if said is None:
        return TaskKind("label" if filled["label"] >= filled["spans"] else "spans", filled["pair"] > 0)
    if said.get("target") not in get_args(Target):
        raise ArtifactError(
            f"the counts of ingest give the task {file.path.stem} the target {said.get('target')!r}",
            allowed=", ".join(get_args(Target)),
            remedy=rerun("ingest"),
        )
    return TaskKind(said["target"], bool(said.get("pairs")))


def text_keys(texts: pa.Array) -> pa.Array:
    """What ingest compares texts by: letters, marks and digits alone."""
    import pyarrow as pa

    return pa.array(TextKeys.of([text or "" for text in texts.to_pylist()]).strings(), pa.string())


def is_label_list(text: str | None) -> bool:
    """Whether a text is a JSON list of labels, sorted and without repeats; a missing one is not looked at."""
    if text is None:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(value, list)
        and all(isinstance(label, str) and label.strip() for label in value)
        and value == sorted(set(value))
    )


def is_number(text: str | None) -> bool:
    """Whether a text is a finite number as Python writes a float; a missing one is not looked at."""
    if text is None:
        return True
    try:
        return math.isfinite(float(text)) and repr(float(text)) == text
    except ValueError:
        return False


def labels_of(answer: str, target: Target) -> list[str]:
    """Single labels of an answer; of one that cannot be read, none."""
    if target == "label":
        return [answer]
    if target == "spans":
        return [label for *_, label in parse_spans(answer) or []]
    return json.loads(answer) if is_label_list(answer) else []


def parse_spans(spans: str) -> list[tuple[int, int, str]] | None:
    """Parse ``[[start, end, label], ...]``; None if the text has another form."""
    try:
        value = json.loads(spans)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    for item in value:
        if not (isinstance(item, list) and [type(part) for part in item] == [int, int, str]):
            return None
    return [tuple(item) for item in value]
