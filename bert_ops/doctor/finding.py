"""What an examination says, a line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    level: Level
    what: str
    found: str
    remedy: str | None = None
