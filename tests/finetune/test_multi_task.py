"""Several tasks, one encoder: what is learned, stored, loaded, resumed and refused."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tasks
import torch
import yaml
from safetensors.torch import load_file, save_file

from bert_ops import __main__ as cli
from bert_ops.errors import ArtifactError, InputError
from bert_ops.finetune import export_head, multi_task
from bert_ops.finetune.inference import encode_examples_for, item_logits, load_task_model
from bert_ops.finetune.multi_task_params import load_multi_task
from bert_ops.finetune.together import TunedTogether, shares, units
from bert_ops.io import folder_sha256
from bert_ops.params import Params, load_all
from bert_ops.training.loop import Trainer
from bert_ops.training.run_log import deterministic, read_log

NAMES = ["one", "spans"]


class Cut(Exception):
    """The process dies."""


def write_params(path: Path, params: dict[str, Any], *, names: list[str] = NAMES, **changes: Any) -> Path:
    """A params.yaml with an entry ``both``; ``entry`` changes it, the rest changes section ``finetune``."""
    value = copy.deepcopy(params)
    entry = {"tasks": names, "sampling": 1.0, **changes.pop("entry", {})}
    value["tasks"] = {name: {**tasks.TASKS[name], "max_tokens": 48, "truncation": "head"} for name in names}
    value["finetune"] |= {"precision": "float32", "average_decay": 0.0, "token_masking": 0.0, **changes}
    value["multi_task"] = {"both": entry}
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture
def make(tmp_path: Path, params: dict, pretrained_folder: Path) -> Callable[..., argparse.Namespace]:
    """Arguments of the stage, all of whose outputs lie in a folder of this name."""

    def make(name: str, *, names: list[str] = NAMES, **changes: Any) -> argparse.Namespace:
        folder, examples = tmp_path / name, tmp_path / "examples"
        folder.mkdir(exist_ok=True)
        examples.mkdir(exist_ok=True)
        for task in names:
            tasks.frame_of(task).to_parquet(examples / f"{task}.parquet")
        return argparse.Namespace(
            params=write_params(folder / "params.yaml", params, names=names, **changes),
            name="both",
            init=pretrained_folder,
            examples=examples,
            out=folder / "model",
            history=folder / "history.tsv",
            metrics=folder / "metrics.json",
            run_log=folder / "log.jsonl",
            checkpoints=folder / "checkpoints",
        )

    return make


@pytest.fixture
def learn(monkeypatch: pytest.MonkeyPatch) -> Callable[[argparse.Namespace], TunedTogether]:
    """Run the stage and return the model that it had in memory."""
    plain = multi_task.tune_together
    made: list[TunedTogether] = []

    def kept(*args: Any, **kwargs: Any) -> TunedTogether:
        made.append(plain(*args, **kwargs))
        return made[-1]

    def learn(arguments: argparse.Namespace) -> TunedTogether:
        monkeypatch.setattr(multi_task, "tune_together", kept)
        multi_task.run(arguments)
        return made[-1]

    return learn


LEARNING = {"epochs": 30, "seed": 1, "evaluations_per_epoch": 1, "optimizer": {
    "kind": "adamw", "learning_rate": 5e-3, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6,
}}  # fmt: skip


@pytest.mark.slow
class TestLearning:
    @pytest.fixture
    def learned(self, make: Callable[..., argparse.Namespace], learn: Any) -> tuple[argparse.Namespace, TunedTogether]:
        arguments = make("learned", **LEARNING)
        return arguments, learn(arguments)

    def test_both_tasks_are_learned_stored_and_answered_alike(
        self, learned: tuple[argparse.Namespace, TunedTogether], tmp_path: Path
    ) -> None:
        arguments, tuned = learned
        figures = json.loads(arguments.metrics.read_text())
        assert figures["tasks"]["one"]["score"] > 0.9 and figures["tasks"]["spans"]["score"] > 0.9
        assert figures["validation_score"] == pytest.approx(
            (figures["tasks"]["one"]["validation_accuracy"] + figures["tasks"]["spans"]["validation_entity_f1"]) / 2
        )
        for name in NAMES:
            self.heads_answer_as_in_memory(arguments.out / "heads" / name, tuned, name, tmp_path / name)
        self.sizes_are_counted_once(arguments.out, figures)
        self.a_head_has_a_curve_of_its_own(arguments.out / "heads" / "spans", figures)

    def heads_answer_as_in_memory(self, head: Path, tuned: TunedTogether, name: str, plain: Path) -> None:
        """The head as it was stored, the same as a folder by itself, and that one as transformers reads it."""
        loaded = load_task_model(head)
        frame = tasks.frame_of(name)
        split = encode_examples_for(loaded, frame[frame["split"] == "test"])
        stored = item_logits(loaded.model, split.rows, split.items)
        assert np.array_equal(item_logits(tuned.view(name), split.rows, split.items), stored)
        assert loaded.labels == tuned.problems[name].labels and loaded.max_tokens == 48
        assert cli.main(["export_head", str(head), "--out", str(plain)]) == 0
        exported = load_task_model(plain)
        assert np.array_equal(item_logits(exported.model, split.rows, split.items), stored)
        assert (plain / "training" / "validation_losses.npy").is_file()
        import transformers

        kinds = {"one": "AutoModelForSequenceClassification", "spans": "AutoModelForTokenClassification"}
        theirs = getattr(transformers, kinds[name]).from_pretrained(plain).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
        text = frame["text"].iloc[0]
        ids = tokenizer(text, return_tensors="pt")
        assert ids["input_ids"][0].tolist() == loaded.tokenizer.encode(text).ids
        with torch.no_grad():
            logits = theirs(**ids).logits
            ours = loaded.model(ids["input_ids"], torch.zeros_like(ids["input_ids"]))
        torch.testing.assert_close(logits, ours, rtol=0, atol=1e-5)
        encoder = transformers.AutoModel.from_pretrained(head.parents[1]).eval()
        hidden = encoder(**ids).last_hidden_state
        expected = loaded.model.encoder(ids["input_ids"], torch.zeros_like(ids["input_ids"]))
        torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)

    def sizes_are_counted_once(self, folder: Path, figures: dict[str, Any]) -> None:
        sizes = figures["parameters"]
        assert sizes["together"] == sizes["encoder"] + sum(sizes["heads"].values())
        count = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
        assert sizes["encoder"] == count
        for name in NAMES:
            head = load_file(folder / "heads" / name / "head.safetensors")
            assert sizes["heads"][name] == sum(tensor.numel() for tensor in head.values())
        assert sizes["separately"] > 1.8 * sizes["together"]

    def a_head_has_a_curve_of_its_own(self, head: Path, figures: dict[str, Any]) -> None:
        lines = (head / "training" / "history.tsv").read_text().splitlines()
        assert lines[0].split("\t") == ["step", "epoch", "train_loss", "validation_loss", "validation_entity_f1"]
        losses = np.load(head / "training" / "validation_losses.npy", allow_pickle=False)
        assert losses.shape[0] == len(lines) - 1 == 30
        kept = next(line.split("\t") for line in lines[1:] if line.split("\t")[0] == str(figures["best_step"]))
        assert float(kept[3]) == pytest.approx(figures["tasks"]["spans"]["validation_loss"])
        assert losses.mean(axis=1).min() > 0

    def test_numbers_come_back_in_their_own_unit(self, make: Any, learn: Any) -> None:
        """The classifier of a regression is rescaled at the end, in the model and in what is stored."""
        arguments = make("numbers", names=["number", "spans"], **(LEARNING | {"epochs": 2}))
        learn(arguments)
        loaded = load_task_model(arguments.out / "heads" / "number")
        frame = tasks.frame_of("number")
        split = encode_examples_for(loaded, frame[frame["split"] == "test"])
        logits = item_logits(loaded.model, split.rows, split.items)
        answers = loaded.problem.answer(logits, split.items, split.rows)
        assert np.abs(answers - np.asarray(split.truth)).max() < 200  # of values 1000 and 1100


@pytest.mark.parametrize(
    "layers",
    [
        {"train": "head"},
        {"top": 1, "freeze_embeddings": True},
        {"train": "biases"},
        {"train": "lora", "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.1, "modules": ["query", "up"]}},
        {"rate_decay": 0.5, "unfreeze_over": 0.5, "reinitialized": 1},
    ],
    ids=["head", "top", "biases", "lora", "unfreezing"],
)
def test_layers_are_tuned_as_for_one_task(
    layers: dict[str, Any], make: Any, learn: Any, params: dict, pretrained_folder: Path
) -> None:
    arguments = make(
        "tuned", epochs=1, evaluations_per_epoch=1, layers={**params["finetune"]["layers"], **layers}
    )  # fmt: skip
    tuned = learn(arguments)
    before = load_file(pretrained_folder / "model.safetensors")
    after = load_file(arguments.out / "model.safetensors")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    inside = {name for name in changed if not name.startswith("bert.pooler")}
    assert any(name.startswith("bert.pooler") for name in changed)
    if layers.get("train") == "head":
        assert not inside
    elif layers.get("train") == "biases":
        assert inside and all(name.endswith(".bias") for name in inside)
    else:
        assert inside
    if "top" in layers or layers.get("train") == "lora":
        assert not any("embeddings" in name for name in inside)
    assert 0 < tuned.tuning.share <= 1


CHANGES = {
    "epochs": 1,
    "evaluations_per_epoch": 3,
    "average_decay": 0.9,
    "token_masking": 0.2,
    "hidden_dropout": 0.1,
    "entry": {"sampling": 0.3},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"batch": {"examples": 16, "layout": "packed"}, "keep": "metric", "label_smoothing": 0.1}],
    ids=["plain", "packed"],
)
def test_a_run_that_died_ends_with_the_same_bytes(
    changes: dict[str, Any], make: Any, params: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, made, limit = Trainer._step, [], [-1]

    def step(trainer: Any) -> Any:
        if len(made) == limit[0]:
            raise Cut
        made.append(trainer.run.step)
        return plain(trainer)

    monkeypatch.setattr(Trainer, "_step", step)
    often = params["finetune"]["checkpoints"] | {"every_steps": 4}
    whole = make("whole", checkpoints=often, **CHANGES, **changes)
    multi_task.run(whole)
    everything = made.copy()
    died = make("died", checkpoints=often, **CHANGES, **changes)
    for after in (6, 9):
        made.clear()
        limit[0] = after
        with pytest.raises(Cut):
            multi_task.run(died)
        assert not died.out.exists()
    made.clear()
    limit[0] = -1
    multi_task.run(died)
    assert 0 < len(made) < len(everything) and made[-1] == everything[-1]
    assert folder_sha256(died.out) == folder_sha256(whole.out)
    assert died.history.read_text() == whole.history.read_text()
    assert deterministic(read_log(died.run_log)) == deterministic(read_log(whole.run_log))
    batches = [each["batches"] for each in json.loads(died.metrics.read_text())["tasks"].values()]
    assert sum(batches) == len(everything)
    assert batches == [each["batches"] for each in json.loads(whole.metrics.read_text())["tasks"].values()]


class TestSampling:
    def test_shares_follow_the_power_of_the_sizes(self) -> None:
        assert shares([100, 900], 1.0).tolist() == pytest.approx([0.1, 0.9])
        assert shares([100, 900], 0.0).tolist() == pytest.approx([0.5, 0.5])
        assert shares([100, 900], 0.5).tolist() == pytest.approx([0.25, 0.75])

    @pytest.fixture
    def drawn(
        self, tmp_path: Path, params: dict, pretrained_folder: Path
    ) -> Callable[..., list[tuple[Any, dict[str, int]]]]:
        """Units of a small task and of one three times as large, from a position on."""
        from bert_ops.finetune.examples import encode_examples
        from bert_ops.tokenizer import wordpiece

        frames = {"one": tasks.frame_of("one", count=100), "spans": tasks.frame_of("spans", count=300)}
        tokenizer = wordpiece.load(pretrained_folder)

        def drawn(sampling: float, count: int, position: dict[str, int] | None = None) -> Any:
            path = write_params(tmp_path / "params.yaml", params, entry={"sampling": sampling}, token_masking=0.2)
            together = load_multi_task(path, "both")
            data = {name: encode_examples(frames[name], tokenizer, task) for name, task in together.tasks.items()}
            shape = {"layout": "bucketed", "pad_id": 0, "limit": 48}
            source = units(data, together, position, shape=shape)
            return [next(source) for _ in range(count)]

        return drawn

    @pytest.mark.parametrize(("sampling", "wanted"), [(1.0, 0.25), (0.0, 0.5), (0.5, 1 / (1 + 3**0.5))])
    def test_batches_come_in_these_shares(self, sampling: float, wanted: float, drawn: Any) -> None:
        found = drawn(sampling, 600)
        share = sum(unit.task == "one" for unit, _ in found) / len(found)
        assert abs(share - wanted) < 4 * (wanted * (1 - wanted) / len(found)) ** 0.5
        last = found[-1][1]
        assert last == {
            "step": 600,
            "batches of one": round(share * 600),
            "batches of spans": 600 - round(share * 600),
        }

    def test_units_depend_on_the_position_alone(self, drawn: Any) -> None:
        whole = drawn(0.5, 40)
        for place in (1, 17):
            rest = drawn(0.5, 40 - place, whole[place - 1][1])
            for (unit, after), (same, same_after) in zip(whole[place:], rest, strict=True):
                assert (unit.task, unit.unit, after) == (same.task, same.unit, same_after)
                assert np.array_equal(unit.batch.ids, same.batch.ids)
                assert np.array_equal(unit.batch.targets, same.batch.targets)

    def test_an_epoch_of_a_task_holds_each_of_its_examples_once(self, drawn: Any) -> None:
        """However the tasks are mixed; batches of one task are compared by the targets' and tokens' sums."""
        mine = [unit for unit, _ in drawn(0.0, 40) if unit.task == "one"]
        first, second = mine[:4], mine[4:8]  # 60 training examples in batches of 16
        assert sum(len(unit.batch.pieces.ids) for unit in first) == 60
        assert sum(int(unit.batch.targets.sum()) for unit in first) == sum(
            int(unit.batch.targets.sum()) for unit in second
        )
        assert [unit.batch.targets.tolist() for unit in first] != [unit.batch.targets.tolist() for unit in second]


class TestRefused:
    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"tasks": ["one", "nothing"]}, r"multi_task\.both\.tasks names nothing, not among tasks \(one, spans\)"),
            ({"tasks": ["one"]}, r"at least 2 items"),
            ({"tasks": ["one", "one"]}, r"tasks names one twice: one, one"),
            ({"sampling": 1.5}, r"multi_task\.both\.sampling` is 1\.5: .*less than or equal to 1"),
            ({"finetune": {"epochs": 0}}, r"multi_task\.both\.finetune\.epochs` is 0"),
            ({"finetune": {"epoch": 1}}, r"multi_task\.both\.finetune\.epoch` is not a known key"),
            ({"finetune": {"runs": {"kind": "seeds", "count": 3}}}, r"runs\.count is 3, but tasks .* learned once"),
        ],
    )
    def test_parameters(self, entry: dict[str, Any], message: str, make: Any) -> None:
        with pytest.raises(InputError, match=message):
            multi_task.run(make("refused", entry=entry))

    def test_no_such_entry(self, make: Any) -> None:
        arguments = make("refused")
        arguments.name = "other"
        with pytest.raises(InputError, match=r"(?s)no section `multi_task\.other`.*holds both"):
            multi_task.run(arguments)

    def test_names_that_lead_elsewhere(self, tmp_path: Path, params: dict) -> None:
        value = copy.deepcopy(params)
        value["tasks"]["../x"] = value["tasks"]["sentiment"]
        value["multi_task"] = {"both": {"tasks": ["sentiment", "../x"], "sampling": 1.0}}
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(value, allow_unicode=True))
        with pytest.raises(InputError, match=r"'\.\./x' must be letters, digits, _ and -"):
            load_multi_task(path, "both")

    def test_the_whole_file_is_checked_too(self, tmp_path: Path, params: dict) -> None:
        value = copy.deepcopy(params)
        value["multi_task"] = {"both": {"tasks": ["sentiment", "nothing"], "sampling": 1.0}}
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(value, allow_unicode=True))
        with pytest.raises(InputError, match="names nothing, not among tasks"):
            load_all(path)

    def test_texts_longer_than_the_model_and_missing_examples(self, make: Any) -> None:
        arguments = make("refused")
        value = yaml.safe_load(arguments.params.read_text())
        value["tasks"]["spans"]["max_tokens"] = 64
        arguments.params.write_text(yaml.safe_dump(value, allow_unicode=True))
        with pytest.raises(InputError, match="`max_tokens` of the task is 64, more than the encoder's 48"):
            multi_task.run(arguments)
        (arguments.examples / "spans.parquet").unlink()
        with pytest.raises(ArtifactError, match=r"spans\.parquet does not exist"):
            multi_task.run(arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, params: dict, pretrained_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("together")
    (folder / "examples").mkdir()
    for task in NAMES:
        tasks.frame_of(task).to_parquet(folder / "examples" / f"{task}.parquet")
    multi_task.run(
        argparse.Namespace(
            params=write_params(folder / "params.yaml", params, epochs=1, evaluations_per_epoch=1),
            name="both",
            init=pretrained_folder,
            examples=folder / "examples",
            out=folder / "model",
            history=folder / "history.tsv",
            metrics=folder / "metrics.json",
            run_log=folder / "log.jsonl",
            checkpoints=folder / "checkpoints",
        )
    )
    return folder / "model"


class TestFolder:
    @pytest.fixture
    def head(self, folder: Path, tmp_path: Path) -> Path:
        """A head of a folder that a test may spoil."""
        import shutil

        shutil.copytree(folder, tmp_path / "copy")
        return tmp_path / "copy" / "heads" / "one"

    def change(self, head: Path, **values: Any) -> None:
        config = json.loads((head / "config.json").read_text())
        config["head"] |= values
        (head / "config.json").write_text(json.dumps(config))

    @pytest.mark.parametrize(
        "place", ["..", "../../..", "../../../other", "/etc", "heads/../../..", "", None, 3, ["../.."]]
    )
    def test_a_head_finds_its_encoder_in_one_place_only(self, place: Any, head: Path) -> None:
        self.change(head, encoder=place)
        with pytest.raises(ArtifactError, match="the encoder of this head is said to be at"):
            load_task_model(head)

    def test_a_head_alone_says_what_it_lacks(self, head: Path, tmp_path: Path) -> None:
        alone = head.rename(tmp_path / "one")
        with pytest.raises(ArtifactError, match=r"(?s)a head without its encoder.*export_head"):
            load_task_model(alone)

    def test_a_head_that_the_folder_does_not_list(self, head: Path) -> None:
        with pytest.raises(ArtifactError, match="a head without its encoder"):
            load_task_model(head.rename(head.with_name("two")))

    def test_it_is_found_from_anywhere(self, head: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(head)
        assert load_task_model(Path()).labels == ["negative", "positive"]
        (tmp_path / "link").symlink_to(head)
        assert load_task_model(tmp_path / "link").labels == ["negative", "positive"]

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda head: (head / "head.safetensors").unlink(), r"head\.safetensors does not exist"),
            (lambda head: (head / "head.safetensors").write_bytes(b"no"), r"head\.safetensors is damaged"),
            (lambda head: save_file({"classifier.weight": torch.zeros(2, 32)}, head / "head.safetensors"), "holds cl"),
            (
                lambda head: save_file(
                    {"classifier.weight": torch.zeros(3, 32), "classifier.bias": torch.zeros(3)},
                    head / "head.safetensors",
                ),
                r"classifier\.\w+ has shape \(3,.*\), config\.json asks for \(2,",
            ),
            (lambda head: (head.parents[1] / "model.safetensors").unlink(), r"model\.safetensors does not exist"),
            (lambda head: (head.parents[1] / "config.json").unlink(), "a head without its encoder"),
        ],
        ids=["no head", "damaged", "half", "other shape", "no encoder", "no root"],
    )
    def test_what_is_missing_or_damaged(self, spoil: Callable[[Path], Any], message: str, head: Path) -> None:
        spoil(head)
        with pytest.raises(ArtifactError, match=message):
            load_task_model(head)

    def test_a_pooler_is_not_made_up(self, head: Path) -> None:
        path = head.parents[1] / "model.safetensors"
        weights = {name: tensor for name, tensor in load_file(path).items() if "pooler" not in name}
        save_file(weights, path)
        with pytest.raises(ArtifactError, match=r"lacks bert\.pooler\.dense"):
            load_task_model(head)
        load_task_model(head.with_name("spans"))  # which has none

    @pytest.mark.parametrize("share", [1.0, -0.1, "0.1", None, True])
    def test_dropout_that_is_none(self, share: Any, head: Path) -> None:
        self.change(head, classifier_dropout=share)
        with pytest.raises(ArtifactError, match="classifier_dropout"):
            load_task_model(head)

    def test_export_refuses_what_is_no_head_and_what_it_would_overwrite(self, head: Path, tmp_path: Path) -> None:
        out = tmp_path / "plain"
        export_head.run(argparse.Namespace(folder=head, out=out))
        config = json.loads((out / "config.json").read_text())
        assert config["architectures"] == ["BertForSequenceClassification"] and config["classifier_dropout"] == 0.1
        with pytest.raises(InputError, match="is no head of a multi-task model"):
            export_head.run(argparse.Namespace(folder=out, out=tmp_path / "again"))
        other = tmp_path / "other"
        other.mkdir()
        (other / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="holds something else than a model"):
            export_head.run(argparse.Namespace(folder=head, out=other))
        for inside in (head, head.parents[1], head / "plain"):
            with pytest.raises(InputError, match="lie in one another"):
                export_head.run(argparse.Namespace(folder=head, out=inside))
        assert load_task_model(head).labels == ["negative", "positive"]


class TestPipeline:
    def test_no_entry_is_no_stage_and_an_entry_is_one(self, root: Path, tmp_path: Path) -> None:
        from dagster_project.dagster_dvc.pipeline import read_pipeline

        value = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        (tmp_path / "dvc.yaml").write_text((root / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        entry = {"tasks": ["sentiment", "entities"], "sampling": 0.5}
        for several in ({}, {"both": entry}):
            Params.model_validate({**value, "multi_task": several})
            (tmp_path / "params.yaml").write_text(yaml.safe_dump({**value, "multi_task": several}), encoding="utf-8")
            names = [stage.name for stage in read_pipeline(tmp_path).stages]
            found = [name for name in names if name.startswith("finetune_together")]
            assert found == [f"finetune_together@{name}" for name in several]
            assert "finetune@sentiment" in names


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_stages_after_take_a_head_as_any_model(
    name: str, folder: Path, params: dict, pretrained_folder: Path, tmp_path: Path
) -> None:
    quick = params | {
        "compress": params["compress"] | {"latency": {"runs": 10, "warmup": 1, "tokens": 12}},
        "evaluate": params["evaluate"] | {"threads": 1, "bootstrap_resamples": 200},
    }
    file, examples, head = write_params(tmp_path / "params.yaml", quick), folder.parent / "examples", folder / "heads"
    (tmp_path / "ingest.json").write_text('{"duplicates_by_source": {}}')
    common = [f"--params={file}", f"--task={name}"]
    data = f"--examples={examples / name}.parquet"

    def run(stage: str, *options: str, **paths: str) -> None:
        given = [f"--{key.replace('_', '-')}={tmp_path / path}" for key, path in paths.items()]
        assert cli.main([stage, *common, *options, *given]) == 0

    model = f"--model={head / name}"
    run("baselines", data, f"--init={pretrained_folder}", out="baselines")
    run(
        "evaluate", data, model, f"--history={head / name / 'training' / 'history.tsv'}", baselines="baselines",
        ingest="ingest.json", out="evaluate", metrics="evaluate.json", confusion="confusion.csv",
    )  # fmt: skip
    run("compress", data, model, out="small", report="compress", metrics="compress.json", speed_page="speed.html")
    run(
        "promote", model="small", evaluation="evaluate", compression="compress", champion="champion",
        pointer="champion.json", metrics="promote.json",
    )  # fmt: skip
    results = json.loads((tmp_path / "evaluate" / "results.json").read_text())
    small = json.loads((tmp_path / "compress" / "results.json").read_text())
    assert results["metric"] == tasks.TASKS[name]["metric"]
    assert results["score"] == pytest.approx(small["score_fp32"], abs=1e-4)
    assert small["parity"]["holds"]
