"""Figures of the last data that passed, so that the next can be compared with them: a guard against drift.

The file stands outside the outputs of the stages. It holds the figures of the last versions that passed, oldest first;
data that is checked again is compared with what it was compared with before, so that a repeated run gives equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_ops.errors import ArtifactError
from bert_ops.io import read_json, write_json

_KEPT = 20


@dataclass(frozen=True)
class Accepted:
    """The versions that passed.

    Attributes:
        path: the file.
        entries: ``data`` (its hash), ``version`` (of params.yaml) and ``figures`` of each, oldest first.

    """

    path: Path
    entries: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Accepted:
        """Read the file; if there is none, nothing has been accepted yet.

        Raises:
            ArtifactError: it is damaged. It is never replaced silently: without it any drift would pass.

        """
        if not path.is_file():
            return cls(path, [])
        try:
            entries = read_json(path, made_by="validate_tokens")["entries"]
            whole = all(
                isinstance(e["data"], str)
                and isinstance(e["version"], int)
                and all(isinstance(value, int | float) for value in e["figures"].values())
                for e in entries
            )
        except (ArtifactError, LookupError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise ArtifactError(
                f"{path} is damaged: it does not hold the figures of accepted versions",
                remedy="restore it, or remove it to accept the present figures",
            )
        return cls(path, entries)

    def before(self, data: str, *, version: int) -> dict[str, float]:
        """Figures of the last accepted version of other data; empty if there is none, or ``version`` was raised."""
        earlier = self.entries[:-1] if self.entries and self._is(self.entries[-1], data, version) else self.entries
        if not earlier or earlier[-1]["version"] != version:
            return {}
        return dict(earlier[-1]["figures"])

    def accept(self, data: str, *, version: int, figures: dict[str, float]) -> None:
        """Write the figures of data that passed; the last accepted version is this one now.

        Raises:
            StorageError: the file could not be written.

        """
        if self.entries and self._is(self.entries[-1], data, version):
            return
        entry = {"data": data, "version": version, "figures": figures}
        write_json(self.path, {"entries": [*self.entries, entry][-_KEPT:]})

    @staticmethod
    def _is(entry: dict[str, Any], data: str, version: int) -> bool:
        return bool(entry["data"] == data and entry["version"] == version)
