"""Initial embeddings: word2vec out of a token store, scaled vectors, waves."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert_ops.errors import InputError
from bert_ops.model import embedding_init
from bert_ops.model.embedding_init import word2vec
from bert_ops.model.encoder import Embeddings, EncoderConfig
from bert_ops.tokenizer.store import SplitView, TokenStore
from bert_ops.tokenizer.store_writer import SplitWriter, write_manifest
from bert_ops.tokenizer.wordpiece import SpecialIds

VOCAB = 60
SETTINGS: dict[str, Any] = {"vocab_size": VOCAB, "size": 16, "window": 3, "epochs": 3, "seed": 1}


def store(
    folder: Path, documents: Sequence[Sequence[Sequence[int]]], repeats: Sequence[int] | None = None
) -> SplitView:
    writer = SplitWriter(folder, "train", dtype=np.dtype("<u2"), shard_tokens=5000)
    for sentences, times in zip(documents, repeats or [1] * len(documents), strict=True):
        writer.add([np.array(sentence, np.uint16) for sentence in sentences], repeats=times)
    write_manifest(
        folder, vocab_size=VOCAB, vocab_sha256="x", special_ids=SpecialIds(), splits={"train": writer.close()}
    )
    return TokenStore.open(folder)["train"]


@pytest.fixture(scope="module")
def synonyms(tmp_path_factory: pytest.TempPathFactory) -> SplitView:
    """Ten topics of five words each; a sentence draws from one, so that words of a topic share their contexts."""
    rng = np.random.default_rng(0)
    documents = [[5 + 5 * rng.integers(10) + rng.integers(0, 5, 12) for _ in range(5)] for _ in range(300)]
    return store(tmp_path_factory.mktemp("synonyms"), documents)


def nearest(vectors: np.ndarray, token: int) -> set[int]:
    """The four nearest tokens by cosine."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    order = np.argsort(-(unit @ unit[token]))
    return set(order[order != token][:4].tolist())


def test_neighbours_in_space_are_neighbours_in_text(synonyms: SplitView) -> None:
    vectors = word2vec(synonyms, max_tokens=10**9, **SETTINGS)
    assert vectors.shape == (VOCAB, 16) and vectors.dtype == np.float32
    for token in range(5, 55):
        topic = (token - 5) // 5
        assert nearest(vectors, token) == set(range(5 + 5 * topic, 10 + 5 * topic)) - {token}
    assert not vectors[:5].any() and not vectors[55:].any(), "tokens that were not met"


def test_every_process_finds_the_same_vectors(synonyms: SplitView) -> None:
    script = (
        "import hashlib, sys\nfrom pathlib import Path\n"
        "from bert_ops.model.embedding_init import word2vec\nfrom bert_ops.tokenizer.store import TokenStore\n"
        "view = TokenStore.open(Path(sys.argv[1]))['train']\n"
        f"vectors = word2vec(view, max_tokens=10**9, **{SETTINGS})\n"
        "print(hashlib.sha256(vectors.tobytes()).hexdigest())\n"
    )

    def digest(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", script, str(synonyms.folder)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert digest("1") == digest("2") != ""
    other = word2vec(synonyms, max_tokens=10**9, **(SETTINGS | {"seed": 2}))
    assert not np.array_equal(other, word2vec(synonyms, max_tokens=10**9, **SETTINGS))


def test_a_large_split_is_read_in_part_and_evenly(synonyms: SplitView, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(embedding_init, "BLOCK", 10)
    read: list[tuple[int, int]] = []
    span = SplitView.span
    monkeypatch.setattr(SplitView, "span", lambda self, a, b: read.append((a, b)) or span(self, a, b))
    sentences = embedding_init._Sentences(synonyms, vocab_size=VOCAB, max_tokens=synonyms.tokens // 4)
    text = [len(sentence) for sentence in sentences]
    assert sum(text) == pytest.approx(synonyms.tokens / 4, rel=0.05)
    assert max(b - a for a, b in read) <= 10 * 12, "a block at a time"
    starts = [a / synonyms.tokens for a, _ in read]
    assert starts[0] == 0 and np.diff([*starts, 1.0]).max() < 0.03
    assert [len(s) for s in sentences] == text, "every pass reads the same"
    word2vec(synonyms, max_tokens=1, **(SETTINGS | {"epochs": 1}))
    assert "word2vec reads 1 of 18,000 tokens" in capfd.readouterr().err


def test_documents_count_as_often_as_they_are_read(tmp_path: Path) -> None:
    view = store(tmp_path, [[[6, 7]], [[8], [9]], [[10]]], repeats=[1, 2, 0])
    sentences = embedding_init._Sentences(view, vocab_size=VOCAB, max_tokens=10**9)
    assert list(sentences) == [["6", "7"], ["8"], ["8"], ["9"], ["9"]]


def test_a_sentence_longer_than_gensim_reads_is_cut(tmp_path: Path) -> None:
    view = store(tmp_path, [[[7] * 10_003 + [8]], [[9]]])
    sentences = embedding_init._Sentences(view, vocab_size=VOCAB, max_tokens=10**9)
    assert [len(sentence) for sentence in sentences] == [10_000, 4, 1]


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    view = store(tmp_path, [[[7, 8]]], repeats=[0])
    with pytest.raises(InputError, match="word2vec found no sentence"):
        word2vec(view, max_tokens=10**9, **SETTINGS)


def test_a_missing_gensim_is_named(synonyms: SplitView, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "gensim":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError) as error:
        word2vec(synonyms, max_tokens=10**9, **SETTINGS)
    assert "gensim is not installed" in str(error.value) and "pip install gensim" in str(error.value)


@pytest.fixture
def embeddings() -> Embeddings:
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=VOCAB, hidden_size=16, layers=1, heads=1, feed_forward_size=16, max_positions=30, pad_id=0
    )
    return Embeddings(config)


def test_vectors_are_centred_and_scaled_and_the_rest_stays(embeddings: Embeddings) -> None:
    before = embeddings.token.weight.detach().clone()
    vectors = np.zeros((VOCAB, 16), np.float32)
    vectors[5:55] = np.random.default_rng(0).normal(3, 7, (50, 16))
    embedding_init.set_token_vectors(embeddings, vectors, std=0.05)
    after = embeddings.token.weight.detach()
    assert after[5:55].mean(0).abs().max() < 1e-6 and float(after[5:55].std()) == pytest.approx(0.05, rel=0.01)
    assert torch.equal(after[:5], before[:5]) and torch.equal(after[55:], before[55:])
    ratio = after[5:55].numpy() / (vectors[5:55] - vectors[5:55].mean(0))
    assert ratio.std() < 1e-5, "directions are those of the vectors"


def test_waves_have_the_scale_and_a_neighbour_is_a_turn_away(embeddings: Embeddings) -> None:
    embedding_init.set_sinusoidal_positions(embeddings, std=0.05)
    waves = embeddings.position.weight.detach()
    assert float(waves.pow(2).mean().sqrt()) == pytest.approx(0.05, rel=0.01)
    products = waves @ waves.T
    for distance in (1, 5, 20):
        along = products.diagonal(distance)
        assert torch.allclose(along, along[0].expand_as(along), atol=1e-6)
    assert products[0, 0] > products[0, 1] > products[0, 2]
