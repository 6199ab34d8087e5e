"""``bert-ops experiments``: a page that compares the experiments of this repository, as ``dvc exp show`` lists them.

DVC is asked by its command line: the library knows it no other way, and works without it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_ops.errors import InputError
from bert_ops.io import write_text
from bert_ops.progress import note

#: How a user begins.
START = "queue some, `dvc exp run --queue -S 'finetune.epochs=3,5' finetune`, and run them, `dvc queue start`"
_SCORES = {"metrics/finetune/": "models/finetuned/", "metrics/multi_task/": "models/multi_task/"}


@dataclass(frozen=True)
class Score:
    """What came out for one task: the validation score, on which to choose, and what must not be chosen on.

    ``spread`` is the part ``runs`` of the metrics, if the task was learned several times. ``model`` is the hash of the
    model's folder; ``test`` is None unless the test score is of this very model.
    """

    metric: str
    validation: float
    test: float | None
    seconds: float | None
    trained: int | None
    spread: dict[str, Any] | None
    model: str | None

    @property
    def chosen_by(self) -> float:
        """The mean over seeds or folds where there are several, which depends less on chance."""
        return self.validation if self.spread is None else float(self.spread["mean"])


@dataclass(frozen=True)
class Experiment:
    """One row of the comparison; ``values`` are all parameters, ``changed`` those that differ from the baseline's.

    Both are by dotted key; a value that was taken out is None in ``changed``.
    """

    name: str
    state: str
    why: str
    values: dict[str, Any]
    changed: dict[str, Any]
    scores: dict[str, Score]

    def value(self, key: str, task: str) -> Any:
        """What a task had for a parameter: its own ``tasks.TASK.finetune.*`` comes before ``finetune.*``."""
        own = f"tasks.{task}.{key}"
        return self.values[own] if key.startswith("finetune.") and own in self.values else self.values.get(key)


@dataclass(frozen=True)
class Comparison:
    """The baseline (the commit that the experiments start from) and what was tried."""

    baseline: Experiment
    experiments: list[Experiment]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks with a score anywhere, in the order in which they appear."""
        return list(dict.fromkeys(task for row in (self.baseline, *self.experiments) for task in row.scores))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, default=Path("reports/experiments.html"), help="the page to write")


def run(arguments: argparse.Namespace) -> None:
    """Ask DVC, and write the page.

    Raises:
        InputError: this is no Git repository with DVC, or it has no experiments; the message says how to begin.

    """
    from bert_ops.evaluate.experiments_page import best_by_validation, html

    comparison = read(shown())
    write_text(arguments.out, html(comparison))
    done = sum(row.state == "done" for row in comparison.experiments)
    note(f"experiments: {arguments.out}, {done} of {len(comparison.experiments)} done")
    for task in comparison.tasks:
        best = best_by_validation(comparison, task)
        if best is not None:
            score = best.scores[task]
            note(f"experiments: {task}: best validation {score.metric} {score.chosen_by:.4f} by {best.name}")


def shown() -> list[dict[str, Any]]:
    """What ``dvc exp show --json`` says in the current folder.

    Raises:
        InputError: DVC is missing, or refuses.

    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", "--no-pager"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode == 0:
        try:
            value = json.loads(done.stdout)
        except ValueError as error:
            raise InputError(f"`dvc exp show --json` wrote no JSON: {error}", remedy="look at its output") from error
        return [part for part in value if isinstance(part, dict)]
    said = "\n".join(line for line in done.stderr.strip().splitlines() if "dvc.org" not in line)
    if "No module named dvc" in said:
        raise InputError(
            "DVC is not installed", remedy="install the project with `pip install -e . -c constraints.txt`"
        )
    if "not inside of a DVC repository" in said or "SCM" in said or "not a git repository" in said.lower():
        raise InputError(
            "experiments live in a Git repository with DVC, which this folder is not",
            remedy="change to the project's root; a new copy needs `git init`, `dvc init` and a first commit",
        )
    if "Empty Git repo" in said:
        raise InputError(
            "this Git repository has no commit, from which an experiment could start",
            remedy="commit the project: `git add . && git commit -m 'Begin'`",
        )
    raise InputError(f"`dvc exp show` failed: {said}", remedy="run it by itself")


def read(parts: list[dict[str, Any]]) -> Comparison:
    """Read what DVC showed: the workspace, then the commit with its experiments.

    Where ``dvc.lock`` is not committed the commit has no results; the workspace stands for it if its parameters are the
    same.

    Raises:
        InputError: there are no experiments.

    """
    commits = [part for part in parts if part.get("rev") != "workspace"]
    found = [(commit, entry) for commit in commits for entry in commit.get("experiments") or []]
    if not found:
        raise InputError("there are no experiments on this commit", remedy=f"{START} (docs/experiments.md)")
    base = found[0][0]
    origin = parameters(base)
    workspace = next((part for part in parts if part.get("rev") == "workspace"), None)
    scores = read_scores(base)
    if not scores and workspace is not None and parameters(workspace) == origin:
        scores = read_scores(workspace)
    baseline = Experiment(str(base.get("name") or base["rev"][:7]), "done", "", origin, {}, scores)
    return Comparison(baseline, [_experiment(entry, base) for commit, entry in found if commit is base])


def _experiment(entry: dict[str, Any], base: dict[str, Any]) -> Experiment:
    """One experiment; ``revs`` holds its commits, the newest first."""
    newest = entry["revs"][0]
    name = str(entry.get("name") or newest.get("name") or newest["rev"][:7])
    error, executor = newest.get("error") or {}, entry.get("executor") or {}
    state = str(executor.get("state") or "done")
    if error or state == "failed":
        state = "failed"
    elif state == "success":
        state = "done"
    origin, own = parameters(base), parameters(newest)
    keys = [key for key in (*origin, *(k for k in own if k not in origin)) if origin.get(key) != own.get(key)]
    changed = {key: own.get(key) for key in keys} if own else {}
    done = state == "done"
    return Experiment(
        name, state, str(error.get("msg") or ""), own, changed, read_scores(newest, before=base) if done else {}
    )


def parameters(revision: dict[str, Any]) -> dict[str, Any]:
    """Every parameter by its dotted key; empty where DVC could not read them."""
    files = ((revision.get("data") or {}).get("params") or {}).values()
    return {key: value for file in files for key, value in _flat(file.get("data") or {}, "")}


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None and value != {}:
        yield prefix, value


def _figures(revision: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Metrics files that DVC could read: path to content."""
    files = (revision.get("data") or {}).get("metrics") or {}
    return {path: (content or {}).get("data") or {} for path, content in files.items()}


def read_scores(revision: dict[str, Any], *, before: dict[str, Any] | None = None) -> dict[str, Score]:
    """Scores by task.

    A test score is left out unless the model that was evaluated is the one that this revision tuned: after a grid over
    ``finetune`` alone, a committed ``dvc.lock`` still holds the evaluation of the model ``before``. DVC shows one hash
    a path, none if the last stage that reads it has not run; then equal figures of unequal models tell.
    """
    data = revision.get("data") or {}
    files, earlier = _figures(revision), _figures(before or {})
    outs, deps = data.get("outs") or {}, data.get("deps") or {}
    scores = {}
    for path, figures in files.items():
        folder = next((folder for folder in _SCORES if path.startswith(folder)), None)
        if folder is None or not isinstance(figures.get("score"), int | float):
            continue
        task = path.removeprefix(folder).removesuffix(".json")
        made = (outs.get(f"{_SCORES[folder]}{task}") or {}).get("hash")
        judged = (deps.get(f"{_SCORES[folder]}{task}") or {}).get("hash")
        file = f"metrics/evaluate/{task}.json"
        evaluated = files.get(file, {}) if folder == "metrics/finetune/" else {}
        own = judged == made if judged else figures == earlier.get(path) or evaluated != earlier.get(file)
        scores[task if folder == "metrics/finetune/" else f"{task} (multi-task)"] = Score(
            metric=str(figures.get("metric") or "mean score"),
            validation=float(figures["score"]),
            test=evaluated.get("score") if own else None,
            seconds=figures.get("seconds"),
            trained=figures.get("trained_parameters"),
            spread=figures.get("runs"),
            model=made,
        )
    return scores
