"""How a model does while it is tuned: losses of every example without dropout, and the scores of its task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bert_ops.finetune.examples import Split
from bert_ops.finetune.inference import item_logits
from bert_ops.finetune.params import FinetuneParams, TaskParams
from bert_ops.finetune.problems import AnyProblem
from bert_ops.finetune.scores import evaluate_score
from bert_ops.model.heads import TaskModel
from bert_ops.seeding import generator
from bert_ops.training.loop import Row


@dataclass
class Trace:
    """Losses of every validation example at each evaluation; kept beside the checkpoints, so that a run can resume.

    Args:
        folder: where to keep them; None keeps them in memory only.

    """

    folder: Path | None
    by_step: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    latest: NDArray[np.float32] | None = None

    def evaluated(self, history: list[Row]) -> None:
        """Take in what was measured last."""
        if self.latest is None:
            return
        step = int(history[-1]["step"])
        self.by_step[step], self.latest = self.latest, None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.save(self.folder / f"{step:08d}.npy", self.by_step[step])

    def of(self, history: list[Row]) -> NDArray[np.float32]:
        """Losses (evaluations, examples) of a history."""
        rows = []
        for row in history:
            step = int(row["step"])
            if step not in self.by_step:
                assert self.folder is not None
                self.by_step[step] = np.load(self.folder / f"{step:08d}.npy", allow_pickle=False)
            rows.append(self.by_step[step])
        return np.stack(rows)


def shown_scores(task: TaskParams, scores: dict[str, float]) -> list[str]:
    """Names of the scores that a curve shows: the task's own, and accuracy where there is one."""
    return [name for name in dict.fromkeys((task.metric, "accuracy")) if name in scores]


@dataclass(frozen=True)
class Measured:
    """Loss of each example without dropout, float32 (N,), and the scores."""

    losses: NDArray[np.float32]
    scores: dict[str, float]


def measure(model: TaskModel, split: Split, problem: AnyProblem) -> Measured:
    """Measure a model, which must be in eval mode, in the arithmetic that it is in."""
    logits = item_logits(model, split.rows, split.items)
    losses = problem.losses(
        torch.from_numpy(logits), torch.from_numpy(split.targets), starts=split.items.starts
    ).numpy()
    example = split.items.example
    counts = np.bincount(example, minlength=len(split))
    means = np.bincount(example, weights=losses, minlength=len(split)) / np.maximum(counts, 1)
    answers = problem.answer(logits, split.items, split.rows)
    scores = {name: evaluate_score(score) for name, score in problem.scores(answers, split.truth).items()}
    return Measured(means.astype(np.float32), scores)


def probe(split: Split, params: FinetuneParams) -> Split:
    """A fixed random part of the training split, on which the training loss is measured without dropout."""
    count = min(params.probe_examples, len(split))
    return split.part(np.sort(generator(params.seed, "probe").choice(len(split), count, replace=False)))
