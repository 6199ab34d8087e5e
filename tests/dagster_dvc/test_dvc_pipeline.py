import threading
import time
from pathlib import Path

import pytest

from dagster_project.dagster_dvc.errors import LockFileError, PipelineError, ProjectNotFound
from dagster_project.dagster_dvc.lock_file import read_lock
from dagster_project.dagster_dvc.pipeline import Output, Parameter, find_project, overlaps, read_pipeline


def test_templates_and_foreach_are_resolved(project: Path) -> None:
    pipeline = read_pipeline(project)
    assert [stage.name for stage in pipeline.stages] == ["count", "part@a", "part@b", "join"]
    part = pipeline.stage("part@b")
    assert part.command == "echo b 2 > out/b.txt && cat out/count.txt >> out/b.txt"
    assert part.parts == ("part", "b")
    assert part.parameters == (Parameter("params.yaml", "parts.b"),)
    assert part.meta == {"group": "parts_b"}
    assert pipeline.upstream("join") == ("part@a", "part@b")
    assert pipeline.given("count") == ("data/raw", "code/count.py")
    assert pipeline.stage("count").outputs == (Output("out/count.txt", "out"), Output("metrics/count.json", "metric"))


def test_matrix_wdir_and_output_settings(project: Path) -> None:
    (project / "dvc.yaml").write_text(
        "stages:\n"
        "  grid:\n"
        "    matrix: {size: [1, 2], kind: [x]}\n"
        "    wdir: sub\n"
        "    cmd: echo ${item.size} > ${item.kind}${item.size}\n"
        "    params: [other.yaml: [k], all.json: null]\n"
        "    outs: ['${item.kind}${item.size}': {persist: true, cache: false}]\n"
    )
    (project / "sub").mkdir()
    stage = read_pipeline(project).stage("grid@2-x")
    assert stage.command == "echo 2 > x2"
    assert stage.outputs == (Output("sub/x2", "out"),)
    assert stage.parameters == (Parameter("sub/other.yaml", "k"), Parameter("sub/all.json", None))


def test_a_stage_that_needs_part_of_a_folder_or_a_folder_of_parts_is_downstream(project: Path) -> None:
    (project / "dvc.yaml").write_text(
        "stages:\n"
        "  whole: {cmd: a, outs: [out/folder]}\n"
        "  other: {cmd: b, outs: [out/folder2]}\n"
        "  inside: {cmd: c, deps: [out/folder/file], outs: [c]}\n"
        "  above: {cmd: d, deps: [out], outs: [d]}\n"
    )
    pipeline = read_pipeline(project)
    assert pipeline.upstream("inside") == ("whole",)
    assert pipeline.upstream("above") == ("whole", "other")
    assert not overlaps("out/folder", "out/folder2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages:\n  a: {cmd: x, outs: [b], deps: [c]}\n  b: {cmd: y, outs: [c], deps: [b]}\n", "in a circle"),
        ("stages:\n  a:\n    cmd: [x\n", "line "),
        ("stages:\n  a: {comand: x}\n", "comand"),
        ("stages:\n  a: {cmd: 'echo ${nothing}'}\n", "nothing"),
        ("stages:\n  a: {foreach: '${nothing}', do: {cmd: x}}\n", "nothing"),
    ],
)
def test_a_broken_dvc_yaml_is_explained(project: Path, text: str, expected: str) -> None:
    (project / "dvc.yaml").write_text(text)
    with pytest.raises(PipelineError, match=expected) as caught:
        read_pipeline(project)
    assert str(project / "dvc.yaml") in str(caught.value)
    assert "remedy" in str(caught.value)


def test_a_broken_params_yaml_is_explained(project: Path) -> None:
    (project / "params.yaml").write_text("parts: [\n")
    with pytest.raises(PipelineError, match=r"params\.yaml|line"):
        read_pipeline(project)


def test_lock_holds_hashes_sizes_and_small_numbers(reproduced: Path) -> None:
    lock = read_lock(reproduced)
    assert set(lock) == {"count", "part@a", "part@b", "join"}
    count = lock["count"]
    assert count.dependencies["data/raw"].endswith(".dir")
    assert count.outputs["out/count.txt"] == "b026324c6904b2a9cb4b88d6d61c81d1"  # md5 of "1\n"
    assert count.sizes["out/count.txt"] == 2
    assert count.parameters[Parameter("params.yaml", "count")] == {"minimum": 1, "rate": 1e-5}


def test_no_lock_means_that_nothing_ran(project: Path) -> None:
    assert read_lock(project) == {}


@pytest.mark.parametrize("text", ["", "stages: [", "stages:\n  a: {deps: [{path: x}]}\n", "other: 1\n"])
def test_a_damaged_lock_is_explained(project: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("dagster_project.dagster_dvc.lock_file._LOCK_PAUSE_S", 0.0)
    (project / "dvc.lock").write_text(text)
    with pytest.raises(LockFileError, match=r"dvc\.lock .*\n  remedy: .*git checkout"):
        read_lock(project)


def test_a_lock_that_is_being_rewritten_is_waited_for(reproduced: Path) -> None:
    path = reproduced / "dvc.lock"
    whole = path.read_text()
    path.write_text("")

    def finish() -> None:
        time.sleep(0.1)
        path.write_text(whole)

    writer = threading.Thread(target=finish)
    writer.start()
    try:
        assert len(read_lock(reproduced)) == 4
    finally:
        writer.join()


def test_project_is_found_from_below_and_by_name(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_PROJECT", raising=False)
    assert find_project(project / "data/raw") == project
    monkeypatch.setenv("DVC_PROJECT", str(project))
    assert find_project(tmp_path) == project
    monkeypatch.setenv("DVC_PROJECT", str(tmp_path))
    with pytest.raises(ProjectNotFound, match="DVC_PROJECT"):
        find_project()
