from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.dedup import Record, content_hash, deduplicate, key


def record(text: str, source: str = "a", task: str | None = None, label: str | None = None, **more) -> Record:
    return Record(source=source, location="x:1", text=text, breaks=(), key=key(text), task=task, label=label, **more)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("你好,世界!", "你好 世界"),
        ("Ｈello", "hEllo"),
        ("a_b-c", "abc"),
        ("１９９８", "1998"),
        ("STRASSE", "strasse"),
    ],
)
def test_punctuation_case_and_width_do_not_matter(one: str, other: str) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(("one", "other"), [("कि", "का"), ("很好", "不好"), ("3.1", "32"), ("é", "e")])
def test_letters_marks_and_digits_do(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_a_text_of_punctuation_has_no_key() -> None:
    assert key("……!!! --__") == ""


@given(st.text())
def test_key_of_a_key_is_itself(text: str) -> None:
    assert key(key(text)) == key(text)
    assert len(content_hash(key(text))) == 64


def test_labelled_wins_then_source_order() -> None:
    plain, late, labelled = record("好!", "news"), record("好", "late"), record("好。", "reviews", "sentiment", "p")
    result = deduplicate([plain, late, labelled])
    assert result.documents == [labelled]
    assert result.examples == {"sentiment": [labelled]}
    assert result.duplicates == {"news": 1, "late": 1}
    assert deduplicate([plain, late]).documents == [plain]


def test_conflicting_labels_drop_every_copy_but_not_the_unlabelled_text() -> None:
    one, two, three = (record("好", "r", "t", label) for label in ("p", "n", "p"))
    plain = record("好!", "news")
    result = deduplicate([one, two, plain, three])
    assert [pair[0] for pair in result.conflicting] == [one, two, three]
    assert all(a.label != b.label for a, b in result.conflicting)
    assert result.documents == [plain]
    assert result.examples == {}
    assert not result.duplicates


def test_two_tasks_share_a_document() -> None:
    one, two = record("好", "r", "sentiment", "p"), record("好!", "s", "topic", "hotel")
    result = deduplicate([one, two])
    assert result.documents == [one]
    assert result.examples == {"sentiment": [one], "topic": [two]}
    assert result.duplicates == {"s": 1}


def test_spans_are_compared_by_the_letters_they_cover() -> None:
    one = record("江泽民,北京", "a", "entities", spans=((0, 3, "PER"), (4, 6, "LOC")))
    same = record("江泽民北京。", "b", "entities", spans=((0, 3, "PER"), (3, 5, "LOC")))
    other = record("江泽民北京", "c", "entities", spans=((0, 3, "PER"),))
    assert deduplicate([one, same]).documents == [one]
    assert len(deduplicate([one, same, other]).conflicting) == 3


RECORDS = st.lists(
    st.builds(
        lambda text, source, target: record(text, source, *target),
        st.sampled_from(["好", "好!", "坏", "坏。", "A", "ａ", "一般"]),
        st.sampled_from(["news", "reviews"]),
        st.sampled_from([(None, None), ("t", "p"), ("t", "n"), ("u", "x")]),
    ),
    max_size=20,
)


@given(RECORDS)
def test_nothing_is_lost_and_nothing_stands_twice(records: list[Record]) -> None:
    result = deduplicate(records)
    assert len(result.documents) + sum(result.duplicates.values()) + len(result.conflicting) == len(records)
    keys = [document.key for document in result.documents]
    assert len(keys) == len(set(keys))
    for task, examples in result.examples.items():
        assert len({example.key for example in examples}) == len(examples)
        for example in examples:
            labels = {r.label for r in records if r.task == task and r.key == example.key}
            assert labels == {example.label}
            assert example.key in keys
