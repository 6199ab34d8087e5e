"""deploy/dagster.yaml on a real PostgreSQL server: runs, events and cursors are there, and outlive a power cut."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml

from tests.dagster_dvc import headless
from tests.dagster_dvc.conftest import make_project
from tests.deploy.postgres_server import Server, as_postgres, postgres, programs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server: apt-get install postgresql"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if os.geteuid() == 0:
        try:
            as_postgres()
        except KeyError:
            pytest.skip("no user `postgres` to run the server as")
    with postgres() as made:
        yield made


@pytest.fixture
def rows(server: Server) -> Iterator[Callable[[str], list[sa.Row]]]:
    """Asks the server itself, past Dagster."""
    engine = sa.create_engine(server.url, poolclass=sa.NullPool)

    def ask(query: str) -> list[sa.Row]:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(query)))

    yield ask
    engine.dispose()


def test_runs_events_and_cursors_are_in_the_server_and_a_power_cut_loses_nothing(
    tmp_path: Path, server: Server, rows: Callable[[str], list[sa.Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    project, log = make_project(tmp_path / "project"), tmp_path / "daemon.log"
    params = yaml.safe_load((project / "params.yaml").read_text())
    section = {"new_files": {"enabled": True, "folder": "data/raw", "interval_s": 5}}
    (project / "params.yaml").write_text(yaml.safe_dump({**params, "automation": section}))
    # The stage hangs until it is let go, so that the cut falls into the run.
    code = project / "code/count.py"
    hold = "import os, time\nwhile os.path.exists('hold'):\n    time.sleep(0.1)\n"
    code.write_text(hold + code.read_text())
    (project / "hold").touch()

    with dg.DagsterInstance.from_config(
        str(headless.prepare(project, headless.ROOT / "deploy/dagster.yaml"))
    ) as instance:
        assert instance.telemetry_enabled is False

        def status() -> list[str]:
            """Of the runs, the first first."""
            return [row.status for row in rows("SELECT status FROM runs ORDER BY id")]

        with headless.daemon(project, **server.environment) as process:
            headless.wait_for(
                lambda: "Running stage 'count'" in log.read_text(errors="replace"), "stage", process=process, log=log
            )
            cut_the_power(process)
        assert status() == ["STARTED"], "nobody was left to say that it died"
        (project / "hold").unlink()
        (before_cut,) = requests(rows)

        with headless.daemon(project, **server.environment) as process:
            headless.wait_for(lambda: status() == ["FAILURE", "SUCCESS"], "second try", process=process, log=log)
            before = len(headless.ticks(instance, "new_files"))
            headless.wait_for(
                lambda: len(headless.ticks(instance, "new_files")) >= before + 2, "looks", process=process, log=log
            )
        assert status() == ["FAILURE", "SUCCESS"], "the sensor asked again for data that had run"
        assert requests(rows) == [before_cut] == [1]

        retried, made = instance.get_runs()[0], {"count", "part_a", "part_b", "join"}
        assert retried.tags["dagster/parent_run_id"] == instance.get_runs()[1].run_id
        assert set(headless.how(instance, retried)) == made
    (events,) = rows("SELECT count(*) AS n FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'")
    assert events.n >= 4
    assert not list((project / ".dagster").rglob("*.db")), "something is kept in SQLite beside the server"


def requests(rows: Callable[[str], list[sa.Row]]) -> list[int]:
    """How many runs the sensor has asked for, by its cursor in the server."""
    bodies = [json.loads(row.instigator_body) for row in rows("SELECT instigator_body FROM instigators")]
    cursors = [body["job_specific_data"].get("cursor") or "" for body in bodies]
    return [json.loads(cursor)["requests"] for cursor in cursors if '"listing"' in cursor]


def cut_the_power(process: subprocess.Popen[bytes]) -> None:
    """Kill a daemon and all below it at once, whatever session it is in."""
    import psutil

    parent = psutil.Process(process.pid)
    for one in [parent, *parent.children(recursive=True)]:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_without_the_password_dagster_names_the_variable(tmp_path: Path, server: Server) -> None:
    project = make_project(tmp_path / "project")
    headless.prepare(project, headless.ROOT / "deploy/dagster.yaml")
    variables = {name: value for name, value in server.environment.items() if name != "DAGSTER_POSTGRES_PASSWORD"}
    done = subprocess.run(
        [Path(sys.executable).parent / "dagster", "instance", "info"],
        cwd=project,
        env=headless.environment(project, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DAGSTER_POSTGRES_PASSWORD" in done.stdout + done.stderr
