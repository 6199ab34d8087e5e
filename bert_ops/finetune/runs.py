"""Repeated runs: how far a score depends on seed or split.

The model that ships is that of the first run, whatever the others score: choosing the luckiest one would make every
number that follows too good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.finetune.examples import Split, TaskData, joined
from bert_ops.finetune.params import FinetuneParams, TaskParams
from bert_ops.finetune.tuning import Tuned
from bert_ops.io import read_json, write_json
from bert_ops.progress import note
from bert_ops.seeding import generator
from bert_ops.training.checkpoint import CheckpointStore, Retention, run_key


def repeat(
    data: TaskData,
    learn: Callable[..., Tuned],
    task: TaskParams,
    params: FinetuneParams,
    *,
    first: Tuned,
    what: str,
    folder: Path,
    identity: dict[str, str],
) -> dict[str, Any] | None:
    """Learn the task again, with other seeds or other held-out parts; None if once is enough.

    Each run leaves its score in ``folder`` when it ends, so that a stage that was interrupted goes on with the next.

    Args:
        data: the task's examples.
        learn: :func:`bert_ops.finetune.tuning.tune` without data, params and names.
        task: the task.
        params: how to tune, and how often.
        first: the run that is kept.
        what: name for progress lines.
        folder: the run's folder.
        identity: what its checkpoints belong to.

    Returns:
        ``kind``, ``scores`` (of the task's metric on the validation split, or on the part held out), ``mean``,
        ``ci95`` (Student's t over the runs) and ``deviation``.

    """
    runs = params.runs
    if runs.count == 1:
        return None
    name = f"validation_{task.metric}"
    scores = [] if runs.kind == "folds" else [float(first.best[name])]
    parts = folds(data, count=runs.count, seed=params.seed) if runs.kind == "folds" else [data] * (runs.count - 1)
    for number, part in enumerate(parts, 1):
        own = params if runs.kind == "folds" else params.model_copy(update={"seed": params.seed + number})
        of = f"{what}, {'fold' if runs.kind == 'folds' else 'seed'} {number if runs.kind == 'folds' else own.seed}"
        done = folder / "runs" / f"{number}.json"
        if not done.is_file():
            key = {**identity, "run": f"{runs.kind} {runs.count} {number}"}
            kept = Retention(keep_last=params.checkpoints.keep_last, keep_best=0)
            store = CheckpointStore(folder / "runs" / run_key(**key), retention=kept, identity=key)
            tuned = learn(part, params=own, what=of, store=store)
            write_json(done, {"score": float(tuned.best[name]), "step": tuned.run.best_step})
        scores.append(float(read_json(done, made_by="finetune")["score"]))
        note(f"{of}: validation {task.metric} {scores[-1]:.4f}")
    return {"kind": runs.kind, "metric": task.metric, "scores": scores, **interval(scores)}


def interval(scores: Sequence[float]) -> dict[str, Any]:
    """Mean of several runs with its 95% interval by Student's t, and their standard deviation."""
    from scipy.stats import t

    values = np.asarray(scores, np.float64)
    deviation = float(values.std(ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    mean = float(values.mean())
    return {"mean": mean, "ci95": [mean - half, mean + half], "deviation": deviation}


def folds(data: TaskData, *, count: int, seed: int) -> list[TaskData]:
    """Divide train and validation into parts, each of which is held out once; the test split is left out of it.

    Near-duplicates (examples of one cluster) stay on one side. Labels and scales are those of the training split.

    Raises:
        InputError: there are fewer clusters than folds.

    """
    pool = joined(data.splits["train"], data.splits["validation"])
    clusters, cluster = np.unique(np.asarray(pool.clusters), return_inverse=True)
    if len(clusters) < count:
        raise InputError(
            f"{count} folds of {len(clusters)} distinct examples cannot be made",
            allowed=f"2 to {len(clusters)}",
            remedy="lower finetune.runs.count",
        )
    fold = (generator(seed, "folds").permutation(len(clusters)) % count)[cluster]
    return [_held_out(data, pool, fold == number) for number in range(count)]


def _held_out(data: TaskData, pool: Split, held: NDArray[np.bool_]) -> TaskData:
    splits = {"train": pool.part(np.flatnonzero(~held)), "validation": pool.part(np.flatnonzero(held))}
    return replace(data, splits={**splits, "test": data.splits["test"]})
