"""What is wrong with an input is said in one message; nothing is scored on inputs that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluate_tree import TASK, make_tree

from bert_ops.errors import ArtifactError, InputError
from bert_ops.evaluate import inputs
from bert_ops.finetune.problems import SingleLabel

LABELS = ["negative", "positive"]
PROBLEM = SingleLabel(LABELS)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path, LABELS)


def examples_path(tree: Path) -> Path:
    return tree / f"data/corpus/examples/{TASK}.parquet"


def change(path: Path, edit: object) -> None:
    frame = pd.read_parquet(path)
    edit(frame).to_parquet(path)  # type: ignore[operator]


def test_examples_are_read_and_counted(tree: Path) -> None:
    found = inputs.read_examples(examples_path(tree), problem=PROBLEM, task=TASK)
    assert len(found.texts) == len(found.truth) == 120 and found.pairs is None
    known = pd.read_parquet(examples_path(tree)).set_index("example_id")["label"]
    assert found.truth == known.loc[found.frame["example_id"]].tolist()
    assert found.counts == {"train": 200, "validation": 60, "test": 120}
    assert sum(found.labels["train"].values()) == 200 and set(found.labels["train"]) == set(LABELS)
    assert found.overlap == 0
    assert found.frame["example_id"].is_monotonic_increasing


def test_an_empty_test_split_is_refused(tree: Path) -> None:
    change(examples_path(tree), lambda frame: frame[frame["split"] != "test"])
    with pytest.raises(InputError, match="test split of task `sentiment` is empty") as caught:
        inputs.read_examples(examples_path(tree), problem=PROBLEM, task=TASK)
    assert "ingest.split.test" in str(caught.value)


def test_a_test_split_of_one_label_is_refused(tree: Path) -> None:
    change(examples_path(tree), lambda frame: frame[(frame["split"] != "test") | (frame["label"] == "positive")])
    with pytest.raises(InputError, match="have the answer 'positive'"):
        inputs.read_examples(examples_path(tree), problem=PROBLEM, task=TASK)


def test_examples_without_label_are_refused(tree: Path) -> None:
    change(examples_path(tree), lambda frame: frame.assign(label=frame["label"].where(frame["split"] != "test")))
    with pytest.raises(ArtifactError, match="120 of 120 examples have no label"):
        inputs.read_examples(examples_path(tree), problem=PROBLEM, task=TASK)


def test_texts_that_stand_in_two_splits_are_counted(tree: Path) -> None:
    def leak(frame: pd.DataFrame) -> pd.DataFrame:
        test = frame[frame["split"] == "test"].head(3)
        return pd.concat([frame, test.assign(split="train")])

    change(examples_path(tree), leak)
    assert inputs.read_examples(examples_path(tree), problem=PROBLEM, task=TASK).overlap == 3


@pytest.mark.parametrize("damage", ["missing", "truncated", "column"])
def test_damaged_examples_are_named(tree: Path, damage: str) -> None:
    path = examples_path(tree)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        change(path, lambda frame: frame.drop(columns="content_hash"))
    with pytest.raises(ArtifactError, match=r"sentiment\.parquet") as caught:
        inputs.read_examples(path, problem=PROBLEM, task=TASK)
    assert "--single-item ingest" in str(caught.value)


def test_baselines_come_in_the_order_of_the_examples(tree: Path) -> None:
    examples = inputs.read_examples(examples_path(tree), problem=PROBLEM, task=TASK)
    folder = tree / f"models/baselines/{TASK}"
    before = inputs.read_baselines(folder, examples=examples, problem=PROBLEM, task=TASK)
    change(folder / "predictions.parquet", lambda frame: frame.sample(frac=1, random_state=0))
    after = inputs.read_baselines(folder, examples=examples, problem=PROBLEM, task=TASK)
    assert list(after) == ["majority", "tfidf_lr", "no_pretraining"]
    for name in after:
        assert np.array_equal(before[name], after[name])
    assert set(after["majority"].argmax(1)) == {0}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda frame: frame[frame["baseline"] != "tfidf_lr"], "`tfidf_lr` answers 0 test examples, not these 120"),
        (lambda frame: frame.iloc[:-1], "`no_pretraining` answers 119 test examples"),
        (lambda frame: pd.concat([frame, frame.tail(1)]), "answers 121 test examples"),
        (lambda frame: frame.assign(example_id="x" + frame["example_id"]), "not these 120"),
        (lambda frame: frame.assign(predicted="neutral"), "gives answers with unknown labels: 'neutral'"),
        (lambda frame: frame.drop(columns="predicted"), "has no column predicted"),
    ],
)
def test_baselines_that_do_not_fit_are_refused(tree: Path, edit: object, message: str) -> None:
    examples = inputs.read_examples(examples_path(tree), problem=PROBLEM, task=TASK)
    folder = tree / f"models/baselines/{TASK}"
    change(folder / "predictions.parquet", edit)
    with pytest.raises(ArtifactError, match=message) as caught:
        inputs.read_baselines(folder, examples=examples, problem=PROBLEM, task=TASK)
    assert "baselines@sentiment" in str(caught.value)


def test_history_is_read(tree: Path) -> None:
    history = inputs.read_history(tree / f"plots/finetune/{TASK}.tsv", task=TASK)
    assert history.step.tolist() == list(range(100, 1300, 100))
    assert history.validation_accuracy is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"step\ttrain_loss\n1\t2\n", "column validation_loss is missing"),
        (b"step\ttrain_loss\tvalidation_loss\n1\t0.5\t0.5\n2\t0.4\n", "line 3: `validation_loss` is None"),
        (b"step\ttrain_loss\tvalidation_loss\n1\t0.5\tabc\n", "line 2: `validation_loss` is 'abc'"),
        (b"step\ttrain_loss\tvalidation_loss\n1\tnan\t0.5\n", "`train_loss` is nan: training diverged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"", "column step, train_loss, validation_loss is missing"),
    ],
)
def test_history_that_cannot_be_used_is_refused(tree: Path, content: bytes | None, message: str) -> None:
    path = tree / f"plots/finetune/{TASK}.tsv"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        inputs.read_history(path, task=TASK)


def test_validation_losses_must_fit_the_curve(tree: Path) -> None:
    model = tree / f"models/finetuned/{TASK}"
    path = model / "training/validation_losses.npy"
    losses = inputs.read_validation_losses(model, evaluations=12, task=TASK)
    assert losses is not None and losses.shape == (12, 60)
    with pytest.raises(ArtifactError, match="does not fit the 11 evaluations"):
        inputs.read_validation_losses(model, evaluations=11, task=TASK)
    np.save(path, np.where(np.eye(12, 60) > 0, np.nan, losses))
    with pytest.raises(ArtifactError, match="damaged"):
        inputs.read_validation_losses(model, evaluations=12, task=TASK)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="damaged"):
        inputs.read_validation_losses(model, evaluations=12, task=TASK)
    np.save(path, np.array([{"code": "runs when unpickled"}]), allow_pickle=True)
    with pytest.raises(ArtifactError, match="damaged"):
        inputs.read_validation_losses(model, evaluations=12, task=TASK)
    path.unlink()
    assert inputs.read_validation_losses(model, evaluations=12, task=TASK) is None


def test_kept_step(tree: Path) -> None:
    model = tree / f"models/finetuned/{TASK}"
    assert inputs.read_kept_step(model, task=TASK) is None
    (model / "training/training.json").write_text('{"kept_step": 300}')
    assert inputs.read_kept_step(model, task=TASK) == 300
    for wrong in ('{"kept_step": "300"}', "[]", "{"):
        (model / "training/training.json").write_text(wrong)
        with pytest.raises(ArtifactError, match="damaged"):
            inputs.read_kept_step(model, task=TASK)
