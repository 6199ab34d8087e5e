"""Another project takes the bridge as its README says: the folder copied, three shell commands, no bert_ops."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DVC_YAML = """\
stages:
  words:
    desc: One word a line, sorted
    cmd: tr -s '[:space:]' '\\n' < text.txt | sort > words.txt
    deps: [text.txt]
    outs: [words.txt]
  count:
    cmd: "mkdir -p metrics && printf '{\\"words\\": %s}' $(wc -l < words.txt) > metrics/count.json"
    deps: [words.txt]
    metrics: [metrics/count.json]
    meta: {checks: [{name: three, file: metrics/count.json, key: words, is: 3}]}
  page:
    cmd: (echo '<pre>'; head -n $(sed -n 's/lines. //p' params.yaml) words.txt; echo '</pre>') > page.html
    deps: [words.txt]
    params: [lines]
    outs: [page.html]
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    root = tmp_path / "foreign"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dagster_project/dagster_dvc", root / "dagster_dvc", ignore=ignore)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text("lines: 2\n")
    (root / "text.txt").write_text("c a b\n")
    (root / "definitions.py").write_text("from dagster_dvc import build_definitions\n\ndefs = build_definitions()\n")
    # what this environment has installed in editable mode must not be found
    for name in ("bert_ops", "dagster_project"):
        (root / f"{name}.py").write_text(f"raise ImportError('{name} is not of this project')\n")
    (root / "home").mkdir()
    shutil.copy(ROOT / "dagster_project/dagster.yaml", root / "home/dagster.yaml")
    return root


@pytest.fixture
def shell(foreign: Path) -> Callable[..., str]:
    """Runs a command in the project and returns what it printed."""

    def run(*command: str) -> str:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(foreign.parent),
            "DAGSTER_HOME": str(foreign / "home"),
            "PYTHONPATH": str(foreign),
            "DO_NOT_TRACK": "1",
            **{name: os.environ[name] for name in ("TMPDIR",) if name in os.environ},
        }
        done = subprocess.run(
            command, cwd=foreign, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_another_project_takes_the_bridge(foreign: Path, shell: Callable[..., str]) -> None:
    output = shell("dg", "launch", "--assets", "*", "-f", "definitions.py")
    assert "RUN_SUCCESS" in output
    assert (foreign / "page.html").read_text() == "<pre>\na\nb\n</pre>\n"
    assert json.loads((foreign / "metrics/count.json").read_text()) == {"words": 3}
    assert "up to date" in shell("dvc", "status")
    assert "up to date" in shell("dvc", "repro")
    again = shell("dg", "launch", "--assets", 'key:"words"+', "-f", "definitions.py")
    assert "Executing steps in process" in again and "didn't change, skipping" in again


def test_what_dvc_ran_is_told(foreign: Path, shell: Callable[..., str]) -> None:
    shell("dvc", "repro")
    assert "brought up to date" in shell("python", "-m", "dagster_dvc", "sync")
    assert "Dagster: up to date" in shell("python", "-m", "dagster_dvc", "sync")


def test_only_outputs_are_served(foreign: Path) -> None:
    from http.client import HTTPConnection
    from threading import Thread

    from dagster_project.dagster_dvc.file_server import make_server

    (foreign / "page.html").write_text("<p>made</p>")
    server = make_server(foreign, port=0)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert server.server_address[0] == "127.0.0.1"
        found = {}
        for path in (
            "/page.html",
            "/params.yaml",
            "/",
            "/../foreign/params.yaml",
            "/%2e%2e/foreign/text.txt",
            "/.dvc/config",
        ):
            connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
            connection.request("GET", path)
            response = connection.getresponse()
            found[path] = response.status
            body = response.read()
            assert (b"made" in body) == (path == "/page.html")
        assert found == {path: 200 if path == "/page.html" else 404 for path in found}
    finally:
        server.shutdown()
        server.server_close()
