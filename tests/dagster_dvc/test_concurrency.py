"""Two people at once, and a terminal beside the UI: one waits, neither fails, nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_project import (
    Crew,
    answer,
    ask,
    command_of,
    expected,
    is_clean,
    make_project,
    read_until,
    wait_for,
    write_params,
)

from dagster_project.dagster_dvc.lock_file import read_lock

pytestmark = pytest.mark.slow


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    """A project whose slow stages do not end before the test lets them."""
    made = Crew(make_project(tmp_path / "project", chunks=2, pause_s=0.01))
    (made.root / "gate").touch()
    yield made
    made.close()


def slow_is_running(crew: Crew) -> bool:
    return any("code/slow.py" in command_of(process) for process in crew.processes())


def test_two_people_materialize_at_once(crew: Crew) -> None:
    one, two = crew.driver(), crew.driver()
    ask(one, ["first", "slow"])
    wait_for(lambda: slow_is_running(crew))
    ask(two, ["slow", "other"])
    log = read_until(two, "another process runs stage slow: waiting")
    wait_for((crew.root / "out/other").exists)  # what nobody runs does not wait
    (crew.root / "gate").unlink()
    first, second = answer(one), answer(two)
    assert first["made"] == {"first": "executed", "slow": "executed"}, first["failures"]
    assert second["made"] == {"slow": "unchanged", "other": "executed"}, second["failures"]
    assert (log + second["log"]).count("waiting") == 1
    assert set(read_lock(crew.root)) == {"first", "slow", "other"}


def test_a_terminal_and_a_materialization_wait_for_each_other(crew: Crew) -> None:
    driver = crew.driver()
    ask(driver, ["first", "slow"])
    wait_for(lambda: slow_is_running(crew))
    terminal = crew.start("python", "-m", "dagster_project.dagster_dvc", "repro")
    said = read_until(terminal, "another process holds files of dvc repro: waiting")
    (crew.root / "gate").unlink()
    result = answer(driver)
    assert result["made"] == {"first": "executed", "slow": "executed"}, result["failures"]
    assert terminal.stdout is not None
    said += terminal.stdout.read()
    assert terminal.wait(timeout=240) == 0, said
    assert "Stage 'slow' didn't change, skipping" in said
    assert (crew.root / "out/last.txt").read_text() == expected(0, chunks=2)
    assert is_clean(crew.root)

    (crew.root / "gate").touch()
    write_params(crew.root, 1, chunks=2, pause_s=0.01)
    terminal = crew.dvc("repro", "slow")
    wait_for(lambda: slow_is_running(crew))
    ask(driver, ["slow"])
    read_until(driver, "another process holds files of stage slow: waiting")
    (crew.root / "gate").unlink()
    result = answer(driver)
    assert result["made"] == {"slow": "unchanged"}, result["failures"]
    said, _ = terminal.communicate(timeout=240)
    assert terminal.returncode == 0, said
    assert set(read_lock(crew.root)) == {"first", "slow", "other", "last"}
