from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.dagster_dvc.errors import PipelineError
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.translator import asset_spec, checks_of, flatten, version_tags
from dagster_project.dagster_dvc.workspace import StageState


def test_a_stage_becomes_a_spec(project: Path) -> None:
    pipeline = read_pipeline(project)
    spec = asset_spec(pipeline, pipeline.stage("count"))
    assert spec.key == dg.AssetKey("count")
    assert spec.group_name == "first"
    assert spec.kinds == {"dvc", "text"}
    assert spec.description is not None and spec.description.startswith("Count lines")
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == {
        "data/raw",
        "params/count_params",
        "code/count_code",
    }
    part = asset_spec(pipeline, pipeline.stage("part@a"))
    assert part.key == dg.AssetKey("part_a")
    assert {dep.asset_key.to_user_string() for dep in part.deps} == {"count", "params/parts/a_params"}
    assert part.code_version != asset_spec(pipeline, pipeline.stage("part@b")).code_version


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"colour": "red"}, "colour"),
        ({"checks": [{"name": "x", "file": "metrics/count.json"}]}, "key"),
        ({"checks": [{"name": "x", "file": "other.json", "key": "a"}]}, "other.json"),
        ({"checks": [{"name": "x", "file": "metrics/count.json", "key": "a", "must": 1}]}, "must"),
    ],
)
def test_meta_that_is_not_understood_is_named(project: Path, meta: dict[str, object], expected: str) -> None:
    pipeline = read_pipeline(project)
    stage = replace(pipeline.stage("count"), meta=meta)
    with pytest.raises(PipelineError, match=expected):
        asset_spec(pipeline, stage)
        checks_of(stage)


def test_tags_name_every_input(project: Path) -> None:
    state = StageState(data_version="d", code_version="c", inputs={("a", "b"): "v"})
    tags = version_tags(state)
    assert tags["dagster/data_version"] == "d"
    assert tags["dagster/input_data_version/a/b"] == "v"
    assert tags["dagster/input_event_pointer/a/b"] == "NULL"


def test_flatten_keeps_scalars_and_stops_at_the_limit() -> None:
    flat = flatten({"a": 1, "b": {"c": 0.5, "d": True, "e": [1, 2], "f": "text"}, "g": "x" * 500})
    assert {name: getattr(value, "value", value) for name, value in flat.items()} == {
        "a": 1,
        "b.c": 0.5,
        "b.d": True,
        "b.f": "text",
    }
    assert len(flatten({str(n): n for n in range(99)}, limit=7)) == 7
