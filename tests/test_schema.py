"""params.yaml: what is wrong is said by key, value and what is allowed."""

from typing import Literal

import pytest
import yaml
from pydantic import Field, ValidationError

from bert_ops.errors import InputError
from bert_ops.schema import Section, Seed, Share, Threads, load_section, read_yaml


class Inner(Section):
    rate: float = Field(gt=0.0)
    kind: Literal["linear", "cosine"]


class Outer(Section):
    seed: Seed
    threads: Threads
    share: Share
    inner: Inner


GOOD = {"seed": 1, "threads": 2, "share": 0.5, "inner": {"rate": 0.1, "kind": "linear"}}


def load(tmp_path, value, name="train"):
    path = tmp_path / "params.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump({"train": value}), encoding="utf-8")
    return load_section(path, name, Outer)


def refused(tmp_path, value, name="train"):
    with pytest.raises(InputError) as caught:
        load(tmp_path, value, name)
    return str(caught.value)


def test_whole_section_loads_and_cannot_be_changed(tmp_path):
    section = load(tmp_path, GOOD)
    assert section.inner.rate == 0.1
    with pytest.raises(ValidationError):
        section.seed = 2
    assert load(tmp_path, GOOD | {"share": 1}).share == 1.0, "a whole number is a number"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sead": 1}, "`train.sead` is not a known key"),
        ({"inner": {"rate": 0.1, "kind": "linear", "x": 1}}, "`train.inner.x` is not a known key"),
        ({"inner": {"rate": 0.1}}, "`train.inner.kind` is missing"),
        ({"threads": "two"}, "`train.threads` is 'two': input should be a valid integer"),
        ({"threads": True}, "`train.threads` is True: input should be a valid integer"),
        ({"threads": 2.5}, "`train.threads` is 2.5"),
        ({"threads": 0}, "`train.threads` is 0: input should be greater than or equal to 1"),
        ({"seed": -1}, "`train.seed` is -1"),
        ({"share": 1.5}, "`train.share` is 1.5: input should be less than or equal to 1"),
        (
            {"inner": {"rate": 0.1, "kind": "sine"}},
            "`train.inner.kind` is 'sine': input should be 'linear' or 'cosine'",
        ),
        ({"inner": [1]}, "`train.inner` is [1]"),
    ],
)
def test_message_holds_key_value_and_what_is_allowed(tmp_path, change, expected):
    message = refused(tmp_path, GOOD | change)
    assert expected in message
    assert "params.yaml" in message and "remedy:  correct it in" in message


def test_all_problems_are_told_at_once(tmp_path):
    message = refused(tmp_path, {"seed": 1, "share": 2.0, "inner": {"rate": 0.1, "kind": "linear"}})
    assert "`train.threads` is missing" in message and "`train.share` is 2.0" in message
    assert "correct them in" in message


@pytest.mark.parametrize("written", ["1e-4", "2E3", ".5e-3", "1e-05", "+3e2", "1.0e-4", "1.5e3"])
def test_exponents_are_numbers_as_dvc_writes_them(tmp_path, written):
    """PyYAML follows YAML 1.1, where `1e-05` is text; DVC follows 1.2, and `dvc exp run -S rate=1e-5` writes it so."""
    text = f"train:\n  seed: 1\n  threads: 2\n  share: 0.5\n  inner: {{rate: {written}, kind: linear}}\n"
    assert load(tmp_path, text).inner.rate == float(written)


@pytest.mark.parametrize("written", ["1e", "e5", "1e-", "1e5x", "2024e", "1e5 x"])
def test_what_only_looks_like_an_exponent_stays_text(tmp_path, written):
    path = tmp_path / "params.yaml"
    path.write_text(f"value: {written}\n", encoding="utf-8")
    assert read_yaml(path) == {"value": written}


def test_quoted_number_is_explained(tmp_path):
    assert "write 2 without quotes" in refused(tmp_path, GOOD | {"threads": "2"})
    text = "train: {seed: 1, threads: 2, share: 0.5, inner: {rate: '1e-4', kind: linear}}\n"
    assert "write 1e-4 without quotes" in refused(tmp_path, text)


def test_missing_section_names_the_others(tmp_path):
    message = refused(tmp_path, "tune: {a: 1}\nshow: 1\n")
    assert "has no section `train`" in message and "tune, show" in message
    assert "`train` holds inner, seed, share, threads" in refused(tmp_path, GOOD, "train.deeper")
    assert "has no section `train.seed.x`" in refused(tmp_path, GOOD, "train.seed.x")


def test_dotted_name_reaches_an_inner_section(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("tasks: {sentiment: {rate: 0.5, kind: cosine}}\n")
    assert load_section(path, "tasks.sentiment", Inner).kind == "cosine"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", "line 3"),
        (b"a: 1\n\tb: 2\n", "line 2"),
        (b"\xff\xfea", "not UTF-8"),
        (b"", "holds no sections"),
        (b"- 1\n", "holds no sections"),
        (b"a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_unreadable_yaml_says_where(tmp_path, content, expected):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        read_yaml(path)
    assert caught.value.remedy


def test_missing_file_says_how_to_name_it(tmp_path):
    with pytest.raises(InputError, match=r"(?s)does not exist.*--params"):
        read_yaml(tmp_path / "params.yaml")
    with pytest.raises(InputError):
        read_yaml(tmp_path)
