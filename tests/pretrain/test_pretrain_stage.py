"""The pretrain stage: learns, saves what transformers loads, refuses what does not belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import folder_sha256
from bert_ops.pretrain import fitting, stage
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training import checkpoint
from tests.conftest import pretrain_arguments


def test_metrics_have_the_names_that_tools_read(pretrained_folder: Path) -> None:
    metrics = json.loads((pretrained_folder.parent / "metrics.json").read_text())
    assert {"mlm_loss", "mlm_accuracy", "unigram_loss", "nsp_accuracy", "tokens_per_second"} <= set(metrics)
    results = json.loads((pretrained_folder.parent / "results.json").read_text())
    assert set(metrics) - set(results) == {"tokens_per_second", "seconds"}


def test_training_lowers_the_held_out_loss(pretrained_folder: Path) -> None:
    history = pd.read_csv(pretrained_folder.parent / "history.tsv", sep="\t")
    assert history["step"].tolist() == [10, 20, 30]
    assert history["validation_mlm_loss"].iloc[-1] < history["validation_mlm_loss"].iloc[0]


def test_transformers_loads_model_and_tokenizer(pretrained_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, info = transformers.AutoModelForPreTraining.from_pretrained(pretrained_folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    batch = transformers.AutoTokenizer.from_pretrained(pretrained_folder)("我们喜欢音乐", return_tensors="pt")
    with torch.no_grad():
        assert torch.isfinite(model(**batch).prediction_logits).all()


def test_a_second_run_gives_the_same_bytes(
    tmp_path: Path, params_file: Path, tokens_folder: Path, tokenizer_folder: Path, pretrained_folder: Path
) -> None:
    stage.run(pretrain_arguments(tmp_path, params_file=params_file, tokens=tokens_folder, tokenizer=tokenizer_folder))
    assert folder_sha256(tmp_path / "model") == folder_sha256(pretrained_folder)
    assert (tmp_path / "history.tsv").read_bytes() == (pretrained_folder.parent / "history.tsv").read_bytes()
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").glob("*/step-*"))


def test_another_seed_gives_another_model(
    tmp_path: Path, params: dict, tokens_folder: Path, tokenizer_folder: Path, pretrained_folder: Path
) -> None:
    changed = {**params, "pretrain": {**params["pretrain"], "seed": 2}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
    stage.run(
        pretrain_arguments(
            tmp_path, params_file=tmp_path / "params.yaml", tokens=tokens_folder, tokenizer=tokenizer_folder
        )
    )
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert weights != (pretrained_folder / "model.safetensors").read_bytes()


def test_the_vocabulary_of_another_store_is_refused(
    tmp_path: Path, params_file: Path, tokens_folder: Path, tokenizer_folder: Path
) -> None:
    other = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_folder, other)
    with (other / "vocab.txt").open("a", encoding="utf-8") as handle:
        handle.write("新\n")
    arguments = pretrain_arguments(tmp_path, params_file=params_file, tokens=tokens_folder, tokenizer=other)
    with pytest.raises(ArtifactError, match="is not the vocabulary"):
        stage.run(arguments)


def test_a_truncated_store_is_named_and_leaves_the_old_model(
    tmp_path: Path, params_file: Path, tokens_folder: Path, tokenizer_folder: Path
) -> None:
    tokens = tmp_path / "tokens"
    shutil.copytree(tokens_folder, tokens)
    path = tokens / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:100])
    arguments = pretrain_arguments(tmp_path, params_file=params_file, tokens=tokens, tokenizer=tokenizer_folder)
    arguments.out.mkdir()
    (arguments.out / "config.json").write_text("old")
    with pytest.raises(ArtifactError, match=r"train-00000\.bin is damaged"):
        stage.run(arguments)
    assert (arguments.out / "config.json").read_text() == "old"


def test_two_trainers_cannot_share_a_run(
    tmp_path: Path, params_file: Path, tokens_folder: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = pretrain_arguments(tmp_path, params_file=params_file, tokens=tokens_folder, tokenizer=tokenizer_folder)
    monkeypatch.setattr(checkpoint, "run_key", lambda **_: "held")
    with checkpoint.lock(arguments.checkpoints / "held"), pytest.raises(InputError, match="in use by process"):
        stage.run(arguments)


def test_unigram_is_the_entropy_of_the_frequencies(tokens_folder: Path, params: dict) -> None:
    from bert_ops.pretrain.objective import unigram
    from bert_ops.pretrain.params import PretrainParams

    store = TokenStore.open(tokens_folder)
    batches = fitting.held_out_units(store["validation"], PretrainParams(**params["pretrain"]), store.vocab_size)
    loss, accuracy = unigram(store["train"], batches, vocab_size=store.vocab_size)
    assert 0 < loss < torch.log(torch.tensor(float(store.vocab_size)))
    assert 0 < accuracy < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_tokens": 64}, "sequence_tokens 64 exceeds model.max_positions 48"),
        ({"batch": {"tokens": 40, "micro_tokens": 40}}, "batch.tokens 40 is no multiple of sequence_tokens 48"),
        ({"steps": 5}, "warmup_steps 5 is not less than steps 5"),
        ({"model": {"heads": 5}}, "hidden_size 32 is not divisible by heads 5; allowed heads: 1, 2, 4, 8, 16, 32"),
        ({"masking": {"mask": 0.95}}, "at most 1"),
        ({"precision": "float8"}, "`pretrain.precision` is 'float8'"),
        ({"stepps": 5}, "`pretrain.stepps` is not a known key"),
    ],
)
def test_impossible_combinations_are_named(tmp_path: Path, params: dict, change: dict, message: str) -> None:
    from bert_ops.pretrain.params import PretrainParams
    from bert_ops.schema import load_section

    section = dict(params["pretrain"])
    for key, value in change.items():
        section[key] = {**section[key], **value} if isinstance(value, dict) else value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"pretrain": section}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_section(tmp_path / "params.yaml", "pretrain", PretrainParams)
    assert message in str(error.value)
