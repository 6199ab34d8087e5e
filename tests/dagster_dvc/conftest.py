"""A DVC project of shell commands that has nothing to do with BERT: the bridge must serve any."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DVC_YAML = """\
stages:
  count:
    desc: Count lines
    cmd: python code/count.py data/raw out/count.txt metrics/count.json
    deps: [data/raw, code/count.py]
    params: [count]
    outs: [out/count.txt]
    metrics: [metrics/count.json]
    meta:
      group: first
      kinds: [text]
      checks:
        - {name: enough, file: metrics/count.json, key: enough, blocking: true}
        - {name: even, file: metrics/count.json, key: deep.even}
  part:
    foreach: ${parts}
    do:
      cmd: echo ${key} ${item.x} > out/${key}.txt && cat out/count.txt >> out/${key}.txt
      deps: [out/count.txt]
      params: ["parts.${key}"]
      outs: ["out/${key}.txt"]
      meta: {group: "parts_${key}"}
  join:
    cmd: cat out/a.txt out/b.txt | wc -l > out/all.txt
    deps: [out/a.txt, out/b.txt]
    outs: [out/all.txt]
"""
PARAMS_YAML = """\
count: {minimum: 1, rate: 1.0e-5}
parts: {a: {x: 1}, b: {x: 2}}
"""
COUNT_PY = """\
import json, pathlib, sys
raw, out, metrics = map(pathlib.Path, sys.argv[1:])
lines = [line for path in sorted(raw.iterdir()) for line in path.read_text().splitlines()]
print("counting", file=sys.stderr)
out.parent.mkdir(exist_ok=True)
metrics.parent.mkdir(exist_ok=True)
enough = len(lines) >= 1
failing = [] if enough else [{"expectation": "min_lines", "success": False, "observed": len(lines)}]
metrics.write_text(json.dumps({
    "lines": len(lines), "enough": enough, "results": failing, "deep": {"even": len(lines) % 2 == 0, "share": 0.5}
}))
if not enough:
    sys.exit("too few lines")
out.write_text(f"{len(lines)}\\n")
"""


def run_dvc(root: Path, *arguments: str) -> str:
    """Run DVC in a project and return what it printed."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env={"PATH": path, "HOME": str(root.parent), "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def make_project(root: Path) -> Path:
    """Write the project into an empty folder."""
    for folder in (".dvc", "code", "data/raw"):
        (root / folder).mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(PARAMS_YAML)
    (root / "code/count.py").write_text(COUNT_PY)
    (root / "data/raw/one.txt").write_text("hello\n")
    return root


@pytest.fixture(name="dvc")
def dvc_command() -> Callable[..., str]:
    """Runs DVC: `dvc(root, "repro")`."""
    return run_dvc


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which nothing ran yet."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def _reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("reproduced") / "project")
    run_dvc(root, "repro")
    return root


@pytest.fixture
def reproduced(_reproduced: Path, tmp_path: Path) -> Path:
    """A project after `dvc repro`, to be changed at will."""
    return Path(shutil.copytree(_reproduced, tmp_path / "project"))
