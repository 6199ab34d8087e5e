"""The fast encoder gives the library's own ids, whatever stands in a text."""

from __future__ import annotations

import json
import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from bert_ops.errors import InputError
from bert_ops.tokenizer import characters, fast, wordpiece
from bert_ops.tokenizer.fast import FastEncoder
from bert_ops.tokenizer.joined import join
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS

USER = ("COVID-19", "北京大学", "ét", "<a b>")
#: Letters, ideographs and marks of many scripts, so that ids say more than "unknown".
_KNOWN = (
    "我们北京大学中国。，！？的一是了，·—ａ０豈更𠀀abcdefghijklmnopqrstuvwxyzABC0123456789ßéèüñçﬁåø"
    "اللهहिन्दीไทยひらがなカタカナ한국어가각гдеΑΣςσ😀👩👦🇨🇳#@$%&*()[]-_'\"\\/.:;=+\u0301\u0308\u200d\ufe0f"
)


def vocabulary(*, letters: str = _KNOWN, extra: int = 0) -> dict[str, int]:
    """Special and user tokens, characters, their continuations, some words, and fillers that make ids large."""
    pieces = [*REQUIRED_SPECIAL_TOKENS, *(f"[filler{number}]" for number in range(extra)), *USER]
    for letter in letters:
        pieces += [letter, f"##{letter}"]
    pieces += ["the", "##ing", "play", "##ay", "19", "##98", "σας", "가", "##각", "##", "ﬁ", "i̇"]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def build(vocab: dict[str, int], *, lowercase: bool, strip_accents: bool) -> Tokenizer:
    return wordpiece.build(
        vocab,
        lowercase=lowercase,
        strip_accents=strip_accents,
        special_tokens=REQUIRED_SPECIAL_TOKENS,
        user_tokens=USER,
    )


def without_chinese_splitting(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=None, lowercase=True
    )
    return tokenizer


TOKENIZERS = {
    "lower": build(vocabulary(), lowercase=True, strip_accents=False),
    "cased": build(vocabulary(), lowercase=False, strip_accents=False),
    "stripped": build(vocabulary(), lowercase=True, strip_accents=True),
    "cased, stripped": build(vocabulary(), lowercase=False, strip_accents=True),
    "no Latin": build(vocabulary(letters="我们北京大学。，"), lowercase=True, strip_accents=True),
    "large": build(vocabulary(extra=66_000), lowercase=True, strip_accents=False),
    "not by character": without_chinese_splitting(build(vocabulary(), lowercase=True, strip_accents=False)),
}
ENCODERS = {name: FastEncoder(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def forgetful(encoder: FastEncoder) -> FastEncoder:
    assert encoder.runs is not None
    encoder.forget()
    return encoder


scraps = st.one_of(
    st.text(st.sampled_from(_KNOWN), max_size=8),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.text(st.characters(categories=["Mn", "Mc", "Me", "Cf", "Cc", "Zs", "Zl", "Zp"]), max_size=3),
    st.text(st.characters(min_codepoint=0x3000, max_codepoint=0x9FFF), max_size=6),
    st.text(st.characters(min_codepoint=0xF900, max_codepoint=0xFAFF), max_size=3),
    st.text(st.characters(min_codepoint=0x1F000, max_codepoint=0x323AF), max_size=3),
    st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=4),
    st.sampled_from(
        [
            *REQUIRED_SPECIAL_TOKENS, *USER, "[mask]", "[MASK", "MASK]", "[CLS][SEP]", "covid-19", "playing the",
            "1998",
            "a\u0301", "中\u0301", "，\u0301", "e\u0301t", "≠", "ΑΣ", "ΑΣ'Α", "İ", "ﬁ", "\u200b", "\u200d", "\x00",
            "\ufffd", "\x0b", "\x85", "\u2028", "\n", "\r\n", "\t", " ", "\u3000", "👨‍👩‍👧‍👦", "🇨🇳", "❤️", "1️⃣",
            "x" * 100, "x" * 101, "é" * 101, "x" * 70, "\ud7b0", "𠮷", "\U0002b740", "\U0002ceb0", "\U00030000",
            "\ue000", "\U000f0000", "\U0010ffff", "##ing", "हिन्दी", "ไทย", "اللّٰه", "ひらがな", "カタカナ",
            "한국어", "ᄒ\u1161ᆫ", "\u1fef", "\u037e", "\u166d", "\U000111c9",
        ]
    ),
)  # fmt: skip
texts_of_scraps = st.lists(st.lists(scraps, max_size=8).map("".join), max_size=6)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(texts=texts_of_scraps)
def test_ids_are_the_library_s(name: str, texts: list[str]) -> None:
    expected = [e.ids for e in TOKENIZERS[name].encode_batch_fast(texts, add_special_tokens=False)]
    # The encoder remembers runs from one example to the next, as it does in use; then it is made to know none.
    for encoder in (ENCODERS[name], forgetful(ENCODERS[name])):
        encoded = encoder.encode(texts)
        assert [encoded.text(number).tolist() for number in range(len(texts))] == expected
        assert len(encoded) == len(texts) and encoded.offsets[-1] == len(encoded.ids) == len(encoded.word_starts)


@settings(max_examples=60, deadline=None)
@given(texts=texts_of_scraps)
def test_a_small_memory_and_every_way_through_give_the_same(texts: list[str]) -> None:
    encoder = FastEncoder(TOKENIZERS["lower"], kept_runs=2)
    ways = [encoder.encode(texts)]
    encoder._skip = 1  # what follows text without repetition
    ways.append(encoder.encode(texts))
    alone = FastEncoder(TOKENIZERS["lower"])
    assert alone.runs is not None and alone.runs.separator is not None
    alone.runs.separator = None  # as for a vocabulary that holds every isolated character
    ways.append(alone.encode(texts))
    for other in ways[1:]:
        for mine, theirs in zip(
            (ways[0].ids, ways[0].offsets, ways[0].word_starts),
            (other.ids, other.offsets, other.word_starts),
            strict=True,
        ):
            assert mine.tolist() == theirs.tolist()


@pytest.mark.slow
def test_every_character_alone_and_between_others() -> None:
    """All of Unicode but most of its planes 4 to 16, in which nothing is assigned but a few controls."""
    points = [p for p in range(0x40000) if not 0xD800 <= p < 0xE000] + [
        *range(0x40000, 0x110000, 61),
        0xE0001,
        0x10FFFF,
    ]
    texts = [
        "".join(f"我{chr(p)}a{chr(p)} {chr(p)}，" for p in points[n : n + 128]) for n in range(0, len(points), 128)
    ]
    tokenizer, encoder = TOKENIZERS["stripped"], ENCODERS["stripped"]
    encoded = encoder.encode(texts)
    for number, encoding in enumerate(tokenizer.encode_batch_fast(texts, add_special_tokens=False)):
        assert encoded.text(number).tolist() == encoding.ids, hex(points[number * 128])


@pytest.mark.parametrize(
    ("lines", "expected_skips"),
    [(120, [0, 1, 0, 2, 1, 0, 4, 3, 2, 1, 0, 8]), (400, [0, 0, 1, 0, 3, 2, 1, 0, 7, 6, 5, 4])],
    ids=["small batches", "batches of which the first part is tried"],
)
def test_text_without_repetition_is_left_to_the_library_for_a_while(lines: int, expected_skips: list[int]) -> None:
    rng = random.Random(3)
    tokenizer = TOKENIZERS["lower"]
    encoder = FastEncoder(tokenizer)
    skipped = []
    for _ in range(12):
        texts = [" ".join("".join(rng.choices(string.ascii_lowercase, k=9)) for _ in range(20)) for _ in range(lines)]
        expected = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        skipped.append(encoder._skip)
        encoded = encoder.encode(texts)
        assert [encoded.text(number).tolist() for number in range(len(texts))] == expected
    assert skipped == expected_skips
    repeated = ["the playing 1998 北京"] * 3000
    while encoder._skip > 0:
        encoder.encode(repeated)
    encoder.encode(repeated)
    assert encoder._skip <= 0 and encoder._next_skip is None


def test_large_batches_are_cut_between_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_MOST_CHARACTERS", 50)
    texts = ["我们playing北京" * n for n in (1, 2, 20, 1, 0, 3, 3, 9)] + ["x" * 200, "", "北京"]
    inside = np.arange(len("\n".join(texts))) % 3 == 1
    whole = FastEncoder(TOKENIZERS["lower"])
    monkeypatch.setattr(whole, "_head", lambda joined: len(texts))
    one, two = whole.encode(texts, inside=inside), forgetful(ENCODERS["lower"]).encode(texts, inside=inside)
    assert one.ids.tolist() == two.ids.tolist() and one.offsets.tolist() == two.offsets.tolist()
    assert one.word_starts.tolist() == two.word_starts.tolist()


def test_memory_is_bounded() -> None:
    encoder = FastEncoder(TOKENIZERS["lower"], kept_runs=100)
    for number in range(50):
        encoder.encode([f"{number}a{other}" for other in range(20)] + ["y" * 500])
        assert encoder.runs is not None
        assert len(encoder.runs.known) <= 100 and encoder.runs.size == len(encoder.runs.known)
    assert len(encoder.runs.pool) < 4096


def test_the_type_of_ids_follows_the_vocabulary() -> None:
    assert ENCODERS["lower"].encode(["我"]).ids.dtype == np.uint16
    assert ENCODERS["large"].encode(["我"]).ids.dtype == np.uint32
    assert ENCODERS["large"].encode(["我"]).ids[0] > 2**16


def test_half_a_surrogate_pair_is_refused_as_the_library_refuses_it() -> None:
    texts = ["ok", "中文\ud800x"]
    with pytest.raises((TypeError, UnicodeEncodeError)):
        TOKENIZERS["lower"].encode_batch_fast(texts, add_special_tokens=False)
    with pytest.raises(InputError, match=r"text 1 holds half of a surrogate pair \(U\+D800\) at character 2"):
        ENCODERS["lower"].encode(texts)


def test_nothing_gives_nothing() -> None:
    encoder = ENCODERS["lower"]
    assert len(encoder.encode([])) == 0
    assert encoder.encode(["", " ", "\u200b"]).offsets.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["added_tokens"][0].update(normalized=True),
        lambda s: s.update(normalizer={"type": "NFKC"}),
        lambda s: s.update(pre_tokenizer={"type": "Whitespace"}),
        lambda s: s.update(truncation={"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}),
    ],
)
def test_a_tokenizer_of_another_kind_is_used_as_it_is(change) -> None:
    specification = json.loads(TOKENIZERS["lower"].to_str())
    change(specification)
    tokenizer = Tokenizer.from_str(json.dumps(specification))
    assert characters.frame_of(specification) is None
    texts = ["我们 playing [PAD] ①", "北京 COVID-19"]
    encoded = FastEncoder(tokenizer).encode(texts)
    expected = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    assert [encoded.text(number).tolist() for number in range(2)] == expected


def test_word_starts() -> None:
    encoder = ENCODERS["lower"]
    text = "我们 playing北京大学，[MASK]中国"
    inside = np.array([False, True, *[False] * (len(text) - 3), True])
    encoded = encoder.encode(["x", text], inside=np.concatenate([[False, False], inside]))
    tokens = [TOKENIZERS["lower"].id_to_token(i) for i in encoded.text(1)]
    starts = encoded.word_starts[1:].tolist()
    assert dict(enumerate(zip(tokens, starts, strict=True))) == dict(
        enumerate(
            [
                ("我", True), ("们", False), ("play", True), ("##ing", False), ("北京大学", True),
                ("，", True), ("[MASK]", True), ("中", True), ("国", False),
            ]
        )
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(texts=texts_of_scraps, seed=st.integers(0, 100))
def test_word_starts_are_the_same_by_table_and_by_library(texts: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = len("\n".join(texts))
    inside = rng.random(size) < 0.5
    one, two = FastEncoder(TOKENIZERS["lower"]), FastEncoder(TOKENIZERS["lower"])
    two._skip = 1
    assert (
        one.encode(texts, inside=inside).word_starts.tolist() == two.encode(texts, inside=inside).word_starts.tolist()
    )


def test_joining_counts_characters_not_bytes() -> None:
    joined = join(["中", "", "a😀"])
    assert joined.bounds.tolist() == [0, 2, 3, 6]
    assert joined.points.tolist() == [ord("中"), 10, 10, ord("a"), ord("😀")]
