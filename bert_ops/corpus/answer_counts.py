"""How often each answer of each task occurs: labels one by one, the numbers of a task as their range and mean."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.records import Target
from bert_ops.corpus.split import SPLITS

#: What is counted for an example with an empty list of labels, and for a text without spans.
NO_LABEL, NO_SPAN = "(none)", "O"


class Answers:
    """Counts the answers of the examples of all tasks as they are written."""

    def __init__(self, params: IngestParams) -> None:
        sources = [source for source in params.sources.values() if source.task is not None]
        self.targets: dict[str, Target | None] = {str(source.task): source.target for source in sources}
        self.paired = {str(source.task): source.pair is not None for source in sources}
        self._counts: dict[str, dict[str, Counter[str]]] = {}
        self._values: dict[str, dict[str, _Range]] = {}

    def add(
        self, task: str, splits: Sequence[str], *, labels: Sequence[str | None], spans: Sequence[str | None]
    ) -> None:
        """Count examples: their splits, and their answers as examples.parquet holds them."""
        target = self.targets[task]
        counts = self._counts.setdefault(task, {split: Counter() for split in SPLITS})
        for split, label, of_text in zip(splits, labels, spans, strict=True):
            if target == "spans":
                counts[split].update([span[2] for span in json.loads(of_text or "[]")] or [NO_SPAN])
            elif target == "labels":
                counts[split].update(json.loads(label or "[]") or [NO_LABEL])
            elif target == "value":
                counts[split].update(["numbers"])
                values = self._values.setdefault(task, {split: _Range() for split in SPLITS})
                values[split].add(float(label or "nan"))
            else:
                counts[split].update([str(label)])

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Occurrences by task, split and label."""
        return {
            task: {split: dict(labels) for split, labels in splits.items()}
            for task, splits in sorted(self._counts.items())
        }

    def tasks(self) -> dict[str, dict[str, Any]]:
        """By task: its target, whether its examples are pairs, and of numbers their range and mean in each split."""
        return {
            task: {
                "target": self.targets[task],
                "pairs": self.paired[task],
                **(
                    {"values": {split: values.facts() for split, values in self._values[task].items()}}
                    if task in self._values
                    else {}
                ),
            }
            for task in sorted(self._counts)
        }


class _Range:
    """Lowest, highest and mean of numbers that pass by."""

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0
        self.low, self.high = float("inf"), float("-inf")

    def add(self, value: float) -> None:
        self.count += 1
        # Of numbers near the largest float the sum would overflow.
        self.mean += value / self.count - self.mean / self.count
        self.low, self.high = min(self.low, value), max(self.high, value)

    def facts(self) -> dict[str, float | int | None]:
        if not self.count:
            return {"count": 0, "min": None, "mean": None, "max": None}
        return {"count": self.count, "min": self.low, "mean": self.mean, "max": self.high}
