"""Labelled examples from a user's own file, without a project: one file through all of ``ingest``, and its counts.

The same cleaning, conflicts, duplicates and splits as in the pipeline, so that a task tried by hand gives the same
examples when it becomes a source in params.yaml (:attr:`OwnExamples.source` says how it is written there).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bert_ops.corpus.facts import REASONS
from bert_ops.corpus.fields import NAME, NAME_RULE, named_fields
from bert_ops.corpus.ingest import build_corpus
from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.records import TARGETS, Target
from bert_ops.corpus.source_params import CsvSource, Encoding, ReadingParams, Source
from bert_ops.corpus.sources.delimited import delimiter_of
from bert_ops.corpus.sources.files import SourceFile
from bert_ops.corpus.sources.lines import Refused, is_blank, lines
from bert_ops.corpus.sources.reading import FileFacts, Reading, SourceReport, Stop
from bert_ops.errors import InputError
from bert_ops.io import atomic_folder, write_json
from bert_ops.schema import validate

#: Suffix of a file to the kind of source; one of the second kind may follow it.
KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
COMPRESSIONS = (".gz", ".zst", ".xz")

#: Steps that refuse or cut texts by what pretraining needs.
_JUDGES = ("boilerplate", "repetition", "symbols")


@dataclass(frozen=True)
class OwnExamples:
    """What became of a file.

    Attributes:
        path: examples.parquet of the task, by :data:`bert_ops.corpus.tables.EXAMPLES`.
        quarantine: rows that are not used, with step, reason and place.
        duplicates: rows that were removed as copies or near-copies.
        target: what the task asks for.
        read: rows of the file.
        used: examples.
        by_split: examples of each split; all three are named.
        rejected: rows that are not used, by reason; label_conflict among them.
        copies: rows that equal another one.
        near_copies: rows that nearly equal another one with the same answer.
        conflicts: texts that have more than one answer; their rows are among the rejected ones.
        metrics: all counts, as metrics/ingest.json has them.
        source: the source as it stands in params.yaml below ``ingest.sources``.

    ``read`` is ``used`` + ``copies`` + ``near_copies`` + the sum of ``rejected``.

    """

    path: Path
    quarantine: Path
    duplicates: Path
    target: Target
    read: int
    used: int
    by_split: dict[str, int]
    rejected: dict[str, int]
    copies: int
    near_copies: int
    conflicts: int
    metrics: dict[str, Any]
    source: dict[str, Any]

    def lines(self) -> list[str]:
        """Say what was read, what is used, and where the rest of it is listed."""
        splits = ", ".join(f"{count:,} {split}" for split, count in self.by_split.items())
        said = [f"{self.used:,} of {self.read:,} rows are examples: {splits}"]
        for reason, count in sorted(self.rejected.items(), key=lambda item: (-item[1], item[0])):
            said.append(f"{count:,} not used as {reason}: {REASONS[reason]}")
        if self.copies:
            said.append(f"{self.copies:,} not used as copies: an earlier row has the same text and the same answer")
        if self.near_copies:
            said.append(f"{self.near_copies:,} not used as near-copies: an earlier row says nearly the same")
        if self.rejected:
            said.append(f"rows that are not used are listed in {self.quarantine}")
        if self.copies or self.near_copies:
            said.append(f"copies are listed in {self.duplicates}")
        return said


def examples_from_file(
    path: Path,
    *,
    text: str,
    task: str,
    out: Path,
    ingest: IngestParams,
    label: str | None = None,
    labels: str | None = None,
    value: str | None = None,
    spans: str | None = None,
    pair: str | None = None,
    group: str | None = None,
    label_separator: str | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    encoding: Encoding = "auto",
    workers: int = 1,
) -> OwnExamples:
    """Turn one file into the examples of a task.

    Args:
        path: .csv, .tsv, .jsonl, .json or .parquet, also with .gz, .zst or .xz (not Parquet).
        text: column or field with the text; nested fields as params.yaml writes them.
        task: name of the task, and of the file of examples.
        out: folder for the corpus; replaced as a whole.
        ingest: cleaning, splits and the rest; its sources are not used, and of ``reading`` not the encoding.
        label: column with one label of the text. Exactly one of label, labels, value and spans is needed.
        labels: column with a list of labels.
        value: column with a number.
        spans: column with [[start, end, label], ...].
        pair: column with the second text.
        group: column whose equal values land in the same split.
        label_separator: what divides ``labels`` in a text.
        delimiter: of CSV and TSV; None: the one of , ; tab and | by which the header has the columns.
        quote: of CSV and TSV, as in params.yaml; None: the usual one.
        encoding: of a file of text; auto: told by byte order mark or content.
        workers: processes that clean texts; with several, a script must guard its entry by ``__name__``.

    Raises:
        InputError: the file cannot be read, has no such column, no usable row, or the arguments do not fit together.
        StorageError: the disk is full; an earlier folder is left as it was.

    """
    kind = kind_of(path)
    if not NAME.fullmatch(task):
        raise InputError(f"the task is named {task!r}", allowed=NAME_RULE, remedy="give it another name")
    fields = {"label": label, "labels": labels, "value": value, "spans": spans}
    chosen = [name for name, column in fields.items() if column is not None]
    if len(chosen) != 1:
        raise InputError(
            f"{' and '.join(chosen) or 'none'} of {', '.join(TARGETS)} {'are' if chosen else 'is'} named",
            allowed="exactly one: what the task is to answer",
            remedy="name the column of the answer",
        )
    raw: dict[str, Any] = {"kind": kind, "path": str(path), "text": text, "pair": pair, "task": task, **fields}
    raw |= {"label_separator": label_separator, "group": group}
    if kind in ("csv", "tsv"):
        raw |= {"delimiter": delimiter, "quote": quote}
    if kind != "parquet":
        raw["encoding"] = encoding
    raw = {key: value for key, value in raw.items() if value is not None}
    source = _source(raw, path)
    if kind in ("csv", "tsv") and delimiter is None:
        found = _delimiter(path, source, ingest.reading)
        if found is not None:
            raw["delimiter"] = found
            source = _source(raw, path)
    params = ingest.model_copy(update={"sources": {task: source}})
    return _ingest(path, params, raw=raw, task=task, target=chosen[0], out=out, workers=workers)


def for_labelled(ingest: IngestParams) -> IngestParams:
    """Switch off what judges whether a text is worth pretraining on: a person has labelled it, so it counts.

    Texts of one character, of signs and numbers, of repeated phrases, of menu-like lines and of any language stay.
    What still goes: texts without letter or digit, garbled ones, copies, near-copies with the same answer, and equal
    texts with different answers. Leaks into pretraining text are not looked for.
    """
    clean = ingest.clean
    steps = {
        "length": clean.length.model_copy(update={"min_characters": 1}),
        **{name: getattr(clean, name).model_copy(update={"enabled": False}) for name in _JUDGES},
        "language": clean.language.model_copy(update={"allowed": None, "undetermined": "keep"}),
    }
    return ingest.model_copy(
        update={
            "clean": clean.model_copy(update=steps),
            "leakage": ingest.leakage.model_copy(update={"action": "off"}),
        }
    )


def kind_of(path: Path) -> str:
    """Kind of source that a file is, by its name.

    Raises:
        InputError: there is no such file, or its name says nothing that can be read.

    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}", allowed="a file", remedy="name the file with the examples")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    suffix = (suffixes[:-1] if compressed else suffixes)[-1:]
    kind = KINDS.get(suffix[0]) if suffix else None
    if kind is None or (compressed and kind == "parquet"):
        workbook = suffix in ([".xlsx"], [".xls"], [".ods"])
        raise InputError(
            f"{path.name} is no kind of file that can be read",
            allowed=f"{', '.join(KINDS)}, all but the last also with {', '.join(COMPRESSIONS)}",
            remedy="save the sheet as CSV (UTF-8)" if workbook else "convert the file, or give it the right name",
        )
    return kind


def _source(raw: dict[str, Any], path: Path) -> Any:
    try:
        return validate(raw, TypeAdapter(Source), where="", source=path)
    except InputError as error:
        raise InputError(error.what, remedy="correct what was said of the columns") from error


def _delimiter(path: Path, source: CsvSource, reading: ReadingParams) -> str | None:
    """The delimiter by which the header has all columns; None for the usual one, and where none does."""
    params = reading.model_copy(update={"encoding": source.encoding})
    this = Reading(str(source.task), source, params, (path.resolve().parent,), None, SourceReport())
    try:
        for _, line in lines(this, SourceFile(path, path.as_posix()), FileFacts(path.as_posix())):
            if isinstance(line, Refused):
                return None
            if not is_blank(line):
                usual = "," if source.kind == "csv" else "\t"
                found = delimiter_of(line, named_fields(source).values(), first=usual)
                return None if found == usual else found
    except (Stop, csv.Error, OSError):
        pass  # reading the file says what is wrong with it
    return None


def _ingest(
    path: Path, params: IngestParams, *, raw: dict[str, Any], task: str, target: Any, out: Path, workers: int
) -> OwnExamples:
    with atomic_folder(out) as folder:
        try:
            metrics = build_corpus(
                params,
                inputs=[path.resolve().parent],
                snapshots=None,
                out=folder,
                page=folder / "card.html",
                workers=workers,
            )
        except InputError as error:
            raise _without_project(error) from error
        write_json(folder / "metrics.json", metrics)
    examples, facts = out / "examples" / f"{task}.parquet", metrics["sources"][task]
    by_split = _by_split(examples)
    near = int(metrics["near_duplicates_removed"])
    result = OwnExamples(
        path=examples,
        quarantine=out / "quarantine.parquet",
        duplicates=out / "duplicates.parquet",
        target=target,
        read=facts["read"],
        used=sum(by_split.values()),
        by_split=by_split,
        rejected=dict(metrics["rejected_by_reason"]),
        copies=facts["duplicates"] - near,
        near_copies=near,
        conflicts=metrics["label_conflicts"],
        metrics=metrics,
        source=raw,
    )
    assert result.read == result.used + result.copies + near + sum(result.rejected.values())
    return result


def _without_project(error: InputError) -> InputError:
    """The same error without a remedy that sends people to a params.yaml that they have not."""
    remedy: str | None = error.remedy
    if remedy and ("params.yaml" in remedy or "the source's text" in remedy):
        remedy = "check the file and the names of its columns; the first line of a table holds them"
    return InputError(error.what, allowed=error.allowed, remedy=remedy)


def _by_split(path: Path) -> dict[str, int]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from bert_ops.corpus.split import SPLITS

    counted: Sequence[Any] = pc.value_counts(pq.read_table(path, columns=["split"])["split"]).to_pylist()
    found = {entry["values"]: entry["counts"] for entry in counted}
    return {split: int(found.get(split, 0)) for split in SPLITS}
