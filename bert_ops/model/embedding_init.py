"""Initial values of the embeddings that are better than noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.model.encoder import Embeddings


class _Sentences:
    """Sentences of ids as lists of words, readable more than once, as gensim asks for."""

    def __init__(self, sentences: list[list[str]]) -> None:
        self.sentences = sentences

    def __iter__(self) -> Iterator[list[str]]:
        return iter(self.sentences)


def word2vec(
    sentences: Iterable[NDArray[np.unsignedinteger]], *, vocab_size: int, size: int, window: int, epochs: int, seed: int
) -> NDArray[np.float32]:
    """Train word2vec on token ids (Mikolov et al. 2013, arXiv:1301.3781; skip-gram with negative sampling, by gensim).

    One worker thread and a hash of our own make the result the same in every process.

    Returns:
        (vocab_size, size) float32; rows of tokens that do not occur are zero.

    Raises:
        InputError: gensim is not installed, or there is nothing to train on.

    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise InputError(
            "`pretrain.embedding_init.kind` is word2vec, and gensim is not installed",
            allowed="normal, or word2vec with gensim",
            remedy="pip install gensim, or set pretrain.embedding_init.kind to normal",
        ) from error
    words = [[str(token) for token in sentence] for sentence in sentences]
    if not words:
        raise InputError("word2vec found no sentence to train on", remedy="check data/tokens")
    trained = Word2Vec(
        _Sentences(words),
        vector_size=size,
        window=window,
        min_count=1,
        sg=1,
        negative=5,
        epochs=epochs,
        workers=1,
        seed=seed % 2**31,
        hashfxn=_stable_hash,
    ).wv
    vectors = np.zeros((vocab_size, size), np.float32)
    for word, row in trained.key_to_index.items():
        vectors[int(word)] = trained.vectors[row]
    return vectors


def _stable_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def set_token_vectors(embeddings: Embeddings, vectors_VD: NDArray[np.float32], *, std: float) -> None:
    """Copy vectors into the token embedding, centred and scaled to the standard deviation that noise would have had.

    Rows that are all zero (tokens that never occurred, special tokens) keep their random values.
    """
    known = np.flatnonzero(np.abs(vectors_VD).sum(1))
    rows = vectors_VD[known] - vectors_VD[known].mean(0)
    rows *= std / rows.std()
    with torch.no_grad():
        embeddings.token.weight[torch.from_numpy(known)] = torch.from_numpy(rows).to(embeddings.token.weight.device)


def set_sinusoidal_positions(embeddings: Embeddings, *, std: float) -> None:
    """Start the learned positions from waves (Vaswani et al. 2017, section 3.5), scaled to ``std``.

    A token's neighbour is then a linear function of its own position, which attention finds in fewer steps.
    """
    assert embeddings.position is not None  # rotary positions have no weights; params.yaml refuses the combination
    positions, size = embeddings.position.weight.shape
    rates = 10_000 ** -(torch.arange(0, size, 2) / size)
    angles = torch.arange(positions)[:, None] * rates
    waves = torch.zeros(positions, size)
    waves[:, 0::2] = angles.sin()
    waves[:, 1::2] = angles.cos()[:, : size // 2]
    with torch.no_grad():
        embeddings.position.weight.copy_(waves * (std * 2**0.5))
