from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from cleaning_params import cleaning_params, cleaning_section
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.cleaning import cleaner as cleaner_module
from bert_ops.corpus.cleaning.cleaner import REASONS, STEPS, Cleaner
from bert_ops.corpus.cleaning.counts import EXAMPLES, StepCount, merge, merge_examples
from bert_ops.corpus.cleaning.params import CleaningParams
from bert_ops.corpus.keys import key
from bert_ops.corpus.records import Draft, Unfit
from bert_ops.errors import InputError
from bert_ops.schema import validate

EVERYTHING = {"pii__enabled": True, "chinese__enabled": True}
SWITCHES = [name for name, value in cleaning_section().items() if isinstance(value, dict) and "enabled" in value]

#: Pieces that keep every step busy.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["<p>", "</p>", "<br>", "&amp;", "&#20013;", "<b", "a < b", "<script>x</script>", "\n", "\n\n"]
        ),
        st.sampled_from(
            ["漢語", "中国", "，", "。", "１２", "\u200b", "e\u0301", "㈱", "\u3000", " ", "\t", "\r\n", "-\n"]
        ),
        st.sampled_from(
            ["13800138000", "a@b.com", "11010519491231002X", "哈" * 9, "!" * 8, "返回顶部", "锟斤拷", "\ue000"]
        ),
        st.sampled_from(["a | b | c | d | e", "the quick brown fox", "это", "日本の", "\ud800", "好" * 40]),
        st.characters(),
    ),
    max_size=25,
).map("".join)


def cleaned(cleaner: Cleaner, draft: Draft) -> Draft | Unfit:
    try:
        cleaner.clean(draft)
    except Unfit as unfit:
        return unfit
    return draft


CLEANER = Cleaner(cleaning_params(**EVERYTHING))


@given(PIECES)
def test_every_text_is_cleaned_or_refused_for_a_known_reason(text: str) -> None:
    result = cleaned(CLEANER, Draft(text))
    if isinstance(result, Unfit):
        assert result.reason in REASONS
        assert result.step in [name for name, _, _ in STEPS]
        assert result.detail
        return
    assert result.text == " ".join(result.text.split())
    assert result.text.encode().decode() == result.text
    assert list(result.breaks) == sorted(set(result.breaks))
    assert all(result.text[place] == " " for place in result.breaks)
    # What the steps let pass has a key; what has none would be no text to compare with others.
    assert key(result.text)


@given(PIECES, st.sets(st.integers(0, 200)))
def test_what_follows_does_not_change_the_text(text: str, places: set[int]) -> None:
    plain = cleaned(CLEANER, Draft(text))
    # A word begins with a character that shows.
    starts = sorted(place for place in places if place < len(text) and not text[place].isspace())
    followed = cleaned(CLEANER, Draft(text, word_starts=starts))
    if isinstance(plain, Unfit):
        assert isinstance(followed, Unfit) and (followed.step, followed.reason) == (plain.step, plain.reason)
        return
    assert isinstance(followed, Draft)
    assert (followed.text, followed.breaks, followed.language) == (plain.text, plain.breaks, plain.language)
    assert followed.word_starts is not None
    assert all(not followed.text[place].isspace() for place in followed.word_starts)


@given(PIECES, PIECES)
def test_a_span_keeps_its_ends(before: str, after: str) -> None:
    """What stands at the two ends of a span and is changed by no step still does."""
    text = f"{before}始人末{after}"
    result = cleaned(CLEANER, Draft(text, spans=[(len(before), len(before) + 3, "X")]))
    if isinstance(result, Draft):
        assert [result.text[start:end] for start, end, _ in result.spans] == ["始人末"]


def test_all_steps_together() -> None:
    raw = (
        "<h1>標題</h1><p>江澤民&#183;主席<b>今天</b>在北京\u200b會見了客人，電話１３８００１３８０００，"
        "信箱a@b.com。哈哈哈哈哈哈哈哈哈哈</p>\n返回頂部\n<p>第二段。</p>"
    )
    start = raw.index("江")
    draft = Draft(raw, spans=[(start, start + 3, "PER")])
    Cleaner(cleaning_params(**EVERYTHING)).clean(draft)
    assert draft == Draft(
        "标题 江泽民·主席今天在北京会见了客人,电话[PHONE],信箱[EMAIL]。哈哈哈哈哈哈 第二段。",
        spans=[(3, 6, "PER")],
        breaks=(2, 46),
        language="zh",
    )


def test_steps_are_counted() -> None:
    cleaner = Cleaner(cleaning_params())
    for text in ["<b>一二三</b>", "一二三", "ａｂ c", "好", "", "\ud800"]:
        cleaned(cleaner, Draft(text))
    counts = {count.name: count for count in cleaner.counts()}
    assert list(counts) == [name for name, _, _ in STEPS if name not in ("chinese", "pii")]
    assert counts["intake"] == StepCount("intake", "filter", 6, 5, 0, 1, 19, 18)
    assert counts["markup"] == StepCount("markup", "edit", 5, 5, 1, 0, 18, 11)
    assert counts["unicode"] == StepCount("unicode", "edit", 5, 5, 1, 0, 11, 11)
    assert counts["length"] == StepCount("length", "filter", 5, 3, 0, 2, 11, 10)
    assert asdict(counts["language"])["rows_out"] == 3
    examples = cleaner.examples()
    assert [(one.step, one.reason) for one in examples] == [
        ("intake", "invalid_text"),
        ("markup", None),
        ("unicode", None),
        ("length", "empty"),
        ("length", "too_short"),
    ]
    assert (examples[1].before, examples[1].after) == ("<b>一二三</b>", "一二三")
    assert examples[0].before == "?"  # fit for UTF-8


def test_rows_that_vanish_are_noticed() -> None:
    with pytest.raises(AssertionError):
        StepCount("x", "filter", 3, 1, 0, 1, 0, 0)
    cleaner = Cleaner(cleaning_params())
    cleaner.clean(Draft("一二三"))
    cleaner._steps[3].rows_in -= 1
    with pytest.raises(AssertionError):
        cleaner.counts()


def test_counts_and_examples_do_not_depend_on_who_counted() -> None:
    texts = [f"<b>{number}</b>号房间，" + "好" * (number % 3) for number in range(40)] + ["", "！"] * 10
    alone = Cleaner(cleaning_params())
    for text in texts:
        cleaned(alone, Draft(text))
    batches = []
    workers = [Cleaner(cleaning_params()) for _ in range(3)]
    for number in range(0, len(texts), 7):
        worker = workers[number // 7 % 3]
        for text in texts[number : number + 7]:
            cleaned(worker, Draft(text))
        batches.append(worker.take())
    assert merge([counts for counts, _ in batches]) == alone.counts()
    assert merge_examples(examples for _, examples in batches) == merge_examples([alone.examples()])
    assert max(sum(one.step == "markup" for one in alone.examples()) for _ in "x") == EXAMPLES
    assert all(count.rows_in == 0 for worker in workers for count in worker.counts())


@pytest.mark.parametrize("name", SWITCHES)
def test_each_step_can_be_switched_off(name: str) -> None:
    on = [count.name for count in Cleaner(cleaning_params(**{f"{name}__enabled": True})).counts()]
    off = [count.name for count in Cleaner(cleaning_params(**{f"{name}__enabled": False})).counts()]
    assert name in on
    assert off == [step for step in on if step != name]


def test_a_step_is_a_function_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def shout(_: CleaningParams) -> Any:
        def step(draft: Draft) -> None:
            draft.text += "!"

        return step

    monkeypatch.setattr(cleaner_module, "STEPS", (*STEPS, ("shout", "edit", shout)))
    cleaner = Cleaner(cleaning_params())
    cleaner.clean(draft := Draft("一二三"))
    assert draft.text == "一二三!"
    assert cleaner.counts()[-1] == StepCount("shout", "edit", 1, 1, 1, 0, 3, 4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("normalization", "NFD", "normalization"),
        ("length__min_characters", 30000, r"min_characters is 30000; it must not exceed max_characters"),
        ("chinese__conversion", False, r"chinese\.conversion"),
        ("pii__tokens", {"phone": "a 1"}, r"tokens\.phone is 'a 1'"),
        ("pii__tokens", {"name": "[N]"}, r"pii\.tokens"),
        ("markup__extra_elements", ["<p>"], r"extra_elements holds '<p>'"),
        ("runs__max_run", 0, r"runs\.max_run"),
        ("repetition__duplicate_lines", 1.5, r"duplicate_lines"),
        ("unknown", 1, "unknown"),
    ],
)
def test_wrong_parameters_are_named(key: str, value: Any, message: str, tmp_path: Any) -> None:
    with pytest.raises(InputError, match=message):
        validate(
            cleaning_section(**{key: value}), CleaningParams, where="ingest.clean", source=tmp_path / "params.yaml"
        )


def test_every_parameter_is_described() -> None:
    def walk(schema: dict[str, Any]) -> None:
        for name, field in schema.get("properties", {}).items():
            assert field.get("description"), name

    schema = CleaningParams.model_json_schema()
    for part in [schema, *schema["$defs"].values()]:
        walk(part)
