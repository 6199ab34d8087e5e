"""The fuzz campaign through the whole stage: rows in = documents + rejected + duplicates; no good row goes missing.

``FUZZ_FILES`` and ``FUZZ_SEED`` are those of ``test_fuzz_sources.py``.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from corpus_workspace import Workspace
from fuzz_files import Case, make_case
from source_reading import READING

FILES = int(os.environ.get("FUZZ_FILES", "48"))
FIRST = int(os.environ.get("FUZZ_SEED", "0"))

#: Files of one run of the stage; each is a source of its own.
TOGETHER = 48

#: What the generator numbers its texts with, as cleaning leaves it.
_NUMBER = re.compile(r"第(\d+)之(\d+)")


def numbers(texts: pd.Series[str]) -> set[str]:
    return {match.group() for text in texts.dropna() for match in _NUMBER.finditer(text)}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, FIRST + FILES, TOGETHER))
def test_every_row_is_accounted_for(workspace: Workspace, first: int) -> None:
    cases: dict[str, Case] = {}
    for seed in range(first, min(first + TOGETHER, FIRST + FILES)):
        case = make_case(seed, Path("raw") / str(seed), big=20 << 20 if seed % 480 == 11 else 3 << 20)
        if case.error or case.may_error:
            shutil.rmtree(Path("raw") / str(seed))
        else:
            cases[f"case{seed}"] = case
    sources = {name: case.source for name, case in cases.items()}
    assert workspace.ingest(sources, reading=READING) == 0
    metrics = workspace.metrics
    lost = metrics["rejected"] + metrics["duplicates_removed"] + metrics.get("near_duplicates_removed", 0)
    assert metrics["read"] == metrics["documents"] + lost
    documents, quarantine = workspace.table("documents"), workspace.table("quarantine")
    duplicates = workspace.table("duplicates")
    assert (len(documents), len(quarantine)) == (metrics["documents"], metrics["rejected"])
    assert sum(metrics["rejected_by_reason"].values()) == len(quarantine)
    told = numbers(documents["text"]) | numbers(quarantine["excerpt"]) | numbers(duplicates["excerpt"])
    refused = set(quarantine["source"])
    for name, case in cases.items():
        planted = case.beside + (case.good if case.fate == "all" else [])
        missing = numbers(pd.Series(planted)) - told
        assert not missing, f"{name}, {case.name}: {sorted(missing)[:3]}"
        assert name in refused or not case.rejected, f"{name}, {case.name}"
