"""Equal texts whose answers for one task contradict each other: labels, lists of labels, numbers or spans."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from bert_ops.corpus.decide import CONFLICT, Decision, Rows
from bert_ops.corpus.facts import Tally
from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.records import Rejection, excerpt, joined
from bert_ops.corpus.spool import Spool
from bert_ops.corpus.tables import TableWriter
from bert_ops.errors import InputError


def settle_conflicts(
    rows: Rows, decision: Decision, *, spool: Spool, params: IngestParams, tally: Tally, quarantine: TableWriter
) -> None:
    """Turn contradicting answers into rejections: lists differ if any label does, numbers if they are not equal.

    Raises:
        InputError: there are some and ``label_conflicts`` is ``fail``.

    """
    conflicts = decision.indices(CONFLICT)
    if not len(conflicts):
        return
    texts = spool.pick({*conflicts.tolist(), *decision.of[conflicts].tolist()})
    if params.label_conflicts == "fail":
        one, other = texts[int(conflicts[0])], texts[int(decision.of[conflicts[0]])]
        distinct = len(np.unique(rows[["high", "low"]][conflicts]))
        raise InputError(
            f"{distinct:,} texts have more than one label for the same task; {one['location']} says {target(one)}, "
            f"{other['location']} says {target(other)}",
            remedy="correct the labels, or set ingest.label_conflicts to drop",
        )
    names = list(params.sources)
    rejections = []
    for row in conflicts.tolist():
        one, other = texts[row], texts[int(decision.of[row])]
        rejection = Rejection(
            names[rows["source"][row]],
            one["location"],
            "label_conflict",
            f"{target(one)}; {other['location']}: {target(other)}",
            excerpt(joined(one["text"], one["pair"])),
        )
        tally.reject_later(rejection)
        rejections.append(rejection)
    quarantine.write_rows({"step": "label_conflicts", **asdict(rejection)} for rejection in rejections)


def target(row: dict[str, str | None]) -> str:
    """A row's answer, for messages."""
    return str(row["spans"] if row["label"] is None else row["label"])[:120]
