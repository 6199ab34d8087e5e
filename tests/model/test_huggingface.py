"""Our encoder is BERT: the same weights give the same numbers here and in ``transformers``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bert_ops.errors import ArtifactError, InputError
from bert_ops.model import huggingface
from bert_ops.model.encoder import Encoder, EncoderConfig, parameter_count
from bert_ops.model.heads import PretrainingModel, TaskModel

transformers = pytest.importorskip("transformers")

CONFIG = EncoderConfig(
    vocab_size=97, hidden_size=48, layers=3, heads=4, feed_forward_size=80, max_positions=40, initializer_range=0.3
)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(5)
    ids = torch.from_numpy(rng.integers(5, CONFIG.vocab_size, (4, 23)))
    segments = torch.from_numpy((np.arange(23) > 11).astype(np.int64)).expand(4, 23).contiguous()
    attend = torch.ones(4, 23, dtype=torch.bool)
    attend[1, 15:] = False
    attend[3, 4:] = False
    return ids, segments, attend


def exact(model: torch.nn.Module) -> torch.nn.Module:
    """The model in double precision: what is left of a difference is no rounding."""
    for module in model.modules():
        if isinstance(module, Encoder):
            module.compute_dtype = torch.float64
    return model.double().eval()


def randomise(model: torch.nn.Module) -> None:
    """Move every parameter off its initial value: zero biases and unit norms would hide a swapped name."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def test_our_export_gives_the_same_logits_in_transformers(tmp_path: Path, batch) -> None:
    ids, segments, attend = batch
    ours = PretrainingModel(CONFIG).eval()
    randomise(ours)
    huggingface.save_model(ours, tmp_path)
    theirs, info = transformers.BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours, theirs = exact(ours), exact(theirs)
    with torch.no_grad():
        mlm, nsp = ours(ids, segments, attend)
        expected = theirs(input_ids=ids, token_type_ids=segments, attention_mask=attend.long())
    assert (mlm - expected.prediction_logits)[attend].abs().max() < 1e-9
    assert (nsp - expected.seq_relationship_logits).abs().max() < 1e-9


def test_their_export_gives_the_same_logits_here(tmp_path: Path, batch) -> None:
    ids, segments, attend = batch
    config = transformers.BertConfig(
        vocab_size=97,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=80,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    theirs = transformers.BertForPreTraining(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = huggingface.load_pretraining_model(tmp_path).eval()
    assert parameter_count(ours) == sum(p.numel() for p in set(theirs.parameters()))
    ours, theirs = exact(ours), exact(theirs)
    with torch.no_grad():
        mlm, nsp = ours(ids, segments, attend)
        expected = theirs(input_ids=ids, token_type_ids=segments, attention_mask=attend.long())
    assert (mlm - expected.prediction_logits)[attend].abs().max() < 1e-9
    assert (nsp - expected.seq_relationship_logits).abs().max() < 1e-9


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_task_models_agree_with_the_auto_classes(tmp_path: Path, batch, kind) -> None:
    ids, segments, attend = batch
    ours = TaskModel(CONFIG, labels=3, kind=kind, classifier_dropout=0.0).eval()
    randomise(ours)
    huggingface.save_model(ours, tmp_path, id2label={str(i): f"L{i}" for i in range(3)})
    auto = {
        "sequence_classification": transformers.AutoModelForSequenceClassification,
        "token_classification": transformers.AutoModelForTokenClassification,
    }[kind]
    theirs = auto.from_pretrained(tmp_path).eval()
    ours, theirs = exact(ours), exact(theirs)
    with torch.no_grad():
        got = ours(ids, segments, attend)
        expected = theirs(input_ids=ids, token_type_ids=segments, attention_mask=attend.long()).logits
    if kind == "token_classification":
        got, expected = got[attend], expected[attend]
    assert (got - expected).abs().max() < 1e-9


def test_masked_positions_alone_score_as_all_positions_do(batch) -> None:
    ids, segments, attend = batch
    model = PretrainingModel(CONFIG).eval()
    masked = torch.tensor([0, 7, 24, 91])
    with torch.no_grad():
        some, _ = model(ids, segments, attend, masked)
        every, _ = model(ids, segments, attend)
    assert torch.allclose(some, every.flatten(0, 1)[masked], atol=1e-6)


def test_padding_changes_nothing(batch) -> None:
    ids, segments, _ = batch
    model = PretrainingModel(CONFIG).eval()
    padded = torch.cat([ids, torch.zeros(4, 9, dtype=torch.long)], dim=1)
    attend = torch.cat([torch.ones_like(ids), torch.zeros(4, 9, dtype=torch.long)], dim=1).bool()
    with torch.no_grad():
        plain = model.encoder(ids, segments)
        with_padding = model.encoder(padded, torch.nn.functional.pad(segments, (0, 9)), attend)
    assert torch.allclose(plain, with_padding[:, :23], atol=1e-5)


def test_a_sequence_longer_than_the_positions_is_refused() -> None:
    model = PretrainingModel(CONFIG)
    ids = torch.zeros(1, 41, dtype=torch.long)
    with pytest.raises(InputError, match="41 tokens does not fit 40 positions"):
        model.encoder(ids, ids)


def test_hidden_size_must_be_divisible_by_heads() -> None:
    with pytest.raises(InputError, match=r"48 is not divisible by model\.heads 5"):
        EncoderConfig(**{**CONFIG.to_dict(), "heads": 5})


class TestDamagedFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        huggingface.save_model(PretrainingModel(CONFIG), tmp_path)
        return tmp_path

    def test_truncated_weights(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged"):
            huggingface.load_pretraining_model(folder)

    def test_missing_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(ArtifactError, match="does not exist"):
            huggingface.load_pretraining_model(folder)

    def test_a_weight_is_missing(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["bert.encoder.layer.1.output.dense.bias"]
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(ArtifactError, match=r"lacks bert\.encoder\.layer\.1\.output\.dense\.bias"):
            huggingface.load_pretraining_model(folder)

    def test_another_size_than_the_config_says(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["vocab_size"] = 98
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtifactError, match=r"config\.json asks for \(98, 48\)"):
            huggingface.load_pretraining_model(folder)

    def test_not_a_bert(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["model_type"] = "gpt2"
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtifactError, match="gpt2"):
            huggingface.load_pretraining_model(folder)
