"""Checkpoint folders as the field has them: read to the same numbers as in transformers, or refused with a reason."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bert_ops.errors import ArtifactError
from bert_ops.model import huggingface
from bert_ops.model.checkpoint_folder import open_folder
from bert_ops.model.heads import PretrainingModel, TaskModel

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
    "initializer_range": 0.3,
}
PARTS = ("encoder.", "pooler.")
Weights = dict[str, Tensor]


def theirs(**changes) -> torch.nn.Module:
    """A BERT of transformers, no parameter of which is at its initial value."""
    torch.manual_seed(1)
    model = transformers.BertForPreTraining(transformers.BertConfig(**SIZES | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def contents(model: torch.nn.Module) -> Weights:
    """Weights under the names of transformers, the tied decoder left out."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith("cls.predictions.decoder")}


def folder_of(model: torch.nn.Module, path: Path, write: Callable[[Weights, Path], None] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    model.config.save_pretrained(path)
    (write or as_safetensors)(contents(model), path)
    return path


def as_safetensors(weights: Weights, path: Path) -> None:
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(5, 60, (3, 17))
    attend = torch.ones(3, 17, dtype=torch.bool)
    attend[1, 9:] = False
    return ids, torch.zeros_like(ids), attend


def difference(folder: Path, model: torch.nn.Module) -> float:
    """Largest difference of hidden states and of what the pooler makes of them."""
    ids, segments, attend = batch()
    ours = TaskModel(
        huggingface.load_config(folder, made_by=None), labels=2, kind="sequence_classification", classifier_dropout=0.0
    )
    huggingface.fill(ours, folder, made_by=None, prefixes=PARTS)
    ours.eval()
    with torch.no_grad():
        got = ours.encoder(ids, segments, attend)
        expected = model.float().bert(input_ids=ids, token_type_ids=segments, attention_mask=attend.long())
        assert ours.pooler is not None
        pooled = ours.pooler(got[:, 0])
    states = (got - expected.last_hidden_state)[attend].abs().max()
    return max(float(states), float((pooled - expected.pooler_output).abs().max()))


# ------------------------------------------------------------------ forms that are read


def renamed(change: Callable[[str], str]) -> Callable[[Weights, Path], None]:
    return lambda weights, path: as_safetensors({change(name): tensor for name, tensor in weights.items()}, path)


def old_norms(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def with_buffers(weights: Weights, path: Path) -> None:
    buffers = {
        "bert.embeddings.position_ids": torch.arange(20)[None],
        "bert.embeddings.token_type_ids": torch.zeros(1, 20),
    }
    as_safetensors(weights | buffers, path)


def with_decoder(weights: Weights, path: Path) -> None:
    more = {
        "weight": weights["bert.embeddings.word_embeddings.weight"].clone(),
        "bias": weights["cls.predictions.bias"].clone(),
    }
    as_safetensors(weights | {f"cls.predictions.decoder.{name}": tensor for name, tensor in more.items()}, path)


def in_shards(weights: Weights, path: Path, *, whole: str = "model.safetensors", save=save_file) -> None:
    stem, suffix = whole.split(".")
    names = sorted(weights)
    places = {}
    for number in range(3):
        file = f"{stem}-0000{number + 1}-of-00003.{suffix}"
        part = {name: weights[name] for name in names[number::3]}
        save(part, path / file)
        places |= dict.fromkeys(part, file)
    (path / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


FORMS: dict[str, Callable[[Weights, Path], None]] = {
    "as it is": as_safetensors,
    "without the prefix": renamed(lambda name: name.removeprefix("bert.")),
    "within another module": renamed(lambda name: f"module.{name}"),
    "gamma and beta": renamed(old_norms),
    "gamma and beta, without the prefix": renamed(lambda name: old_norms(name).removeprefix("bert.")),
    "with buffers": with_buffers,
    "with the tied decoder": with_decoder,
    "in shards": in_shards,
    "pickled": lambda weights, path: torch.save(weights, path / "pytorch_model.bin"),
    "pickled before torch 1.6": lambda weights, path: torch.save(
        weights, path / "pytorch_model.bin", _use_new_zipfile_serialization=False
    ),
    "pickled in shards": lambda weights, path: in_shards(weights, path, whole="pytorch_model.bin", save=torch.save),
    "pickled under another name": lambda weights, path: torch.save(weights, path / "best.ckpt"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_hidden_states_of_transformers(form: str, tmp_path: Path) -> None:
    model = theirs()
    assert difference(folder_of(model, tmp_path, FORMS[form]), model) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = theirs().to(dtype)
    folder = folder_of(model, tmp_path)
    assert difference(folder, model) < 1e-5
    assert {read().dtype for read in open_folder(folder, made_by=None).values()} == {torch.float32}


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_eps": 1e-2},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"hidden_act": "gelu_fast"},
        {"type_vocab_size": 1},
        {"type_vocab_size": 3},
        {"pad_token_id": 7},
    ],
    ids=str,
)
def test_variants_of_the_architecture(changes: dict, tmp_path: Path) -> None:
    model = theirs(**changes)
    folder = folder_of(model, tmp_path)
    assert difference(folder, model) < 1e-5
    # Were the setting ignored, the numbers would be others: the default is no stand-in for it.
    if "layer_norm_eps" in changes or "hidden_act" in changes:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in changes}))
        assert difference(folder, model) > 1e-4


def test_a_model_with_one_segment_takes_pairs(tmp_path: Path) -> None:
    folder = folder_of(theirs(type_vocab_size=1), tmp_path)
    ours = TaskModel(
        huggingface.load_config(folder, made_by=None), labels=2, kind="token_classification", classifier_dropout=0.0
    )
    huggingface.fill(ours, folder, made_by=None, prefixes=PARTS)
    ids, segments, attend = batch()
    ours.eval()
    with torch.no_grad():
        assert torch.equal(ours(ids, segments, attend), ours(ids, torch.ones_like(segments), attend))


def test_a_config_of_the_first_berts_has_no_type(tmp_path: Path) -> None:
    model = theirs()
    folder = folder_of(model, tmp_path)
    config = {**SIZES, "hidden_act": "gelu", "type_vocab_size": 2, "hidden_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    assert difference(folder, model) < 1e-5


# ------------------------------------------------------------------ parts that may be missing


def no_pooler(weights: Weights, path: Path) -> None:
    as_safetensors({name: tensor for name, tensor in weights.items() if ".pooler." not in name}, path)


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_a_pooler_may_be_missing(kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(theirs(), tmp_path, no_pooler)
    ours = TaskModel(huggingface.load_config(folder, made_by=None), labels=2, kind=kind, classifier_dropout=0.0)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    huggingface.fill(ours, folder, made_by=None, prefixes=PARTS)
    kept = {name for name, tensor in ours.state_dict().items() if torch.equal(tensor, before[name])}
    new = {"classifier.weight", "classifier.bias"}
    pooler = {"pooler.dense.weight", "pooler.dense.bias"} if kind == "sequence_classification" else set()
    assert kept == new | pooler
    assert ("has no pooler" in capsys.readouterr().err) == (kind == "sequence_classification")


def test_a_whole_model_needs_its_pooler(tmp_path: Path) -> None:
    folder = folder_of(theirs(), tmp_path, no_pooler)
    with pytest.raises(ArtifactError, match=r"lacks bert\.pooler\.dense\.weight, bert\.pooler\.dense\.bias"):
        huggingface.load_pretraining_model(folder)


def test_a_decoder_of_its_own_is_not_mistaken_for_the_embedding(tmp_path: Path) -> None:
    def write(weights: Weights, path: Path) -> None:
        decoder = weights["bert.embeddings.word_embeddings.weight"] + 1.0
        as_safetensors(weights | {"cls.predictions.decoder.weight": decoder}, path)

    folder = folder_of(theirs(), tmp_path, write)
    with pytest.raises(ArtifactError, match=r"not the token embedding"):
        huggingface.fill(PretrainingModel(huggingface.load_config(folder, made_by=None)), folder, made_by=None)


# ------------------------------------------------------------------ pickles


class Malicious:
    """Unpickled, it would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
@pytest.mark.parametrize("form", ["torch", "torch before 1.6", "plain"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(name: str, form: str, tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"

    def write(weights: Weights, path: Path) -> None:
        value = {**weights, "extra": Malicious(marker)}
        if form == "plain":
            (path / name).write_bytes(pickle.dumps({"extra": Malicious(marker)}, protocol=2))
        else:
            torch.save(value, path / name, _use_new_zipfile_serialization=form == "torch")

    folder = folder_of(theirs(), tmp_path / "model", write)
    with pytest.raises(ArtifactError) as caught:
        open_folder(folder, made_by=None)
    assert not marker.exists()
    text = str(caught.value)
    assert name in text and "cannot be read as tensors alone" in text
    assert "save_pretrained" in text and "model.safetensors" in text
    assert "system" in text
    # The pickle is what it seems: whoever loads it carelessly runs the command.
    with (folder / name).open("rb") as handle:
        if form == "plain":
            pickle.load(handle)
        else:
            torch.load(handle, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"weight": torch.ones(2), "step": 3}, "other things beside tensors"),
        ({"state_dict": {"weight": torch.ones(2)}}, "other things beside tensors"),
        ([torch.ones(2)], "no dictionary of named tensors"),
        ({0: torch.ones(2)}, "no dictionary of named tensors"),
        ({}, "no dictionary of named tensors"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear, which is code"),
    ],
)
def test_a_pickle_of_other_things_is_refused(value: object, why: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=why):
        open_folder(tmp_path, made_by=None)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x80\x02}q\x00.", b"hello there"])
def test_a_damaged_pickle_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin is a pickle"):
        open_folder(tmp_path, made_by=None)


# ------------------------------------------------------------------ indexes


@pytest.mark.parametrize(
    "name",
    [
        "../other/model.safetensors",
        "/etc/passwd",
        "sub/a.safetensors",
        "..\\a.safetensors",
        ".a.safetensors",
        "a.bin",
        "",
    ],
)
def test_an_index_names_files_of_its_folder_only(name: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    as_safetensors({"bert.x": torch.ones(1)}, other)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"bert.x": name}}))
    with pytest.raises(ArtifactError, match="names the file"):
        open_folder(folder, made_by=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: {}, "no weight_map"),
        (lambda index: {"weight_map": {}}, "no weight_map"),
        (lambda index: {"weight_map": {"a": 3}}, "no weight_map"),
        (lambda index: [], "no weight_map"),
        (
            lambda index: {"weight_map": {**index["weight_map"], "bert.more": "model-00001-of-00003.safetensors"}},
            "does not hold bert.more",
        ),
        (
            lambda index: {"weight_map": {**index["weight_map"], "bert.more": "model-00009.safetensors"}},
            "though the index names it",
        ),
    ],
)
def test_a_wrong_index_is_refused(change, message: str, tmp_path: Path) -> None:
    folder = folder_of(theirs(), tmp_path, in_shards)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match=message):
        open_folder(folder, made_by=None)


def test_an_index_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        open_folder(tmp_path, made_by=None)


# ------------------------------------------------------------------ weights that are refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {"bert.encoder.layer.0.adapter.weight": torch.ones(1)},
            r"adapter\.weight, which BERT does not have",
        ),
        (
            lambda w: {"bert.encoder.layer.0.attention.self.distance_embedding.weight": torch.ones(1)},
            "which BERT does not have",
        ),
        (lambda w: {"other.embeddings.word_embeddings.weight": torch.ones(1)}, "holds 2 encoders: bert, other"),
        (lambda w: {"bert.embeddings.LayerNorm.gamma": torch.ones(1)}, "stores bert.embeddings.LayerNorm.weight twice"),
        (lambda w: {"bert.pooler.dense.bias": torch.full((32,), torch.nan)}, "holds NaN or infinity"),
        (lambda w: {"bert.pooler.dense.bias": torch.ones(32, dtype=torch.int8)}, "bert.pooler.dense.bias is int8"),
        (lambda w: {"bert.pooler.dense.bias": torch.ones(31)}, r"pooler\.dense\.bias has shape \(31,\)"),
    ],
)
def test_weights_that_are_no_bert(change, message: str, tmp_path: Path) -> None:
    folder = folder_of(theirs(), tmp_path, lambda weights, path: as_safetensors(weights | change(weights), path))
    with pytest.raises(ArtifactError, match=message):
        difference(folder, theirs())


def test_another_model_s_weights_are_refused(tmp_path: Path) -> None:
    folder = folder_of(
        theirs(), tmp_path, lambda weights, path: as_safetensors({"transformer.h.0.w": torch.ones(2)}, path)
    )
    with pytest.raises(ArtifactError, match=r"lacks bert\.embeddings\.word_embeddings\.weight"):
        difference(folder, theirs())


def test_more_layers_than_the_config_says_are_left(tmp_path: Path) -> None:
    """Taking the first layers of a model by its config is a known way to make a smaller one."""
    folder = folder_of(theirs(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    smaller = transformers.BertForPreTraining.from_pretrained(folder).eval()
    assert difference(folder, smaller) < 1e-5


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
        with pytest.raises(ArtifactError, match="Git LFS pointer"):
            open_folder(folder, made_by=None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no model.safetensors$"),
        (["tf_model.h5", "flax_model.msgpack"], r"but flax_model.msgpack \(Flax\), tf_model.h5 \(TensorFlow\)"),
        (["bert_model.ckpt.index"], r"but bert_model.ckpt.index \(TensorFlow\)"),
        (["training_args.bin", "optimizer.pt", "rng_state_0.pth"], "holds no model.safetensors$"),
        (["a.pt", "b.ckpt"], "holds several files that may be its weights: a.pt, b.ckpt"),
    ],
)
def test_a_folder_without_weights_says_what_it_holds(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError) as caught:
        open_folder(tmp_path, made_by=None)
    assert re.search(message, caught.value.what)


# ------------------------------------------------------------------ configs that are refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"model_type": "distilbert"}, "model_type is 'distilbert'"),
        ({"model_type": ["bert"]}, "model_type is ['bert']"),
        ({"model_type": None, "architectures": ["GPT2LMHeadModel"]}, "model_type is None"),
        ({"position_embedding_type": "relative_key_query"}, "position_embedding_type is 'relative_key_query'"),
        ({"hidden_act": "silu"}, "hidden_act is 'silu'"),
        ({"hidden_act": {"kind": "gelu"}}, "hidden_act is {'kind': 'gelu'}"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"embedding_size": 16}, "embedding_size is 16"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ({"quantization_config": {"bits": 8}}, "quantization_config is"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"num_hidden_layers": -2}, "num_hidden_layers is -2"),
        ({"num_hidden_layers": 0}, "layers is 0"),
        ({"num_attention_heads": 5}, "not divisible by model.heads 5"),
        ({"pad_token_id": 60}, "pad_id is 60"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps is '1e-12'"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
        ({"intermediate_size": 10**12}, "intermediate_size is 1000000000000"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000"),
    ],
    ids=str,
)
def test_what_we_do_not_compute_is_refused_by_name(changes: dict, message: str, tmp_path: Path) -> None:
    folder = folder_of(theirs(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ArtifactError) as caught:
        huggingface.load_config(folder, made_by=None)
    assert message in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", '"bert"'])
def test_a_damaged_config_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        huggingface.load_config(tmp_path, made_by=None)
