"""Every kind of task is learned, judged and answered: labels, lists of labels, numbers, pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tasks
import torch

from bert_ops.errors import InputError
from bert_ops.finetune.encoding import encode
from bert_ops.finetune.inference import item_logits
from bert_ops.finetune.problems import MultiLabel, Regression, SingleLabel
from bert_ops.finetune.problems.checks import class_weights
from bert_ops.tokenizer import wordpiece

FAST = {"kind": "adamw", "learning_rate": 5e-3, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6}
LEARN = {"epochs": 20, "evaluations_per_epoch": 1, "seed": 1, "optimizer": FAST}


@pytest.mark.parametrize(("task", "least"), [("one", 0.95), ("many", 0.95), ("number", 0.9)])
def test_it_is_learned(task: str, least: float, tmp_path: Path, params: dict, pretrained_folder: Path) -> None:
    longer = {"epochs": 40} if task == "many" else {}
    made, _ = tasks.tuned(tmp_path, params, task, pretrained_folder, **(LEARN | longer))
    metric = f"validation_{tasks.TASKS[task]['metric']}"
    assert made.best[metric] >= least > made.history[0][metric] - 0.5
    assert made.validation_losses.shape == (len(made.history), 60)
    assert made.validation_losses.mean(1) == pytest.approx([row["validation_loss"] for row in made.history], rel=1e-5)


def test_the_second_text_of_a_pair_is_told_from_the_first(
    tmp_path: Path, params: dict, pretrained_folder: Path
) -> None:
    made, data = tasks.tuned(tmp_path, params, "pairs", pretrained_folder, **(LEARN | {"epochs": 30}))
    test = data.splits["test"]
    assert test.rows.segments is not None
    right = data.problem.answer(item_logits(made.model, test.rows, test.items), test.items, test.rows).argmax(1)
    assert (right == test.targets).mean() > 0.8


def test_numbers_come_in_the_tasks_own_unit(tmp_path: Path, params: dict, pretrained_folder: Path) -> None:
    made, data = tasks.tuned(tmp_path, params, "number", pretrained_folder, **LEARN)
    validation = data.splits["validation"]
    numbers = made.problem.answer(
        item_logits(made.model, validation.rows, validation.items), validation.items, validation.rows
    )
    assert np.abs(numbers - np.array(validation.truth)).mean() < 30
    assert made.problem.facts == {} and isinstance(data.problem, Regression) and data.problem.deviation > 40


class TestWindows:
    def test_a_text_in_windows_is_answered_by_their_mean(
        self, tmp_path: Path, params: dict, pretrained_folder: Path
    ) -> None:
        own = {"max_tokens": 10, "truncation": "windows"}
        made, _ = tasks.tuned(tmp_path, params, "one", pretrained_folder, own=own, epochs=1)
        tokenizer = wordpiece.load(pretrained_folder)
        text = "这家酒店非常好，那本书让人失望。"
        rows = encode(tokenizer, [text], max_tokens=10, truncation="windows")
        assert len(rows) > 1
        logits = item_logits(made.model, rows, made.problem.items(rows))
        answer = made.problem.answer(logits, made.problem.items(rows), rows)
        assert answer[0] == pytest.approx(torch.softmax(torch.from_numpy(logits.mean(0)), 0).numpy(), rel=1e-5)

    def test_what_stands_at_the_end_is_seen(self, tmp_path: Path, params: dict, pretrained_folder: Path) -> None:
        frame = tasks.frame_of("one")
        frame["text"] = "我去看书店的。" * 3 + frame["text"].str.replace("，第.*", "", regex=True)
        scores = {}
        for truncation in ("head", "tail", "windows"):
            own = {"max_tokens": 16, "truncation": truncation}
            made, _ = tasks.tuned(tmp_path, params, "one", pretrained_folder, frame=frame, own=own, **LEARN)
            scores[truncation] = made.best["validation_accuracy"]
        assert scores["head"] < 0.8 and scores["tail"] > 0.9 and scores["windows"] > 0.8


class TestWeights:
    def test_balanced_weights_give_each_class_the_same_sum_and_the_mean_one(self) -> None:
        targets = np.array([0] * 90 + [1] * 10)
        found = class_weights("balanced", targets, ["a", "b"])
        assert found is not None
        by_item = found.by_output[targets]
        assert by_item.mean() == pytest.approx(1.0)
        assert by_item[targets == 0].sum() == pytest.approx(by_item[targets == 1].sum())

    def test_named_weights_keep_their_ratio(self) -> None:
        found = class_weights({"b": 3.0, "a": 1.0}, np.array([0, 0, 1]), ["a", "b"])
        assert found is not None
        assert found.by_output[1] / found.by_output[0] == pytest.approx(3.0)
        assert found.by_output[[0, 0, 1]].mean() == pytest.approx(1.0)

    @pytest.mark.parametrize("wanted", [{"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}])
    def test_other_names_are_refused(self, wanted: dict[str, float]) -> None:
        with pytest.raises(InputError, match=r"wrong or missing: .[bc]."):
            class_weights(wanted, np.array([0, 1]), ["a", "b"])

    def test_the_weighted_loss_is_that_of_torch(self) -> None:
        problem, targets = SingleLabel(["a", "b", "c"]), torch.tensor([0, 2, 2, 1])
        found = problem.weights({"a": 1.0, "b": 2.0, "c": 5.0}, targets.numpy())
        assert found is not None
        logits, weights = torch.randn(4, 3, generator=torch.manual_seed(0)), torch.from_numpy(found.by_output)
        ours = problem.weighted(
            problem.losses(logits, targets, starts=np.arange(len(targets) + 1)), targets, weights
        ).mean()
        theirs = torch.nn.functional.cross_entropy(logits, targets, weight=weights)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)

    def test_training_uses_them(self, tmp_path: Path, params: dict, pretrained_folder: Path) -> None:
        """A class that weighs a thousand times as much is the only one that is answered."""
        given = {}
        for label in ("positive", "negative"):
            own = {"class_weights": {"positive": 1.0, "negative": 1.0, label: 1000.0}}
            made, data = tasks.tuned(tmp_path, params, "one", pretrained_folder, own=own, **(LEARN | {"epochs": 1}))
            test = data.splits["test"]
            logits = item_logits(made.model, test.rows, test.items)
            given[label] = {data.labels[index] for index in logits.argmax(1)}
        assert given == {"positive": {"positive"}, "negative": {"negative"}}

    def test_multi_label_weights_count_where_a_label_holds(self) -> None:
        problem = MultiLabel(["a", "b"])
        targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], np.float32)
        found = problem.weights("balanced", targets)
        assert found is not None and found.by_output.tolist() == [3.0, 3.0]
        losses = torch.ones(4)
        assert problem.weighted(losses, torch.from_numpy(targets), torch.from_numpy(found.by_output)).tolist() == [
            2.0,
            1.0,
            1.0,
            2.0,
        ]


def test_label_smoothing_is_that_of_torch_and_bounded_for_lists() -> None:
    logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([0])
    one = SingleLabel(["a", "b", "c"]).losses(logits, targets, starts=np.array([0, 1]), smoothing=0.1)
    log = torch.log_softmax(logits, 1)
    assert one.item() == pytest.approx(-(0.9 * log[0, 0] + 0.1 * log.mean()).item())
    many = MultiLabel(["a", "b", "c"]).losses(
        logits, torch.tensor([[1.0, 0.0, 0.0]]), starts=np.array([0, 1]), smoothing=0.2
    )
    smoothed = torch.tensor([[0.9, 0.1, 0.1]])
    expected = -(smoothed * torch.sigmoid(logits).log() + (1 - smoothed) * torch.sigmoid(-logits).log()).mean()
    assert many.item() == pytest.approx(expected.item(), rel=1e-5)


class TestBadInput:
    @pytest.mark.parametrize(
        ("task", "column", "value", "message"),
        [
            ("many", "label", "good", "is no JSON list of labels"),
            ("many", "label", '{"a": 1}', "is no JSON list of labels"),
            ("many", "label", "[]", "no example of the training split has a label"),
            ("number", "label", "positive", "is no number"),
            ("number", "label", "nan", "is no number"),
            ("number", "label", "3.0", "has the value 3; "),
            ("one", "label", None, "180 of 180 examples have no label"),
        ],
    )
    def test_answers_of_another_form(
        self, task: str, column: str, value: str, message: str, tmp_path: Path, params: dict, pretrained_folder: Path
    ) -> None:
        frame = tasks.frame_of(task)
        frame[column] = value
        with pytest.raises(InputError) as caught:
            tasks.setting(tmp_path, params, task, pretrained_folder, frame=frame)
        assert message in " ".join(str(caught.value).split()) or message.rstrip("; ") in str(caught.value)

    def test_labels_of_a_list_that_training_never_saw(
        self, tmp_path: Path, params: dict, pretrained_folder: Path
    ) -> None:
        frame = tasks.frame_of("many")
        frame.loc[frame["split"] == "validation", "label"] = '["film", "good"]'
        with pytest.raises(InputError, match=r"the validation split has labels that training never saw: 'film' \(60\)"):
            tasks.setting(tmp_path, params, "many", pretrained_folder, frame=frame)

    def test_pairs_for_some_examples_only(self, tmp_path: Path) -> None:
        from bert_ops.finetune.examples import read_examples

        frame = tasks.frame_of("pairs")
        frame.loc[:9, "pair"] = None
        frame.to_parquet(tmp_path / "examples.parquet")
        with pytest.raises(InputError, match="10 of 300 examples are single texts, the others pairs"):
            read_examples(tmp_path / "examples.parquet")

    def test_a_value_of_the_task_in_section_finetune_that_is_wrong(
        self, tmp_path: Path, params: dict, pretrained_folder: Path
    ) -> None:
        with pytest.raises(InputError, match=r"`tasks\.one\.finetune\.epochs` is 0"):
            tasks.setting(tmp_path, params, "one", pretrained_folder, own={"finetune": {"epochs": 0}})


def test_a_task_may_change_section_finetune(tmp_path: Path, params: dict, pretrained_folder: Path) -> None:
    own = {"finetune": {"epochs": 7, "optimizer": {"learning_rate": 1e-4}, "schedule": {"kind": "constant"}}}
    with pytest.raises(InputError, match=r"tasks\.one\.finetune\.schedule"):  # another kind stands for itself
        tasks.setting(tmp_path, params, "one", pretrained_folder, own=own)
    own["finetune"]["schedule"] = {"kind": "cosine", "warmup_share": 0.0, "final_share": 0.1}
    _, _, found = tasks.setting(tmp_path, params, "one", pretrained_folder, own=own)
    assert (found.epochs, found.optimizer.learning_rate, found.schedule.kind) == (7, 1e-4, "cosine")
    assert found.optimizer.weight_decay == params["finetune"]["optimizer"]["weight_decay"]
