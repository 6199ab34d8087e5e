"""``import_model`` makes a model folder of this house out of any BERT checkpoint, and loses nothing on the way."""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from bert_ops.errors import ArtifactError, InputError
from bert_ops.finetune import import_model, stage
from bert_ops.finetune.inference import load_task_model, predict
from bert_ops.model import huggingface
from bert_ops.model.encoder import Encoder
from bert_ops.tokenizer import wordpiece

transformers = pytest.importorskip("transformers")

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
TEXT = "".join(
    sorted(
        set(
            "我们他的朋友这家酒店那本书北京春天老师新手机非常好让人满意值得推荐真漂亮差失望不要购买难看，第次。0123456789"
        )
    )
)
PIECES = ["unused", *TEXT, *(f"##{letter}" for letter in "0123456789"), *SPECIAL]


def checkpoint(folder: Path, kind: str = "BertForPreTraining", **changes) -> Path:
    """A folder as someone else may share it: own names of special tokens, which stand last; sizes of their own."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        layer_norm_eps=1e-6,
        pad_token_id=PIECES.index("<pad>"),
        initializer_range=0.1,
        **changes,
    )
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **names}))
    return folder


def run(folder: Path, out: Path) -> Path:
    import_model.run(argparse.Namespace(folder=folder, out=out))
    return out


KINDS = {
    # kind of theirs: (what is written, the class that opens it, what is left out)
    "BertForPreTraining": ("BertForPreTraining", "AutoModelForPreTraining", None),
    "BertForMaskedLM": ("BertForMaskedLM", "AutoModelForMaskedLM", None),
    "BertModel": ("BertModel", "AutoModel", None),
    "BertForSequenceClassification": ("BertModel", "AutoModel", "classifier.bias, classifier.weight"),
    "BertForTokenClassification": ("BertModel", None, "classifier.bias, classifier.weight"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_that_is_there_is_kept(kind: str, tmp_path: Path, capsys) -> None:
    written, auto, left_out = KINDS[kind]
    source = checkpoint(tmp_path / "source", kind)
    out = run(source, tmp_path / "out")
    said = capsys.readouterr().err
    assert json.loads((out / "config.json").read_text())["architectures"] == [written]
    assert (f"left out, for fine-tuning has no use for it: {left_out}" in said) == (left_out is not None)
    assert ("there is no pooler" in said) == (kind in {"BertForMaskedLM", "BertForTokenClassification"})
    theirs = load_file(source / "model.safetensors")
    ours = load_file(out / "model.safetensors")
    base = {f"bert.{name}" if kind == "BertModel" else name: tensor for name, tensor in theirs.items()}
    expected = {
        name: tensor for name, tensor in base.items() if not name.startswith(("classifier.", "cls.predictions.decoder"))
    }
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    if auto is not None:
        _, info = getattr(transformers, auto).from_pretrained(out, output_loading_info=True)
        assert not info["missing_keys"] and not info["mismatched_keys"]


def test_a_decoder_of_its_own_is_left_out(tmp_path: Path, capsys) -> None:
    source = checkpoint(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"] * 2
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    out = run(source, tmp_path / "out")
    assert "cls.predictions.decoder.weight" in capsys.readouterr().err
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertModel"]
    assert not any(name.startswith("cls.predictions") for name in load_file(out / "model.safetensors"))


def test_settings_are_kept_and_special_tokens_get_their_names(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / "LICENSE.txt").write_text("MIT")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"pad_token_id": 0}))
    out = run(source, tmp_path / "out")
    loaded = huggingface.load_config(out, made_by=None)
    assert loaded.layer_norm_eps == 1e-6 and loaded.max_positions == 64
    assert loaded.pad_id == PIECES.index("<pad>"), "the tokenizer knows better than a default"
    assert wordpiece.special_ids(wordpiece.load(out)) == tuple(map(PIECES.index, SPECIAL))
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 64 and settings["pad_token"] == "[PAD]"
    assert (out / "LICENSE.txt").read_text() == "MIT"
    assert "2 layers of 32" in (out / "README.md").read_text()


def test_an_import_of_an_import_is_the_same(tmp_path: Path) -> None:
    first = run(checkpoint(tmp_path / "source"), tmp_path / "first")
    second = run(first, tmp_path / "second")
    for name in ("config.json", "model.safetensors", *wordpiece.FILES):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


# ------------------------------------------------------------------ fine-tuning


@pytest.mark.parametrize("form", ["as it is", "imported"])
def test_a_task_is_learned_from_it(form: str, tmp_path: Path, corpus: Path, params: dict) -> None:
    """Special ids are not the first, the pooler is missing, and the outcome is the same in transformers."""
    source = checkpoint(tmp_path / "source", "BertForMaskedLM")
    init = source if form == "as it is" else run(source, tmp_path / "imported")
    value = json.loads(json.dumps(params))
    value["finetune"] |= {
        "epochs": 12,
        "evaluations_per_epoch": 1,
        "average_decay": 0.0,
        "token_masking": 0.1,
        "precision": "float32",
    }
    value["finetune"]["optimizer"] |= {"learning_rate": 5.0e-3}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(value))
    stage.run(
        argparse.Namespace(
            params=tmp_path / "params.yaml",
            task="sentiment",
            init=init,
            examples=corpus / "examples" / "sentiment.parquet",
            out=tmp_path / "model",
            history=tmp_path / "history.tsv",
            metrics=tmp_path / "metrics.json",
            run_log=tmp_path / "log.jsonl",
            checkpoints=tmp_path / "checkpoints",
        )
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["validation_accuracy"] > 0.9
    task = load_task_model(tmp_path / "model")
    texts = ["这家酒店非常好，第7次。", "那本书让人失望，第81次。", "新手机难看", "老师值得推荐，满意！"]
    ours = predict(task, texts, threads=1)
    pipe = transformers.pipeline("text-classification", str(tmp_path / "model"), device="cpu")
    for item, row in zip(pipe(texts), ours, strict=True):
        assert item["label"] == task.labels[int(row.argmax())]
        assert item["score"] == pytest.approx(float(row.max()), abs=1e-5)


def test_an_encoder_filled_with_it_has_nothing_left_at_random(tmp_path: Path) -> None:
    out = run(checkpoint(tmp_path / "source", "BertModel"), tmp_path / "out")

    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder(huggingface.load_config(out, made_by=None))

    one, two = Holder(), Holder()
    assert not torch.equal(one.encoder.layers[1].up.weight, two.encoder.layers[1].up.weight)
    for holder in (one, two):
        huggingface.fill(holder, out, made_by=None, prefixes=("encoder.",))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


# ------------------------------------------------------------------ refusals


def test_nothing_is_written_if_it_fails(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    out = run(source, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    weights = load_file(source / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.bias"]
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lacks bert\.encoder\.layer\.1\.output\.dense\.bias"):
        run(source, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_larger_vocabulary_than_the_model_has(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    with (source / "vocab.txt").open("a") as handle:
        handle.write("more\n")
    with pytest.raises(
        ArtifactError, match=rf"ids up to {len(PIECES)}, the model embeddings for 0 to {len(PIECES) - 1}"
    ):
        run(source, tmp_path / "out")


@pytest.mark.parametrize("place", ["source", "source/inner", "."])
def test_the_checkpoint_is_never_overwritten(place: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    with pytest.raises(InputError, match="overlap"):
        run(source, tmp_path / place)
    assert (source / "model.safetensors").is_file()


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path / "source"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no model folder"):
        run(source, out)
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        run(tmp_path / "none", tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / name).unlink()
    with pytest.raises(ArtifactError) as caught:
        run(source, tmp_path / "out")
    assert ("tokenizer.json does not exist" if name == "vocab.txt" else name) in caught.value.what
    assert "dvc" not in str(caught.value), "no stage makes what comes from elsewhere"


def change_json(path: Path, rng: random.Random) -> None:
    """Replace one value somewhere in a JSON file by another kind of thing."""
    value = json.loads(path.read_text(encoding="utf-8"))
    places = []

    def walk(item) -> None:
        inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        for key, below in inner:
            places.append((item, key))
            walk(below)

    walk(value)
    holder, key = rng.choice(places)
    holder[key] = rng.choice(
        [None, -1, 0, 10**15, 1e400, float("nan"), 2.5, "x", "[CLS]", [], ["a"], {}, {"content": 3}, True]
    )
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("form", ["safetensors", "pickled", "tokenizer.json"])
def test_whatever_is_damaged_the_message_is_ours(form: str, tmp_path: Path) -> None:
    """Bytes changed, files cut short, JSON with other things in it: read, or refused in words, never a traceback."""
    whole, outcomes = checkpoint(tmp_path / "whole"), []
    if form == "pickled":
        torch.save(load_file(whole / "model.safetensors"), whole / "pytorch_model.bin")
        (whole / "model.safetensors").unlink()
    elif form == "tokenizer.json":
        whole = run(whole, tmp_path / "house")
        (whole / "vocab.txt").unlink()
    rng = random.Random(7)
    for number in range(60):
        source = tmp_path / str(number)
        shutil.copytree(whole, source)
        path = rng.choice(sorted(path for path in source.iterdir() if path.suffix != ".md"))
        content = bytearray(path.read_bytes())
        if path.suffix == ".json" and rng.random() < 0.6:
            change_json(path, rng)
        elif rng.random() < 0.5:
            path.write_bytes(content[: rng.randrange(len(content))])
        else:
            for _ in range(3):
                content[rng.randrange(min(len(content), 3000))] = rng.randrange(256)
            path.write_bytes(content)
        try:
            run(source, tmp_path / "out")
            outcomes.append("read")
        except ArtifactError as error:
            assert str(source) in str(error)
            outcomes.append("refused")
    assert outcomes.count("refused") > 20
