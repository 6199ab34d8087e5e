"""Parameters of cleaning for tests: the project's own, with single values changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from bert_ops.corpus.cleaning.params import CleaningParams

_SECTION: dict[str, Any] = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8")
)["ingest"]["clean"]


def cleaning_section(**changes: Any) -> dict[str, Any]:
    """The section as a mapping; ``pii__enabled=True`` changes ``pii.enabled``."""
    section = copy.deepcopy(_SECTION)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = section
        for name in path:
            place = place[name]
        place[last] = value
    return section


def cleaning_params(**changes: Any) -> CleaningParams:
    """The section, validated."""
    return CleaningParams.model_validate(cleaning_section(**changes))
