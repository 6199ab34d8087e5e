"""Which way a run takes: one process if nothing has to run, a process a step otherwise."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster_pipes import PipesContext

from dagster_project.dagster_dvc.assets import is_forced
from dagster_project.dagster_dvc.executor import PipelineExecutor
from dagster_project.dagster_dvc.pipeline import read_pipeline

ALL = ["count", "part_a", "part_b", "join"]


class Fake:
    """Stands for one of the two executors and says which it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def execute(self, _context: Any, _plan: Any) -> list[str]:
        return [self.name]


def way(root: Path, ops: list[str], *, tags: dict[str, str] | None = None, config: dict | None = None) -> str:
    executor = PipelineExecutor(read_pipeline(root), preload=[])
    executor._one, executor._many = Fake("one"), Fake("many")  # type: ignore[assignment]
    steps = [SimpleNamespace(node_handle=SimpleNamespace(name=name)) for name in ops]
    plan: Any = SimpleNamespace(get_all_steps_in_topo_order=lambda: steps)
    context: Any = SimpleNamespace(dagster_run=SimpleNamespace(tags=tags or {}), run_config=config or {})
    (only,) = executor.execute(context, plan)
    return str(only)


def test_nothing_to_run_takes_one_process(reproduced: Path) -> None:
    assert way(reproduced, ALL) == "one"


def test_something_to_run_takes_many(reproduced: Path) -> None:
    (reproduced / "data/raw/two.txt").write_text("more\n")
    assert way(reproduced, ALL) == "many"
    assert way(reproduced, ["part_a"]) == "one"


def test_force_takes_many(reproduced: Path) -> None:
    assert way(reproduced, ALL, tags={"dvc/force": "true"}) == "many"
    assert way(reproduced, ALL, config={"ops": {"count": {"config": {"force": True}}}}) == "many"
    assert way(reproduced, ALL, config={"ops": {"count": {"config": {"force": False}}}}) == "one"


def test_what_is_no_stage_takes_many(reproduced: Path) -> None:
    assert way(reproduced, ["run_experiment"]) == "many"


def test_a_broken_project_takes_many_so_that_the_step_says_why(reproduced: Path) -> None:
    (reproduced / "dvc.lock").write_text("stages: [")
    assert way(reproduced, ALL) == "many"


def test_tags_name_the_stages_to_force() -> None:
    assert is_forced({"dvc/force": "true"}, "any")
    assert is_forced({"dvc/force": "count, part@a"}, "part@a")
    assert not is_forced({"dvc/force": "count"}, "part@a")
    assert not is_forced({}, "count")


def test_pipes_environment_is_understood_by_dagster_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg
    from dagster_pipes import open_dagster_pipes

    from dagster_project.dagster_dvc.pipes import pipes_environment

    context: Any = SimpleNamespace(run=SimpleNamespace(run_id="r", job_name="j"), retry_number=0)
    messages = tmp_path / "messages"
    for name, value in pipes_environment(context, messages, [dg.AssetKey("count")]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(PipesContext, "_instance", None)
    with open_dagster_pipes() as opened:
        assert (opened.run_id, opened.asset_key) == ("r", "count")
        opened.report_custom_message({"step": 1})
    assert '"step": 1' in messages.read_text()
    monkeypatch.setattr(PipesContext, "_instance", None)
