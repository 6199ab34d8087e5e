"""The corpus as tables to check, a row a document, sentence or example, in batches that hold no whole text.

Rules that span rows or tables become boolean columns and texts become counts and excerpts, so that Great Expectations
needs built-in expectations only, and no long text reaches a report.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bert_ops.quality import characters
from bert_ops.quality.checks import EXCERPT_CHARACTERS
from bert_ops.quality.columns import Flags, Keys, Numbers, column, keys, numbers, objects, on_several_sides, repeated
from bert_ops.quality.examples import is_label_list, is_number, parse_spans
from bert_ops.quality.read import SPLITS, CorpusFiles, TableFile
from bert_ops.quality.survey import Survey

if TYPE_CHECKING:
    import pyarrow as pa

_TEST = SPLITS.index("test")


def document_rows(files: CorpusFiles, found: Survey) -> Iterator[pd.DataFrame]:
    """Table ``documents``: a row a document."""
    documents = found.documents
    whole = {
        "id_is_unique": ~repeated(documents.ids),
        "content_is_unique": ~repeated(documents.contents),
        "on_one_side": ~on_several_sides(documents.contents, documents.split),
        "cluster_on_one_side": ~on_several_sides(documents.clusters, documents.split),
        "has_sentences": np.isin(documents.ids, found.begun),
    }
    first = 0
    for table in files.documents.batches():
        here = slice(first, first + len(table))
        first += len(table)
        flags = {name: values[here] for name, values in whole.items()}
        flags["sentences_if_used"] = flags["has_sentences"] | ~documents.used[here]
        flags["no_sentences_if_kept_out"] = ~flags.pop("has_sentences") | documents.used[here]
        counts = {name: values[here] for name, values in documents.counts.items()}
        hashes = objects(column(table, "content_hash"))
        yield pd.DataFrame(
            {
                **_texts(table, "doc_id", "source", "split", "language", "cluster"),
                "characters": numbers(table, "characters"),
                "repeats": numbers(table, "repeats"),
                "content_hash": hashes,
                "id_of_hash": np.array([value and value[:16] for value in hashes], dtype=object),
                "text_length": counts["length"],
                "visible_characters": counts["visible"],
                "replacement_characters": counts["replacement"],
                "sign_share": counts["signs"] / np.maximum(counts["visible"], 1),
                "excerpt": excerpts(column(table, "text")),
                **flags,
            }
        )


def sentence_rows(files: CorpusFiles, found: Survey) -> Iterator[pd.DataFrame]:
    """Table ``sentences``: a row a sentence; whether it fits its document and stands in order."""
    documents = found.documents
    # A document that begins twice is scattered over the table.
    scattered = np.unique(found.begun[repeated(found.begun)])
    names = np.array([*SPLITS, None], dtype=object)
    before: tuple[np.uint64, int] | None = None
    for table in files.sentences.batches():
        ids = keys(column(table, "doc_id"))
        ordinal = _ordinals(ids, before)
        if len(ids):
            before = (ids[-1], int(ordinal[-1]))
        places = documents.places(ids)
        known = places >= 0
        position = numbers(table, "position")
        texts = column(table, "text")
        counts = characters.count(texts)
        split_of = names[np.where(known, _at(documents.split, places), len(SPLITS))]
        yield pd.DataFrame(
            {
                **_texts(table, "doc_id", "source", "split"),
                "position": position,
                "split_of_document": split_of,
                "repeats": numbers(table, "repeats"),
                "repeats_of_document": np.where(known, _at(documents.repeats, places), -2),
                "is_pretraining_text": known & (_at(documents.pretrain, places) > 0),
                "in_order": (ordinal == position) & ~np.isin(ids, scattered),
                "text_length": counts["length"],
                "visible_characters": counts["visible"],
                "words_fit": _words_fit(column(table, "words"), counts),
                "excerpt": excerpts(texts),
            }
        )


def example_rows(file: TableFile, found: Survey, *, task: str) -> Iterator[pd.DataFrame]:
    """Table ``task_TASK``: a row an example; whether it is a document, leaks, contradicts another, fits its text."""
    documents, examples = found.documents, found.examples[task]
    clusters = np.concatenate([documents.clusters, examples.clusters])
    sides = np.concatenate([documents.split, examples.split])
    whole = {
        "id_is_unique": ~repeated(examples.ids),
        "content_is_unique": ~repeated(examples.contents),
        "on_one_side": ~on_several_sides(examples.contents, examples.split),
        "cluster_on_one_side": ~on_several_sides(clusters, sides)[len(documents) :],
        "agrees_with_equals": ~on_several_sides(examples.contents, examples.answers),
    }
    if examples.kind.pairs:
        whole["first_text_on_one_side"] = ~on_several_sides(examples.firsts, examples.split)
    places = documents.places(examples.ids)
    whole["is_document"] = (
        (places >= 0)
        & (_at(documents.split, places) == examples.split)
        & (_at(documents.contents, places) == examples.contents)
    )
    first = 0
    for table in file.batches():
        here = slice(first, first + len(table))
        first += len(table)
        texts = column(table, "text")
        counts = characters.count(texts)
        spans = table.column("spans").to_pylist()
        pairs, labels = column(table, "pair"), table.column("label").to_pylist()
        is_pair = pairs.is_valid().to_numpy(zero_copy_only=False)
        problems = [span_problem(item, length) for item, length in zip(spans, counts["length"].tolist(), strict=True)]
        yield pd.DataFrame(
            {
                **_texts(table, "example_id", "source", "split", "label", "spans", "content_hash", "cluster"),
                "visible_characters": counts["visible"],
                "visible_characters_of_pair": np.where(is_pair, characters.count(pairs)["visible"], 1),
                "as_many_texts": is_pair == examples.kind.pairs,
                "excerpt": excerpts(texts),
                "labels_are_json": np.array([is_label_list(label) for label in labels], bool),
                "is_number": np.array([is_number(label) for label in labels], bool),
                "spans_are_json": np.array([problem != "form" for problem in problems], bool),
                "spans_within_text": np.array([problem != "outside" for problem in problems], bool),
                "spans_apart": np.array([problem != "overlap" for problem in problems], bool),
                **{name: values[here] for name, values in whole.items()},
            }
        )


def duplicate_rows(files: CorpusFiles, found: Survey) -> Iterator[pd.DataFrame]:
    """Table ``duplicates``: a row a text that was removed as equal or nearly equal to a document."""
    for table in files.duplicates.batches():
        similarity = np.array(
            [np.nan if value is None else value for value in table.column("similarity").to_pylist()], np.float64
        )
        kinds = objects(column(table, "kind"))
        yield pd.DataFrame(
            {
                **_texts(table, "source", "location", "doc_id", "excerpt"),
                "kind": kinds,
                "similarity": similarity,
                "similarity_fits_kind": np.isnan(similarity) == (kinds == "exact"),
                "is_document": found.documents.places(keys(column(table, "doc_id"))) >= 0,
            }
        )


def leak_rows(files: CorpusFiles, found: Survey) -> Iterator[pd.DataFrame]:
    """Table ``leaks``: a row a document that holds a test example."""
    documents = found.documents
    tests = {task: np.unique(part.ids[part.split == _TEST]) for task, part in found.examples.items()}
    nothing = np.zeros(0, np.uint64)
    for table in files.leaks.batches():
        places = documents.places(keys(column(table, "doc_id")))
        tasks, ids = objects(column(table, "task")), keys(column(table, "example_id"))
        of_task = {task: np.isin(ids, tests.get(task, nothing)) for task in set(tasks)}
        dropped = numbers(table, "dropped", null=0).astype(bool)
        yield pd.DataFrame(
            {
                **_texts(table, "doc_id", "task", "example_id"),
                "share": np.array(table.column("share").to_pylist(), np.float64),
                "is_document": places >= 0,
                "is_test_example": np.array([of_task[task][row] for row, task in enumerate(tasks)], bool),
                "is_kept_out": ~dropped | ((places >= 0) & (_at(documents.pretrain, places) == 0)),
            }
        )


def span_problem(spans: str | None, length: int) -> str | None:
    """Say what is wrong with the spans of a text of ``length`` characters: form, outside, overlap or nothing."""
    if spans is None:
        return None
    parsed = parse_spans(spans)
    if parsed is None:
        return "form"
    if any(not 0 <= start < end <= length for start, end, _ in parsed):
        return "outside"
    return "overlap" if any(a[1] > b[0] for a, b in pairwise(sorted(parsed))) else None


def excerpts(texts: pa.Array) -> Any:
    """First characters of each text, (N,) Python strings."""
    import pyarrow.compute as pc

    short = pc.utf8_slice_codeunits(pc.fill_null(texts, ""), 0, EXCERPT_CHARACTERS).to_pylist()
    cut = EXCERPT_CHARACTERS - 1
    return np.array([text if len(text) <= cut else f"{text[:cut]}…" for text in short], dtype=object)


def _texts(table: pa.Table, *names: str) -> dict[str, Any]:
    return {name: objects(column(table, name)) for name in names}


def _at(values: Any, places: Any) -> Any:
    """Values at places; those of -1 mean nothing."""
    return values[np.maximum(places, 0)] if len(values) else np.zeros(len(places), values.dtype)


def _ordinals(ids: Keys, before: tuple[np.uint64, int] | None) -> Numbers:
    """Number of each row within the run of equal ids that it stands in; ``before`` is the row ahead of the first."""
    begins = np.ones(len(ids), bool)
    begins[1:] = ids[1:] != ids[:-1]
    index = np.arange(len(ids))
    starts = np.maximum.accumulate(np.where(begins, index, 0))
    ordinal: Numbers = index - starts
    if before is not None and len(ids) and ids[0] == before[0]:
        ends = np.flatnonzero(begins[1:])
        ordinal[: int(ends[0]) + 1 if len(ends) else len(ids)] += before[1] + 1
    return ordinal


def _words_fit(words: pa.Array, counts: dict[str, Numbers]) -> Flags:
    """Whether the lengths of given words add up to the text, white space between them left out or not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if words.null_count == len(words):
        return np.ones(len(words), bool)
    lengths = pc.fill_null(pc.list_value_length(words), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = np.asarray(pc.fill_null(words.flatten().cast(pa.int64()), 0))
    running = np.concatenate([[0], np.cumsum(values)])
    ends = np.cumsum(lengths)
    total = running[ends] - running[ends - lengths]
    absent = pc.is_null(words).to_numpy(zero_copy_only=False)
    fits: Flags = absent | ((total >= counts["visible"]) & (total <= counts["length"]))
    return fits
