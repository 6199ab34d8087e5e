"""Initial values of the embeddings that are better than noise."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.model.encoder import Embeddings
from bert_ops.progress import note
from bert_ops.tokenizer.store import SplitView

#: Sentences that are read from the store at a time.
BLOCK = 1024

#: gensim trains on the first 10,000 words of a sentence and passes over the rest; longer ones are cut into several.
LONGEST = 10_000


class _Sentences:
    """Sentences of a split as lists of words, read anew from the store in every pass, as gensim asks for.

    With more than ``max_tokens`` tokens, every n-th block of sentences is left out, evenly over the split, so that
    each source keeps its share. Sentences are read as often as the store says (``view.repeats``).
    """

    def __init__(self, view: SplitView, *, vocab_size: int, max_tokens: int) -> None:
        self.view = view
        self.words = [str(token) for token in range(vocab_size)]
        self.share = min(1.0, max_tokens / max(1, view.tokens))

    def __iter__(self) -> Iterator[list[str]]:
        view, words = self.view, self.words
        for block, first in enumerate(range(0, view.sentences, BLOCK)):
            if ceil((block + 1) * self.share) == ceil(block * self.share):
                continue
            stop = min(first + BLOCK, view.sentences)
            ends = view.sentence_ends[first : stop + 1]
            text = [words[token] for token in view.span(int(ends[0]), int(ends[-1])).tolist()]
            ends = ends - ends[0]
            for begin, end, times in zip(ends[:-1].tolist(), ends[1:].tolist(), self._times(first, stop), strict=True):
                for _ in range(times):
                    for start in range(begin, end, LONGEST):
                        yield text[start : min(start + LONGEST, end)]

    def _times(self, first: int, stop: int) -> list[int]:
        if self.view.repeats is None:
            return [1] * (stop - first)
        documents = np.searchsorted(self.view.document_ends, np.arange(first, stop), side="right") - 1
        times: list[int] = self.view.repeats[documents].tolist()
        return times


def word2vec(
    view: SplitView,
    *,
    vocab_size: int,
    size: int,
    window: int,
    epochs: int,
    seed: int,
    max_tokens: int,
) -> NDArray[np.float32]:
    """Train word2vec on a split (Mikolov et al. 2013, arXiv:1301.3781; skip-gram with negative sampling, by gensim).

    One worker thread makes the result the same in every process. The split is read block by block, so that memory
    holds the vectors and no more of the text than gensim's queue.

    Args:
        view: the split.
        vocab_size: V, entries of the vocabulary.
        size: D, entries of a vector.
        window: tokens on each side that are to be predicted.
        epochs: passes.
        seed: of the initial vectors and of what is drawn.
        max_tokens: tokens of a pass; of a larger split, blocks of sentences evenly spread over it.

    Returns:
        (V, D) float32; rows of tokens that were not met are zero.

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
    sentences = _Sentences(view, vocab_size=vocab_size, max_tokens=max_tokens)
    if next(iter(sentences), None) is None:
        raise InputError("word2vec found no sentence to train on", remedy="check data/tokens")
    if sentences.share < 1:
        note(f"pretrain: word2vec reads {max_tokens:,} of {view.tokens:,} tokens, evenly spread over the split")
    trained = Word2Vec(
        sentences,
        vector_size=size,
        window=window,
        min_count=1,
        sg=1,
        negative=5,
        epochs=epochs,
        workers=1,
        seed=seed % 2**31,
    ).wv
    vectors = np.zeros((vocab_size, size), np.float32)
    vectors[[int(word) for word in trained.index_to_key]] = trained.vectors
    return vectors


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
