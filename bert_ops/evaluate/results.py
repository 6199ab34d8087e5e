"""Reading the figures that other stages left, with errors that name file and key."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bert_ops.errors import InputError
from bert_ops.io import damaged, missing, read_json
from bert_ops.schema import read_yaml


@dataclass(frozen=True)
class Figures:
    """The content of a JSON file of figures."""

    path: Path
    made_by: str
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path, *, made_by: str) -> Self:
        """Read a file.

        Raises:
            ArtifactError: it is missing, or holds no JSON object.
        """
        values = read_json(path, made_by=made_by)
        if not isinstance(values, dict):
            raise damaged(path, "it holds no object", made_by=made_by)
        return cls(path, made_by, values)

    def get(self, key: str) -> Any:
        """Return the value of a dotted key.

        Raises:
            ArtifactError: the file does not hold it.
        """
        value: Any = self.values
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise damaged(self.path, f"`{key}` is missing", made_by=self.made_by)
            value = value[part]
        return value


def task_names(params: Path) -> list[str]:
    """Return the names of the tasks, in the order of params.yaml.

    Raises:
        InputError: params.yaml names no task.
    """
    tasks = read_yaml(params).get("tasks")
    if not isinstance(tasks, dict) or not tasks:
        raise InputError(f"{params} has no section `tasks`", remedy="give it at least one task")
    return [str(name) for name in tasks]


def read_columns(path: Path, columns: list[str], *, made_by: str) -> list[list[float]]:
    """Read columns of numbers from a TSV file; an empty cell is NaN.

    Raises:
        ArtifactError: the file is missing, lacks a column, has no row, or holds something that is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
    except FileNotFoundError as error:
        raise missing(path, made_by=made_by) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, str(error), made_by=made_by) from error
    if not rows:
        raise damaged(path, "it has no rows", made_by=made_by)
    try:
        return [[float(row[column] or "nan") for row in rows] for column in columns]
    except KeyError as error:
        raise damaged(path, f"column {error.args[0]} is missing", made_by=made_by) from error
    except ValueError as error:
        raise damaged(path, str(error), made_by=made_by) from error
