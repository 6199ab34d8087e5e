"""Schedule and sensors, tick by tick: what asks for a run, once, and what does not. Dagster runs in this process."""

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml

from dagster_project.dagster_dvc.assemble import build_definitions


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


class Ticks:
    """A sensor and the cursor that Dagster would keep for it; each tick builds the sensor anew, as a restart does."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, name: str, settings: dict[str, Any]) -> None:
        self.root, self.instance, self.name = root, instance, name
        self.cursor: str | None = None
        self.said = ""
        path = root / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        params["automation"] = {name: {"enabled": True, **settings}}
        path.write_text(yaml.safe_dump(params), encoding="utf-8")

    def __call__(self) -> dg.RunRequest | None:
        sensors = {s.name: s for s in build_definitions(self.root).sensors or [] if isinstance(s, dg.SensorDefinition)}
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result = sensors[self.name](context)
        if isinstance(result, dg.SkipReason):
            self.said = str(result.skip_message)
            return None
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.said = str(result.skip_reason.skip_message) if result.skip_reason else ""
        return result.run_requests[0] if result.run_requests else None

    def settled(self) -> dg.RunRequest | None:
        """The second of two looks, which is the first that may ask for a run."""
        assert self() is None
        return self()


@pytest.fixture
def ticks(reproduced: Path, instance: dg.DagsterInstance) -> Callable[..., Ticks]:
    return lambda name, **settings: Ticks(reproduced, instance, name, settings)


def test_a_new_file_asks_for_one_run(ticks: Callable[..., Ticks], dvc: Callable[..., str]) -> None:
    tick = ticks("new_files", folder="data/raw")
    assert tick.settled() is None and "dvc.lock is of data/raw" in tick.said
    assert tick() is None and "nothing has changed" in tick.said
    (tick.root / "data/raw/two.txt").write_text("a\nb\n")
    assert tick() is None and "until it settles" in tick.said
    request = tick()
    assert request is not None and request.tags["dvc/trigger"] == "new_files" and "dvc/force" not in request.tags
    # What a run does not consume (it failed, say) is not asked for again, however often one looks.
    assert [tick() for _ in range(3)] == [None] * 3
    assert "requested already" in tick.said
    dvc(tick.root, "repro", "--single-item", "count")
    assert tick() is None and "dvc.lock is of data/raw" in tick.said


def test_a_file_that_is_being_written_is_not_taken_half(ticks: Callable[..., Ticks]) -> None:
    tick = ticks("new_files", folder="data/raw")
    tick.settled()
    with (tick.root / "data/raw/two.txt").open("w") as file:
        for _ in range(3):
            file.write("line\n")
            file.flush()
            assert tick() is None and "until it settles" in tick.said
    assert tick() is not None


def test_data_that_were_replaced_and_come_back_are_run_on_again(
    ticks: Callable[..., Ticks], dvc: Callable[..., str]
) -> None:
    tick = ticks("new_files", folder="data/raw")
    two = tick.root / "data/raw/two.txt"
    tick.settled()
    keys = []
    for present in (True, False, True):
        two.write_text("b\n") if present else two.unlink()
        request = tick.settled()
        assert request is not None
        keys.append(request.run_key)
        dvc(tick.root, "repro", "--single-item", "count")
        assert tick() is None
    assert len(set(keys)) == 3, "Dagster would refuse a key that it has seen"
    two.unlink()
    two.write_text("b\n")  # gone and back between two looks: the same data as were run on
    assert tick.settled() is None and "dvc.lock is of data/raw" in tick.said


def test_after_a_failed_run_other_data_and_then_the_same_ask_again(ticks: Callable[..., Ticks]) -> None:
    tick = ticks("new_files", folder="data/raw")
    two = tick.root / "data/raw/two.txt"
    two.write_text("b\n")
    first = tick.settled()
    two.unlink()
    assert tick.settled() is None and "dvc.lock is of data/raw" in tick.said
    two.write_text("b\n")
    second = tick.settled()
    assert first is not None and second is not None and first.run_key != second.run_key
    assert first.tags["dvc/data"] == second.tags["dvc/data"]


def test_what_never_ran_is_wanted_and_ignored_files_are_not(project: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(project, instance, "new_files", {"folder": "data/raw"})
    assert tick.settled() is not None
    (project / ".dvcignore").write_text("*.part\n")
    (project / "data/raw/x.part").write_text("half")
    assert tick.settled() is None and "requested already" in tick.said


def test_an_empty_or_missing_folder_starts_nothing_and_says_what_to_do(ticks: Callable[..., Ticks]) -> None:
    tick = ticks("new_files", folder="data/raw")
    tick.settled()
    before = tick.cursor
    (tick.root / "data/raw/one.txt").unlink()
    assert tick.settled() is None and "data/raw is empty" in tick.said and "mounted" in tick.said
    (tick.root / "data/raw").rmdir()
    assert tick.settled() is None and "data/raw does not exist" in tick.said
    assert tick.cursor == before


def test_a_broken_link_and_a_broken_lock_are_explained(
    ticks: Callable[..., Ticks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_project.dagster_dvc.lock_file._LOCK_PAUSE_S", 0.0)
    tick = ticks("new_files", folder="data/raw")
    link = tick.root / "data/raw/link.txt"
    link.symlink_to("nowhere")
    assert tick() is None and "link.txt" in tick.said and "remedy" in tick.said
    link.unlink()
    (tick.root / "dvc.lock").write_text("stages: [")
    assert tick.settled() is None and "dvc.lock" in tick.said and "remedy" in tick.said


def test_nothing_is_asked_for_while_a_run_is_unfinished(
    ticks: Callable[..., Ticks], instance: dg.DagsterInstance
) -> None:
    tick = ticks("new_files", folder="data/raw")
    (tick.root / "data/raw/two.txt").write_text("b\n")
    job = build_definitions(tick.root).resolve_job_def("pipeline")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert tick.settled() is None and run.run_id in tick.said
    instance.report_run_canceled(run)
    assert tick.settled() is not None


def test_an_edited_cursor_starts_afresh(ticks: Callable[..., Ticks]) -> None:
    tick = ticks("new_files", folder="data/raw")
    (tick.root / "data/raw/two.txt").write_text("b\n")
    first = tick.settled()
    for cursor in ("not JSON", "[]", "{}", None):
        tick.cursor = cursor
        again = tick.settled()
        assert first is not None and again is not None and again.run_key != first.run_key


@pytest.fixture
def database(reproduced: Path) -> Iterator[sa.Connection]:
    """A table with a name that must be quoted."""
    engine = sa.create_engine(f"sqlite:///{reproduced / 'data/x.sqlite'}")
    with engine.connect() as connection:
        connection.execute(sa.text('CREATE TABLE "order by; --" (id INTEGER, at TIMESTAMP)'))
        connection.commit()
        yield connection
    engine.dispose()


def insert(connection: sa.Connection, *ids: int, at: str = "2026-01-01") -> None:
    query = sa.text('INSERT INTO "order by; --" VALUES (:id, :at)')
    connection.execute(query, [{"id": number, "at": at} for number in ids])
    connection.commit()


ROWS = {"url": "sqlite:///data/x.sqlite", "table": "order by; --", "column": "id", "stage": "count"}


def test_new_rows_ask_for_one_run_that_forces_the_stage(ticks: Callable[..., Ticks], database: sa.Connection) -> None:
    tick = ticks("new_rows", **ROWS, min_rows=2)
    insert(database, 1, 2)
    assert tick() is None and "has 2 rows" in tick.said
    assert tick() is None
    insert(database, 5)
    assert tick() is None and "1 new rows, 2 call for a run" in tick.said
    insert(database, 6)
    request = tick()
    assert request is not None and request.tags["dvc/force"] == "count"
    assert [tick(), tick()] == [None, None]
    insert(database, 3, 4)  # late, below the highest
    assert tick() is not None
    database.execute(sa.text('DELETE FROM "order by; --" WHERE id < 5'))
    database.commit()
    assert tick() is None and "0 new rows" in tick.said
    insert(database, 7, 8)
    assert tick() is not None


@pytest.mark.slow
def test_a_run_for_new_rows_executes_the_stage_although_dvc_sees_no_change(
    ticks: Callable[..., Ticks], database: sa.Connection, instance: dg.DagsterInstance
) -> None:
    tick = ticks("new_rows", **{**ROWS, "stage": "part@a"})
    assert tick() is None
    insert(database, 1)
    request = tick()
    assert request is not None
    job = build_definitions(tick.root).resolve_job_def("pipeline")
    result = job.execute_in_process(instance=instance, tags=dict(request.tags))
    ran = {
        str(event.asset_key.to_user_string()): str(
            event.step_materialization_data.materialization.metadata["run"].value
        )
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert ran == {"count": "unchanged", "part_a": "executed", "part_b": "unchanged", "join": "unchanged"}


@pytest.mark.parametrize("value", ["2026-01-02 03:04:05", None])
def test_the_mark_may_be_a_time_or_absent(
    ticks: Callable[..., Ticks], database: sa.Connection, value: str | None
) -> None:
    tick = ticks("new_rows", **{**ROWS, "column": "at"})
    if value:
        insert(database, 1, at=value)
    assert tick() is None
    insert(database, 2, at="2026-01-02 03:04:05")
    assert tick() is not None
    assert tick() is None


@pytest.mark.parametrize("mark", [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.date(2026, 1, 2)])
def test_times_are_remembered_as_times(mark: Any) -> None:
    from dagster_project.dagster_dvc.new_rows import _decoded, _encoded

    assert _decoded(json.loads(json.dumps(_encoded(mark)))) == mark


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        ({}, None, "x.sqlite does not exist"),
        ({"url": "postgresql+psycopg2://localhost:1/d"}, None, "postgresql+psycopg2://localhost:1/d: "),
        ({"url": None, "url_from": "URL_OF_TEST"}, None, "environment variable URL_OF_TEST is not set"),
        ({"url": None, "url_from": "URL_OF_TEST"}, "hunter2", "URL_OF_TEST holds no SQLAlchemy URL"),
        ({"url": None, "url_from": "URL_OF_TEST"}, "postgresql+psycopg2://u:hunter2@127.0.0.1:1/d", "u:***@127.0.0.1"),
        ({"url": "nosuch://localhost/d"}, None, "nosuch"),
    ],
)
def test_a_database_that_cannot_be_read_is_explained_without_its_password(
    ticks: Callable[..., Ticks],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    environment: str | None,
    said: str,
) -> None:
    monkeypatch.delenv("URL_OF_TEST", raising=False)
    if environment:
        monkeypatch.setenv("URL_OF_TEST", environment)
    tick = ticks("new_rows", **{**ROWS, **settings})
    assert tick() is None
    assert said in tick.said and "remedy" in tick.said and "hunter2" not in tick.said
    assert not (tick.root / "data/x.sqlite").exists(), "SQLite makes a database of every wrong name"


def test_an_absent_table_is_explained_and_found_once_it_is_there(
    ticks: Callable[..., Ticks], database: sa.Connection
) -> None:
    tick = ticks("new_rows", **{**ROWS, "table": "absent"})
    assert tick() is None and "no such table: absent" in tick.said
    database.execute(sa.text("CREATE TABLE absent (id INTEGER)"))
    database.commit()
    assert tick() is None and "has 0 rows" in tick.said


def test_drift_asks_once_for_each_content(ticks: Callable[..., Ticks]) -> None:
    tick = ticks("drift", file="metrics/drift.json", key="data.drift", stage="count")
    file = tick.root / "metrics/drift.json"
    assert tick() is None and "does not exist" in tick.said and "remedy" in tick.said
    for content, wanted in [
        ({"drift": False}, False),
        ({"drift": 1}, False),
        ({"drift": True, "share": 0.5}, True),
        ({"drift": True, "share": 0.5}, False),
        ({"drift": True, "share": 0.6}, True),
        ({"drift": False}, False),
        ({"drift": True, "share": 0.6}, True),
    ]:
        file.write_text(json.dumps({"data": content}))
        request = tick()
        assert (request is not None) == wanted, tick.said
        assert request is None or request.tags["dvc/force"] == "count"
    file.write_text("{")
    assert tick() is None and "cannot be read" in tick.said
    file.write_text("{}")
    assert tick() is None and "has no `data.drift`" in tick.said


def test_the_schedule_asks_for_the_whole_pipeline_unless_it_is_under_way(
    reproduced: Path, instance: dg.DagsterInstance
) -> None:
    Ticks(reproduced, instance, "schedule", {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "stage": "count"})
    definitions = build_definitions(reproduced)
    schedule = next(one for one in definitions.schedules or [] if isinstance(one, dg.ScheduleDefinition))
    context = dg.build_schedule_context(instance=instance, repository_def=definitions.get_repository_def())
    request = schedule(context)
    assert isinstance(request, dg.RunRequest) and request.tags["dvc/force"] == "count"
    instance.create_run_for_job(definitions.resolve_job_def("pipeline"), status=dg.DagsterRunStatus.STARTED)
    assert isinstance(schedule(context), dg.SkipReason)
