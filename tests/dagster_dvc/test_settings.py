"""Section `automation` of params.yaml: what is wrong is said by key, value and what is allowed."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.errors import SettingsError
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.settings import Automation, read_settings

GOOD: dict[str, Any] = {
    "schedule": {"enabled": True, "cron": "0 3 * * 0", "timezone": "Europe/Berlin", "stage": "part@a"},
    "new_files": {"enabled": True, "folder": "data/raw", "interval_s": 5},
    "new_rows": {"enabled": True, "url": "sqlite:///data/x.sqlite", "table": "t", "column": "id", "stage": "count"},
    "drift": {"enabled": False, "file": "metrics/drift.json", "key": "a.b", "is": "drift"},
    "notify": {"enabled": True, "log": "runs.jsonl", "webhook_from": "HOOK", "events": ["failure"]},
}


def write(root: Path, section: Any) -> None:
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**params, "automation": section}), encoding="utf-8")


def read(root: Path) -> Automation:
    return read_settings(read_pipeline(root))


@pytest.mark.parametrize("section", [None, {}])
def test_without_a_section_nothing_runs_by_itself(project: Path, section: Any) -> None:
    if section is not None:
        write(project, section)
    assert read(project) == Automation()
    definitions = build_definitions(project)
    assert [sensor.name for sensor in definitions.sensors or []] == ["dvc_state"]
    assert not definitions.schedules


def test_all_parts_are_read_and_set_the_switches(project: Path) -> None:
    write(project, GOOD)
    settings = read(project)
    assert settings.drift is not None and settings.drift.value == "drift"
    definitions = build_definitions(project)
    switches = {
        sensor.name: sensor.default_status is dg.DefaultSensorStatus.RUNNING
        for sensor in definitions.sensors or []
        if isinstance(sensor, dg.SensorDefinition)
    }
    assert switches == {
        "dvc_state": True,
        "new_files": True,
        "new_rows": True,
        "drift": False,
        "notify_success": False,
        "notify_failure": True,
        "notify_canceled": False,
    }
    schedule = next(one for one in definitions.schedules or [] if isinstance(one, dg.ScheduleDefinition))
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * 0", "Europe/Berlin")


def test_our_own_section_is_all_off(root: Path) -> None:
    settings = read(root)
    parts = [settings.schedule, settings.new_files, settings.new_rows, settings.drift, settings.notify]
    assert [part is not None and part.enabled for part in parts] == [False] * 5


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("schedule", {"cron": "61 * * * *"}, "`automation.schedule.cron` is '61 * * * *': allowed is a cron"),
        ("schedule", {"cron": "* * * * * *"}, "of five fields"),
        ("schedule", {"cron": 5}, "`automation.schedule.cron` is 5:"),
        ("schedule", {"timezone": "Europe"}, "`automation.schedule.timezone` is 'Europe': allowed is a name"),
        ("schedule", {"timezone": "Mars/Olympus"}, "'Mars/Olympus'"),
        ("schedule", {"enabled": "yes"}, "`automation.schedule.enabled` is 'yes'"),
        ("schedule", {"on": True}, "`automation.schedule.on` is not a known key"),
        ("schedule", {"stage": "part"}, "`automation.schedule.stage` is 'part': allowed are count, part@a, part@b"),
        ("new_files", {"folder": "../x"}, "`automation.new_files.folder` is '../x': allowed is a path inside"),
        ("new_files", {"folder": "/data"}, "a path inside the project"),
        (
            "new_files",
            {"folder": "out"},
            "no stage depends on it; inputs that no stage makes are code/count.py, data/raw",
        ),
        ("new_files", {"interval_s": 1}, "`automation.new_files.interval_s` is 1:"),
        ("new_rows", {"url": "postgresql://u:hunter2@h/d"}, "holds a password: put it into an environment variable"),
        ("new_rows", {"url": "nonsense"}, "`url` is no SQLAlchemy URL"),
        ("new_rows", {"url_from": "X"}, "give either `url` or `url_from`"),
        ("new_rows", {"stage": "absent"}, "`automation.new_rows.stage` is 'absent'"),
        ("new_rows", {"min_rows": 0}, "`automation.new_rows.min_rows` is 0:"),
        ("drift", {"is": [1]}, "`automation.drift.is` is [1]"),
        ("notify", {"events": ["failed"]}, "`automation.notify.events.0` is 'failed'"),
        ("notify", {"webhook_from": "https://hunter2"}, "the name of an environment variable, not its content"),
        ("notify", {"log": None, "webhook_from": None}, "give `log`, `webhook_from` or both"),
    ],
)
def test_what_is_wrong_is_explained_and_the_assets_still_load(
    project: Path, part: str, change: dict[str, Any], said: str
) -> None:
    write(project, {**GOOD, part: {**GOOD[part], **change}})
    with pytest.raises(SettingsError) as caught:
        read(project)
    assert said in str(caught.value)
    assert "remedy: correct it in params.yaml and reload" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    specs = {spec.key.to_user_string(): spec for spec in build_definitions(project).resolve_all_asset_specs()}
    assert {"count", "join", "automation_cannot_be_used"} <= set(specs)
    assert said in (specs["automation_cannot_be_used"].description or "")
    assert not build_definitions(project).schedules


def test_a_missing_key_and_a_section_that_is_none_are_explained(project: Path) -> None:
    write(project, {"schedule": {"enabled": True}, "new_files": {}})
    with pytest.raises(SettingsError) as caught:
        read(project)
    assert "`automation.schedule.cron` is missing" in str(caught.value)
    assert "`automation.new_files.folder` is missing" in str(caught.value)
    write(project, [1])
    with pytest.raises(SettingsError, match="`automation`"):
        read(project)


def test_a_switch_makes_no_stage_stale(reproduced: Path, dvc: Any) -> None:
    write(reproduced, GOOD)
    assert "up to date" in dvc(reproduced, "status")
