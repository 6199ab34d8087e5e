"""Tasks with labelled spans of a text: entities, words, parts of speech."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bert_ops.errors import InputError
from bert_ops.finetune import scores
from bert_ops.finetune.encoding import Rows
from bert_ops.finetune.params import TaskParams, TokenClassificationTask
from bert_ops.finetune.problems.base import Items, Logits, Problem, Weights, label_table
from bert_ops.finetune.problems.checks import class_weights, refuse_unseen
from bert_ops.finetune.scores import Score
from bert_ops.finetune.sequence_loss import sequence_losses
from bert_ops.finetune.spans import Span, read_spans
from bert_ops.finetune.tagging import IGNORED, PREFIXES, Misaligned, decode, read_tag_names, tag_names, tags_of_spans
from bert_ops.progress import note

if TYPE_CHECKING:
    import pandas as pd

Spans = list[Span]


class Tagging(Problem[Spans, list[Spans]]):
    """Spans of a text, learned as a tag a token; the answers are the spans of each text.

    Args:
        labels: names of the tags; ``O`` is the first.
        misaligned: what training does with spans that begin or end within a token.
        loss: what training is to make likely: each token's tag, or all tags of a row among the sequences allowed.

    """

    kind = "token_classification"
    head = "token_classification"
    with_offsets = True

    def __init__(
        self, labels: list[str], *, misaligned: Misaligned = "widen", loss: Literal["tokens", "sequences"] = "tokens"
    ) -> None:
        super().__init__(labels)
        self.span_labels, self.scheme = read_tag_names(labels)
        self.misaligned: Misaligned = misaligned
        self.loss = loss

    @property
    def shown_labels(self) -> list[str]:
        """``B-`` and ``I-`` alone: the pipelines of ``transformers`` join no ``E-`` and ``S-`` to entities."""
        simple = {"E": "I", "S": "B"}
        return [tag if tag == "O" else f"{simple.get(tag[0], tag[0])}{tag[1:]}" for tag in self.labels]

    @classmethod
    def read(cls, frame: pd.DataFrame) -> list[Spans]:
        """Read spans, JSON; see the base class."""
        absent = int(frame["spans"].isna().sum())
        if absent:
            raise InputError(
                f"{absent} of {len(frame)} examples have no spans, not even an empty list",
                remedy="name the column that holds them in ingest.sources.SOURCE.spans, or choose another kind of task",
            )
        rows = zip(frame["example_id"], frame["text"], frame["spans"], strict=True)
        return [read_spans(content, text=text, where=f"example {name}") for name, text, content in rows]

    @classmethod
    def infer(cls, train: Sequence[Spans], task: TaskParams) -> Self:
        """Take the labels of the training split, sorted.

        Raises:
            InputError: there is none.

        """
        assert isinstance(task, TokenClassificationTask)
        labels = sorted({span.label for spans in train for span in spans})
        if not labels:
            raise InputError(
                "no example of the training split has a span",
                allowed="at least one label of spans",
                remedy="check the column and the query; rows that were rejected stand in quarantine.parquet",
            )
        return cls(tag_names(labels, task.scheme), misaligned=task.misaligned, loss=task.loss)

    def check(self, truth: Iterable[Spans], *, split: str) -> None:
        """Refuse labels that training never saw; see the base class."""
        refuse_unseen(Counter(span.label for spans in truth for span in spans), self.span_labels, split=split)

    def label_counts(self, truth: Sequence[Spans]) -> dict[str, int]:
        """Spans of each label."""
        return dict(sorted(Counter(span.label for spans in truth for span in spans).items()))

    def tells_apart(self, truth: Sequence[Spans]) -> bool:
        """Whether there is a span to be found: equal ones in each text still have to be."""
        return any(truth)

    def items(self, rows: Rows) -> Items:
        """Tokens that stand for characters, each in the window that answers for it."""
        assert rows.offsets is not None
        flat = _joined(rows.offsets)
        content = flat[:, 1] > flat[:, 0]
        row = np.repeat(np.arange(len(rows)), rows.lengths)
        column = np.arange(len(flat)) - np.repeat(np.cumsum(rows.lengths) - rows.lengths, rows.lengths)
        starts = np.searchsorted(row[content], np.arange(len(rows) + 1))
        return Items(column[content], starts, rows.owner[row[content]])

    def targets(self, truth: Sequence[Spans], rows: Rows, items: Items) -> NDArray[np.int64]:
        """Tags (M,)."""
        offsets, starts = self._tokens(rows, items)
        found = tags_of_spans(
            truth, offsets, starts, labels=self.span_labels, scheme=self.scheme, misaligned=self.misaligned
        )
        for line in found.describe():
            note(line)
        return found.tags

    def _tokens(self, rows: Rows, items: Items) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offsets (M, 2) of the items, and the first item of each text (N + 1,)."""
        assert rows.offsets is not None
        flat = _joined(rows.offsets)
        offsets = flat[flat[:, 1] > flat[:, 0]]
        assert len(offsets) == len(items)
        return offsets, np.searchsorted(items.example, np.arange(rows.examples + 1))

    def losses(
        self, logits_MC: Tensor, targets_M: Tensor, *, starts: NDArray[np.int64], smoothing: float = 0.0
    ) -> Tensor:
        """Cross-entropy, of tokens (0 for those of spans that were dropped) or of sequences."""
        logits = logits_MC.float()
        if self.loss == "tokens":
            return F.cross_entropy(logits, targets_M, reduction="none", label_smoothing=smoothing, ignore_index=IGNORED)
        losses = sequence_losses(logits, targets_M, starts, prefixes=PREFIXES[self.scheme], ignored=IGNORED)
        if smoothing == 0.0:
            return losses
        even = -F.log_softmax(logits, 1).mean(1).masked_fill(targets_M == IGNORED, 0.0)
        return (1.0 - smoothing) * losses + smoothing * even

    def weights(self, wanted: Any, targets: NDArray[Any]) -> Weights | None:
        """Weights of tags; see the base class."""
        return class_weights(wanted, targets[targets != IGNORED], self.labels)

    def weighted(self, losses_M: Tensor, targets_M: Tensor, weights_C: Tensor) -> Tensor:
        """Multiply each token's loss by the weight of its tag."""
        return losses_M * weights_C[targets_M.clamp(min=0)]

    def answer(self, logits_MC: Logits, items: Items, rows: Rows) -> list[Spans]:
        """Spans of each text, of the likeliest tag of each token."""
        offsets, starts = self._tokens(rows, items)
        return decode(logits_MC, offsets, starts, labels=self.span_labels, scheme=self.scheme)

    def constant(self, train: Sequence[Spans]) -> tuple[Spans, str]:
        """Give no span."""
        return [], "no span in any text"

    def repeated(self, answer: Spans, count: int) -> list[Spans]:
        """Give the same spans to each text."""
        return [list(answer) for _ in range(count)]

    def as_text(self, answers: list[Spans]) -> list[str]:
        """JSON lists of ``[start, end, label]``."""
        return [json.dumps([list(span) for span in spans], ensure_ascii=False) for spans in answers]

    def from_text(self, texts: Sequence[str]) -> list[Spans]:
        """Read JSON lists of spans."""
        return [read_spans(text, where="an answer") for text in texts]

    def truth_as_text(self, truth: Sequence[Spans]) -> list[str]:
        """JSON lists of ``[start, end, label]``."""
        return self.as_text(list(truth))

    def confidence(self, answers: list[Spans]) -> NDArray[np.float64]:
        """NaN: spans come without a probability."""
        return np.full(len(answers), np.nan)

    def per_label(self, answers: list[Spans], truth: Sequence[Spans]) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support of each label's spans."""
        right, given, actual = (Counter[str]() for _ in range(3))
        for found, wanted in zip(answers, truth, strict=True):
            right.update(span.label for span in set(found) & set(wanted))
            given.update(span.label for span in found)
            actual.update(span.label for span in wanted)
        counts = [np.array([count[label] for label in self.span_labels]) for count in (right, given, actual)]
        return label_table(self.span_labels, right=counts[0], given=counts[1], actual=counts[2])

    def mistakes(self, answers: list[Spans], truth: Sequence[Spans]) -> NDArray[np.float64]:
        """Spans that are missing or too many."""
        return np.array([len(set(a) ^ set(t)) for a, t in zip(answers, truth, strict=True)], np.float64)

    def scores(self, answers: list[Spans], truth: Sequence[Spans]) -> dict[str, Score]:
        """Scores of whole entities, each label's by itself too."""
        return scores.tagging(answers, truth, labels=self.span_labels)


def _joined(offsets: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros((0, 2), np.int64), *offsets])
