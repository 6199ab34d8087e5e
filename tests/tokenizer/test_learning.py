"""Learning a vocabulary from a stream of texts, and adapting one that is given."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from bert_ops.errors import InputError
from bert_ops.tokenizer import learning, train, wordpiece
from bert_ops.tokenizer.learning import WordCounter
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS, TokenizerParams


def params(**changes) -> TokenizerParams:
    values = {
        "vocab_size": 200,
        "min_frequency": 1,
        "lowercase": True,
        "strip_accents": False,
        "special_tokens": list(REQUIRED_SPECIAL_TOKENS),
        "user_tokens": [],
    }
    return TokenizerParams(**{**values, **changes})


def counted_by_the_library(texts: list[str], params: TokenizerParams) -> Counter[str]:
    frame = Tokenizer(models.WordPiece())
    wordpiece._add_frame(frame, lowercase=params.lowercase, strip_accents=params.strip_accents)
    normalizer, splitter = frame.normalizer, frame.pre_tokenizer
    return Counter(
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
        if len(word) <= wordpiece.LONGEST_WORD
    )


texts = st.lists(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            st.sampled_from(
                ["北京", "playing ", "É", "豈", "≠", "a\u200bb", "，", "1998年", "x" * 101, "\u0301", "한국어"]
            ),
        ),
        max_size=8,
    ).map("".join),
    max_size=8,
)


@pytest.mark.parametrize(("lowercase", "strip_accents"), [(True, False), (True, True), (False, False)])
@settings(max_examples=80, deadline=None)
@given(texts=texts)
def test_words_are_counted_as_the_library_splits_them(texts: list[str], lowercase: bool, strip_accents: bool) -> None:
    values = params(lowercase=lowercase, strip_accents=strip_accents)
    texts = [text.replace("[", "") for text in texts]
    counter = WordCounter(values, most_runs=3)
    for start in range(0, len(texts), 3):
        counter.add(texts[start : start + 3])
    assert counter.result() == counted_by_the_library(texts, values)


def test_special_and_user_tokens_are_no_words() -> None:
    counter = WordCounter(params(user_tokens=["COVID-19"]))
    counter.add(["covid-19 和COVID-19 [MASK]x"])
    assert counter.result() == Counter({"covid": 1, "-": 1, "19": 1, "和": 1, "x": 1})


def test_too_many_words_drop_the_rarest() -> None:
    counter = WordCounter(params(), most_runs=10, most_words=30)
    for number in range(100):
        counter.add([f"often rare{number} seldom{number % 5}"])
    words = counter.result()
    assert counter.rounds > 0 and len(words) <= 40
    assert 100 - counter.rounds <= words["often"] <= 100


@pytest.mark.parametrize("sizes", [(1, 7), (3, 100)])
def test_the_batches_change_no_byte(tmp_path: Path, sizes: tuple[int, int]) -> None:
    rng = random.Random(4)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 7))) for _ in range(200)]
    texts = [" ".join(rng.choices(words, k=9)) + "北京天气" for _ in range(100)]
    for size in sizes:
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        wordpiece.save(learning.train(learning.count(batches, params()), params()), tmp_path / str(size), params())
    one, two = (tmp_path / str(size) / "tokenizer.json" for size in sizes)
    assert one.read_bytes() == two.read_bytes()


def test_very_frequent_words_are_not_fed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_FED_OCCURRENCES", 1000)
    fed = []
    real = learning._lines
    monkeypatch.setattr(learning, "_lines", lambda *a: (fed.append(line) or line for line in real(*a)))
    words = Counter({"playing": 40_000, "saying": 20_000, "rare": 3, "x": 10**12})
    tokenizer = learning.train(words, params(vocab_size=60))
    assert sum(line.count(" ") + 1 for line in fed) <= 1000
    assert tokenizer.encode("playing saying", add_special_tokens=False).tokens == ["playing", "saying"]
    assert "[UNK]" not in tokenizer.encode("rare", add_special_tokens=False).tokens


class TestUserTokens:
    def test_stay_whole_wherever_they_stand_as_they_are_written(self) -> None:
        values = params(user_tokens=["COVID-19", "北京大学", "a b"])
        tokenizer = learning.train(learning.count([["covid-19北京大学 a b s COVID-19s"]], values), values)
        assert [tokenizer.token_to_id(t) for t in values.user_tokens] == [5, 6, 7]
        assert tokenizer.encode("在北京大学COVID-19s a b", add_special_tokens=False).tokens == [
            "[UNK]", "北京大学", "COVID-19", "s", "a b",
        ]  # fmt: skip
        assert "COVID-19" not in tokenizer.encode("covid-19", add_special_tokens=False).tokens
        assert tokenizer.decode(tokenizer.encode("北京大学").ids, skip_special_tokens=True) == "北京大学"

    @pytest.mark.parametrize(
        ("tokens", "message"),
        [
            (["a", "a"], "'a' twice"),
            (["[MASK]"], "special token"),
            ([" a"], "no space at its ends"),
            (["##a"], "no ##"),
            (["a\nb"], "visible characters"),
            ([""], "visible characters"),
        ],
    )
    def test_that_cannot_work_are_refused(self, tokens: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            params(user_tokens=tokens)


class TestAdapting:
    GIVEN = ("[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "北", "##s", "p", "##l", "Word")

    @pytest.fixture
    def vocabulary(self, tmp_path: Path) -> Path:
        path = tmp_path / "vocab.txt"
        path.write_text("\n".join(self.GIVEN) + "\n", encoding="utf-8")
        return path

    def test_every_id_stays_and_pieces_of_the_corpus_follow(self, vocabulary: Path) -> None:
        values = params(vocab_size=40, user_tokens=["COVID-19"])
        words = learning.count([["北京北京 playing playing say COVID-19"]], values)
        tokenizer = learning.adapt(words, values, vocabulary=vocabulary)
        assert [tokenizer.id_to_token(number) for number in range(len(self.GIVEN))] == list(self.GIVEN)
        assert tokenizer.id_to_token(len(self.GIVEN)) == "COVID-19"
        assert tokenizer.get_vocab_size() == 33  # nothing is left to merge
        assert tokenizer.encode("北京playing", add_special_tokens=False).tokens == ["北", "京", "playing"]
        assert wordpiece.special_ids(tokenizer) == (0, 2, 3, 4, 5)
        assert tokenizer.encode("北").ids == [3, 7, 4]

    def test_most_frequent_characters_come_first_where_room_is_short(self, vocabulary: Path) -> None:
        words = learning.count([["京京京 津津 沪"]], params())
        tokenizer = learning.adapt(words, params(vocab_size=16), vocabulary=vocabulary)
        assert [tokenizer.id_to_token(number) for number in range(12, 16)] == ["京", "津", "沪", None]
        vocabulary.write_text("\n".join([*self.GIVEN, "one", "two"]) + "\n", encoding="utf-8")
        tokenizer = learning.adapt(words, params(vocab_size=16), vocabulary=vocabulary)
        assert [tokenizer.id_to_token(number) for number in range(14, 16)] == ["京", "津"]

    def test_the_stage_adapts_and_transformers_encodes_the_same(self, vocabulary: Path, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        frame = pd.DataFrame({"split": ["train", "test"], "text": ["北京 playing COVID-19", "never seen 沪"]})
        frame.to_parquet(tmp_path / "sentences.parquet")
        section = params(vocab_size=60, user_tokens=["COVID-19"]).model_dump() | {"vocabulary": str(vocabulary)}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"tokenizer": section}), encoding="utf-8")
        for out in ("one", "two"):
            train.run(
                argparse.Namespace(
                    params=tmp_path / "params.yaml", sentences=tmp_path / "sentences.parquet", out=tmp_path / out
                )
            )
        assert (tmp_path / "one/tokenizer.json").read_bytes() == (tmp_path / "two/tokenizer.json").read_bytes()
        ours = wordpiece.load(tmp_path / "one")
        assert (tmp_path / "one/vocab.txt").read_text(encoding="utf-8").split("\n")[: len(self.GIVEN)] == [*self.GIVEN]
        assert "沪" not in ours.get_vocab()
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "one")
        assert theirs.mask_token_id == 5 and theirs.pad_token_id == 0
        for text in ("北京playing COVID-19s covid-19 [MASK]", "the Word 沪"):
            assert theirs(text)["input_ids"] == ours.encode(text).ids

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\n", r"has '\[UNK\]' in its first line"),
            ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n", r"lacks \[MASK\]"),
            ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "line 7 repeats 'a' of line 6"),
            ("[PAD]\n\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", "line 2 is empty"),
            (b"[PAD]\n\xff", "cannot be read"),
            (None, "cannot be read"),
        ],
    )
    def test_a_file_that_is_no_vocabulary_is_refused(self, tmp_path: Path, content, message: str) -> None:
        path = tmp_path / "v.txt"
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(InputError, match=message):
            learning.adapt(Counter({"a": 1}), params(), vocabulary=path)

    def test_a_size_that_would_lose_pieces_is_refused(self, vocabulary: Path, tmp_path: Path) -> None:
        path = tmp_path / "long.txt"
        path.write_text("\n".join([*self.GIVEN, *"0123456789"]) + "\n", encoding="utf-8")
        with pytest.raises(InputError, match="has 22 pieces, which all stay"):
            learning.adapt(Counter({"a": 1}), params(vocab_size=20), vocabulary=path)
        with pytest.raises(InputError, match="leaves no room for COVID-19"):
            learning.adapt(Counter({"a": 1}), params(vocab_size=22, user_tokens=["COVID-19"]), vocabulary=path)

    def test_capitals_that_can_never_be_used_are_noted(self, vocabulary: Path, capsys) -> None:
        learning.adapt(Counter({"a": 1}), params(vocab_size=50), vocabulary=vocabulary)
        assert "1 of 6 pieces" in capsys.readouterr().err
        learning.adapt(Counter({"a": 1}), params(vocab_size=50, lowercase=False), vocabulary=vocabulary)
        assert "capital" not in capsys.readouterr().err
