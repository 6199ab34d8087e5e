"""The likelihood of sequences of tags: against all sequences counted one by one, and what it leaves out."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from bert_ops.finetune.sequence_loss import allowed, sequence_losses
from bert_ops.finetune.tagging import IGNORED, tag_names

SCHEMES = [("BIO", "BI"), ("BIOES", "BIES")]


def follows(scheme: str, first: str, second: str) -> bool:
    """The rule in words: an inner tag needs an open entity of its label, which in BIOES nothing else may follow."""
    inner = second[0] in "IE"
    is_open = first[0] in "BI"
    if inner:
        return is_open and first[2:] == second[2:]
    return scheme == "BIO" or not is_open


def by_hand(logits: np.ndarray, tags: np.ndarray, names: list[str], scheme: str) -> float:
    """Negative log-likelihood of the tags of a row, by counting all sequences."""
    all_of_them, agreeing = [], []
    for sequence in product(range(len(names)), repeat=len(logits)):
        if all(follows(scheme, names[a], names[b]) for a, b in pairwise(sequence)):
            score = float(sum(logits[t, tag] for t, tag in enumerate(sequence)))
            all_of_them.append(score)
            if all(wanted in (IGNORED, tag) for wanted, tag in zip(tags, sequence, strict=True)):
                agreeing.append(score)
    return float(np.logaddexp.reduce(all_of_them) - np.logaddexp.reduce(agreeing))


@pytest.mark.parametrize(("scheme", "prefixes"), SCHEMES)
def test_what_may_follow_what(scheme: str, prefixes: str) -> None:
    names = tag_names(["X", "Y"], scheme)  # type: ignore[arg-type]
    table = allowed(2, prefixes=prefixes)
    assert table.tolist() == [[follows(scheme, a, b) for b in names] for a in names]


@pytest.mark.parametrize(("scheme", "prefixes"), SCHEMES)
@pytest.mark.parametrize("holes", [False, True])
def test_the_sum_over_a_row_is_the_likelihood_of_its_tags(scheme: str, prefixes: str, holes: bool) -> None:
    names = tag_names(["X", "Y"], scheme)  # type: ignore[arg-type]
    rows = [["O", "B-X", "I-X", "B-Y"], ["B-Y"], [], ["O", "B-Y", "O"]]
    if scheme == "BIOES":
        rows = [["O", "B-X", "E-X", "S-Y"], ["I-Y"], [], ["E-X", "B-Y", "I-Y"]]  # a window may begin and end anyhow
    rng = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    tags = np.array([names.index(tag) for row in rows for tag in row])
    if holes:
        tags[[1, 2, 4]] = IGNORED
    logits = 3 * rng.normal(size=(len(tags), len(names)))
    losses = sequence_losses(
        torch.from_numpy(logits), torch.from_numpy(tags), starts, prefixes=prefixes, ignored=IGNORED
    )
    assert losses.dtype == torch.float32
    for start, end in pairwise(starts.tolist()):
        expected = by_hand(logits[start:end], tags[start:end], names, scheme) if end > start else 0.0
        assert float(losses[start:end].sum()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("holes", [False, True])
def test_gradients_are_right(holes: bool) -> None:
    rng = np.random.default_rng(1)
    starts = np.array([0, 5, 5, 7, 10])
    tags = torch.tensor([0, 1, 3, 4, 0, 1, 2, 0, 0, 1])
    if holes:
        tags[[1, 2, 8]] = IGNORED
    logits = torch.from_numpy(rng.normal(size=(10, 5))).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=4)).repeat_interleave(torch.tensor([5, 0, 2, 3]))

    def loss(values: torch.Tensor) -> torch.Tensor:
        # In double precision: what is rounded at the end is not to be seen here.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            return (sequence_losses(values, tags, starts, prefixes="BIES", ignored=IGNORED) * weights).sum()

    assert torch.autograd.gradcheck(loss, (logits,))


def test_rows_do_not_meet_and_huge_logits_do_not_overflow() -> None:
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(200 * rng.normal(size=(300, 9)))
    starts = np.array([0, 256, 300])
    tags = torch.zeros(300, dtype=torch.int64)
    both = sequence_losses(logits, tags, starts, prefixes="BIES", ignored=IGNORED)
    alone = sequence_losses(logits[256:], tags[256:], np.array([0, 44]), prefixes="BIES", ignored=IGNORED)
    assert torch.isfinite(both).all() and torch.allclose(both[256:], alone)
    assert float(both[:256].sum()) > 0


def test_a_certain_answer_costs_nothing_and_no_tokens_nothing_at_all() -> None:
    logits = torch.full((3, 5), -50.0)
    tags = torch.tensor([0, 1, 3])
    logits[torch.arange(3), tags] = 50.0
    starts = np.array([0, 3])
    assert float(sequence_losses(logits, tags, starts, prefixes="BIES", ignored=IGNORED).sum()) == pytest.approx(0)
    none = sequence_losses(logits[:0], tags[:0], np.array([0, 0]), prefixes="BIES", ignored=IGNORED)
    assert none.shape == (0,)
