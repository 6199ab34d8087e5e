"""deploy/purge_runs.py: what is old goes, unless an asset's newest version came from it."""

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest


@pytest.fixture
def purge(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("purge_runs", root / "deploy/purge_runs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dg.asset
def made() -> None:
    """Something."""


def test_old_runs_go_but_for_the_one_that_made_what_there_is(
    purge: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with dg.instance_for_test() as instance:
        first, second = (dg.materialize([made], instance=instance).run_id for _ in range(2))
        now = datetime.now(tz=UTC)
        assert purge.old_runs(instance, now - timedelta(days=1)) == []
        assert purge.old_runs(instance, now + timedelta(hours=1)) == [first]

        monkeypatch.setattr(purge, "timedelta", lambda days: timedelta(hours=-days))
        for option, left in ((["--dry-run"], {first, second}), ([], {second})):
            monkeypatch.setattr("sys.argv", ["purge_runs.py", "--days", "1", *option])
            assert purge.main() == 0
            assert {run.run_id for run in instance.get_runs()} == left
            assert "1 runs" in capsys.readouterr().out
        event = instance.get_latest_materialization_event(dg.AssetKey("made"))
        assert event is not None and event.run_id == second


def test_no_days_are_refused(purge: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["purge_runs.py", "--days", "0"])
    with pytest.raises(SystemExit):
        purge.main()
