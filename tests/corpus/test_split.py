from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.params import SplitParams
from bert_ops.corpus.split import SPLITS, side

USUAL = SplitParams(train=0.8, validation=0.1, test=0.1, salt="")


def test_shares_are_met() -> None:
    sides = Counter(side(f"text {number}", USUAL) for number in range(20_000))
    assert sides["train"] / 20_000 == pytest.approx(0.8, abs=0.012)  # four standard deviations
    assert sides["validation"] / 20_000 == pytest.approx(0.1, abs=0.009)
    assert sides["test"] / 20_000 == pytest.approx(0.1, abs=0.009)


def test_sides_are_pinned() -> None:
    """Golden: a change here moves texts of every user between splits and makes scores incomparable."""
    sides = {text: side(text, USUAL) for text in ("江泽民", "text 0", "酒店", "甲", "乙", "丙")}
    assert sides == {
        "江泽民": "train",
        "text 0": "validation",
        "酒店": "test",
        "甲": "test",
        "乙": "train",
        "丙": "validation",
    }


def test_salt_changes_sides() -> None:
    salted = USUAL.model_copy(update={"salt": "other"})
    assert any(side(f"{n}", USUAL) != side(f"{n}", salted) for n in range(100))


@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), (0.9, 0.1, 0.0), (0.9, 0.0, 0.1), (0.7, 0.2, 0.1)])
def test_a_share_of_zero_stays_empty(shares: tuple[float, float, float]) -> None:
    params = SplitParams(train=shares[0], validation=shares[1], test=shares[2], salt="")
    seen = {side(f"{number}", params) for number in range(500)}
    assert seen == {name for name, share in zip(SPLITS, shares, strict=True) if share > 0}


@given(st.text(), st.floats(0.05, 0.9), st.floats(0.0, 0.05))
def test_more_training_share_takes_no_text_out_of_training(key: str, train: float, more: float) -> None:
    def params(share: float) -> SplitParams:
        return SplitParams(train=share, validation=(1 - share) / 2, test=(1 - share) / 2, salt="")

    if side(key, params(train)) == "train":
        assert side(key, params(train + more)) == "train"
