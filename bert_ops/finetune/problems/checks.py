"""What the kinds of tasks have in common: labels present, known and weighted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.finetune.problems.base import Weights

if TYPE_CHECKING:
    import pandas as pd


def class_weights(wanted: Any, targets: NDArray[Any], names: list[str]) -> Weights | None:
    """Weights of classes: none, by inverse frequency, or as named; scaled to a mean of 1 over the targets.

    Raises:
        InputError: a name is unknown, or one has no weight.

    """
    if wanted == "none":
        return None
    counts = np.bincount(targets, minlength=len(names)).astype(np.float64)
    by_name = 1.0 / np.maximum(counts, 1.0) if wanted == "balanced" else named_weights(wanted, names)
    return Weights((by_name * (counts.sum() / (by_name * counts).sum())).astype(np.float32))


def named_weights(wanted: dict[str, float], names: list[str]) -> NDArray[np.float32]:
    """Weights in the order of the names.

    Raises:
        InputError: a name is unknown, or one has no weight.

    """
    wrong = sorted(set(wanted) ^ set(names))
    if wrong:
        raise InputError(
            f"class_weights names {', '.join(map(repr, wanted))}; wrong or missing: {', '.join(map(repr, wrong))}",
            allowed=f"a weight for each of {', '.join(map(repr, names))}",
            remedy="correct tasks.TASK.class_weights, or set it to balanced",
        )
    return np.array([wanted[name] for name in names], np.float32)


def refuse_unseen(counts: Counter[str], labels: list[str], *, split: str) -> None:
    """Refuse labels of a split that training never saw.

    Raises:
        InputError: there are some.

    """
    unseen = sorted(set(counts) - set(labels))
    if unseen:
        shown = ", ".join(f"{label!r} ({counts[label]})" for label in unseen[:10])
        raise InputError(
            f"the {split} split has labels that training never saw: {shown}{', …' if len(unseen) > 10 else ''}",
            allowed=", ".join(map(repr, labels[:20])) + (f" and {len(labels) - 20} more" if len(labels) > 20 else ""),
            remedy="add training examples of them, or correct the labels",
        )


def refuse_unknown(counts: Counter[str], labels: list[str]) -> None:
    """Refuse answers that the problem cannot give.

    Raises:
        InputError: there are some.

    """
    unknown = sorted(set(counts) - set(labels))
    if unknown:
        raise InputError(f"answers with unknown labels: {', '.join(map(repr, unknown))}", allowed=", ".join(labels))


def present(frame: pd.DataFrame) -> list[str]:
    """Labels as they stand.

    Raises:
        InputError: some are missing.

    """
    absent = int(frame["label"].isna().sum())
    if absent:
        raise InputError(
            f"{absent} of {len(frame)} examples have no label",
            remedy="name the column that holds it in ingest.sources.SOURCE.label, or choose another kind of task",
        )
    labels: list[str] = frame["label"].tolist()
    return labels
