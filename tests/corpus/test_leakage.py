from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.keys import PAIR
from bert_ops.corpus.leakage import LeakFinder

ALPHABET = "天地玄黄宇宙洪荒日月盈昃"


def by_hand(examples: list[str], documents: list[str], n: int, min_share: float) -> dict[tuple[int, int], float]:
    def grams(text: str) -> set[str]:
        return {text[i : i + n] for i in range(max(len(text) - n + 1, 1))}

    found = {}
    for d, document in enumerate(documents):
        for e, example in enumerate(examples):
            if len(example) >= n:
                share = len(grams(example) & grams(document)) / len(grams(example))
                if share and share >= min_share:
                    found[d, e] = share
    return found


@given(
    st.lists(st.text(ALPHABET[:4], max_size=12), max_size=6),
    st.lists(st.text(ALPHABET[:4], max_size=30), max_size=5),
    st.sampled_from([0.3, 0.5, 1.0]),
)
def test_shares_as_by_hand(examples: list[str], documents: list[str], min_share: float) -> None:
    finder = LeakFinder(examples, ngram=4, min_share=min_share)
    found = {(leak.document, leak.example): leak.share for leak in finder.find(documents)}
    assert found == by_hand(examples, documents, 4, min_share)
    assert finder.skipped == sum(len(example) < 4 for example in examples)


def test_an_example_quoted_in_a_longer_text_is_found() -> None:
    rng = random.Random(1)
    examples = ["".join(rng.choices(ALPHABET, k=40)) for _ in range(50)]
    documents = ["".join(rng.choices(ALPHABET, k=400)) for _ in range(100)]
    documents[17] = documents[17][:200] + examples[3] + documents[17][200:]
    documents[40] = documents[40][:100] + examples[8][:20] + documents[40][100:]
    leaks = LeakFinder(examples, ngram=8, min_share=0.8).find(documents)
    assert [(leak.document, leak.example, leak.share) for leak in leaks] == [(17, 3, 1.0)]


def test_nothing_to_look_for() -> None:
    assert LeakFinder([], ngram=8, min_share=0.5).find(["天地"]) == []
    assert LeakFinder(["天地"], ngram=8, min_share=0.5).find(["天地玄黄宇宙洪荒日月"]) == []


def test_a_pair_leaks_by_the_text_of_which_more_is_quoted() -> None:
    one, other = "天地玄黄宇宙洪荒", "日月盈昃"
    examples = [one + PAIR + other, "昃" + PAIR + "盈", "玄" + PAIR + one, other + PAIR + one]
    finder = LeakFinder(examples, ngram=4, min_share=0.5)
    assert finder.skipped == 1
    leaks = finder.find([f"x{one[:6]}y{other}z", f"{other[:2]}{PAIR}{other[2:]}", f"a{PAIR}b{other}"])
    found = {(leak.document, leak.example): leak.share for leak in leaks}
    assert found == {(0, 0): 1.0, (0, 2): 0.6, (0, 3): 1.0, (2, 0): 1.0, (2, 3): 1.0}
    assert len(leaks) == len(found)
