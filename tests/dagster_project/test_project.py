"""Our own pipeline through the bridge: it loads, and its graph is the one of the design."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bert_ops.__main__ import COMMANDS
from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.pipeline import read_pipeline

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's pipeline with the entry that params.yaml shows for tasks that share an encoder."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "dvc.yaml", root)
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "experiments"))
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    shown = re.search(r"^#   (sample: .+)\n^multi_task: \{\}.*$", text, flags=re.MULTILINE)
    assert shown
    (root / "params.yaml").write_text(text.replace(shown[0], f"multi_task:\n  {shown[1]}"), encoding="utf-8")
    return root


def stages_of(root: Path) -> set[str]:
    specs = build_definitions(root).resolve_all_asset_specs()
    return {str(spec.metadata["stage"]).split("@")[0] for spec in specs if "stage" in spec.metadata}


def test_every_stage_of_the_command_line_is_an_asset(whole: Path) -> None:
    commands = {name for name, command in COMMANDS.items() if command.is_stage}
    assert stages_of(whole) == commands
    assert stages_of(ROOT) == commands - {"finetune_together"}  # a stage an entry, and there is none


def test_every_section_of_params_is_read_by_a_stage(whole: Path) -> None:
    params = yaml.safe_load((whole / "params.yaml").read_text())
    read = {(p.key or "").split(".")[0] for stage in read_pipeline(whole).stages for p in stage.parameters}
    assert set(params) - {"automation"} == read  # no switch may make a stage stale


def test_paths_of_a_command_are_declared() -> None:
    """What a command is told to read stands in deps, what it is told to write in outs, metrics or plots."""
    for stage in read_pipeline(ROOT).stages:
        assert "\n" not in stage.command, f"{stage.name}: a line that is indented further is a command of its own"
        declared = {*stage.dependencies, *(output.path for output in stage.outputs)}
        named = re.findall(r"(?<!\S)(?:data|models|metrics|plots|reports)/\S+", stage.command)
        missing = {path for path in named if not any(_covers(one, path) for one in declared)}
        assert not missing, f"{stage.name}: {missing}"


def _covers(declared: str, path: str) -> bool:
    return Path(declared) == Path(path) or Path(path) in Path(declared).parents or Path(declared) in Path(path).parents


def test_loading_the_definitions_does_not_load_torch() -> None:
    """Each of Dagster's processes loads them: torch would cost three seconds in every one."""
    script = "import sys, dagster_project.definitions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
