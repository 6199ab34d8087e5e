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
from bert_ops.io import damaged, missing, read_json, read_parquet, rerun

if TYPE_CHECKING:
    import pandas as pd

#: The baselines that every model is held against, in the order in which they are shown.
BASELINES = ("majority", "tfidf_lr", "no_pretraining")

_HISTORY_COLUMNS = ("step", "train_loss", "validation_loss")


@dataclass(frozen=True)
class Examples:
    """The test split and what is known of the others.

    ``frame`` has example_id, text and label of the test split, ``actual`` the class ids ``[N]``; ``counts`` the
    examples of each split by label; ``overlap`` how many test texts stand in another split as well.
    """

    frame: pd.DataFrame
    actual: NDArray[np.int64]
    counts: dict[str, dict[str, int]]
    overlap: int


def read_examples(path: Path, *, labels: list[str], task: str) -> Examples:
    """Read the labelled examples of a task.

    Raises:
        ArtifactError: the file is missing or damaged, or a test label is not one of the model's ``labels``.
        InputError: the test split is empty or holds one label only.
    """
    frame = read_parquet(path, columns=["example_id", "split", "text", "label", "content_hash"], made_by="ingest")
    test = frame[frame["split"] == "test"].sort_values("example_id", ignore_index=True)
    if test.empty:
        raise InputError(
            f"the test split of task `{task}` is empty: {path} has {len(frame):,} examples, none of split `test`",
            remedy="add labelled examples, or raise `ingest.split.test` in params.yaml",
        )
    found = sorted(test["label"].dropna().unique())
    unknown = [label for label in found if label not in labels]
    if unknown or test["label"].isna().any():
        what = f"labels {', '.join(map(repr, unknown))}" if unknown else "examples without a label"
        raise ArtifactError(
            f"the test split of task `{task}` ({path}) holds {what}",
            allowed=f"the labels of the model: {', '.join(labels)}",
            remedy=rerun(f"finetune@{task}") + " on these examples",
        )
    if len(found) < 2:
        raise InputError(
            f"all {len(test):,} test examples of task `{task}` have the label `{found[0]}`: scores mean nothing",
            allowed="at least two labels in the test split",
            remedy="add examples of the other labels to the sources, or enlarge `ingest.split.test`",
        )
    elsewhere = set(frame.loc[frame["split"] != "test", "content_hash"])
    counts = {
        str(split): {str(label): int(number) for label, number in rows["label"].value_counts().sort_index().items()}
        for split, rows in frame.groupby("split", sort=True)
    }
    ids = {label: index for index, label in enumerate(labels)}
    return Examples(
        frame=test[["example_id", "text", "label"]],
        actual=np.array([ids[label] for label in test["label"]], dtype=np.int64),
        counts=counts,
        overlap=int(test["content_hash"].isin(elsewhere).sum()),
    )


def check_probabilities(probabilities: NDArray[Any], *, examples: Examples, labels: list[str], task: str) -> None:
    """Refuse probabilities that are not ``[N, labels]`` numbers within [0, 1].

    Raises:
        ArtifactError: the shape does not fit, or some are NaN or outside [0, 1] (a diverged or damaged model).
    """
    expected = (len(examples.frame), len(labels))
    if probabilities.shape != expected:
        raise ArtifactError(
            f"the model of task `{task}` gives probabilities of shape {probabilities.shape}",
            allowed=f"{expected}: test examples by labels",
            remedy=rerun(f"finetune@{task}"),
        )
    wrong = ~(np.isfinite(probabilities) & (probabilities >= 0.0) & (probabilities <= 1.0 + 1e-4)).all(axis=1)
    if wrong.any():
        first = examples.frame["example_id"].iloc[int(np.flatnonzero(wrong)[0])]
        raise ArtifactError(
            f"the model of task `{task}` gives no valid probabilities for {int(wrong.sum()):,} of {len(wrong):,} test "
            f"texts (the first is {first})",
            allowed="numbers from 0 to 1, none NaN",
            remedy=f"training diverged: lower `finetune.optimizer.learning_rate`, then {rerun(f'finetune@{task}')}",
        )


def read_baselines(folder: Path, *, examples: Examples, labels: list[str], task: str) -> dict[str, NDArray[np.int64]]:
    """Read what each baseline answered on the test split: class ids ``[N]`` in the order of ``examples``.

    Raises:
        ArtifactError: a baseline is missing, or it answered other examples or with other labels.
    """
    path, stage = folder / "predictions.parquet", f"baselines@{task}"
    frame = read_parquet(path, columns=["baseline", "example_id", "split", "predicted"], made_by=stage)
    frame = frame[frame["split"] == "test"]
    ids = {label: index for index, label in enumerate(labels)}
    answers = {}
    for name in BASELINES:
        rows = frame[frame["baseline"] == name].set_index("example_id")["predicted"]
        wanted = examples.frame["example_id"]
        if len(rows) != len(wanted) or not wanted.isin(rows.index).all():
            raise ArtifactError(
                f"{path}: baseline `{name}` answers {len(rows):,} test examples, not these {len(wanted):,}",
                remedy=rerun(stage),
            )
        unknown = sorted(set(rows) - set(labels), key=str)
        if unknown:
            raise ArtifactError(
                f"{path}: baseline `{name}` answers {', '.join(map(repr, unknown))}",
                allowed=f"the labels of the model: {', '.join(labels)}",
                remedy=rerun(stage),
            )
        answers[name] = np.array([ids[label] for label in rows.loc[wanted]], dtype=np.int64)
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
