from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bert_ops.corpus import near
from bert_ops.corpus.keys import PAIR, Keys, key
from bert_ops.corpus.near import BandFiles, Bands, band_hashes, candidates, jaccard, likeness, near_pairs, plan_bands
from bert_ops.corpus.params import NearDuplicateParams
from bert_ops.errors import InputError

PARAMS = NearDuplicateParams(remove=True, ngram=5, threshold=0.8, permutations=128, recall=0.95)
ALPHABET = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"


def text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(length))


def exact(one: str, other: str, n: int = 5) -> float:
    first, second = ({t[i : i + n] for i in range(len(t) - n + 1)} for t in (key(one), key(other)))
    return len(first & second) / len(first | second)


def find(texts: list[str], folder: Path, *, meaning: list[int] | None = None, chunk: int = 7):
    bands = plan_bands(PARAMS)
    files = BandFiles(folder, bands)
    for start in range(0, len(texts), chunk):
        files.append(band_hashes(Keys.of(texts[start : start + chunk]), ngram=5, bands=bands))
    keys = [key(text) for text in texts]
    return near_pairs(
        files,
        np.arange(len(texts)),
        key_of=keys.__getitem__,
        params=PARAMS,
        meaning=np.array(meaning or [0] * len(texts), np.uint64),
    )


def test_bands_find_what_was_asked_for() -> None:
    bands = plan_bands(PARAMS)
    assert bands.recall(0.8) >= 0.95
    assert bands.count * bands.rows <= 128
    longer = Bands(128 // (bands.rows + 1), bands.rows + 1)
    assert longer.recall(0.8) < 0.95
    with pytest.raises(InputError, match="permutations do not reach it"):
        plan_bands(PARAMS.model_copy(update={"threshold": 0.1, "permutations": 8}))


def test_measured_recall_is_the_promised_one(tmp_path: Path) -> None:
    """Pairs a little above the threshold: at least the promised share of them is found, and nothing below it."""
    rng = random.Random(1)
    texts, similar = [], 0
    for _ in range(400):
        one = text(rng, 120)
        place = rng.randrange(120)
        other = one[:place] + text(rng, rng.randrange(1, 9)) + one[place:]
        texts += [one, other]
        similar += exact(one, other) >= 0.8
    removed, beside = find(texts, tmp_path)
    assert not beside
    for pair in removed.values():
        assert pair.similarity == pytest.approx(exact(texts[pair.first], texts[pair.second]))
        assert pair.similarity >= 0.8
        assert pair.first < pair.second
    assert 300 < similar <= 400
    assert len(removed) >= 0.97 * similar  # most pairs lie above the threshold, where recall is higher


def test_punctuation_width_and_case_do_not_count(tmp_path: Path) -> None:
    rng = random.Random(2)
    one = text(rng, 60) + "Hello"
    other = "，".join([one[:20], one[20:]]).replace("Hello", "ＨＥＬＬＯ！")
    removed, _ = find([one, other, text(rng, 60)], tmp_path)
    assert list(removed) == [1]
    assert removed[1].similarity == 1.0


def test_a_text_with_a_label_of_its_own_stays_beside(tmp_path: Path) -> None:
    rng = random.Random(3)
    one = text(rng, 100)
    texts = [one, one + "好", one + "坏", text(rng, 100)]
    removed, beside = find(texts, tmp_path, meaning=[5, 6, 0, 7])
    assert list(removed) == [2]
    assert [(pair.first, pair.second) for pair in beside] == [(0, 1)]


def test_many_copies_of_one_template_cost_no_square(tmp_path: Path) -> None:
    rng = random.Random(4)
    body = text(rng, 200)
    texts = [body + str(number) for number in range(2000)]
    calls = 0
    keys = [key(text) for text in texts]

    def key_of(row: int) -> str:
        nonlocal calls
        calls += 1
        return keys[row]

    bands = plan_bands(PARAMS)
    files = BandFiles(tmp_path, bands)
    files.append(band_hashes(Keys.of(texts), ngram=5, bands=bands))
    meaning = np.zeros(len(texts), np.uint64)
    removed, _ = near_pairs(files, np.arange(len(texts)), key_of=key_of, params=PARAMS, meaning=meaning)
    assert len(removed) == 1999
    assert calls < 3 * len(texts)


def test_short_texts_are_only_like_themselves(tmp_path: Path) -> None:
    removed, beside = find(["很好", "很坏", "好", "不好", "很好用"], tmp_path)
    assert not removed
    assert not beside


def test_candidates_are_pairs_of_equal_hashes() -> None:
    hashes = np.array([7, 3, 7, 3, 7, 1], np.uint64)
    pairs = candidates(hashes, np.array([4, 0, 1, 2, 3, 5]))
    assert pairs.tolist() == [[0, 1], [0, 3], [1, 3], [2, 4]]
    assert candidates(hashes, np.array([5])).shape == (0, 2)


def test_jaccard_of_sets() -> None:
    assert jaccard(np.array([1, 2, 3], np.uint64), np.array([2, 3, 4], np.uint64)) == 0.5
    assert jaccard(np.array([], np.uint64), np.array([], np.uint64)) == 1.0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("abcde", "abcde", (1.0, 1.0)),
        ("abcde", "abcdx", (0.5, 0.5)),
        ("ab", "ab", (1.0, 1.0)),
        (f"abcde{PAIR}vwxyz", f"abcde{PAIR}vwxyz", (1.0, 1.0)),
        (f"abcde{PAIR}vwxyz", f"abcde{PAIR}12345", (0.0, 1 / 3)),
        (f"abcde{PAIR}vwxyz", f"vwxyz{PAIR}abcde", (0.0, 1.0)),
        (f"abcde{PAIR}vwxyz", f"abcdx{PAIR}vwxyz", (0.5, 5 / 7)),
        (f"abcde{PAIR}vwxyz", "abcde", (0.5, 0.5)),
        ("abcde", f"abcde{PAIR}vwxyz", (0.5, 0.5)),
    ],
)
def test_likeness_of_texts_and_pairs(
    one: str, other: str, expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert likeness(one, other, ngram=3) == pytest.approx(expected)
    monkeypatch.setattr(near, "_LONG", 0)
    assert likeness(one, other, ngram=3) == pytest.approx(expected), "as hashes, too"
