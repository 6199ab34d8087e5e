"""Kinds of tasks."""

from __future__ import annotations

from typing import Any, TypeAlias

from bert_ops.finetune.params import TaskParams
from bert_ops.finetune.problems.base import Problem
from bert_ops.finetune.problems.multi_label import MultiLabel
from bert_ops.finetune.problems.regression import Regression
from bert_ops.finetune.problems.single_label import SingleLabel
from bert_ops.finetune.problems.tagging import Tagging

__all__ = ["AnyProblem", "MultiLabel", "Regression", "SingleLabel", "Tagging", "problem_class", "restore"]

AnyProblem: TypeAlias = Problem[Any, Any]

_KINDS: dict[str, type[AnyProblem]] = {kind.kind: kind for kind in (SingleLabel, MultiLabel, Regression, Tagging)}


def problem_class(task: TaskParams) -> type[AnyProblem]:
    """Return the class for a task's kind."""
    return _KINDS[task.kind]


def restore(kind: str, labels: list[str], facts: dict[str, Any]) -> AnyProblem:
    """Return the problem that an artifact describes.

    Args:
        kind: of the task.
        labels: names of the outputs.
        facts: what :attr:`Problem.facts` gave.

    """
    return _KINDS[kind].restore(labels, facts)
