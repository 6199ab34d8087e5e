"""A project of shell commands under a running Dagster, and a browser to look at it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: The sandbox needs rights that a container does not give; the pages are our own.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
DVC_YAML = """\
stages:
  train:
    desc: Something that takes its time and tells how far it is
    cmd: python train.py
    deps: [train.py, words.txt]
    params: [train]
    outs: [model.txt]
    metrics: [metrics.json]
    plots: [loss.csv: {x: step, y: loss, title: Loss}]
    meta:
      group: work
      checks:
        - {name: good_enough, file: metrics.json, key: gates.good}
        - {name: finished, file: metrics.json, key: gates.finished, blocking: true}
  page:
    cmd: (echo '<h1>Report</h1>'; cat model.txt) > page.html
    deps: [model.txt]
    outs: [page.html]
    meta: {group: work}
"""
TRAIN_PY = """\
import json, os, time, yaml
from dagster_pipes import open_dagster_pipes
params = yaml.safe_load(open("params.yaml"))["train"]
context = open_dagster_pipes() if "DAGSTER_PIPES_CONTEXT" in os.environ else None
rows = ["step,loss"]
for step in range(1, params["steps"] + 1):
    loss = round(4 / step, 3)
    rows.append(f"{step},{loss}")
    print(f"training: step {step} of {params['steps']}, loss {loss}", flush=True)
    if context:
        context.report_custom_message({"step": step, "loss": loss})
    time.sleep(params["seconds"])
    deadline = time.monotonic() + 120
    while step == 2 and not os.path.exists("go_on") and time.monotonic() < deadline:
        time.sleep(0.1)  # until whoever watches has seen that it is under way
open("loss.csv", "w").write("\\n".join(rows) + "\\n")
open("model.txt", "w").write(f"{params['steps']} steps\\n")
failing = [{"expectation": "loss below 0.1", "success": False, "observed": loss}]
gates = {"good": loss < 0.1, "finished": True, "results": failing}
json.dump({"loss": loss, "gates": gates}, open("metrics.json", "w"))
"""


@dataclass(frozen=True)
class Served:
    """A project, the address of its Dagster, and the environment to run commands in."""

    root: Path
    url: str
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def make_project(root: Path) -> None:
    """Write the project, with a commit, so that experiments can be run."""
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (root / ".gitignore").write_text("/home\n/model.txt\n/metrics.json\n/loss.csv\n/page.html\n__pycache__/\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "train.py").write_text(TRAIN_PY)
    (root / "words.txt").write_text("one two\n")
    (root / "params.yaml").write_text("train:\n  steps: 10  # of training\n  seconds: 0.2\n")
    (root / "definitions.py").write_text(
        "from dagster_project.dagster_dvc import build_definitions\n\ndefs = build_definitions()\n"
    )
    (root / "home").mkdir()
    shutil.copy(ROOT / "dagster_project/dagster.yaml", root / "home/dagster.yaml")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The project under `dg dev`."""
    root = tmp_path_factory.mktemp("ui") / "project"
    make_project(root)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(root.parent),
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(root / "home"),
        "DO_NOT_TRACK": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    for command in (["init", "--quiet"], ["add", "--all", "."], ["commit", "--quiet", "--message", "Begin"]):
        subprocess.run(["git", *command], cwd=root, env=environment, check=True)
    port = free_port()
    log = (root.parent / "dagster.log").open("w")
    process = subprocess.Popen(
        ["dagster", "dev", "-f", "definitions.py", "--host", "127.0.0.1", "--port", str(port)],
        cwd=root,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_server(url, process, root.parent / "dagster.log")
        yield Served(root=root, url=url, environment=environment)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def wait_for_server(url: str, process: subprocess.Popen[bytes], log: Path, *, patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"Dagster did not come up:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; not for longer than a module: Playwright holds the thread's event loop."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page; a picture of it is kept in $UI_SCREENSHOTS, under the name of the test."""
    made = browser.new_page(viewport={"width": 1500, "height": 950})
    made.set_default_timeout(60_000)
    yield made
    if folder := os.environ.get("UI_SCREENSHOTS"):
        made.screenshot(path=str(Path(folder) / f"{request.node.name}.png"))
    made.close()
