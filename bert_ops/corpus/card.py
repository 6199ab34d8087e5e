"""The data card of a corpus: ``README.md`` for those who open the folder, and a page to look at.

Both say what the corpus is, where it comes from, what was removed at which step and why, and what it cannot tell. They
hold counts and excerpts, never the corpus; equal facts give equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bert_ops.corpus.card_page import card_page
from bert_ops.corpus.card_words import (
    LIMITS,
    encodings,
    files_of,
    label_tables,
    leakage,
    number,
    percent,
    removals,
    splits_of,
    usage,
)
from bert_ops.io import write_text

Facts = Mapping[str, Any]

_FILES = (
    ("documents.parquet", "one row a document: id, source, split, text, content hash, language, cluster"),
    ("sentences.parquet", "the sentences of the documents used for pretraining, in order"),
    ("examples/TASK.parquet", "the labelled examples of a task; pair is the second text, where it has two"),
    ("quarantine.parquet", "rows that were rejected, with step, reason and place"),
    ("duplicates.parquet", "rows removed as copies or near-copies, with the document kept instead"),
    ("leaks.parquet", "documents that hold test examples of a task"),
)


def write_card(facts: Facts, *, readme: Path, page: Path) -> None:
    """Write the data card.

    Args:
        facts: ``metrics`` (as metrics/ingest.json), ``sources`` (a mapping a source: name, kind, files with path,
            bytes, encoding and confidence, rows, weight, max_documents, max_characters, licence, and for SQL query, row
            count and content hash; all but the name may be absent), ``steps`` (in order: name, rows_in, rejected,
            changed, characters_in, characters_out), ``profile`` (see :meth:`bert_ops.corpus.profile.Profile.result`),
            ``examples``: ``kept`` (mappings with source and text or excerpt), ``dropped`` (by reason: source, location,
            detail, excerpt) and ``changed`` (by step: before, after), and optionally ``reasons``, a sentence for each
            reason.
        readme: Markdown file.
        page: HTML file, which loads nothing.

    Raises:
        StorageError: the disk is full or not writable.

    """
    write_text(readme, card_markdown(facts, readme=readme, page=page))
    write_text(page, card_page(facts))


def card_markdown(facts: Facts, *, readme: Path, page: Path) -> str:
    """Return the card as Markdown, with a link from ``readme`` to ``page``."""
    metrics, profile = facts["metrics"], facts["profile"]["all"]
    sources = facts.get("sources") or []
    link = Path(os.path.relpath(page, readme.parent)).as_posix()
    parts = [
        "# Data card\n",
        f"{number(metrics['documents'])} documents with {number(profile['characters'])} characters "
        f"({number(profile['bytes'])} bytes as UTF-8) from {number(len(sources))} "
        f"{'source' if len(sources) == 1 else 'sources'}. Written by the stage `ingest` of bert-ops; do not edit it. "
        f"[The page]({quote(link)}) shows the same with charts and examples.\n",
        "## Files\n",
        _table(["file", "what it holds"], [[f"`{name}`", what] for name, what in _FILES]),
        "## Sources\n",
        _table(
            ["source", "kind", "files", "encoding", "rows read", "documents", "used", "licence"],
            [_source_row(source, metrics) for source in sources],
            right=(2, 4, 5),
        ),
        *_snapshots(sources),
        "## From rows to documents\n",
        f"{number(metrics['read'])} rows were read. Each either became a document or is accounted for below.\n",
        _table(
            ["step", "rows in", "removed", "texts changed", "rows out"],
            [
                [
                    _cell(step["name"].replace("_", " ")),
                    number(step["rows_in"]),
                    number(step["removed"]),
                    number(step["changed"]),
                    number(step["rows_out"]),
                ]
                for step in removals(facts)
            ],
            right=(1, 2, 3, 4),
        ),
        *_rejections(facts),
        "## Splits, tasks and labels\n",
        _table(
            ["split", "documents", "characters"],
            [
                [split, number(row["documents"]), number(row["characters"])]
                for split, row in splits_of(facts["profile"])
            ],
            right=(1, 2),
        ),
        *_tasks(metrics),
        *filter(None, [leakage(metrics) and leakage(metrics) + "\n"]),
        "## Texts\n",
        _texts(profile),
        "## Known limits\n",
        "".join(f"* {limit}\n" for limit in LIMITS),
    ]
    return "\n".join(parts)


def _source_row(source: Facts, metrics: Facts) -> list[str]:
    return [
        f"`{_cell(source['name'])}`",
        _cell(source.get("kind", "")),
        number(files_of(source)[0]),
        _cell(encodings(source)),
        number(source.get("rows")),
        number((metrics.get("by_source") or {}).get(source["name"], 0)),
        _cell("; ".join(usage(source))),
        _cell(source.get("licence") or "not declared"),
    ]


def _snapshots(sources: Sequence[Facts]) -> list[str]:
    rows = [
        [
            f"`{_cell(source['name'])}`",
            f"`{_cell(source['query'])}`",
            number(source.get("row_count")),
            f"`{source.get('content_hash') or ''}`",
        ]
        for source in sources
        if source.get("query")
    ]
    if not rows:
        return []
    return ["Queries, as they were copied:\n", _table(["source", "query", "rows", "SHA-256"], rows, right=(2,))]


def _rejections(facts: Facts) -> list[str]:
    reasons = sorted((facts["metrics"].get("rejected_by_reason") or {}).items(), key=lambda item: (-item[1], item[0]))
    if not reasons:
        return []
    said = facts.get("reasons") or {}
    rows = [[f"`{_cell(reason)}`", number(count), _cell(said.get(reason, ""))] for reason, count in reasons]
    return ["Why rows were rejected:\n", _table(["reason", "rows", "meaning"], rows, right=(1,))]


def _tasks(metrics: Facts) -> list[str]:
    parts = []
    for title, names, splits in label_tables(metrics):
        rows = [[split, *map(number, counts)] for split, counts in splits]
        headers = ["split", *(f"`{_cell(name)}`" for name in names)]
        parts += [f"{title}:\n", _table(headers, rows, right=range(1, len(headers)))]
    return parts


def _texts(profile: Facts) -> str:
    lengths = profile["lengths"]
    quantiles = ", ".join(f"{percent(float(share))} {number(value)}" for share, value in lengths["quantiles"].items())
    total = max(profile["characters"], 1)
    classes = ", ".join(
        f"{name} {percent(count / total)}" for name, count in profile["classes"].items() if count / total >= 0.0005
    )
    return (
        f"* Length of a document in characters: {number(lengths['min'])} to {number(lengths['max'])}, on average "
        f"{number(lengths['mean'])}; quantiles: {quantiles}.\n"
        f"* Characters: {classes}; {number(profile['distinct_characters'])} different ones.\n"
        f"* Most frequent letters: {_tokens(profile['letters'])}.\n"
        f"* Most frequent words: {_tokens(profile['words'])}.\n"
    )


def _tokens(tokens: Sequence[Sequence[Any]]) -> str:
    return " ".join(_cell(token) for token, _ in tokens[:20]) or "none"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    aligned = set(right)
    rule = ["---:" if column in aligned else "---" for column in range(len(headers))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [headers, rule, *rows])


def _cell(text: object) -> str:
    """Text that cannot leave its cell: one line, with no mark-up of its own."""
    flat = " ".join(str(text).split())
    for mark, written in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "'"), ("[", "\\["), ("]", "\\]")):
        flat = flat.replace(mark, written)
    return flat
