"""How a data card says figures, whether in Markdown or in HTML."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bert_ops.corpus.split import SPLITS

#: What no count shows; stated on every card.
LIMITS = (
    "Language, encoding and near-duplicates are found by rules and hashes: all three err on short texts.",
    "Near-duplicates are looked for by their character n-grams; a paraphrase or a translation is none.",
    "Labels are those of the sources. Equal texts with contradicting labels are set aside; other errors are not found.",
    "Personal data is masked only if `ingest.clean` says so, and only in the forms that it names.",
    "A source without a declared licence may not be free to use: ask whoever it comes from.",
)


def number(value: float | None) -> str:
    """A figure with separators; a missing one is a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def percent(share: float) -> str:
    """A share in percent, with as many digits as tell it from 0% and 100%."""
    if 0 < share < 0.00005:
        return "< 0.01%"
    return f"{share:.2%}" if 0 < share < 0.0995 or 0.995 < share < 1 else f"{share:.0%}"


def encodings(source: Mapping[str, Any]) -> str:
    """Encodings of a source's files, with the lowest confidence of those that were detected."""
    found: dict[str, list[float]] = {}
    for file in source.get("files") or []:
        if file.get("encoding"):
            confidence = file.get("confidence")
            found.setdefault(file["encoding"], []).extend([] if confidence is None else [float(confidence)])
    return ", ".join(
        name + (f" (confidence {min(values):.2f})" if values and min(values) < 1 else "")
        for name, values in sorted(found.items())
    )


def files_of(source: Mapping[str, Any]) -> tuple[int, int]:
    """Number of a source's files and their bytes; of very many files not all are listed."""
    listed = source.get("files") or []
    count, size = source.get("file_count"), source.get("bytes")
    return (
        len(listed) if count is None else int(count),
        sum(int(file.get("bytes") or 0) for file in listed) if size is None else int(size),
    )


def usage(source: Mapping[str, Any]) -> list[str]:
    """Say the weight and the caps of a source, where it has some."""
    said = [] if source.get("weight") is None else [f"weight {source['weight']:g}"]
    caps = (("max_documents", "documents"), ("max_characters", "characters"))
    return said + [f"at most {number(source[key])} {what}" for key, what in caps if source.get(key) is not None]


def removals(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps from rows read to documents kept, with name, rows_in, removed, changed and rows_out.

    What no step accounts for is a row of its own: nothing disappears between two lines.
    """
    metrics = facts["metrics"]
    left = int(metrics["read"])
    rows = []
    for step in facts.get("steps") or []:
        rows += _gap(left, int(step["rows_in"]))
        left = int(step["rows_in"]) - int(step["rejected"])
        rows.append(_row(step["name"], int(step["rows_in"]), left, int(step.get("changed") or 0)))
    return rows + _gap(left, int(metrics["documents"]))


def _gap(left: int, expected: int) -> list[dict[str, Any]]:
    return [_row("between the steps", left, expected, 0)] if left != expected else []


def _row(name: str, rows_in: int, rows_out: int, changed: int) -> dict[str, Any]:
    return {"name": name, "rows_in": rows_in, "removed": rows_in - rows_out, "changed": changed, "rows_out": rows_out}


def leakage(metrics: Mapping[str, Any]) -> str:
    """Say what was found of the tasks' test splits in the pretraining text; empty if nobody looked."""
    found = metrics.get("leakage") or {}
    if not found or found.get("action") == "off":
        return ""
    dropped = int(found.get("documents_dropped") or 0)
    return (
        f"{number(found['examples_found'])} of {number(found['examples_checked'])} test examples that were looked for "
        f"stand in {number(found['documents_found'])} training documents, of which {number(dropped)} were kept out of "
        "the pretraining text."
    )


def duplicates(metrics: Mapping[str, Any]) -> dict[str, int]:
    """Copies and near-copies that were removed, by the names that their examples have."""
    near = int(metrics.get("near_duplicates_removed") or 0)
    return {"exact_duplicate": int(metrics["duplicates_removed"]) - near, "near_duplicate": near}


def splits_of(profile: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Splits of a profile in their usual order."""
    return by_split(profile["splits"])


def by_split(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Entries by split, training first."""
    names = [*(split for split in SPLITS if split in values), *sorted(set(values) - set(SPLITS))]
    return [(name, values[name]) for name in names]


#: Labels that a card shows of a task, the most frequent ones; the others share a column.
SHOWN_LABELS = 30


def label_tables(metrics: Mapping[str, Any]) -> list[tuple[str, list[str], list[tuple[str, list[Any]]]]]:
    """Tables of the answers of each task: (title, columns, rows of a split); the numbers of a task as their range."""
    tables: list[tuple[str, list[str], list[tuple[str, list[Any]]]]] = []
    for task, counts in sorted((metrics.get("examples") or {}).items()):
        values = ((metrics.get("tasks") or {}).get(task) or {}).get("values")
        if values is not None:
            names = ["count", "min", "mean", "max"]
            rows = [(split, [of_split[name] for name in names]) for split, of_split in by_split(values)]
            tables.append((f"Numbers of the task `{task}`", names, rows))
            continue
        total: Counter[str] = Counter()
        for of_split in counts.values():
            total.update(of_split)
        labels = sorted(sorted(total, key=lambda label: (-total[label], label))[:SHOWN_LABELS])
        rows = [(split, [of_split.get(label, 0) for label in labels]) for split, of_split in by_split(counts)]
        if len(total) > len(labels):
            rows = [(split, [*row, sum(counts[split].values()) - sum(row)]) for split, row in rows]
            labels = [*labels, f"{len(total) - len(labels):,} others"]
        tables.append((f"Labels of the task `{task}`", labels, rows))
    return tables


def visible(text: str) -> Iterable[tuple[str, bool]]:
    """Cut a text into runs of (text, shown as it is); characters that show nothing come as their code point."""
    run: list[str] = []
    for character in text:
        hidden = character != " " and (unicodedata.category(character)[0] in "CZ" or character == "\ufffd")
        if not hidden:
            run.append(character)
            continue
        if run:
            yield "".join(run), True
            run = []
        yield f"U+{ord(character):04X}", False
    if run:
        yield "".join(run), True
