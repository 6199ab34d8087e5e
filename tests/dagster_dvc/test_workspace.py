from dataclasses import replace
from pathlib import Path

import pytest

from dagster_project.dagster_dvc.errors import PipelineError
from dagster_project.dagster_dvc.lock_file import read_lock
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.workspace import (
    Snapshot,
    Workspace,
    all_sources,
    digest,
    read_workspace,
    take_snapshot,
)


def snapshot(root: Path) -> Snapshot:
    pipeline = read_pipeline(root)
    return take_snapshot(pipeline, read_lock(root), read_workspace(pipeline))


def stale(snap: Snapshot) -> set[str]:
    """Stages that were made from something else than what there is, by the versions that Dagster compares."""
    current = dict(snap.sources) | {
        (name.replace("@", "_"),): state.data_version for name, state in snap.stages.items()
    }
    return {n for n, s in snap.stages.items() if any(current[key] != version for key, version in s.inputs.items())}


def test_sources_are_sections_inputs_and_code(project: Path) -> None:
    assert set(all_sources(read_pipeline(project))) == {
        ("params", "count"),
        ("params", "parts", "a"),
        ("params", "parts", "b"),
        ("data", "raw"),
        ("code", "count"),
    }


def test_nothing_is_stale_after_repro(reproduced: Path) -> None:
    snap = snapshot(reproduced)
    assert set(snap.stages) == {"count", "part@a", "part@b", "join"}
    assert stale(snap) == set()


def test_versions_of_single_outputs_are_the_hashes_of_dvc(reproduced: Path) -> None:
    snap, lock = snapshot(reproduced), read_lock(reproduced)
    assert snap.stages["part@a"].data_version == lock["part@a"].outputs["out/a.txt"]
    assert snap.sources[("data", "raw")] == lock["count"].dependencies["data/raw"]


def test_what_nothing_depends_on_does_not_count(reproduced: Path) -> None:
    """The metrics file of `count` may change (times) without making `part` stale."""
    pipeline, lock = read_pipeline(reproduced), read_lock(reproduced)
    workspace = read_workspace(pipeline)
    count = lock["count"]
    changed = replace(count, outputs={**count.outputs, "metrics/count.json": "0" * 32})
    before = take_snapshot(pipeline, lock, workspace)
    after = take_snapshot(pipeline, {**lock, "count": changed}, workspace)
    assert before.stages["count"].data_version == after.stages["count"].data_version


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("params.yaml", "count: {minimum: 2, rate: 1.0e-5}\nparts: {a: {x: 1}, b: {x: 2}}\n", {"count"}),
        ("params.yaml", "count: {rate: 0.00001, minimum: 1}\nparts: {a: {x: 1}, b: {x: 2}}\n", set()),
        ("data/raw/two.txt", "more\n", {"count"}),
        ("code/count.py", "print(1)\n", {"count"}),
    ],
)
def test_an_edit_makes_exactly_its_readers_stale(reproduced: Path, file: str, text: str, expected: set[str]) -> None:
    (reproduced / file).write_text(text)
    assert stale(snapshot(reproduced)) == expected


def test_a_removed_section_or_input_is_missing_not_an_error(reproduced: Path) -> None:
    (reproduced / "params.yaml").write_text("parts: {a: {x: 1}, b: {x: 2}}\n")
    (reproduced / "data/raw/one.txt").unlink()
    (reproduced / "data/raw").rmdir()
    snap = snapshot(reproduced)
    assert snap.sources[("data", "raw")] == "missing"
    assert stale(snap) == {"count"}


def test_an_identical_result_leaves_what_follows_fresh(reproduced: Path) -> None:
    pipeline, lock = read_pipeline(reproduced), read_lock(reproduced)
    (reproduced / "data/raw/one.txt").write_text("other\n")  # one line as before
    workspace = read_workspace(pipeline)
    count = lock["count"]
    raw = {**count.dependencies, "data/raw": workspace.hashes["data/raw"]}
    snap = take_snapshot(pipeline, {**lock, "count": replace(count, dependencies=raw)}, workspace)
    assert stale(snap) == set()


def test_a_stage_that_reads_one_file_of_a_folder_ignores_the_others(reproduced: Path) -> None:
    (reproduced / "dvc.yaml").write_text(
        "stages:\n  folder: {cmd: make, outs: [f]}\n  one: {cmd: read, deps: [f/one], outs: [o]}\n"
    )
    pipeline = read_pipeline(reproduced)
    (reproduced / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        "  folder: {cmd: make, outs: [{path: f, md5: new.dir}]}\n"
        "  one: {cmd: read, deps: [{path: f/one, md5: same}], outs: [{path: o, md5: o}]}\n"
    )
    lock = read_lock(reproduced)
    assert stale(take_snapshot(pipeline, lock, Workspace(hashes={"f/one": "same"}, parameters={}))) == set()
    assert stale(take_snapshot(pipeline, lock, Workspace(hashes={"f/one": "other"}, parameters={}))) == {"one"}


def test_no_repository_is_explained(project: Path) -> None:
    (project / ".dvc/config").unlink()
    (project / ".dvc").rmdir()
    with pytest.raises(PipelineError, match="DVC cannot read the workspace"):
        read_workspace(read_pipeline(project))


def test_digest_tells_values_apart() -> None:
    assert digest({"path": "abc"}) == "abc"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1]) != digest(["1"])
