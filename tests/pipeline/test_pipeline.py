"""The whole pipeline at a tiny size: through `dvc repro`, through Dagster, and both tell the same story."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_project.dagster_dvc.lock_file import read_lock
from dagster_project.dagster_dvc.pipeline import overlaps, read_pipeline
from tests.dagster_dvc import headless

pytestmark = pytest.mark.slow

METRICS = {
    "metrics/ingest.json": ["documents", "rejected", "duplicates_removed"],
    "metrics/pretrain.json": ["mlm_loss", "mlm_accuracy", "unigram_loss", "nsp_accuracy", "tokens_per_second"],
    "metrics/evaluate/sentiment.json": [
        "accuracy",
        "accuracy_ci95",
        "f1_macro",
        "baselines.majority.accuracy",
        "baselines.tfidf_lr.accuracy",
        "baselines.no_pretraining.accuracy",
        "overfitting.flag",
    ],
    "metrics/compress/sentiment.json": [
        "bytes",
        "bytes_fp32",
        "latency_ms_p50",
        "latency_ms_p50_fp32",
        "score",
        "score_fp32",
    ],
    "metrics/evaluate/entities.json": ["entity_f1", "entity_f1_ci95", "baselines.tfidf_lr.entity_f1"],
    "metrics/compress/entities.json": ["score", "score_fp32"],
}


def look_up(content: dict, key: str) -> object:
    for part in key.split("."):
        content = content[part]
    return content


@pytest.mark.parametrize("tool", ["dvc", "dagster"])
def test_every_stage_runs(runs: dict, tool: str) -> None:
    project, done = runs[tool]
    assert done.code == 0, done.output[-6000:]
    assert set(read_lock(project)) == {stage.name for stage in read_pipeline(project).stages}
    assert (project / "reports/index.html").stat().st_size > 1000


@pytest.mark.parametrize("file", METRICS)
def test_metrics_have_the_promised_names(runs: dict, file: str) -> None:
    content = json.loads((runs["dvc"][0] / file).read_text())
    for key in METRICS[file]:
        value = look_up(content, key)
        assert isinstance(value, bool if key.endswith("flag") else list if key.endswith("ci95") else int | float), key


def test_progress_reaches_the_terminal(runs: dict) -> None:
    output = runs["dvc"][1].output
    assert "Running stage 'pretrain'" in output
    assert "30/30 steps" in output
    assert "30/30 steps" in runs["dagster"][1].output


def test_two_runs_from_scratch_give_the_same_artifacts(runs: dict) -> None:
    """Everything that a stage depends on; timings stand in files that nothing depends on."""
    project = runs["dvc"][0]
    pipeline = read_pipeline(project)
    wanted = {path for stage in pipeline.stages for path in stage.dependencies}
    one, two = (
        {o: h for s in read_lock(runs[t][0]).values() for o, h in s.outputs.items()} for t in ("dvc", "dagster")
    )
    compared = {output for output in one if any(overlaps(output, path) for path in wanted)}
    assert len(compared) >= 15
    assert {o: one[o] for o in compared} == {o: two[o] for o in compared}


def test_a_second_run_changes_nothing(runs: dict, run_in: Callable) -> None:
    project = runs["dagster"][0]
    before = (project / "dvc.lock").read_bytes()
    done = run_in(project, "dvc", "repro")
    assert done.code == 0 and "up to date" in done.output
    assert "Running stage" not in done.output
    assert (project / "dvc.lock").read_bytes() == before


def test_dagster_learns_what_dvc_ran(runs: dict, run_in: Callable) -> None:
    project = runs["dvc"][0]
    first, second = (run_in(project, "python", "-m", "dagster_project.dagster_dvc", "sync") for _ in range(2))
    assert first.code == 0 and "brought up to date" in first.output, first.output
    assert second.code == 0 and "up to date" in second.output


def test_dvc_shows_metrics_and_plots(runs: dict, run_in: Callable) -> None:
    project = runs["dvc"][0]
    metrics = run_in(project, "dvc", "metrics", "show", "--json")
    assert metrics.code == 0, metrics.output
    assert "tokens_per_second" in metrics.output and "duplicates_removed" in metrics.output
    plots = run_in(project, "dvc", "plots", "show", "--out", "dvc_plots")
    assert plots.code == 0, plots.output
    page = (project / "dvc_plots/index.html").read_text()
    assert "validation_mlm_loss" in page and "plots_finetune_sentiment_tsv" in page


def test_one_changed_value_runs_only_what_reads_it(runs: dict, run_in: Callable) -> None:
    project: Path = runs["dvc"][0]
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("title: bert-ops", "title: changed"))
    done = run_in(project, "dvc", "repro")
    assert done.code == 0, done.output
    ran = [line.split("'")[1] for line in done.output.splitlines() if line.startswith("Running stage")]
    assert ran == ["report"]


def test_a_file_dropped_in_ends_in_a_retrained_model(runs: dict, run_in: Callable, tmp_path: Path) -> None:
    """The daemon alone: labelled reviews arrive in data/raw, and a model that was trained on them follows."""
    ignore = shutil.ignore_patterns(".dagster", "__pycache__")
    project, log = (
        Path(shutil.copytree(runs["dagster"][0], tmp_path / "project", ignore=ignore)),
        tmp_path / "daemon.log",
    )
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    own = {"kind": "jsonl", "path": "data/raw/own.jsonl", "text": "text", "task": "sentiment", "label": "label"}
    params["ingest"]["sources"]["own"] = own
    params["automation"]["new_files"] |= {"enabled": True, "interval_s": 5}
    del params["tasks"]["entities"], params["ingest"]["sources"]["newspaper_entities"]  # a smaller graph is enough here
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True), encoding="utf-8")
    weights = project / "models/finetuned/sentiment/model.safetensors"
    before = weights.read_bytes()

    with (
        dg.DagsterInstance.from_config(str(headless.prepare(project))) as instance,
        headless.daemon(project, module="dagster_project.definitions") as process,
    ):

        def wait(condition: Callable[[], bool], what: str) -> None:
            headless.wait_for(condition, what, process=process, log=log)

        wait(lambda: len(headless.ticks(instance, "new_files")) >= 2, "look at data/raw")
        assert headless.runs(instance, "new_files") == [], "nothing is new in data/raw yet"
        labels = ["positive", "negative"] * 30
        rows = [
            {"text": f"第{n}号商品{'非常好' if label == 'positive' else '非常差'}", "label": label}
            for n, label in enumerate(labels)
        ]
        (project / "own").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        (project / "own").rename(project / "data/raw/own.jsonl")
        wait(lambda: any(run.is_finished for run in headless.runs(instance, "new_files")), "finished retraining")
        (run,) = headless.runs(instance, "new_files")
        assert run.status is dg.DagsterRunStatus.SUCCESS, log.read_text(encoding="utf-8", errors="replace")[-6000:]
        how = headless.how(instance, run)

    assert how["sample"] == "unchanged"
    assert {how[name] for name in ("ingest", "pretrain", "finetune_sentiment", "report")} == {"executed"}
    assert weights.read_bytes() != before
    assert "up to date" in run_in(project, "dvc", "status").output
