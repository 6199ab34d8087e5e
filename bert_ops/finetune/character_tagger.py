"""What a tagger must beat: logistic regression over each character and its neighbours.

No network, no words, no learned transitions (so no CRF): each character's tag is guessed from the characters around
it, and the best sequence that the BIO scheme allows is read off. The regularisation is chosen on the validation split.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.finetune.scores import evaluate_score, tagging
from bert_ops.finetune.spans import Span
from bert_ops.finetune.tagging import Scheme, decode, tag_names, tags_of_spans
from bert_ops.progress import note

SCHEME: Scheme = "BIO"

#: Features: places relative to the character that are read together, as characters or as classes of characters.
CHARACTERS = ((-2,), (-1,), (0,), (1,), (2,), (-2, -1), (-1, 0), (0, 1), (1, 2), (-1, 1))
CLASSES = ((-1, 0, 1), (-2, -1, 0, 1, 2))

#: Characters of the training split that must have a feature for it to be kept.
MIN_COUNT = 2

#: Passes over the training characters with one C. SAGA (Defazio et al. 2014) is after 10 of them where L-BFGS is after
#: 70 passes and six times the time (docs/LOG.md).
_EPOCHS = 12

#: Stands before and after a text: the number after the last code point; and how many of it a feature sees.
_EDGE = 0x110000
_REACH = 2

#: Logit of a tag that training never saw.
_IMPOSSIBLE = -1e6

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CharacterTagger:
    """A trained baseline.

    Args:
        labels: of spans.
        columns: the kept values of each feature, ascending; their columns follow one another.
        coefficients: (features, tags) float32.
        intercepts: (tags,).
        facts: what there is to say of it: ``what``, ``inverse_regularization``, ``validation_entity_f1`` and
            ``parameters``.

    """

    labels: list[str]
    columns: list[Ints]
    coefficients: Floats
    intercepts: Floats
    facts: dict[str, Any]

    def predict(self, texts: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each text."""
        x, starts = _features(texts, self.columns)
        return _decoded(x @ self.coefficients + self.intercepts, starts, self.labels)


def fit_character_tagger(
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
    *,
    validation_texts: Sequence[str],
    validation_spans: Sequence[Sequence[Span]],
    inverse_regularization: Sequence[float],
    seed: int,
) -> CharacterTagger:
    """Train the baseline, the best of several regularisations.

    Args:
        texts: of the training split.
        spans: of each text, ascending, without overlap.
        validation_texts: of the validation split.
        validation_spans: of each of these.
        inverse_regularization: values of C to try; the one with the best entity F1 on the validation split is kept.
        seed: of the order in which the solver takes the characters.

    Raises:
        InputError: no training text has a span, or a label cannot be part of a tag.

    """
    from sklearn.linear_model import LogisticRegression

    labels = sorted({span[2] for row in spans for span in row})
    if not labels:
        raise InputError("no example of the training split has a span", remedy="check the labels of the sources")
    columns = _columns(texts)
    x, starts = _features(texts, columns)
    tags = tags_of_spans(spans, _offsets(starts), starts, labels=labels, scheme=SCHEME, misaligned="widen").tags
    held_out, held_out_starts = _features(validation_texts, columns)
    model = LogisticRegression(solver="saga", max_iter=_EPOCHS, warm_start=True, random_state=seed)
    best: tuple[float, float, Floats, Floats] | None = None
    # From strong regularisation to weak: each begins where the one before ended.
    for c in sorted(inverse_regularization):
        coefficients, intercepts = _fitted(model.set_params(C=c), x, tags, outputs=len(tag_names(labels, SCHEME)))
        answers = _decoded(held_out @ coefficients + intercepts, held_out_starts, labels)
        known = sorted({*labels, *(span[2] for row in validation_spans for span in row)})
        score = evaluate_score(tagging(answers, validation_spans, labels=known)["entity_f1"])
        note(f"character baseline with C {c:g}: validation entity_f1 {score:.4f}")
        if best is None or score > best[0]:
            best = (score, c, coefficients, intercepts)
    assert best is not None, "a list of values to try has one at least"
    score, c, coefficients, intercepts = best
    facts = {
        "what": "logistic regression over each character and its neighbours, no network and no CRF",
        "inverse_regularization": c,
        "validation_entity_f1": score,
        "parameters": int(coefficients.size + intercepts.size),
    }
    return CharacterTagger(labels, columns, coefficients, intercepts, facts)


def _fitted(model: Any, x: Any, tags: Ints, *, outputs: int) -> tuple[Floats, Floats]:
    """Coefficients (features, tags) and intercepts (tags,); tags that training has not are all but impossible."""
    coefficients, intercepts = np.zeros((x.shape[1], outputs), np.float32), np.full(outputs, _IMPOSSIBLE, np.float32)
    seen = np.unique(tags)
    if len(seen) == 1:
        intercepts[seen] = 0.0
        return coefficients, intercepts
    with warnings.catch_warnings():
        # That the limit of passes was reached is no news.
        warnings.filterwarnings("ignore", category=_convergence_warning())
        model.fit(x, tags)
    if len(seen) == 2:
        # Of two classes scikit-learn has the second one's odds alone.
        coefficients[:, seen[1]], intercepts[seen] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        coefficients[:, seen], intercepts[seen] = model.coef_.T, model.intercept_
    return coefficients, intercepts


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    out: type[Warning] = ConvergenceWarning
    return out


def _decoded(scores: Floats, starts: Ints, labels: list[str]) -> list[list[Span]]:
    return decode(scores, _offsets(starts), starts, labels=labels, scheme=SCHEME, constrained=True)


def _offsets(starts: Ints) -> Ints:
    """Offsets (M, 2) of characters, each a token."""
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))
    return np.stack([place, place + 1], 1)


def _keys(texts: Sequence[str]) -> tuple[list[Ints], Ints]:
    """Value of each feature at each character, (M,) each, and the first character of each text, (N + 1,)."""
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    # Edges between texts are wide enough that no feature sees the next text.
    places = np.arange(len(points)) + _REACH * (1 + np.repeat(np.arange(len(texts)), lengths))
    padded = np.full(len(points) + _REACH * (len(texts) + 1), _EDGE, np.int64)
    padded[places] = points
    distinct, inverse = np.unique(padded, return_inverse=True)
    classes = np.array([_class_of(int(point)) for point in distinct], np.int64)[inverse]
    keys = [
        np.bitwise_or.reduce([values[places + at] << (bits * shift) for shift, at in enumerate(window)])
        for windows, values, bits in ((CHARACTERS, padded, 21), (CLASSES, classes, 3))
        for window in windows
    ]
    return keys, starts


def _class_of(point: int) -> int:
    """Class of a character, below 8: edge, digit, Latin letter, other letter, punctuation, symbol, space, rest."""
    if point == _EDGE:
        return 0
    kind = unicodedata.category(chr(point))
    if kind[0] == "L":
        return 2 if unicodedata.name(chr(point), "").startswith(("LATIN", "FULLWIDTH LATIN")) else 3
    return {"N": 1, "P": 4, "S": 5, "Z": 6}.get(kind[0], 7)


def _columns(texts: Sequence[str]) -> list[Ints]:
    """Values of each feature that occur often enough."""
    kept = []
    for keys in _keys(texts)[0]:
        values, counts = np.unique(keys, return_counts=True)
        kept.append(values[counts >= MIN_COUNT])
    return kept


def _features(texts: Sequence[str], columns: list[Ints]) -> tuple[Any, Ints]:
    """Which features hold at each character, (M, features) sparse, and the first character of each text."""
    from scipy.sparse import csr_array

    keys, starts = _keys(texts)
    found, holds, base = [], [], 0
    for values, kept in zip(keys, columns, strict=True):
        column = np.searchsorted(kept, values)
        holds.append(np.append(kept, -1)[column] == values)
        found.append((base + column).astype(np.int32))
        base += len(kept)
    mask = np.stack(holds, 1)
    indices = np.stack(found, 1)[mask]
    ends = np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int32)
    return csr_array((np.ones(len(indices), np.float32), indices, ends), shape=(len(mask), base)), starts
