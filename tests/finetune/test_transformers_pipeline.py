"""An exported task model gives the same answers in ``transformers.pipeline`` as in our own prediction."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from bert_ops.finetune.inference import encode_for, item_logits, load_task_model, predict, task_facts
from bert_ops.finetune.problems import restore
from bert_ops.finetune.tagging import decode
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import TaskModel
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS

transformers = pytest.importorskip("transformers")

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789，。！北京大学我们喜欢的"
#: Special tokens stand last: nothing may rest on their being the first.
PIECES = [*LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "city", "##ing", *REQUIRED_SPECIAL_TOKENS]
MAX_TOKENS = 24
TAGS = ["O", "B-CITY", "I-CITY", "B-DAY", "I-DAY"]


def texts(count: int = 40, *, longest: int = 6) -> list[str]:
    rng = random.Random(3)
    words = ["The", "city", "Playing", "北京", "大学", "é", "☃", "[MASK]", *LETTERS]
    sentences = ("".join(rng.choices([*words, " "], k=rng.randint(1, longest))) for _ in range(count))
    return [text if text.strip() else "北" for text in sentences]


@pytest.fixture(params=[2, 1], ids=["two segments", "one segment"])
def tokenizer_folder_here(request, tmp_path: Path) -> tuple[Path, int]:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (folder / "config.json").write_text(f'{{"model_type": "bert", "type_vocab_size": {request.param}}}')
    return folder, request.param


def export(
    out: Path, tokenizer: tuple[Path, int], kind: str, labels: list[str], *, truncation="head", seed: int = 0
) -> Path:
    """A folder as the stage writes it, of a model whose every parameter is random."""
    source, segments = tokenizer
    torch.manual_seed(seed)
    problem = restore(kind, labels, {})
    config = EncoderConfig(
        vocab_size=len(PIECES),
        hidden_size=32,
        layers=2,
        heads=4,
        feed_forward_size=48,
        max_positions=32,
        segments=segments,
        pad_id=PIECES.index("[PAD]"),
        initializer_range=0.5,
        hidden_dropout=0.1,
        attention_dropout=0.1,
        activation="gelu_new",
        layer_norm_eps=1e-5,
    )
    model = TaskModel(config, labels=problem.outputs, kind=problem.head, classifier_dropout=0.3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
        model.encoder.embeddings.token.weight.mul_(4.0)  # so that texts, not biases, decide
        model.classifier.weight.mul_(0.3)  # logits of a usual size, which float32 holds to 1e-5
    out.mkdir()
    huggingface.save_model(model, out, **task_facts(problem, max_tokens=MAX_TOKENS, truncation=truncation))
    wordpiece.copy(source, out, max_length=MAX_TOKENS, truncation=truncation)
    return out


@pytest.mark.parametrize("kind", ["sequence_classification", "multi_label_classification"])
def test_text_classification(kind: str, tokenizer_folder_here, tmp_path: Path) -> None:
    labels = ["good", "bad", "neither"]
    folder = export(tmp_path / "model", tokenizer_folder_here, kind, labels)
    ours = predict(load_task_model(folder), texts(), threads=1)
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    assert pipe.model.config.problem_type == (
        "single_label_classification" if kind == "sequence_classification" else kind
    )
    for text, row in zip(texts(), ours, strict=True):
        scores = {item["label"]: item["score"] for item in pipe(text, top_k=None)}
        assert np.allclose([scores[label] for label in labels], row, atol=1e-5)
        assert pipe(text)[0]["label"] == labels[int(row.argmax())]
    assert len({labels[int(row.argmax())] for row in ours}) > 1, "the answers differ, or this would prove nothing"


def test_regression(tokenizer_folder_here, tmp_path: Path) -> None:
    folder = export(tmp_path / "model", tokenizer_folder_here, "regression", ["value"])
    ours = predict(load_task_model(folder), texts(), threads=1)
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    theirs = [item["score"] for item in pipe(texts())]
    assert np.allclose(theirs, ours, atol=1e-5)
    assert np.std(ours) > 0.01 and max(np.abs(ours)) > 1, "neither constant nor squeezed into probabilities"


def test_pairs(tokenizer_folder_here, tmp_path: Path) -> None:
    folder = export(tmp_path / "model", tokenizer_folder_here, "sequence_classification", ["same", "other"])
    first, second = texts(20, longest=3), texts(20, longest=3)[::-1]
    ours = predict(load_task_model(folder), first, second, threads=1)
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    for a, b, row in zip(first, second, ours, strict=True):
        [*items] = pipe({"text": a, "text_pair": b}, top_k=None)
        scores = {item["label"]: item["score"] for item in items}
        assert np.allclose([scores["same"], scores["other"]], row, atol=1e-5)


@pytest.mark.parametrize("truncation", ["head", "tail"])
def test_long_texts_are_cut_at_the_same_end(truncation, tokenizer_folder_here, tmp_path: Path) -> None:
    labels = ["good", "bad"]
    folder = export(tmp_path / "model", tokenizer_folder_here, "sequence_classification", labels, truncation=truncation)
    long = [" ".join(text) for text in texts(longest=90)]
    task = load_task_model(folder)
    assert encode_for(task, long).cut > 10
    ours = predict(task, long, threads=1)
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    scores = [item["score"] for item in pipe(long, truncation=True)]
    assert np.allclose(scores, ours.max(1), atol=1e-5)


def is_allowed(tags: list[str]) -> bool:
    """Whether each I-X goes on after B-X or I-X."""
    return all(tag[0] != "I" or before[1:] == tag[1:] for before, tag in pairwise(["O", *tags]))


def test_entities(tokenizer_folder_here, tmp_path: Path) -> None:
    """The pipeline takes the likeliest tag of each token; ours takes what the scheme allows, often the same."""
    folder = export(tmp_path / "model", tokenizer_folder_here, "token_classification", TAGS)
    task = load_task_model(folder)
    long = [*texts(60, longest=60), *texts(200, longest=3)]
    ours = predict(task, long, threads=1)
    pipe = transformers.pipeline("ner", str(folder), device="cpu", aggregation_strategy="simple")
    theirs = pipe(long)
    got = [[(item["start"], item["end"], item["entity_group"]) for item in items] for items in theirs]

    rows = encode_for(task, long)
    assert rows.offsets is not None
    items = task.problem.items(rows)
    logits = item_logits(task.model, rows, items)
    offsets = np.concatenate(rows.offsets)
    starts = np.searchsorted(items.example, np.arange(len(long) + 1))
    of_tokens = decode(
        logits,
        offsets[offsets[:, 1] > offsets[:, 0]],
        starts,
        labels=["CITY", "DAY"],
        scheme="BIO",
        constrained=False,
    )
    assert got == [[tuple(span) for span in spans] for spans in of_tokens]
    allowed = [
        is_allowed([TAGS[tag] for tag in logits[start:stop].argmax(1)]) for start, stop in pairwise(starts.tolist())
    ]
    assert 40 < sum(allowed) < len(long)
    same = [spans == [tuple(span) for span in mine] for spans, mine in zip(got, ours, strict=True)]
    assert all(same[number] for number, is_so in enumerate(allowed) if is_so)
    found = {label for spans in got for *_, label in spans}
    assert found == {"CITY", "DAY"} and any(len(spans) > 2 for spans in got)


@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_logits(kind: str, tokenizer_folder_here, tmp_path: Path) -> None:
    """In batches with padding, on either side."""
    folder = export(tmp_path / "model", tokenizer_folder_here, kind, TAGS)
    task = load_task_model(folder)
    rows = encode_for(task, texts())
    items = task.problem.items(rows)
    ours = item_logits(task.model, rows, items, batch=8)
    auto = {
        "sequence_classification": transformers.AutoModelForSequenceClassification,
        "token_classification": transformers.AutoModelForTokenClassification,
    }[kind]
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.dropout.p == pytest.approx(0.3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts(), padding=True, truncation=True, return_tensors="pt")
    assert [
        row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ] == [row.tolist() for row in rows.ids]
    with torch.no_grad():
        logits = model.eval()(**batch).logits.numpy()
    theirs = (
        logits
        if kind == "sequence_classification"
        else np.stack(
            [
                logits[row, place]
                for row in range(len(rows))
                for place in items.places[items.starts[row] : items.starts[row + 1]]
            ]
        )
    )
    assert np.abs(theirs - ours).max() < 1e-5
