"""Messages about runs that ended: what they say, that they arrive, and that nothing breaks if they cannot."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_project.dagster_dvc import notify
from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.notify import deliver, post
from dagster_project.dagster_dvc.settings import Notify
from tests.dagster_dvc.webhook import Inbox, webhook

SETTINGS = {"enabled": True, "log": "logs/runs.jsonl", "webhook_from": "HOOK_OF_TEST", "link_from": "UI_OF_TEST"}


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with webhook() as made:
        monkeypatch.setenv("HOOK_OF_TEST", made.address)
        monkeypatch.setenv("UI_OF_TEST", "http://127.0.0.1:3000/")
        yield made


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def switch_on(root: Path) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "automation": {"notify": SETTINGS}}))


def ticked(root: Path, instance: dg.DagsterInstance, event: str, cursor: str | None) -> str | None:
    """Run one tick of a notification's sensor, as the daemon does; return its cursor."""
    definitions = build_definitions(root)
    sensor = next(s for s in definitions.sensors or [] if getattr(s, "name", "") == f"notify_{event}")
    assert isinstance(sensor, dg.SensorDefinition)
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository) as context:
        return sensor.evaluate_tick(context).cursor


def materialize(root: Path, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions(root).resolve_job_def("pipeline")
    return job.execute_in_process(instance=instance, raise_on_error=False, tags={"dvc/trigger": "new_files"})


def told(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / "logs/runs.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_success_and_failure_are_told_once_each(reproduced: Path, instance: dg.DagsterInstance, inbox: Inbox) -> None:
    switch_on(reproduced)
    cursors = {event: ticked(reproduced, instance, event, None) for event in ("success", "failure", "canceled")}
    good = materialize(reproduced, instance)
    (reproduced / "data/raw/one.txt").write_text("")
    bad = materialize(reproduced, instance)
    assert good.success and not bad.success
    for _ in range(2):
        cursors = {event: ticked(reproduced, instance, event, cursor) for event, cursor in cursors.items()}
    assert told(reproduced) == inbox.received
    success, failure = inbox.received
    assert success | {"time": None} == {
        "time": None,
        "run_id": good.run_id,
        "job": "pipeline",
        "status": "success",
        "trigger": "new_files",
        "error": None,
        "failed_assets": [],
        "link": f"http://127.0.0.1:3000/runs/{good.run_id}",
        "text": f"pipeline: success http://127.0.0.1:3000/runs/{good.run_id}",
    }
    assert failure["run_id"] == bad.run_id and failure["failed_assets"] == ["count"]
    assert "too few lines" in failure["error"] and "remedy" in failure["error"]
    assert "(count)" in failure["text"]


def test_a_cancelled_run_is_told(reproduced: Path, instance: dg.DagsterInstance, inbox: Inbox) -> None:
    switch_on(reproduced)
    cursor = ticked(reproduced, instance, "canceled", None)
    job = build_definitions(reproduced).resolve_job_def("pipeline")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_canceled(run)
    ticked(reproduced, instance, "canceled", cursor)
    assert [(one["run_id"], one["status"]) for one in inbox.received] == [(run.run_id, "canceled")]


@pytest.mark.slow
def test_what_cannot_be_delivered_breaks_nothing_and_keeps_the_place(
    reproduced: Path, instance: dg.DagsterInstance, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    switch_on(reproduced)
    (reproduced / "logs").write_text("a file where a folder should be")
    inbox.statuses = [410]
    cursor = ticked(reproduced, instance, "success", None)
    materialize(reproduced, instance)
    with caplog.at_level(logging.WARNING):
        after = ticked(reproduced, instance, "success", cursor)
    assert after != cursor and inbox.received == []
    materialize(reproduced, instance)
    (reproduced / "logs").unlink()
    ticked(reproduced, instance, "success", after)
    assert len(inbox.received) == 1 and told(reproduced) == inbox.received


@pytest.mark.parametrize(
    ("statuses", "attempts", "problem"),
    [
        ([], 1, None),
        ([500, 503], 3, None),
        ([500, 429, 500], 3, "HTTP 500"),
        ([404], 1, "HTTP 404"),
    ],
)
def test_a_server_in_trouble_is_tried_three_times_and_a_refusal_once(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, statuses: list[int], attempts: int, problem: str | None
) -> None:
    monkeypatch.setattr(notify, "_PAUSES_S", (0.0, 0.01, 0.01))
    inbox.statuses = statuses
    assert post(inbox.address, "{}") == problem
    assert inbox.attempts == attempts


def test_a_server_that_does_not_answer_is_given_up(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(notify, "_BUDGET_S", 0.5)
    inbox.delay_s = 1.0
    assert "timed out" in (post(inbox.address, "{}") or "")


def test_problems_do_not_show_the_address(tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_PAUSES_S", (0.0,))
    settings = Notify.model_validate({"webhook_from": "HOOK_OF_TEST"})
    inbox.statuses = [404]
    assert deliver({}, settings, root=tmp_path) == ["webhook of HOOK_OF_TEST: HTTP 404"]
    for address in ("file:///etc/passwd", "", "secret-path", "http://127.0.0.1:1/secret-path", "http://[secret-path"):
        monkeypatch.setenv("HOOK_OF_TEST", address)
        (problem,) = deliver({}, settings, root=tmp_path)
        assert "HOOK_OF_TEST" in problem and "secret-path" not in problem, problem


def test_the_log_alone_needs_no_webhook(tmp_path: Path) -> None:
    settings = Notify.model_validate({"log": "deep/er/runs.jsonl"})
    assert [deliver({"text": "模型"}, settings, root=tmp_path) for _ in range(2)] == [[], []]
    assert (tmp_path / "deep/er/runs.jsonl").read_text(encoding="utf-8") == '{"text": "模型"}\n' * 2
    shutil.rmtree(tmp_path / "deep")
