"""Stage ``promote``: a compressed model that passes every gate becomes the champion; else the former one stays.

The champion is a copy of the model (``models/champion/TASK``): the challenger's folder is written anew by the next
``compress``, also if that model is refused. The pointer beside it (``models/champion/TASK.json``) holds the hash of the
copy, the scores and gates it was chosen by, and the champions before it. Nothing else writes either; they hold no
times, so that promoting the same model twice leaves the same bytes.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bert_ops.errors import ArtifactError
from bert_ops.evaluate.params import PromoteParams
from bert_ops.evaluate.wording import METRIC_NAMES, OVERFITTING
from bert_ops.io import atomic_folder, damaged, folder_sha256, missing, read_json, write_json
from bert_ops.progress import note, report_to_dagster
from bert_ops.schema import load_section


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--task", required=True, help="name of the task, a key of `tasks` in params.yaml")
    parser.add_argument("--model", type=Path, required=True, help="folder of the compressed model, the challenger")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder that evaluate wrote")
    parser.add_argument("--compression", type=Path, required=True, help="folder with the report of compress")
    parser.add_argument("--champion", type=Path, required=True, help="folder for the model that ships")
    parser.add_argument("--pointer", type=Path, required=True, help="file on the model that ships (JSON)")
    parser.add_argument("--metrics", type=Path, required=True, help="file for the decision, gate by gate (JSON)")


@dataclass(frozen=True)
class Gate:
    """One condition of a promotion: what was found, what is required (a key of `promote`), and the sentence on it."""

    name: str
    passed: bool
    observed: float | str
    required: str
    why: str


def run(arguments: argparse.Namespace) -> None:
    """Decide on a promotion. A refusal is a result, not an error: the exit code is 0 and the report shows why.

    Raises:
        ArtifactError: a result is missing or damaged, or the pointer cannot be read.
    """
    params = load_section(arguments.params, "promote", PromoteParams)
    task: str = arguments.task
    evaluation = _figures(arguments.evaluation / "results.json", made_by=f"evaluate@{task}")
    compression = _figures(arguments.compression / "results.json", made_by=f"compress@{task}")
    if not arguments.model.is_dir() or not any(arguments.model.iterdir()):
        raise missing(arguments.model, made_by=f"compress@{task}")
    try:
        gates = judge(evaluation, compression, params=params)
        challenger = {
            "model": arguments.champion.as_posix(),
            "sha256": folder_sha256(arguments.model),
            "scores": _scores(evaluation, compression),
            "gates": [asdict(gate) for gate in gates],
        }
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"the results in {arguments.evaluation} or {arguments.compression} do not fit: {error!r}",
            remedy=f"make them again with `dvc repro --force evaluate@{task} compress@{task}`",
        ) from error
    pointer = read_pointer(arguments.pointer, task=task)
    promoted = all(gate.passed for gate in gates)
    after = promote(pointer, challenger, task=task) if promoted else pointer or vacant(task)
    # The model first: a pointer must never name a model that is not there.
    keep_model(arguments.champion, arguments.model if promoted else None, sha256=after["sha256"], task=task)
    if after != pointer:
        write_json(arguments.pointer, after)
    write_json(
        arguments.metrics,
        {
            "task": task,
            "promoted": promoted,
            "champion": after["sha256"],
            "challenger": challenger["sha256"],
            "gates": {gate.name: {k: v for k, v in asdict(gate).items() if k != "name"} for gate in gates},
            "refused_because": [gate.why for gate in gates if not gate.passed],
        },
    )
    _announce(task, gates, promoted=promoted, before=pointer, after=after)


def judge(evaluation: dict[str, Any], compression: dict[str, Any], *, params: PromoteParams) -> list[Gate]:
    """Hold a challenger's results against every gate.

    Raises:
        KeyError: a figure that a gate needs is not in the results.
    """
    # rounded before they are compared: 100 * (0.51 - 0.50) is a hair more than the point that it says
    ratio = round(compression["bytes_fp32"] / max(compression["bytes"], 1), 4)
    lost = round(100.0 * (compression["score_fp32"] - compression["score"]), 4)
    low = round(100.0 * evaluation["baselines"]["majority"]["difference_ci95"][0], 4)
    verdict = evaluation["overfitting"]["kept_verdict"]
    return [
        _gate(
            "size_ratio",
            ratio >= params.min_size_ratio,
            ratio,
            f"at least {params.min_size_ratio:g}",
            f"{ratio:.2f} times smaller than the float32 model",
        ),
        _gate(
            "points_lost",
            lost <= params.max_points_lost,
            lost,
            f"at most {params.max_points_lost:g}",
            f"compression cost {lost:.2f} points of {METRIC_NAMES[compression['metric']]}",
        ),
        _gate(
            "points_over_majority",
            low >= params.min_points_over_majority,
            low,
            f"at least {params.min_points_over_majority:g}",
            f"at least {low:.1f} points over the majority class (lower end of the 95% interval)",
        ),
        _gate(
            "overfitting",
            verdict not in params.reject_overfitting,
            verdict,
            f"anything but {' or '.join(params.reject_overfitting)}" if params.reject_overfitting else "anything",
            f"overfitting of the weights that were kept: {OVERFITTING[verdict]} ({verdict})",
        ),
    ]


def promote(pointer: dict[str, Any] | None, challenger: dict[str, Any], *, task: str) -> dict[str, Any]:
    """Return the pointer after a promotion; the same pointer where the challenger is the champion already."""
    if pointer is not None and pointer["sha256"] == challenger["sha256"]:
        return pointer
    history = list(pointer["history"]) if pointer else []
    if pointer and pointer["model"] is not None:
        history.append({key: pointer[key] for key in ("model", "sha256", "scores", "gates")})
    return {"task": task, **challenger, "history": history}


def keep_model(champion: Path, challenger: Path | None, *, sha256: str | None, task: str) -> None:
    """Let the champion's folder hold the model of that hash; an empty folder where there is no champion.

    Raises:
        ArtifactError: the champion stays, and its folder is missing or holds something else.
    """
    if sha256 is None:
        champion.mkdir(parents=True, exist_ok=True)
    elif champion.is_dir() and folder_sha256(champion) == sha256:
        return
    elif challenger is None:
        raise ArtifactError(
            f"{champion} does not hold the champion of task `{task}`",
            remedy=f"bring it back with `dvc checkout promote@{task}`, or delete {champion}.json to start anew",
        )
    else:
        with atomic_folder(champion) as folder:
            shutil.copytree(challenger, folder, dirs_exist_ok=True)


def vacant(task: str) -> dict[str, Any]:
    """Return the pointer of a task that has no champion yet."""
    return {"task": task, "model": None, "sha256": None, "scores": None, "gates": [], "history": []}


def read_pointer(path: Path, *, task: str) -> dict[str, Any] | None:
    """Read a champion pointer; None where there is none yet.

    Raises:
        ArtifactError: it is damaged, or belongs to another task. It is never replaced silently: it holds history.
    """
    if not path.exists():
        return None
    remedy = "bring it back with `dvc checkout`, or delete it to start without a champion"
    try:
        pointer = read_json(path, made_by=f"promote@{task}")
    except ArtifactError as error:
        raise ArtifactError(error.what, remedy=remedy) from error
    wanted = {"task", "model", "sha256", "scores", "gates", "history"}
    if not isinstance(pointer, dict) or not wanted <= set(pointer) or pointer["task"] != task:
        raise ArtifactError(f"{path} is not a champion pointer of task `{task}`", remedy=remedy)
    return pointer


def _gate(name: str, passed: bool, observed: float | str, required: str, found: str) -> Gate:
    return Gate(name, bool(passed), observed, required, f"{found}; required: {required} (`promote.{_KEYS[name]}`)")


#: Gate -> its key in the section `promote`.
_KEYS = {
    "size_ratio": "min_size_ratio",
    "points_lost": "max_points_lost",
    "points_over_majority": "min_points_over_majority",
    "overfitting": "reject_overfitting",
}


def _figures(path: Path, *, made_by: str) -> dict[str, Any]:
    value = read_json(path, made_by=made_by)
    if not isinstance(value, dict):
        raise damaged(path, "it holds no object", made_by=made_by)
    return value


def _scores(evaluation: dict[str, Any], compression: dict[str, Any]) -> dict[str, Any]:
    return {
        "metric": compression["metric"],
        "score": compression["score"],
        "score_fp32": evaluation["score"],
        "score_fp32_ci95": evaluation["score_ci95"],
        "bytes": compression["bytes"],
    }


def _announce(
    task: str, gates: list[Gate], *, promoted: bool, before: dict[str, Any] | None, after: dict[str, Any]
) -> None:
    if promoted:
        again = before is not None and before["sha256"] == after["sha256"]
        note(f"promote: {task}: {'is the champion already' if again else 'PROMOTED, it is the champion now'}")
    else:
        note(f"promote: {task}: REFUSED; {'the champion stays' if after['model'] else 'there is no champion yet'}")
    for gate in gates:
        note(f"  {'pass' if gate.passed else 'FAIL'}  {gate.name}: {gate.why}")
    report_to_dagster({"task": task, "promoted": promoted, "gates": {gate.name: gate.passed for gate in gates}})
