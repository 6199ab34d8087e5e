"""Spans of characters and tags of tokens: each stands for the other, and what does not fit is counted."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from bert_ops.errors import InputError
from bert_ops.finetune.spans import Span, check_spans, read_spans
from bert_ops.finetune.tagging import (
    IGNORED,
    Aligned,
    Misaligned,
    Scheme,
    decode,
    read_tag_names,
    spans_of_tags,
    tag_names,
    tags_of_spans,
)
from bert_ops.finetune.viterbi import viterbi

SCHEMES: tuple[Scheme, ...] = ("BIO", "BIOES")
LABELS = ["LOC", "ORG", "PER"]
WORDS = ["华", "水", "发", "在", "北", "京", "new", "york", "##s", "##er", ".", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """WordPiece with continuation pieces and words that it does not know."""
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 13), ("[CLS]", 12))
    return made


def flat(lengths: list[int]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Offsets and starts of texts whose tokens are their characters."""
    places = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in lengths)])
    return np.stack([places, places + 1], 1), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def read(tokenizer: Tokenizer, *texts: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    encodings = tokenizer.encode_batch(list(texts))
    offsets = np.concatenate([np.array(encoding.offsets, np.int64) for encoding in encodings])
    return offsets, np.cumsum([0, *(len(encoding.ids) for encoding in encodings)])


def align(
    tokenizer: Tokenizer, text: str, spans: list[tuple[int, int, str]], *, policy: Misaligned = "widen"
) -> tuple[list[str], Aligned]:
    """Names of the tags of a text's tokens without the special ones."""
    given = check_spans(spans, length=len(text), where="test")
    found = tags_of_spans([given], *read(tokenizer, text), labels=LABELS, scheme="BIO", misaligned=policy)
    assert found.tags[0] == found.tags[-1] == IGNORED
    names = tag_names(LABELS, "BIO")
    return [names[tag] if tag >= 0 else "-" for tag in found.tags[1:-1]], found


@st.composite
def spans_in(draw: st.DrawFn, length: int, labels: list[str] = LABELS) -> list[Span]:
    edges = sorted(draw(st.sets(st.integers(0, length), max_size=8)))
    pairs = [pair for pair in itertools.pairwise(edges) if draw(st.booleans())]
    return [Span(start, end, draw(st.sampled_from(labels))) for start, end in pairs]


# ---------------------------------------------------------------- names


def test_names_are_in_a_fixed_order_and_read_back() -> None:
    assert tag_names(["PER", "LOC"], "BIO") == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    assert tag_names(["词"], "BIOES") == ["O", "B-词", "I-词", "E-词", "S-词"]
    for scheme in SCHEMES:
        assert read_tag_names(tag_names(LABELS, scheme)) == (LABELS, scheme)


@pytest.mark.parametrize("names", [[], ["O"], ["B-X", "I-X", "O"], ["O", "B-X", "I-Y"], ["O", "B-X"], ["good", "bad"]])
def test_other_names_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match="no list of tags"):
        read_tag_names(names)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no label of spans"),
        ([""], "''"),
        ([" "], "' '"),
        (["B-PER"], "'B-PER' cannot be part of a tag"),
        (["PER", "LOC", "PER"], "more than once: 'PER'"),
    ],
)
def test_labels_that_tags_cannot_name_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tag_names(labels, "BIO")


def test_an_unknown_scheme_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'IOB1' is unknown\n  allowed: BIO, BIOES"):
        tag_names(LABELS, "IOB1")  # type: ignore[arg-type]


# ---------------------------------------------------------------- spans as people give them


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[0, 2, "PER"], [1, 3, "LOC"]], r"the spans \[0, 2, 'PER'\] and \[1, 3, 'LOC'\] overlap"),
        ([[0, 2, "PER"], [0, 2, "PER"]], "overlap"),
        ([[3, 5, "PER"]], "outside of the text; the text has 4 characters"),
        ([[-1, 2, "PER"]], "outside of the text"),
        ([[2, 2, "PER"]], "is empty or outside"),
        ([[0, 2, "GPE-NAM"]], "'GPE-NAM' cannot be part of a tag"),
        ([[0, 2, ""]], "'' cannot be part of a tag"),
        ([[0, 2, None]], "None cannot be part of a tag"),
        ([[0.0, 2, "PER"]], "no whole numbers"),
        ([[0, True, "PER"]], "no whole numbers"),
        ([[0, 2]], "no list of spans"),
        ({"start": 0}, "no list of spans"),
        (7, "no list of spans"),
    ],
)
def test_bad_spans_are_refused_with_the_place(spans: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_spans(json.dumps(spans), text="华水发在", where="example 17")
    assert "example 17" in str(caught.value)


def test_spans_are_read_in_the_order_of_the_text() -> None:
    assert read_spans('[[2, 4, "B"], [0, 2, "A"]]', text="abcd", where="x") == [(0, 2, "A"), (2, 4, "B")]
    assert read_spans("[]", where="x") == []
    with pytest.raises(InputError, match="no list of spans: 'PER 0 2'"):
        read_spans("PER 0 2", where="x")


# ---------------------------------------------------------------- there and back


@given(data=st.data(), scheme=st.sampled_from(SCHEMES))
@settings(max_examples=150)
def test_spans_become_tags_and_the_same_spans_again(data: st.DataObject, scheme: Scheme) -> None:
    lengths = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    spans = [data.draw(spans_in(length)) for length in lengths]
    where = flat(lengths)
    found = tags_of_spans(spans, *where, labels=LABELS, scheme=scheme, misaligned="fail")
    assert (found.misaligned, found.cut, found.lost, found.spans) == (0, 0, 0, sum(map(len, spans)))
    assert found.describe() == []
    assert spans_of_tags(found.tags, *where, labels=LABELS, scheme=scheme) == spans
    logits = np.eye(len(tag_names(LABELS, scheme)))[found.tags]
    for constrained in (False, True):
        assert decode(logits, *where, labels=LABELS, scheme=scheme, constrained=constrained) == spans


@pytest.mark.parametrize("scheme", SCHEMES)
def test_words_with_parts_of_speech_survive(tokenizer: Tokenizer, scheme: Scheme) -> None:
    words = [("华水发", "nr"), ("在", "p"), ("北京", "ns"), ("New", "nz"), ("Yorkers", "nz"), ("。", "w"), ("发", "v")]
    text = "华水发在北京New Yorkers。发"
    tagged: list[Span] = []
    for word, kind in words:
        start = text.index(word, tagged[-1].end if tagged else 0)
        tagged.append(Span(start, start + len(word), kind))
    for spans, labels in (
        (tagged, sorted({kind for _, kind in words})),
        ([span._replace(label="word") for span in tagged], ["word"]),
    ):
        where = read(tokenizer, text)
        found = tags_of_spans([spans], *where, labels=labels, scheme=scheme, misaligned="fail")
        content = where[0][:, 1] > 0
        assert (found.tags[content] > 0).all() and (found.tags[~content] == IGNORED).all()
        assert spans_of_tags(found.tags, *where, labels=labels, scheme=scheme) == [spans]


def test_a_segmentation_is_tagged_as_the_field_does() -> None:
    spans = [[Span(0, 1, "w"), Span(1, 3, "w"), Span(3, 7, "w")]]
    found = tags_of_spans(spans, *flat([7]), labels=["w"], scheme="BIOES", misaligned="fail")
    assert "".join(tag_names(["w"], "BIOES")[tag][0] for tag in found.tags) == "SBEBIIE"


# ---------------------------------------------------------------- tokens of WordPiece


def test_pieces_and_unknown_words_have_tags_of_their_own(tokenizer: Tokenizer) -> None:
    tags, found = align(tokenizer, "华水发 in New Yorkers 😀.", [(0, 3, "PER"), (7, 18, "LOC"), (19, 20, "ORG")])
    # 华 水 发 [UNK]=in new york ##er ##s [UNK]=😀 .
    assert tags == ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "I-LOC", "I-LOC", "I-LOC", "B-ORG", "O"]
    assert found.misaligned == 0


@pytest.mark.parametrize(
    ("spans", "tags", "lost"),
    [
        ([(0, 4, "LOC")], ["B-LOC", "O", "O"], 0),  # "yorkstown" is [UNK]: begins where it does, ends within
        ([(4, 11, "LOC")], ["B-LOC", "I-LOC", "O"], 0),  # begins within, ends well
        ([(0, 4, "LOC"), (5, 9, "PER")], ["B-LOC", "O", "O"], 1),  # the first has the token
        ([(0, 4, "LOC"), (5, 11, "PER")], ["B-LOC", "B-PER", "O"], 0),
        ([(9, 11, "PER")], ["O", "B-PER", "O"], 0),  # with the space before
        ([(9, 10, "PER")], ["O", "O", "O"], 1),  # the space alone
    ],
)
def test_misaligned_spans_are_counted_and_widened(
    tokenizer: Tokenizer, spans: list[tuple[int, int, str]], tags: list[str], lost: int
) -> None:
    got, found = align(tokenizer, "yorkstown 华 水", spans)
    assert got == tags
    assert (found.misaligned, found.lost, found.cut) == (len(spans), lost, 0)
    assert [span for _, span, _ in found.examples] == spans
    assert len(found.describe()) == 1


def test_policies_for_misaligned_spans(tokenizer: Tokenizer) -> None:
    text, spans = "yorkstown 华水 发", [(4, 11, "LOC"), (13, 14, "PER")]
    widened, found = align(tokenizer, text, spans)
    assert widened == ["B-LOC", "I-LOC", "O", "B-PER"]
    assert found.examples == [(0, (4, 11, "LOC"), (0, 11, "LOC"))]
    dropped, counted = align(tokenizer, text, spans, policy="drop")
    assert dropped == ["-", "-", "O", "B-PER"]
    assert counted.misaligned == 1
    with pytest.raises(InputError) as caught:
        align(tokenizer, text, spans, policy="fail")
    assert "1 of 2 spans" in caught.value.what
    assert "[4, 11, 'LOC'] of example number 0 (tokens of [0, 11])" in caught.value.what
    assert "misaligned" in str(caught.value.remedy)
    align(tokenizer, text, spans[1:], policy="fail")


@pytest.mark.parametrize(
    ("direction", "spans", "wanted"),
    [
        ("right", [(0, 2, "PER"), (3, 5, "LOC"), (5, 6, "LOC")], ["B-PER", "I-PER", "O", "B-LOC"]),
        ("left", [(0, 1, "LOC"), (1, 3, "PER"), (4, 6, "LOC")], ["B-PER", "O", "B-LOC", "I-LOC"]),
    ],
)
def test_spans_that_the_model_does_not_read_are_cut_not_misaligned(
    tokenizer: Tokenizer, direction: str, spans: list[tuple[int, int, str]], wanted: list[str]
) -> None:
    tokenizer.enable_truncation(6, direction=direction)
    try:
        tags, found = align(tokenizer, "华水发在北京", spans, policy="fail")
    finally:
        tokenizer.no_truncation()
    assert tags == wanted
    assert (found.cut, found.misaligned) == (2, 0)
    assert found.describe() == ["2 of 3 spans reach outside of what the model reads of their texts"]


def test_a_text_without_tokens_has_no_spans_and_harms_no_other() -> None:
    offsets, starts = np.array([[0, 0], [0, 0], [0, 1], [1, 2]]), np.array([0, 2, 4, 4])
    spans = [[Span(0, 1, "PER")], [Span(0, 1, "LOC"), Span(1, 2, "PER")], [Span(0, 2, "PER")]]
    found = tags_of_spans(spans, offsets, starts, labels=LABELS, scheme="BIO", misaligned="fail")
    assert found.tags.tolist() == [IGNORED, IGNORED, 1, 5]
    assert found.cut == 2
    assert decode(np.eye(7)[np.maximum(found.tags, 0)], offsets, starts, labels=LABELS, scheme="BIO") == [
        [],
        spans[1],
        [],
    ]
    nothing = tags_of_spans([], *flat([]), labels=LABELS, scheme="BIO", misaligned="fail")
    assert (len(nothing.tags), nothing.spans) == (0, 0)
    assert spans_of_tags(nothing.tags, *flat([]), labels=LABELS, scheme="BIO") == []


def test_spans_with_labels_that_have_no_tag_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown labels: 'GPE'\n  allowed: LOC, ORG, PER"):
        tags_of_spans([[Span(0, 1, "GPE")]], *flat([2]), labels=LABELS, scheme="BIO", misaligned="widen")


def test_answers_never_overlap_though_tokens_do() -> None:
    offsets, starts = np.array([[0, 1], [0, 1], [1, 2]]), np.array([0, 3])
    got = spans_of_tags(np.array([1, 3, 3]), offsets, starts, labels=LABELS, scheme="BIO")
    assert got == [[(0, 1, "LOC"), (1, 2, "ORG")]]


# ---------------------------------------------------------------- reading tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_sequence_is_read_as_seqeval_reads_it(scheme: Scheme) -> None:
    names = tag_names(LABELS, scheme)
    chance = random.Random(0)
    tags = [[chance.randrange(len(names)) for _ in range(chance.randrange(9))] for _ in range(3000)]
    where = flat([len(row) for row in tags])
    got = spans_of_tags(np.array([tag for row in tags for tag in row]), *where, labels=LABELS, scheme=scheme)
    wanted = [
        [(start, last + 1, label) for label, start, last in get_entities([names[tag] for tag in row])] for row in tags
    ]
    assert got == wanted


def allowed(names: list[str], path: tuple[int, ...]) -> bool:
    """Whether a sequence of tags keeps to its scheme."""
    bioes = any(name.startswith("E") for name in names)
    row = ["O", *(names[tag] for tag in path), "O"]
    for before, after in itertools.pairwise(row):
        inside = after[0] in "IE"
        if inside and not (before[0] in "BI" and before[2:] == after[2:]):
            return False
        if bioes and before[0] in "BI" and not inside:
            return False
    return True


@pytest.mark.parametrize(("scheme", "labels"), [("BIO", ["A", "B"]), ("BIOES", ["A", "B"]), ("BIOES", ["w"])])
def test_viterbi_finds_the_best_of_all_allowed_sequences(scheme: Scheme, labels: list[str]) -> None:
    names = tag_names(labels, scheme)
    lengths = [3, 0, 4, 1, 2]
    paths = {n: [p for p in itertools.product(range(len(names)), repeat=n) if allowed(names, p)] for n in set(lengths)}
    for seed in range(5):
        scores = np.random.default_rng(seed).normal(size=(sum(lengths), len(names))).astype(np.float32)
        starts = np.cumsum([0, *lengths])
        got = viterbi(scores, starts, prefixes={"BIO": "BI", "BIOES": "BIES"}[scheme])
        for begin, end in itertools.pairwise(starts):
            part = scores[begin:end]
            best = max(paths[end - begin], key=lambda path: sum(part[t, tag] for t, tag in enumerate(path)))
            assert tuple(got[begin:end]) == best


def test_an_entity_is_not_broken_by_one_uncertain_tag() -> None:
    names = tag_names(["LOC", "PER"], "BIO")
    logits = np.zeros((3, 5))
    for token, (likely, next_best) in enumerate([("B-PER", "O"), ("I-LOC", "I-PER"), ("I-PER", "O")]):
        logits[token, names.index(likely)], logits[token, names.index(next_best)] = 2.0, 1.9
    where = flat([3])
    assert decode(logits, *where, labels=["LOC", "PER"], scheme="BIO") == [[(0, 3, "PER")]]
    broken = decode(logits, *where, labels=["LOC", "PER"], scheme="BIO", constrained=False)
    assert broken == [[(0, 1, "PER"), (1, 2, "LOC"), (2, 3, "PER")]]


@given(seed=st.integers(0, 2**32 - 1), scheme=st.sampled_from(SCHEMES))
@settings(max_examples=60)
def test_both_decoders_agree_where_the_likeliest_tags_are_allowed(seed: int, scheme: Scheme) -> None:
    names = tag_names(LABELS, scheme)
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 4, 5).tolist()
    logits = rng.normal(size=(sum(lengths), len(names)))
    where = flat(lengths)
    free = decode(logits, *where, labels=LABELS, scheme=scheme, constrained=False)
    bound = decode(logits, *where, labels=LABELS, scheme=scheme)
    for text, (begin, end) in enumerate(itertools.pairwise(where[1])):
        if allowed(names, tuple(logits[begin:end].argmax(1))):
            assert free[text] == bound[text]
