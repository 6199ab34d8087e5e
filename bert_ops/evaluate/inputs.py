"""What the ``evaluate`` stage reads, each checked so that a misfit ends as a message and not as a wrong number."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import ArtifactError, InputError
from bert_ops.evaluate.overfitting import History
from bert_ops.finetune.examples import COLUMNS
from bert_ops.finetune.problems import AnyProblem
from bert_ops.io import damaged, missing, read_json, read_parquet, rerun

if TYPE_CHECKING:
    import pandas as pd

#: The baselines that every model is held against, in the order in which they are shown.
BASELINES = ("majority", "tfidf_lr", "no_pretraining")

_HISTORY_COLUMNS = ("step", "train_loss", "validation_loss")


@dataclass(frozen=True)
class Examples:
    """The test split and what is known of the others.

    ``frame`` has example_id, text and pair of the test split, ``truth`` its true answers ``[N]`` as the task's problem
    reads them; ``counts`` the examples of each split and ``labels`` how often each label stands in them; ``overlap``
    how many test texts stand in another split as well.
    """

    frame: pd.DataFrame
    truth: list[Any]
    counts: dict[str, int]
    labels: dict[str, dict[str, int]]
    overlap: int

    @property
    def texts(self) -> list[str]:
        """Texts of the test split."""
        texts: list[str] = self.frame["text"].tolist()
        return texts

    @property
    def pairs(self) -> list[str] | None:
        """Second texts, or None."""
        return None if self.frame["pair"].isna().any() else self.frame["pair"].tolist()


def read_examples(path: Path, *, problem: AnyProblem, task: str) -> Examples:
    """Read the labelled examples of a task.

    Raises:
        ArtifactError: the file is missing or damaged, or a test example has an answer that the model does not know.
        InputError: the test split is empty or has one answer only.
    """
    frame = read_parquet(path, columns=[*COLUMNS, "content_hash"], made_by="ingest")
    test = frame[frame["split"] == "test"].sort_values("example_id", ignore_index=True)
    if test.empty:
        raise InputError(
            f"the test split of task `{task}` is empty: {path} has {len(frame):,} examples, none of split `test`",
            remedy="add labelled examples, or raise `ingest.split.test` in params.yaml",
        )
    try:
        truth = problem.read(test)
        problem.check(truth, split="test")
    except InputError as error:
        raise ArtifactError(
            f"the test split of task `{task}` ({path}): {error.what}",
            allowed=error.allowed or f"the labels of the model: {', '.join(problem.labels)}",
            remedy=rerun(f"finetune@{task}") + " on these examples",
        ) from error
    if not problem.tells_apart(truth):
        raise InputError(
            f"all {len(test):,} test examples of task `{task}` have the answer "
            f"{problem.truth_as_text(truth[:1])[0]!r}: scores mean nothing",
            allowed="at least two answers in the test split",
            remedy="add examples with other answers to the sources, or enlarge `ingest.split.test`",
        )
    elsewhere = set(frame.loc[frame["split"] != "test", "content_hash"])
    parts = {str(split): rows for split, rows in frame.groupby("split", sort=True)}
    return Examples(
        frame=test[["example_id", "text", "pair"]],
        truth=truth,
        counts={split: len(rows) for split, rows in parts.items()},
        labels={split: problem.label_counts(problem.read(rows)) for split, rows in parts.items()},
        overlap=int(test["content_hash"].isin(elsewhere).sum()),
    )


def check_answers(answers: Any, *, problem: AnyProblem, examples: Examples, task: str) -> None:
    """Refuse probabilities that are not ``[N, labels]`` numbers within [0, 1], and numbers that are none.

    Raises:
        ArtifactError: the shape does not fit, or some are NaN or out of bounds (a diverged or damaged model).
    """
    if not isinstance(answers, np.ndarray):
        return
    probabilities = answers.ndim == 2
    expected = (len(examples.frame), len(problem.labels)) if probabilities else (len(examples.frame),)
    if answers.shape != expected:
        raise ArtifactError(
            f"the model of task `{task}` gives answers of shape {answers.shape}",
            allowed=f"{expected}: test examples by labels",
            remedy=rerun(f"finetune@{task}"),
        )
    high = 1.0 + 1e-4 if probabilities else np.finfo(np.float64).max
    low = 0.0 if probabilities else -high
    fine = [bool(((row >= low) & (row <= high)).all()) for row in answers]
    if not all(fine):
        first = examples.frame["example_id"].iloc[fine.index(False)]
        raise ArtifactError(
            f"the model of task `{task}` gives no valid {'probabilities' if probabilities else 'number'} for "
            f"{fine.count(False):,} of {len(fine):,} test texts (the first is {first})",
            allowed="numbers from 0 to 1, none NaN" if probabilities else "finite numbers",
            remedy=f"training diverged: lower `finetune.optimizer.learning_rate`, then {rerun(f'finetune@{task}')}",
        )


def read_baselines(folder: Path, *, problem: AnyProblem, examples: Examples, task: str) -> dict[str, Any]:
    """Read what each baseline answered on the test split, in the order of ``examples``, as the problem answers.

    Raises:
        ArtifactError: a baseline is missing, or it answered other examples or with other labels.
    """
    path, stage = folder / "predictions.parquet", f"baselines@{task}"
    frame = read_parquet(path, columns=["baseline", "example_id", "split", "predicted"], made_by=stage)
    frame = frame[frame["split"] == "test"]
    answers = {}
    for name in BASELINES:
        rows = frame[frame["baseline"] == name].set_index("example_id")["predicted"]
        wanted = examples.frame["example_id"]
        if len(rows) != len(wanted) or not wanted.isin(rows.index).all():
            raise ArtifactError(
                f"{path}: baseline `{name}` answers {len(rows):,} test examples, not these {len(wanted):,}",
                remedy=rerun(stage),
            )
        try:
            answers[name] = problem.from_text(rows.loc[wanted].tolist())
        except InputError as error:
            raise ArtifactError(
                f"{path}: baseline `{name}` gives {error.what}",
                allowed=f"the labels of the model: {', '.join(problem.labels)}",
                remedy=rerun(stage),
            ) from error
    return answers


def describe_baselines(folder: Path, *, task: str) -> dict[str, Any]:
    """Read baselines.json: what each baseline is and which settings it chose."""
    value = read_json(folder / "baselines.json", made_by=f"baselines@{task}")
    if not isinstance(value, dict):
        raise damaged(folder / "baselines.json", "it holds no object", made_by=f"baselines@{task}")
    return value


def read_history(path: Path, *, task: str) -> History:
    """Read a training curve (TSV, one row an evaluation).

    Raises:
        ArtifactError: the file is missing, lacks a column, or holds something that is not a finite number.
    """
    stage = f"finetune@{task}"
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle, delimiter="\t")
            columns = list(reader.fieldnames or [])
            rows = list(reader)
    except FileNotFoundError as error:
        raise missing(path, made_by=stage) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, str(error), made_by=stage) from error
    absent = [column for column in _HISTORY_COLUMNS if column not in columns]
    if absent:
        raise damaged(path, f"column {', '.join(absent)} is missing", made_by=stage)

    def numbers(column: str) -> NDArray[np.float64]:
        values = np.empty(len(rows))
        for index, row in enumerate(rows):
            try:
                values[index] = float(row[column])
            except (TypeError, ValueError) as error:
                raise damaged(path, f"line {index + 2}: `{column}` is {row[column]!r}", made_by=stage) from error
            if not np.isfinite(values[index]):
                raise ArtifactError(
                    f"{path} line {index + 2}: `{column}` is {row[column]}: training diverged",
                    remedy=f"lower `finetune.optimizer.learning_rate`, then {rerun(stage)}",
                )
        return values

    return History(
        step=numbers("step").astype(np.int64),
        train_loss=numbers("train_loss"),
        validation_loss=numbers("validation_loss"),
        validation_accuracy=numbers("validation_accuracy") if "validation_accuracy" in columns else None,
    )


def read_validation_losses(model: Path, *, evaluations: int, task: str) -> NDArray[np.float32] | None:
    """Read the clean loss of each validation example, ``[evaluations, examples]``; None where training kept none.

    Raises:
        ArtifactError: the file is damaged, or belongs to another curve.
    """
    path, stage = model / "training" / "validation_losses.npy", f"finetune@{task}"
    if not path.exists():
        return None
    try:
        losses = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise damaged(path, str(error), made_by=stage) from error
    if losses.ndim != 2 or losses.shape[0] != evaluations or losses.shape[1] == 0 or not np.isfinite(losses).all():
        raise damaged(
            path,
            f"shape {losses.shape} or a number in it does not fit the {evaluations} evaluations of the curve",
            made_by=stage,
        )
    return np.asarray(losses, dtype=np.float32)


def read_kept_step(model: Path, *, task: str) -> int | None:
    """Read which step's weights fine-tuning kept; None where it does not say, which means the last.

    Raises:
        ArtifactError: the file is damaged.
    """
    path, stage = model / "training" / "training.json", f"finetune@{task}"
    if not path.exists():
        return None
    value = read_json(path, made_by=stage)
    if not isinstance(value, dict) or not isinstance(value.get("kept_step"), int):
        raise damaged(path, "`kept_step` is not a whole number", made_by=stage)
    return int(value["kept_step"])
