"""The character baseline: learns what characters around a span say, chooses on validation, survives odd input."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from bert_ops.errors import InputError
from bert_ops.finetune import character_tagger
from bert_ops.finetune.character_tagger import CharacterTagger, fit_character_tagger
from bert_ops.finetune.scores import evaluate_score, tagging
from bert_ops.finetune.spans import Span

Examples = tuple[list[str], list[list[Span]]]


def made_up(count: int, *, seed: int) -> Examples:
    """Names after 先生, places before 市, in noise."""
    chance = random.Random(seed)
    texts, spans = [], []
    for _ in range(count):
        text, found = "", []
        for _ in range(chance.randrange(1, 4)):
            text += "".join(chance.choices("的是了有我他这个们", k=chance.randrange(1, 5)))
            name = "".join(chance.choices("张王李明华水发", k=2))
            kind = chance.choice(["PER", "LOC"])
            start = len(text) + (2 if kind == "PER" else 0)
            text += f"先生{name}" if kind == "PER" else f"{name}市"
            found.append(Span(start, len(text), kind))
        texts.append(text)
        spans.append(found)
    return texts, spans


def fitted(train: Examples, validation: Examples, *, c: tuple[float, ...] = (1.0,), seed: int = 0) -> CharacterTagger:
    return fit_character_tagger(
        *train,
        validation_texts=validation[0],
        validation_spans=validation[1],
        inverse_regularization=list(c),
        seed=seed,
    )


def f1(tagger: CharacterTagger, examples: Examples) -> float:
    return evaluate_score(tagging(tagger.predict(examples[0]), examples[1], labels=["LOC", "PER"])["entity_f1"])


def test_it_learns_what_stands_around_a_span_and_keeps_the_best_regularisation() -> None:
    train, validation, test = (made_up(count, seed=seed) for seed, count in enumerate((150, 50, 50)))
    alone = {c: fitted(train, validation, c=(c,)) for c in (1e-4, 10.0)}
    chosen = fitted(train, validation, c=(10.0, 1e-4))
    assert f1(alone[1e-4], validation) < 0.5 < 0.95 < f1(chosen, test)
    assert chosen.facts["inverse_regularization"] == 10.0
    assert chosen.facts["validation_entity_f1"] == f1(chosen, validation)
    assert chosen.facts["parameters"] == chosen.coefficients.size + chosen.intercepts.size
    assert chosen.labels == ["LOC", "PER"] and chosen.coefficients.shape[1] == 5


def test_the_strongest_regularisation_is_kept_where_validation_says_so() -> None:
    train, validation = made_up(60, seed=0), made_up(30, seed=1)
    timid = fitted(train, validation, c=(0.02,))
    as_timid = validation[0], timid.predict(validation[0])
    assert 0 < f1(timid, validation) < f1(fitted(train, validation, c=(50.0,)), validation)
    assert fitted(train, as_timid, c=(50.0, 0.02)).facts["inverse_regularization"] == 0.02


def test_characters_that_training_has_not_say_nothing() -> None:
    columns = character_tagger._columns(made_up(30, seed=0)[0])
    x, _ = character_tagger._features(["☃" * 9], columns)
    assert x.toarray().sum(1)[4] == 0
    known, _ = character_tagger._features(["的是了有我他"], columns)
    assert known.toarray().sum(1).min() >= 5


def test_the_same_seed_gives_the_same_answers() -> None:
    train, validation = made_up(40, seed=0), made_up(10, seed=1)
    first, second = (fitted(train, validation, seed=3) for _ in "ab")
    assert np.array_equal(first.coefficients, second.coefficients)
    assert first.predict(validation[0]) == second.predict(validation[0])


def test_a_text_is_answered_alone_and_within_its_bounds() -> None:
    train, validation = made_up(60, seed=0), made_up(20, seed=1)
    tagger = fitted(train, validation)
    odd = ["", "发", "😀\ud800x", "先生", *validation[0], ""]
    together = tagger.predict(odd)
    assert together == [tagger.predict([text])[0] for text in odd]
    assert together[0] == together[-1] == []
    for text, spans in zip(odd, together, strict=True):
        assert all(0 <= span.start < span.end <= len(text) for span in spans)
        assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert tagger.predict([]) == []


def test_one_kind_of_span_everywhere_is_learned_too() -> None:
    # Every character is a word: there is one tag to choose from; with spans of one character there are two.
    texts = ["我他这", "这个", "们"]
    words = [[Span(i, i + 1, "w") for i in range(len(text))] for text in texts]
    tagger = fitted((texts, words), (texts, words))
    assert tagger.predict(["我们这个", "x"]) == [[Span(i, i + 1, "w") for i in range(4)], [Span(0, 1, "w")]]
    some = [[span for span in row if texts[n][span.start] == "这"] for n, row in enumerate(words)]
    tagger = fitted((texts * 9, some * 9), (texts, some), c=(100.0,))
    assert tagger.predict(["他这个"]) == [[Span(1, 2, "w")]]


def test_features_see_two_characters_to_each_side_and_no_other_text() -> None:
    def seen(text: str, place: int) -> list[int]:
        keys, starts = character_tagger._keys(["乙乙乙", text, "丙丙丙"])
        return [int(values[starts[1] + place]) for values in keys]

    base = seen("abcdefg", 3)
    assert len(base) == len(character_tagger.CHARACTERS) + len(character_tagger.CLASSES)
    assert seen("XbcdefX", 3) == base
    for place in (1, 2, 3, 4, 5):
        changed = list("abcdefg")
        changed[place] = "华"
        assert seen("".join(changed), 3) != base
    alone, starts = character_tagger._keys(["abc"])
    assert [int(values[0]) for values in alone] == seen("abc", 0)
    assert starts.tolist() == [0, 3]


def test_labels_of_validation_that_training_has_not_count_as_missed() -> None:
    train, validation = made_up(60, seed=0), made_up(20, seed=1)
    other = validation[0], [[span._replace(label="ORG") for span in row] for row in validation[1]]
    assert fitted(train, other).facts["validation_entity_f1"] == 0.0


def test_no_span_to_learn_is_refused() -> None:
    with pytest.raises(InputError, match="no example of the training split has a span"):
        fitted((["我们"], [[]]), (["我们"], [[]]))
    with pytest.raises(InputError, match="'B-PER' cannot be part of a tag"):
        fitted((["我们"], [[Span(0, 1, "B-PER")]]), (["我们"], [[]]))
