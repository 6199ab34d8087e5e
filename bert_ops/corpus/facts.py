"""Counts of ``ingest``: what went in, what did not, and why; every number is checked against the others."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from bert_ops.corpus import examine, sources
from bert_ops.corpus.cleaning import cleaner
from bert_ops.corpus.cleaning.counts import StepCount, StepExample, merge, merge_examples
from bert_ops.corpus.decide import CONFLICT, COPY, KEPT, NEAR, Decision, Rows
from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.prepare import Prepared
from bert_ops.corpus.records import Rejection
from bert_ops.corpus.split import SPLITS
from bert_ops.progress import note

if TYPE_CHECKING:
    from bert_ops.corpus.assemble import Assembler
    from bert_ops.corpus.sources import SourceReport

#: Every reason for a rejection, and what it means.
REASONS = {**sources.REASONS, **cleaner.REASONS, **examine.REASONS}

#: Rejected rows of each reason that the data card shows.
_SHOWN = 5


@dataclass
class Counted:
    """What a source gave so far."""

    read: int = 0
    fit: int = 0
    characters: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: Rejection | None = None
    capped: bool = False


class Tally:
    """Counts of the first pass, in the order of the rows."""

    def __init__(self, params: IngestParams, reports: Mapping[str, SourceReport]) -> None:
        self.params, self.reports = params, reports
        self.sources = {name: Counted() for name in params.sources}
        self.by_step: Counter[str] = Counter()
        self.steps: list[StepCount] = []
        self.changed: list[StepExample] = []
        self.shown: dict[str, list[dict[str, str]]] = {}
        self.conflicts = 0
        self.capped: dict[str, dict[str, Any]] = {}

    @property
    def read(self) -> int:
        """Rows so far."""
        return sum(counted.read for counted in self.sources.values())

    @property
    def rejected(self) -> int:
        """Rows that are not used, conflicts of labels included."""
        return sum(self.reasons.values())

    @property
    def reasons(self) -> Counter[str]:
        """Rejected rows by reason."""
        return sum((counted.reasons for counted in self.sources.values()), Counter())

    def room(self, name: str, prepared: Prepared) -> int | None:
        """Return how many rows of a chunk the cap of its source leaves room for; None if all."""
        source, counted = self.params.sources[name], self.sources[name]
        lengths = _lengths(prepared)
        fits = np.ones(len(lengths), bool)
        if source.max_documents is not None:
            fits &= counted.fit + 1 + np.arange(len(lengths)) <= source.max_documents
        if source.max_characters is not None:
            fits &= counted.characters + np.cumsum(lengths) <= source.max_characters
        return None if fits.all() else prepared.positions[int(np.argmin(fits))]

    def add(self, name: str, prepared: Prepared, *, capped: dict[str, Any] | None) -> None:
        """Count a chunk; ``capped`` is what reading had found out, if its source is read no further."""
        counted = self.sources[name]
        if capped is not None:
            counted.capped, self.capped[name] = True, capped
        counted.read += len(prepared.rows) + len(prepared.refused)
        counted.fit += len(prepared.rows)
        counted.characters += int(_lengths(prepared).sum())
        for refused in prepared.refused:
            counted.first = counted.first or refused.rejection
            counted.reasons[refused.rejection.reason] += 1
            self.by_step[refused.step] += 1
            self._show(refused.rejection)
        self.steps = merge([self.steps, prepared.steps])
        self.changed = merge_examples([self.changed, prepared.examples])

    def reject_later(self, rejection: Rejection) -> None:
        """Count a row whose label contradicts that of an equal text."""
        counted = self.sources[rejection.source]
        counted.fit -= 1
        counted.reasons[rejection.reason] += 1
        self.conflicts += 1
        self._show(rejection)

    def _show(self, rejection: Rejection) -> None:
        assert rejection.reason in REASONS, rejection.reason
        shown = self.shown.setdefault(rejection.reason, [])
        if len(shown) < _SHOWN:
            shown.append({name: value for name, value in asdict(rejection).items() if name != "reason"})


def _lengths(prepared: Prepared) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Characters of each text of a chunk, of a pair those of both, (N,)."""
    lengths = np.asarray(pc.utf8_length(prepared.batch["text"]), np.int64)
    pairs = prepared.batch["pair"]
    if pairs.null_count < len(pairs):
        lengths = lengths + np.asarray(pc.fill_null(pc.utf8_length(pairs), 0), np.int64)
    return lengths


def count(rows: Rows, decision: Decision, assembler: Assembler, tally: Tally, params: IngestParams) -> dict[str, Any]:
    """Build metrics/ingest.json; ``read`` is the sum of what became of the rows."""
    names = list(params.sources)
    status = decision.status
    kept, copies, near = (decision.indices(fate) for fate in (KEPT, COPY, NEAR))
    conflicts = decision.indices(CONFLICT)
    gone = np.concatenate([copies, near])
    metrics: dict[str, Any] = {
        "read": tally.read,
        "documents": len(kept),
        "rejected": tally.rejected,
        "duplicates_removed": len(gone),
        "near_duplicates_removed": len(near),
        "label_conflicts": len(np.unique(rows[["high", "low"]][conflicts])),
        "rejected_by_reason": dict(tally.reasons),
        "duplicates_by_source": _by_name(rows["source"][gone], names),
        "by_source": _by_name(rows["source"][kept], names),
        "by_split": {split: int((decision.split[kept] == side).sum()) for side, split in enumerate(SPLITS)},
        "split_shares": params.split.model_dump(include=set(SPLITS)),
        "characters": assembler.characters,
        "examples": assembler.answers.counts(),
        "tasks": assembler.answers.tasks(),
        "unicode": unicodedata.unidata_version,
        "steps": steps(tally, copies=len(copies), near=len(near)),
        "sources": {name: _source_facts(name, tally, rows, status) for name in names},
        "clusters": _clusters(decision),
        "leakage": _leakage(assembler, params),
    }
    assert metrics["read"] == metrics["documents"] + metrics["rejected"] + metrics["duplicates_removed"]
    assert len(rows) == len(kept) + len(gone) + len(conflicts)
    return metrics


def _by_name(sources: np.ndarray[Any, Any], names: list[str]) -> dict[str, int]:
    counts = np.bincount(sources, minlength=len(names)).tolist()
    return {name: number for name, number in zip(names, counts, strict=True) if number}


def steps(tally: Tally, *, copies: int, near: int) -> list[dict[str, Any]]:
    """Return all steps in their order, reading first; the rows out of each are the rows in of the next."""
    listed: list[dict[str, Any]] = []
    rows = tally.read

    def plain(name: str, rejected: int) -> None:
        nonlocal rows
        listed.append(
            {"name": name, "kind": "filter", "rows_in": rows, "rows_out": rows - rejected, "rejected": rejected}
        )
        rows -= rejected

    plain("read", tally.by_step["read"])
    plain(examine.FIELDS_STEP, tally.by_step[examine.FIELDS_STEP])
    for step in tally.steps:
        assert step.rows_in == rows, (step, rows)
        assert step.rejected == tally.by_step[step.name], (step, tally.by_step)
        listed.append(asdict(step))
        rows = step.rows_out
    plain(examine.SPANS_STEP, tally.by_step[examine.SPANS_STEP])
    plain("label_conflicts", tally.conflicts)
    plain("exact_duplicates", copies)
    plain("near_duplicates", near)
    return listed


def _source_facts(name: str, tally: Tally, rows: Rows, status: np.ndarray[Any, Any]) -> dict[str, Any]:
    source, counted = tally.params.sources[name], tally.sources[name]
    own = status[rows["source"] == list(tally.params.sources).index(name)]
    documents, duplicates = int((own == KEPT).sum()), int(((own == COPY) | (own == NEAR)).sum())
    rejected = sum(counted.reasons.values())
    assert counted.read == documents + duplicates + rejected, name
    return {
        "kind": source.kind,
        "read": counted.read,
        "documents": documents,
        "duplicates": duplicates,
        "rejected": rejected,
        **{key: getattr(source, key) for key in ("weight", "max_documents", "max_characters", "licence")},
        "capped": counted.capped,
        **_read_facts(tally.capped.get(name) or tally.reports[name].facts()),
    }


def _read_facts(report: dict[str, Any]) -> dict[str, Any]:
    """What reading found out about a source, in one level."""
    files, query = report["files"], report.get("query") or {}
    return {
        "rows": report["rows"],
        "file_count": files["count"],
        "bytes": files["bytes"],
        "lowest_confidence": files["lowest_confidence"],
        "files": files["listed"],
        "query": query.get("query"),
        "row_count": query.get("rows"),
        "content_hash": query.get("content_hash"),
    }


def _clusters(decision: Decision) -> dict[str, int]:
    """Clusters of kept rows with more than one member, and the largest; 1 if all stand alone."""
    sizes = np.bincount(decision.cluster[decision.indices(KEPT)])
    return {"with_many": int((sizes > 1).sum()), "largest": int(sizes.max(initial=0))}


def _leakage(assembler: Assembler, params: IngestParams) -> dict[str, Any]:
    finder = assembler.finder
    return {
        "action": params.leakage.action,
        "examples_checked": 0 if finder is None else len(assembler.test_rows) - finder.skipped,
        "examples_too_short": 0 if finder is None else finder.skipped,
        "examples_found": len({(leak["task"], leak["example_id"]) for leak in assembler.leaks}),
        "documents_found": assembler.leaky_documents,
        "documents_dropped": assembler.leaky_documents if params.leakage.action == "drop" else 0,
    }


def card_facts(metrics: dict[str, Any], assembler: Assembler, tally: Tally) -> dict[str, Any]:
    """Return what the data card is made of."""
    changed: dict[str, list[dict[str, str]]] = {}
    for example in tally.changed:
        if example.reason is None:
            changed.setdefault(example.step, []).append({"before": example.before, "after": example.after})
    shown = dict(assembler.shown)
    kept = shown.pop("kept", [])
    return {
        "metrics": metrics,
        "reasons": {reason: REASONS[reason] for reason in metrics["rejected_by_reason"]},
        "sources": [{"name": name, **facts} for name, facts in metrics["sources"].items()],
        "steps": metrics["steps"],
        "profile": assembler.profile.result(),
        "examples": {"kept": kept, "dropped": {**tally.shown, **shown}, "changed": changed},
    }


def summarise(metrics: dict[str, Any]) -> None:
    """Tell a person what became of the texts."""
    note(
        f"read {metrics['read']:,} texts: {metrics['documents']:,} documents, "
        f"{metrics['duplicates_removed']:,} duplicates removed ({metrics['near_duplicates_removed']:,} of them near), "
        f"{metrics['rejected']:,} rejected"
    )
    for reason, number in sorted(metrics["rejected_by_reason"].items()):
        note(f"  rejected {number:,} as {reason}: {REASONS[reason]}")
    leakage = metrics["leakage"]
    if leakage["examples_found"]:
        note(
            f"{leakage['examples_found']:,} test examples stand in {leakage['documents_found']:,} training documents; "
            f"{leakage['documents_dropped']:,} of these are kept out of the pretraining text"
        )
    for task, splits in metrics["examples"].items():
        note(f"task {task}: " + "; ".join(f"{split} {listing(labels)}" for split, labels in splits.items()))


def listing(counts: Mapping[str, int]) -> str:
    """Counts as a person lists them, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {name}" for name, number in ordered) or "none"
