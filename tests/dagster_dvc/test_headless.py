"""The daemon alone: data arrive, a run follows, once, and somebody is told; also after a restart."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from tests.dagster_dvc import headless
from tests.dagster_dvc.webhook import webhook

pytestmark = pytest.mark.slow


def put(project: Path, name: str, text: str) -> None:
    """Drop a file in at once."""
    (project / name).write_text(text)
    (project / name).rename(project / "data/raw" / name)


def test_a_file_starts_one_run_also_over_a_restart_and_the_webhook_is_told(
    reproduced: Path, dvc: Callable[..., str]
) -> None:
    project, log = reproduced, reproduced.parent / "daemon.log"
    section = {
        "new_files": {"enabled": True, "folder": "data/raw", "interval_s": 5},
        "notify": {"enabled": True, "log": "runs.jsonl", "webhook_from": "HOOK"},
    }
    params = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump({**params, "automation": section}))

    with dg.DagsterInstance.from_config(str(headless.prepare(project))) as instance, webhook() as inbox:

        def finished() -> list[dg.DagsterRun]:
            return [run for run in headless.runs(instance, "new_files") if run.is_finished]

        with headless.daemon(project, HOOK=inbox.address) as process:

            def wait(condition: Callable[[], bool], what: str) -> None:
                headless.wait_for(condition, what, process=process, log=log)

            wait(lambda: len(headless.ticks(instance, "notify_success")) > 0, "look for ends of runs")
            put(project, "two.txt", "b\nc\n")
            wait(lambda: len(finished()) == 1, "run on the new file")
            first = finished()[0]
            assert first.status is dg.DagsterRunStatus.SUCCESS
            assert headless.how(instance, first)["count"] == "executed"
            assert (project / "out/count.txt").read_text() == "3\n"
            assert "up to date" in dvc(project, "status")

        # The run may end before somebody was told of it: the sensor of the next daemon goes on where this one was.
        with headless.daemon(project, HOOK=inbox.address) as process:
            before = len(headless.ticks(instance, "new_files"))
            wait(lambda: len(headless.ticks(instance, "new_files")) >= before + 2, "looks after the restart")
            assert len(headless.runs(instance, "new_files")) == 1, "the same data ran twice"
            put(project, "three.txt", "d\n")
            wait(lambda: len(finished()) == 2, "run on the second file")
            assert (project / "out/count.txt").read_text() == "4\n"
            second = finished()[0]
            wait(lambda: len(inbox.received) >= 2, "message of the second run")

    assert [told["run_id"] for told in inbox.received] == [first.run_id, second.run_id]
    assert [json.loads(line) for line in (project / "runs.jsonl").read_text().splitlines()] == inbox.received
    assert {(told["status"], told["trigger"]) for told in inbox.received} == {("success", "new_files")}
