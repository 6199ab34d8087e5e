"""Experiments of DVC, compared on a page: from what DVC writes, and a real grid of a small stage."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bert_ops import __main__ as cli
from bert_ops.errors import InputError
from bert_ops.evaluate.experiments import parameters, read, read_scores, shown
from bert_ops.evaluate.experiments_page import best_by_validation, html

ROOT = Path(__file__).resolve().parents[2]


def revision(rev, score=None, *, test=None, judged="m", model="m", runs=None, error=None, **values):
    """A revision as `dvc exp show --json` has it."""
    params = {"finetune": {"epochs": 3, "optimizer": {"learning_rate": 5e-4}} | values.pop("finetune", {}), **values}
    metrics = {"metrics/finetune/mood.json": {"error": {"type": "FileNotFoundError", "msg": "none"}}}
    if score is not None:
        own = {"metric": "accuracy", "score": score, "seconds": 12.0, "trained_parameters": 1234, "runs": runs}
        metrics["metrics/finetune/mood.json"] = {"data": own}
        metrics["metrics/ingest.json"] = {"data": {"read": 7}}
    if test is not None:
        metrics["metrics/evaluate/mood.json"] = {"data": {"metric": "accuracy", "score": test}}
    data = {
        "params": {"params.yaml": {"data": params}},
        "metrics": metrics,
        "outs": {"models/finetuned/mood": {"hash": model}},
        "deps": {"models/finetuned/mood": {"hash": judged}},
    }
    return {"rev": rev, "name": None, "data": None if error else data, "error": error}


def entry(name, state="success", *args, **given):
    return {"name": name, "revs": [revision(name, *args, **given)], "executor": {"state": state}}


def shown_by_dvc(*experiments, base=None):
    commit = (base or revision("c0ffee00", 0.80, test=0.79)) | {"name": "main", "experiments": list(experiments)}
    return [revision("workspace", 0.80), commit]


def rows_of(page):
    """Rows of the first table as text, without tags."""
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    return ["".join(part.split(">")[-1] + " " for part in row.split("<")) for row in body.split("</tr>")[:-1]]


def test_best_on_validation_comes_first_with_what_it_changed():
    comparison = read(
        shown_by_dvc(
            entry("weak", "success", 0.70, model="w", judged="w", finetune={"epochs": 1}),
            entry("strong", "success", 0.85, model="s", judged="s", finetune={"epochs": 8}),
            entry("idle", "success", 0.80, finetune={"seed": 9}),
        )
    )
    page = html(comparison)
    strong, *others, weak = rows_of(page)
    assert "strong" in strong and "best on validation" in strong and "+5.0" in strong and "1,234" in strong
    assert "weak" in weak and "−10.0" in weak
    assert any("idle" in row and "same model" in row for row in others)
    assert page.count("best on validation") == 1
    assert [row.changed for row in comparison.experiments] == [
        {"finetune.epochs": 1}, {"finetune.epochs": 8}, {"finetune.seed": 9},
    ]  # fmt: skip
    assert "<svg" in page and "<script" not in page and "http" not in page


def test_test_score_never_decides_and_is_shown_only_of_the_very_model():
    comparison = read(
        shown_by_dvc(
            entry("lucky", "success", 0.70, test=0.99, model="l", judged="l", finetune={"epochs": 1}),
            entry("stale", "success", 0.81, test=0.79, model="new", judged="old", finetune={"epochs": 2}),
        )
    )
    assert best_by_validation(comparison, "mood").name == "stale"
    page = html(comparison)
    lucky, stale = (next(row for row in rows_of(page) if name in row) for name in ("lucky", "stale"))
    assert "99.0%" in lucky and "test, not for choosing" in page
    assert "79.0%" not in stale, "that was the score of the model before"


def test_evaluation_counts_though_no_later_stage_read_the_model():
    """DVC shows no hash of a path whose last reader has not run."""
    comparison = read(
        shown_by_dvc(
            entry("anew", "success", 0.70, test=0.66, model="l", judged=None, finetune={"epochs": 1}),
            entry("stale", "success", 0.81, test=0.79, model="n", judged=None, finetune={"epochs": 2}),
        )
    )
    assert [row.scores["mood"].test for row in comparison.experiments] == [0.66, None]


def test_repeated_runs_are_ranked_by_their_mean():
    runs = {"kind": "seeds", "scores": [0.9, 0.7, 0.74], "mean": 0.78, "ci95": [0.52, 1.0], "deviation": 0.1}
    comparison = read(shown_by_dvc(entry("spread", "success", 0.90, runs=runs, model="r", finetune={"epochs": 4})))
    assert best_by_validation(comparison, "mood").name == "main"
    assert "78.0% (52.0–100.0)" in html(comparison) and "3 seeds" in html(comparison)


def test_no_number_never_wins():
    comparison = read(shown_by_dvc(entry("diverged", "success", float("nan"), finetune={"epochs": 4})))
    assert best_by_validation(comparison, "mood").name == "main"
    assert "diverged" in html(comparison)


def test_failed_and_waiting_experiments_are_listed_apart():
    error = {"type": "ReproductionError", "msg": "it <broke>"}
    page = html(
        read(
            shown_by_dvc(
                entry("broken", "failed", error=error),
                entry("waiting", "queued", finetune={"epochs": 2}),
                entry("going", "running", 0.8, finetune={"epochs": 4}),
            )
        )
    )
    assert "3 experiments: 1 failed, 1 running, 1 queued." in page
    after = page.split("Without a result")[1]
    assert "dvc queue logs broken" in after and "waiting" in after and "going" in after
    assert "going" not in page.split("Without a result")[0], "what it shows while it runs are the baseline's scores"


def test_own_values_of_a_task_stand_in_the_chart_of_the_shared_key():
    own = {"tasks": {"mood": {"finetune": {"epochs": 9}}}}
    comparison = read(
        shown_by_dvc(
            entry("shared", "success", 0.82, model="a", finetune={"epochs": 5}),
            entry("own", "success", 0.84, model="b", **own),
        )
    )
    assert [row.value("finetune.epochs", "mood") for row in comparison.experiments] == [5, 9]
    page = html(comparison)
    assert page.count("<svg") == 1 and page.count("<circle") == 3 and ">9</text>" in page
    assert "own: 0.8400" in page


def test_two_points_make_no_chart():
    assert "<svg" not in html(read(shown_by_dvc(entry("only", "success", 0.82, finetune={"epochs": 5}))))


def test_workspace_stands_for_a_commit_without_results_only_while_its_parameters_are_the_same():
    bare = revision("c0ffee00")
    with_scores = shown_by_dvc(entry("one", "success", 0.9, model="o", finetune={"epochs": 5}), base=bare)
    assert read(with_scores).baseline.scores["mood"].validation == 0.80
    with_scores[0] = revision("workspace", 0.95, finetune={"epochs": 7})
    assert read(with_scores).baseline.scores == {}
    assert "The baseline has no score" in html(read(with_scores))


def test_markup_in_names_and_values_stays_text():
    page = html(read(shown_by_dvc(entry("<b>x", "success", 0.9, finetune={"keep": "<script>"}))))
    assert "<script" not in page and "&lt;script&gt;" in page and "&lt;b&gt;x" in page


@pytest.mark.parametrize("parts", [[], [revision("workspace", 0.8)], shown_by_dvc()])
def test_no_experiments_says_how_to_begin(parts):
    with pytest.raises(InputError, match=r"no experiments.*(\n.*)*dvc exp run --queue"):
        read(parts)


def test_folder_without_repository_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["experiments"]) == InputError.exit_code
    assert "experiments live in a Git repository with DVC" in capsys.readouterr().err
    assert not (tmp_path / "reports").exists()


def test_unreadable_revision_has_no_parameters_and_no_scores():
    broken = revision("x", error={"type": "E", "msg": "m"})
    assert parameters(broken) == {} and read_scores(broken) == {}


def stage(task):
    """A dvc.yaml with the command of our own stage, over files that Git holds."""
    command = (
        f"{sys.executable} -m bert_ops finetune --task {task} --init pretrained --examples examples.parquet "
        f"--out models/finetuned/{task} --history history.tsv --metrics metrics/finetune/{task}.json "
        "--run-log log.jsonl --checkpoints .bert_ops/checkpoints"
    )
    return {
        "cmd": command,
        "deps": ["pretrained", "examples.parquet"],
        "params": ["finetune", f"tasks.{task}"],
        "outs": [f"models/finetuned/{task}", "history.tsv", "log.jsonl"],
        "metrics": [f"metrics/finetune/{task}.json"],
    }


@pytest.mark.slow
def test_real_grid_runs_and_stands_on_the_page(tmp_path, corpus, pretrained_folder, params_file, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # DVC's worker is started as `dvc`; where that is not found, `--run-all` waits for it without end
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tester@example.invalid")

    def call(*command, code=0):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def dvc(*command, code=0):
        return call(sys.executable, "-m", "dvc", *command, code=code)

    call("git", "init", "--quiet", "--initial-branch=main")
    dvc("init", "--quiet")
    dvc("config", "core.analytics", "false")
    shutil.copytree(pretrained_folder, "pretrained")
    shutil.copy(corpus / "examples/sentiment.parquet", "examples.parquet")
    shutil.copy(params_file, "params.yaml")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"finetune": stage("sentiment")}}), encoding="utf-8")
    Path(".gitignore").write_text("/models\n/metrics\n/history.tsv\n/log.jsonl\n/.bert_ops\n", encoding="utf-8")
    call("git", "add", "--all")
    call("git", "commit", "--quiet", "--message=Begin")
    dvc("repro", "--quiet")

    assert "Did you mean: 'epochs'" in dvc("exp", "run", "--queue", "-S", "finetune.epoch=1", code=255)
    dvc("exp", "run", "--queue", "--name", "small", "-S", "finetune.optimizer.learning_rate=5e-5")
    dvc("exp", "run", "--queue", "--name", "none", "-S", "finetune.epochs=0")
    dvc("exp", "run", "--run-all", code=None)  # 0 or 1 after a failure: DVC does not always wait for its worker's end

    found = read(shown())
    small, none = sorted(found.experiments, key=lambda row: row.name, reverse=True)
    assert small.changed == {"finetune.optimizer.learning_rate": 5e-5} and small.state == "done"
    assert small.scores["sentiment"].model != found.baseline.scores["sentiment"].model
    assert none.state == "failed" and none.scores == {}
    assert cli.main(["experiments", "--out", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "2 experiments: 1 done, 1 failed." in page and "Task sentiment" in page

    dvc("exp", "apply", "small")
    assert yaml.safe_load(Path("params.yaml").read_text())["finetune"]["optimizer"]["learning_rate"] in (5e-5, "5e-05")
    assert "up to date" in dvc("repro")
