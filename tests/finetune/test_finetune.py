"""Fine-tuning: learns a made-up task, saves what transformers loads, keeps the best weights, refuses bad examples."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from bert_ops.errors import ArtifactError, InputError
from bert_ops.finetune import augmentation, baselines, stage
from bert_ops.finetune.batching import Pieces
from bert_ops.finetune.inference import encode_for, load_task_model, predict_probabilities
from bert_ops.io import folder_sha256
from bert_ops.tokenizer.wordpiece import MASK, SpecialIds
from tests.conftest import made_up_examples


def arguments(tmp_path: Path, *, params_file: Path, init: Path, frame: pd.DataFrame) -> argparse.Namespace:
    frame.to_parquet(tmp_path / "examples.parquet")
    return argparse.Namespace(
        params=params_file,
        task="sentiment",
        init=init,
        examples=tmp_path / "examples.parquet",
        out=tmp_path / "model",
        history=tmp_path / "history.tsv",
        metrics=tmp_path / "metrics.json",
        run_log=tmp_path / "log.jsonl",
        checkpoints=tmp_path / "checkpoints",
    )


def test_the_history_is_clean_and_complete(finetuned_folder: Path, params: dict) -> None:
    history = pd.read_csv(finetuned_folder.parent / "history.tsv", sep="\t")
    evaluations = params["finetune"]["epochs"] * params["finetune"]["evaluations_per_epoch"]
    assert len(history) == evaluations and history["step"].is_monotonic_increasing
    assert history["epoch"].iloc[-1] == params["finetune"]["epochs"]
    losses = np.load(finetuned_folder / "training" / "validation_losses.npy")
    assert losses.shape == (evaluations, 40)
    assert losses.mean(1) == pytest.approx(history["validation_loss"], rel=1e-5)


def test_the_weights_are_those_of_the_lowest_validation_loss(finetuned_folder: Path, corpus: Path) -> None:
    metrics = json.loads((finetuned_folder.parent / "metrics.json").read_text())
    history = pd.read_csv(finetuned_folder.parent / "history.tsv", sep="\t")
    assert metrics["best_step"] == history.loc[history["validation_loss"].idxmin(), "step"]
    task = load_task_model(finetuned_folder)
    frame = pd.read_parquet(corpus / "examples" / "sentiment.parquet").query("split == 'validation'")
    scores = predict_probabilities(task, frame["text"].tolist(), threads=1)
    targets = frame["label"].map(task.labels.index).to_numpy()
    loss = -np.log(scores[np.arange(len(targets)), targets]).mean()
    # the history was measured in bfloat16
    assert loss == pytest.approx(metrics["validation_loss"], abs=0.02)


def test_transformers_pipeline_gives_the_same_probabilities(finetuned_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = ["这家酒店非常好", "那本书让人失望，第3次。", "playing cards 值得推荐", "。"]
    task = load_task_model(finetuned_folder)
    ours = predict_probabilities(task, texts, threads=1)
    pipe = transformers.pipeline("text-classification", model=str(finetuned_folder), top_k=None)
    for row, scores in zip(ours, pipe(texts), strict=True):
        theirs = {score["label"]: score["score"] for score in scores}
        assert row == pytest.approx([theirs[label] for label in task.labels], abs=1e-5)


def test_predictions_do_not_depend_on_the_batch(finetuned_folder: Path) -> None:
    task = load_task_model(finetuned_folder)
    texts = ["好" * n for n in (1, 5, 60, 3, 2, 30)]
    whole = predict_probabilities(task, texts, threads=1, batch=6)
    single = np.concatenate([predict_probabilities(task, [text], threads=1) for text in texts])
    assert whole == pytest.approx(single, abs=1e-5)


def test_long_texts_are_cut_as_in_training(finetuned_folder: Path) -> None:
    task = load_task_model(finetuned_folder)
    rows = encode_for(task, ["我" * 500, "我"])
    assert rows.lengths.tolist() == [48, 3] and rows.cut == 1
    assert rows.ids[0][-1] == task.tokenizer.token_to_id("[SEP]")


def test_a_second_run_gives_the_same_bytes(
    tmp_path: Path, params_file: Path, pretrained_folder: Path, finetuned_folder: Path, corpus: Path
) -> None:
    frame = pd.read_parquet(corpus / "examples" / "sentiment.parquet")
    stage.run(arguments(tmp_path, params_file=params_file, init=pretrained_folder, frame=frame))
    assert folder_sha256(tmp_path / "model") == folder_sha256(finetuned_folder)


@pytest.fixture(scope="module")
def baselines_folder(corpus: Path, pretrained_folder: Path, params_file: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("baselines") / "sentiment"
    baselines.run(
        argparse.Namespace(
            params=params_file,
            task="sentiment",
            init=pretrained_folder,
            examples=corpus / "examples" / "sentiment.parquet",
            out=folder,
        )
    )
    return folder


class TestBaselines:
    def test_every_baseline_answers_every_text(self, baselines_folder: Path, corpus: Path) -> None:
        table = pd.read_parquet(baselines_folder / "predictions.parquet")
        frame = pd.read_parquet(corpus / "examples" / "sentiment.parquet")
        assert set(table["baseline"]) == {"majority", "tfidf_lr", "no_pretraining"}
        for (_, split), part in table.groupby(["baseline", "split"]):
            assert part["example_id"].tolist() == frame.loc[frame["split"] == split, "example_id"].tolist()
        assert table["confidence"].between(0, 1).all()

    def test_words_that_decide_are_learned_by_tfidf(self, baselines_folder: Path, corpus: Path) -> None:
        table = pd.read_parquet(baselines_folder / "predictions.parquet").query("split == 'test'")
        labels = pd.read_parquet(corpus / "examples" / "sentiment.parquet").set_index("example_id")["label"]
        right = table["predicted"] == table["example_id"].map(labels)
        scores = right.groupby(table["baseline"]).mean()
        assert scores["tfidf_lr"] == 1.0 and 0.2 < scores["majority"] < 0.8

    def test_regularisation_is_among_those_offered(self, baselines_folder: Path, params: dict) -> None:
        about = json.loads((baselines_folder / "baselines.json").read_text())
        offered = params["baselines"]["tfidf"]["inverse_regularization"]
        assert about["tfidf_lr"]["inverse_regularization"] in offered

    def test_the_network_without_pretraining_ignores_the_pretrained_weights(
        self, baselines_folder: Path, corpus: Path, pretrained_folder: Path, params_file: Path, tmp_path: Path
    ) -> None:
        for name in ("config.json", "tokenizer.json"):
            (tmp_path / name).write_bytes((pretrained_folder / name).read_bytes())
        baselines.run(
            argparse.Namespace(
                params=params_file,
                task="sentiment",
                init=tmp_path,
                examples=corpus / "examples" / "sentiment.parquet",
                out=tmp_path / "out",
            )
        )
        assert folder_sha256(tmp_path / "out") == folder_sha256(baselines_folder)


def test_masking_leaves_special_tokens_alone() -> None:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 100, n) for n in (3, 900, 1, 600, 500)]
    pieces = Pieces(ids=ids, segments=None, places=[], targets=[])
    masked = augmentation.mask_tokens(pieces, rate=0.2, rng=np.random.default_rng(1), special=SpecialIds())
    assert [len(row) for row in masked.ids] == [len(row) for row in ids]
    before, after = np.concatenate(ids), np.concatenate(masked.ids)
    changed = before != after
    assert (after[changed] == MASK).all() and (before[changed] > MASK).all()
    assert changed.sum() / (before > MASK).sum() == pytest.approx(0.2, abs=0.03)
    assert augmentation.mask_tokens(pieces, rate=0.0, rng=np.random.default_rng(1), special=SpecialIds()) is pieces


class TestBadInput:
    def refuse(self, tmp_path: Path, params_file: Path, init: Path, frame: pd.DataFrame, message: str) -> None:
        options = arguments(tmp_path, params_file=params_file, init=init, frame=frame)
        options.out.mkdir()
        (options.out / "config.json").write_text("old")
        with pytest.raises((InputError, ArtifactError), match=message):
            stage.run(options)
        assert (options.out / "config.json").read_text() == "old"

    def test_a_split_is_empty(self, tmp_path, params_file, pretrained_folder) -> None:
        frame = made_up_examples(50).query("split != 'validation'")
        self.refuse(tmp_path, params_file, pretrained_folder, frame, "no example in the validation split")

    def test_no_labels(self, tmp_path, params_file, pretrained_folder) -> None:
        frame = made_up_examples(50).assign(label=None)
        self.refuse(tmp_path, params_file, pretrained_folder, frame, "30 of 30 examples have no label")

    def test_one_class_only(self, tmp_path, params_file, pretrained_folder) -> None:
        frame = made_up_examples(50).assign(label="positive")
        self.refuse(tmp_path, params_file, pretrained_folder, frame, "one label only: 'positive'")

    def test_a_label_that_training_never_saw(self, tmp_path, params_file, pretrained_folder) -> None:
        frame = made_up_examples(50)
        frame.loc[frame["split"] == "test", "label"] = "neutral"
        self.refuse(
            tmp_path,
            params_file,
            pretrained_folder,
            frame,
            "the test split has labels that training never saw: 'neutral' \\(10\\)",
        )

    def test_a_missing_column(self, tmp_path, params_file, pretrained_folder) -> None:
        frame = made_up_examples(50).drop(columns="label")
        self.refuse(tmp_path, params_file, pretrained_folder, frame, "has no column label")

    def test_a_truncated_table(self, tmp_path, params_file, pretrained_folder) -> None:
        options = arguments(tmp_path, params_file=params_file, init=pretrained_folder, frame=made_up_examples(50))
        content = options.examples.read_bytes()
        options.examples.write_bytes(content[: len(content) // 2])
        with pytest.raises(ArtifactError, match=r"examples\.parquet is damaged"):
            stage.run(options)

    def test_more_tokens_than_positions(self, tmp_path, params, pretrained_folder) -> None:
        changed = {**params, "tasks": {"sentiment": {**params["tasks"]["sentiment"], "max_tokens": 49}}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
        options = arguments(
            tmp_path, params_file=tmp_path / "params.yaml", init=pretrained_folder, frame=made_up_examples(50)
        )
        with pytest.raises(InputError, match="49, more than the encoder's 48 positions"):
            stage.run(options)

    def test_an_unknown_task(self, tmp_path, params_file, pretrained_folder) -> None:
        options = arguments(tmp_path, params_file=params_file, init=pretrained_folder, frame=made_up_examples(50))
        options.task = "sentimnt"
        with pytest.raises(InputError, match=r"no section `tasks\.sentimnt`"):
            stage.run(options)


def test_dropout_is_off_when_probabilities_are_asked_for(finetuned_folder: Path) -> None:
    task = load_task_model(finetuned_folder)
    one, two = (predict_probabilities(task, ["我们喜欢音乐"], threads=1) for _ in range(2))
    assert (one == two).all() and not task.model.training
    assert isinstance(task.model, torch.nn.Module)
