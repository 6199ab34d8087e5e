"""Section ``multi_task.*`` of params.yaml: several tasks that learn one encoder together."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from bert_ops.errors import InputError
from bert_ops.finetune.params import FinetuneParams, TaskParams, finetune_with, load_task
from bert_ops.schema import Section, Share, load_section, read_yaml

#: A head's folder is named after its task, so that nothing else may stand in the name.
_NAME = re.compile(r"[\w-]+")


class MultiTaskParams(Section):
    """Tasks that share an encoder."""

    tasks: list[str] = Field(min_length=2, description="keys of `tasks`, each of which gets a head of its own")
    sampling: Share = Field(
        description="share of a task in the batches: proportional to its training examples (of a text in windows each "
        "window is one) to this power; 1: in proportion, 0: equal (Stickland & Murray 2019, arXiv:1902.02671)"
    )
    finetune: dict[str, Any] | None = Field(
        None, description="values of the section finetune that these tasks have otherwise, of the same form"
    )

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks names one twice: {', '.join(self.tasks)}")
        return self


@dataclass(frozen=True)
class Together:
    """What a run over several tasks is told: the tasks by name, and how they are trained."""

    params: MultiTaskParams
    tasks: dict[str, TaskParams]
    finetune: FinetuneParams


def wrong_names(name: str, params: MultiTaskParams, *, known: Collection[str]) -> str | None:
    """Say what is wrong with the names of an entry; None if nothing is.

    Args:
        name: key of the entry.
        params: the entry.
        known: keys of ``tasks``.

    """
    unknown = [task for task in params.tasks if task not in known]
    if unknown:
        return f"multi_task.{name}.tasks names {', '.join(unknown)}, not among tasks ({', '.join(known)})"
    odd = [text for text in (name, *params.tasks) if not _NAME.fullmatch(text)]
    return f"multi_task.{name}: {odd[0]!r} must be letters, digits, _ and - to name a folder" if odd else None


def load_multi_task(path: Path, name: str) -> Together:
    """Read and validate ``multi_task.NAME`` with its tasks, and ``finetune`` with the values it has otherwise.

    Raises:
        InputError: there is no such entry, a task of it does not exist, or a value is not allowed.

    """
    params = load_section(path, f"multi_task.{name}", MultiTaskParams)
    tasks = read_yaml(path).get("tasks")
    wrong = wrong_names(name, params, known=[str(key) for key in tasks] if isinstance(tasks, dict) else [])
    if wrong:
        raise InputError(f"{path}: {wrong}", remedy=f"correct it in {path}")
    finetune = finetune_with(path, params.finetune, where=f"multi_task.{name}.finetune")
    if finetune.runs.count > 1:
        raise InputError(
            f"finetune.runs.count is {finetune.runs.count}, but tasks that are learned together are learned once",
            allowed="1",
            remedy=f"set multi_task.{name}.finetune.runs to {{kind: seeds, count: 1}}",
        )
    return Together(params, {task: load_task(path, task) for task in params.tasks}, finetune)
