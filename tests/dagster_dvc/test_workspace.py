from collections.abc import Callable
from pathlib import Path

import pytest

from dagster_project.dagster_dvc.errors import PipelineError
from dagster_project.dagster_dvc.lock_file import read_lock
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.workspace import (
    NOTHING,
    Snapshot,
    all_sources,
    code_version,
    digest,
    read_workspace,
    take_snapshot,
)


def snapshot(root: Path) -> Snapshot:
    pipeline = read_pipeline(root)
    return take_snapshot(pipeline, read_workspace(pipeline))


def stale(snap: Snapshot) -> set[str]:
    """Stages that were made from something else than what there is, by the versions that Dagster compares."""
    current = dict(snap.sources) | {
        (name.replace("@", "_"),): state.data_version for name, state in snap.stages.items()
    }
    return {
        name
        for name, state in snap.stages.items()
        if state.own or any(current[key] != version for key, version in state.inputs.items())
    }


def test_sources_are_sections_inputs_and_code(project: Path) -> None:
    assert set(all_sources(read_pipeline(project))) == {
        ("params", "count_params"),
        ("params", "parts", "a_params"),
        ("params", "parts", "b_params"),
        ("data", "raw"),
        ("code", "count_code"),
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
    before = snapshot(reproduced)
    (reproduced / "metrics/count.json").write_text("{}")
    after = snapshot(reproduced)
    assert before.stages["count"].data_version == after.stages["count"].data_version
    assert stale(after) == {"count"}


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


def test_an_identical_result_leaves_what_follows_fresh(reproduced: Path, dvc: Callable[..., str]) -> None:
    before = snapshot(reproduced)
    (reproduced / "data/raw/one.txt").write_text("other\n")  # one line as before
    assert stale(snapshot(reproduced)) == {"count"}
    dvc(reproduced, "repro", "--single-item", "count")
    after = snapshot(reproduced)
    assert stale(after) == set()
    assert after.stages["part@a"].inputs == before.stages["part@a"].inputs


def test_a_stage_that_reads_one_file_of_a_folder_ignores_the_others(project: Path, dvc: Callable[..., str]) -> None:
    (project / "dvc.yaml").write_text(
        "stages:\n"
        "  folder: {cmd: cp -r data/raw f, deps: [data/raw], outs: [f]}\n"
        "  one: {cmd: cp f/one.txt o, deps: [f/one.txt], outs: [o]}\n"
    )
    dvc(project, "repro")
    (project / "data/raw/two.txt").write_text("more\n")
    dvc(project, "repro", "--single-item", "folder")
    assert stale(snapshot(project)) == set()
    (project / "data/raw/one.txt").write_text("other\n")
    dvc(project, "repro", "--single-item", "folder")
    assert stale(snapshot(project)) == {"one"}


def test_what_was_edited_or_deleted_by_hand_is_named(reproduced: Path) -> None:
    (reproduced / "out/a.txt").unlink()
    (reproduced / "out/a.txt").write_text("by hand\n")
    (reproduced / "out/all.txt").unlink()
    snap = snapshot(reproduced)
    assert stale(snap) == {"part@a", "join"}
    part, join = snap.stages["part@a"], snap.stages["join"]
    assert part.own == ("outputs edited: out/a.txt",) and part.why == ("output out/a.txt: modified",)
    assert part.code_version == "outputs edited: out/a.txt"
    assert join.own == ("outputs deleted: out/all.txt",)
    assert set(join.why) == {"dependency out/a.txt: modified", "output out/all.txt: deleted"}
    assert part.data_version == read_workspace(read_pipeline(reproduced)).hashes["out/a.txt"]


def test_a_changed_parameter_is_named_with_its_values(reproduced: Path) -> None:
    params = reproduced / "params.yaml"
    params.write_text(params.read_text().replace("minimum: 1", "minimum: 2").replace("b: {x: 2}", "b: {x: 3}"))
    stages = snapshot(reproduced).stages
    assert stages["count"].why == (
        "parameter params.yaml:count: modified (was {'minimum': 1, 'rate': 1e-05}, is {'minimum': 2, 'rate': 1e-05})",
    )
    # A template puts x into the command line too, which DVC names as well.
    assert stages["part@b"].why[1:] == ("command: modified",)


def test_a_changed_command_and_a_lost_record(reproduced: Path) -> None:
    path = reproduced / "dvc.yaml"
    path.write_text(path.read_text().replace("| wc -l >", "| wc -c >"))
    join = snapshot(reproduced).stages["join"]
    assert join.own == ("command changed since the last run",) and join.why == ("command: modified",)
    (reproduced / "dvc.lock").unlink()
    snap = snapshot(reproduced)
    assert stale(snap) == set(snap.stages)
    assert snap.stages["count"].own[0] == "no entry in dvc.lock"
    assert snap.stages["count"].data_version != NOTHING  # its output is still there


def test_what_never_ran_is_nothing(project: Path) -> None:
    assert {state.data_version for state in snapshot(project).stages.values()} == {NOTHING}


def test_the_state_of_one_stage_is_that_of_all(reproduced: Path) -> None:
    """What a step reads for itself must be what the sensor reads for all."""
    (reproduced / "out/a.txt").unlink()
    (reproduced / "data/raw/two.txt").write_text("more\n")
    whole = snapshot(reproduced)
    for name, state in whole.stages.items():
        only = DvcProject(root=str(reproduced)).snapshot(only=name)
        assert only.stages == {name: state}
        assert only.sources == {key: whole.sources[key] for key in only.sources}


def test_a_stage_in_another_folder(project: Path, dvc: Callable[..., str]) -> None:
    """dvc.lock records paths as dvc.yaml writes them: relative to `wdir`."""
    (project / "sub").mkdir()
    (project / "dvc.yaml").write_text(
        "stages:\n  a: {wdir: sub, cmd: cp ../data/raw/one.txt x, deps: [../data/raw/one.txt], "
        "params: [k, ../params.yaml: [count.minimum]], outs: [x]}\n"
        "  b: {cmd: cp sub/x y, deps: [sub/x], outs: [y]}\n"
    )
    (project / "sub/params.yaml").write_text("k: 1\n")
    dvc(project, "repro")
    snap = snapshot(project)
    assert stale(snap) == set()
    assert set(snap.stages["a"].inputs) >= {
        ("params", "sub", "params.yaml", "k_params"),
        ("params", "count", "minimum_params"),
    }
    assert snap.stages["a"].data_version == read_lock(project)["a"].outputs["x"] == snap.stages["b"].data_version
    assert snap.stages["b"].code_version == code_version("cp sub/x y")
    (project / "data/raw/one.txt").write_text("other\n")
    assert stale(snapshot(project)) == {"a"}
    (project / "data/raw/one.txt").write_text("hello\n")
    assert stale(snapshot(project)) == set()
    (project / "sub/params.yaml").write_text("k: 2\n")
    assert snapshot(project).stages["a"].changed_inputs == {("params", "sub", "params.yaml", "k_params")}


def test_no_repository_is_explained(project: Path) -> None:
    (project / ".dvc/config").unlink()
    (project / ".dvc").rmdir()
    with pytest.raises(PipelineError, match=r"DVC cannot read the workspace(.|\n)*dvc init"):
        read_workspace(read_pipeline(project))


def test_digest_tells_values_apart() -> None:
    assert digest({"path": "abc"}) == "abc"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1]) != digest(["1"])
