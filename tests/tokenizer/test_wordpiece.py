"""WordPiece: the textbook split, Chinese by character, the same bytes every time, the same ids in ``transformers``."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pytest

from bert_ops.errors import ArtifactError, InputError
from bert_ops.tokenizer import learning, wordpiece
from bert_ops.tokenizer import train as stage
from bert_ops.tokenizer.fast import FastEncoder
from bert_ops.tokenizer.params import TokenizerParams

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def params(**changes) -> TokenizerParams:
    values = {
        "vocab_size": 200,
        "min_frequency": 1,
        "lowercase": True,
        "strip_accents": False,
        "special_tokens": SPECIAL,
        "user_tokens": [],
    }
    return TokenizerParams(**{**values, **changes})


def trained(texts: list[str], params: TokenizerParams):
    return learning.train(learning.count([texts], params), params)


def build(*pieces: str):
    vocab = {piece: number for number, piece in enumerate([*SPECIAL, *pieces])}
    return wordpiece.build(vocab, lowercase=True, strip_accents=False, special_tokens=SPECIAL)


def test_playing_splits_into_play_and_ing() -> None:
    tokenizer = build("play", "##ing", "p", "##l", "##a", "##y")
    assert tokenizer.encode("playing", add_special_tokens=False).tokens == ["play", "##ing"]
    assert tokenizer.encode("Playing", add_special_tokens=False).tokens == ["play", "##ing"]


def test_chinese_splits_by_character() -> None:
    tokenizer = build("我", "爱", "北", "京", "##京", "play", "##ing")
    assert tokenizer.encode("我爱北京playing", add_special_tokens=False).tokens == [
        "我", "爱", "北", "京", "play", "##ing",
    ]  # fmt: skip


def test_a_pair_gets_separators_and_segments() -> None:
    encoding = build("我", "爱").encode("我", "爱")
    assert encoding.tokens == ["[CLS]", "我", "[SEP]", "爱", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 1, 1]


def test_training_learns_pieces_and_keeps_every_frequent_character() -> None:
    texts = ["playing saying staying 我爱北京", "he plays and she says 北京天安门"] * 5
    tokenizer = trained(texts, params())
    vocab = tokenizer.get_vocab()
    assert [tokenizer.id_to_token(i) for i in range(5)] == SPECIAL
    assert set("我爱北京天安门") <= set(vocab)
    tokens = tokenizer.encode("playing", add_special_tokens=False).tokens
    assert len(tokens) < len("playing") and "".join(tokens).replace("##", "") == "playing"


def test_rare_characters_become_unknown_and_do_not_fill_the_vocabulary() -> None:
    texts = ["北京"] * 3 + ["龘"]
    tokenizer = trained(texts, params(min_frequency=2))
    assert "龘" not in tokenizer.get_vocab()
    assert tokenizer.encode("龘", add_special_tokens=False).tokens == ["[UNK]"]


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 7))) for _ in range(300)]
    texts = [" ".join(rng.choices(words, k=12)) + "北京天气" for _ in range(200)]
    for name in ("one", "two"):
        wordpiece.save(trained(texts, params(vocab_size=150)), tmp_path / name, params())
    for file in ("tokenizer.json", "vocab.txt"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


#: Letters and marks of many scripts, some that normalisation changes, some that it deletes.
_SCRIPTS = (
    "我们喜欢苹果北京大学中国的一是了在人有豈更𠀀𠮷",
    "playing CARDS The quick brown ﬁne naïve Ünïcödé İstanbul straße café re\u0301sume\u0301",
    "ひらがなカタカナ・ー",
    "한국어 조합 \u1112\u1161\u11ab",
    "Привет Ёлка ΑΣ' ς Ελλάδα",
    "हिन्दी ไทย العَرَبِيَّة עִבְרִית",
    "0123456789 ٣٤ １２３ ½ ①",
    "，。！？、；：“”（）《》—…,.!?;:'\"()[]{}<>@#$%^&*_+=/\\|~`",
    "😀👩\u200d👩\u200d👧❤\ufe0f🇨🇳1\ufe0f\u20e3",
    " \t\n\u00a0\u3000\u200b\u2028\x00\x07\ufffd\u00ad\ue000",
)
_WHOLE = ("[MASK]", "[SEP]", "[CLS]", "[UNK]", "[PAD]", "[mask]", "COVID-19", "covid-19", "北京大学", "x" * 101)


def mixed_lines(count: int, *, seed: int) -> list[str]:
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(0, 6)):
            if rng.random() < 0.15:
                parts.append(rng.choice(_WHOLE))
            else:
                parts.append("".join(rng.choices(rng.choice(_SCRIPTS), k=rng.randint(1, 12))))
            parts.append(rng.choice(["", "", " "]))
        lines.append("".join(parts))
    return lines


@pytest.mark.parametrize(("lowercase", "strip_accents"), [(True, False), (True, True), (False, False)])
def test_transformers_encodes_identically(lowercase: bool, strip_accents: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    values = params(
        vocab_size=700, lowercase=lowercase, strip_accents=strip_accents, user_tokens=["COVID-19", "北京大学"]
    )
    wordpiece.save(trained(mixed_lines(3000, seed=1), values), tmp_path, values)
    ours = wordpiece.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    lines = mixed_lines(10_000, seed=2)
    assert theirs(lines)["input_ids"] == [e.ids for e in ours.encode_batch(lines)]
    pairs = list(zip(lines, mixed_lines(10_000, seed=3), strict=True))
    of_theirs = theirs([one for one, _ in pairs], [two for _, two in pairs])
    of_ours = ours.encode_batch(pairs)
    assert of_theirs["input_ids"] == [e.ids for e in of_ours]
    assert of_theirs["token_type_ids"] == [e.type_ids for e in of_ours]
    assert sorted(theirs.all_special_tokens) == sorted(SPECIAL) and len(theirs) == ours.get_vocab_size()
    fast = FastEncoder(ours).encode(lines)
    plain = theirs(lines, add_special_tokens=False)["input_ids"]
    assert [fast.text(number).tolist() for number in range(len(lines))] == plain


def test_a_vocabulary_smaller_than_the_alphabet_is_refused() -> None:
    with pytest.raises(InputError) as error:
        trained(["甲乙丙丁戊己庚辛壬癸子丑", "abcdef"], params(vocab_size=20))
    assert "`tokenizer.vocab_size` is 20" in str(error.value)
    assert "at least 28" in str(error.value)


def test_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="no text"):
        trained(["", ""], params())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"special_tokens": ["[PAD]"]}, "must begin with"),
        ({"special_tokens": [*SPECIAL, "[MASK]"]}, "once"),
        ({"vocab_size": 3}, "greater than or equal to 16"),
    ],
)
def test_impossible_parameters_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params(**changes)


def test_a_damaged_tokenizer_is_named(tokenizer_folder: Path, tmp_path: Path) -> None:
    text = (tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is damaged"):
        wordpiece.load(tmp_path)


def test_the_stage_leaves_the_old_tokenizer_when_it_fails(
    tokenizer_folder: Path, params_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tokenizer"
    out.mkdir()
    (out / "vocab.txt").write_text("old")
    with pytest.raises(ArtifactError, match="does not exist"):
        stage.run(argparse.Namespace(params=params_file, sentences=tmp_path / "none.parquet", out=out))
    assert (out / "vocab.txt").read_text() == "old"
