"""`dg launch` without a UI, and that nothing is told to anybody outside."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dagster_dvc import headless

pytestmark = pytest.mark.slow

PYPROJECT = """\
[project]
name = "foreign"
version = "1"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "headless_definitions"
code_location_target_module = "headless_definitions"
python_environment = "active"
"""


def launch(project: Path, selection: str) -> tuple[str, list[str]]:
    """Run `dg launch`; return all that it printed, and the assets that it materialized."""
    environment = headless.environment(project, VIRTUAL_ENV=sys.prefix)
    for name in ("DAGSTER_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        del environment[name]
    done = subprocess.run(
        [Path(sys.executable).parent / "dg", "launch", "--assets", selection],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    made = [
        line.split("Materialized value ")[1].rstrip(".") for line in said.splitlines() if "Materialized value" in line
    ]
    return said, sorted(made)


@pytest.fixture
def launchable(reproduced: Path) -> Path:
    headless.prepare(reproduced)
    (reproduced / "pyproject.toml").write_text(PYPROJECT)
    return reproduced


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ('key:"part_a"+', ["join", "part_a"]),
        ("group:first", ["count"]),
        ("+part_b", ["count", "part_b"]),
    ],
)
def test_selections_of_dg_launch(launchable: Path, selection: str, expected: list[str]) -> None:
    said, made = launch(launchable, selection)
    assert made == expected, said
    # What would be sent is first written there; the switch is in dagster.yaml, not only in the environment.
    assert not list(launchable.parent.glob("**/logs/event.log"))


def test_a_dagster_command_in_the_repository_sends_nothing_without_any_setting(tmp_path: Path, root: Path) -> None:
    """Neither DAGSTER_HOME nor the Makefile's variables: `.env` is what is left."""
    shutil.copy(root / ".env", tmp_path / ".env")
    program = (
        "from dagster._cli.utils import get_possibly_temporary_instance_for_cli as instance\n"
        "from dagster._core.telemetry_upload import is_running_in_test as is_silent\n"
        "with instance():\n"
        "    print(is_silent())\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    for present, silent in ((True, "True"), (False, "False")):
        if not present:
            (tmp_path / ".env").unlink()
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[-1] == silent
