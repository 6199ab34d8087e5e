"""A fuzz campaign: no bad file ends in anything but rejections or one InputError, and no good row goes missing.

``FUZZ_FILES`` is the number of files (2,000 for the campaign of a release), ``FUZZ_SEED`` the first seed.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from corpus_workspace import Workspace
from fuzz_files import CASES, Case, make_case
from source_reading import Read, read

from bert_ops.corpus.sources import REASONS
from bert_ops.errors import InputError

FILES = int(os.environ.get("FUZZ_FILES", "75"))
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
PARTS = 6

#: Seconds after which a file counts as one that hangs; the longest takes under a second on an idle machine.
PATIENCE = 60

#: Reasons that speak of the rest of a file.
OF_A_FILE = {"broken_file", "unknown_encoding", "binary_file", "wrong_columns", "bad_json", "row_too_long", "bad_csv"}


@contextmanager
def alarm(what: str) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutError(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(case: Case, result: Read) -> None:
    """Each planted row came out, or something was refused that explains its absence."""
    texts = [text for text in result.texts if isinstance(text, str)]
    beside = Counter(case.beside) - Counter(texts)
    assert not beside, f"the good file beside lost {beside}"
    if case.rejected:
        assert result.rejections
    kept = Counter(texts)
    missing = [text for text in case.good if not kept[text]]
    if case.fate == "all":
        assert not missing, f"lost {missing[:3]}"
        assert len(set(case.good)) == len(case.good)
        assert all(kept[text] == 1 for text in case.good)
    elif case.fate == "prefix":
        expected = case.good[: len(case.good) - len(missing)]
        assert [text for text in texts if text in set(case.good)] == expected
        assert not missing or "broken_file" in result.reasons or "bad_json" in result.reasons
    elif missing:
        # A row that was changed comes out changed, or run together with its neighbours; all others are told of.
        known = set(case.good) | set(case.beside)
        changed = sum(text not in known for text in result.texts)
        assert len(missing) <= 3 * (changed + len(result.rejections)) or set(result.reasons) & OF_A_FILE
    assert set(result.reasons) <= set(REASONS)


@pytest.mark.parametrize("part", range(PARTS))
def test_files(workspace: Workspace, part: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(FIRST + part, FIRST + FILES, PARTS):
        folder = Path("raw") / str(seed)
        big = 200 << 20 if FILES >= 2000 and seed % 480 == CASES.index(_long_line()) else 3 << 20
        case = make_case(seed, folder, big=big)
        with alarm(f"seed {seed}: {case.name}"):
            try:
                result = read(case.source)
            except InputError as error:
                assert case.error or case.may_error, f"seed {seed}, {case.name}: {error}"
            except Exception as error:
                raise AssertionError(f"seed {seed}, {case.name}") from error
            else:
                assert not case.error, f"seed {seed}, {case.name}: no error"
                try:
                    check(case, result)
                except AssertionError as error:
                    raise AssertionError(f"seed {seed}, {case.name}: {result.reasons[:9]}") from error
        shutil.rmtree(folder)
    # KiB; the largest files are 3 MiB, and rows longer than 1 MiB are never held.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def _long_line() -> Any:
    return next(make for make in CASES if make.__name__ == "long_line")


@pytest.mark.parametrize("part", range(3))
def test_policy_fail_names_the_place(workspace: Workspace, part: int) -> None:
    for seed in range(FIRST + part, FIRST + min(FILES, 200), 3):
        folder = Path("raw") / str(seed)
        case = make_case(seed, folder, big=2 << 20)
        with alarm(f"seed {seed}: {case.name}"):
            try:
                result = read(case.source, bad_rows="fail")
            except InputError as error:
                assert folder.as_posix() in str(error) or case.error, f"seed {seed}, {case.name}: {error}"
                assert error.remedy, f"seed {seed}, {case.name}: {error}"
            else:
                assert not case.rejected and not result.rejections, f"seed {seed}, {case.name}"
        shutil.rmtree(folder)


def test_a_damaged_database_whose_names_are_no_utf8(workspace: Workspace) -> None:
    """Found by the campaign: SQLite's own words about it do not decode."""
    case = make_case(3310, Path("raw") / "3310")
    assert case.name == "damaged SQLite"
    with pytest.raises(InputError, match="cannot be queried"):
        read(case.source)
