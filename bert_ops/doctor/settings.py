"""The project around the code: git, DVC, telemetry, params.yaml."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from bert_ops.doctor.finding import Finding
from bert_ops.errors import BertOpsError
from bert_ops.schema import read_yaml


def check_git(root: Path) -> Iterator[Finding]:
    """Git and a repository, which DVC's experiments need."""
    if shutil.which("git") is None:
        remedy = "install git, for `dvc exp` and for comparing runs"
        yield Finding(level="warn", what="git", found="not installed", remedy=remedy)
        return
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        remedy = "run `git init` and commit once, for `dvc exp` and for comparing runs"
        yield Finding(level="warn", what="git", found=f"{root.resolve()} has no commit", remedy=remedy)
    else:
        yield Finding(level="ok", what="git", found=f"at commit {done.stdout.strip()}")


def dvc_config(root: Path) -> configparser.ConfigParser:
    """DVC's settings of this project, the private ones over the shared ones."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    return config


def check_dvc(root: Path) -> Iterator[Finding]:
    """DVC's folder, cache and remote."""
    if not (root / ".dvc").is_dir():
        remedy = "run from the project's root, or run `dvc init` (with --no-scm where there is no git)"
        yield Finding(level="bad", what="DVC", found=f"{root.resolve()} has no .dvc folder", remedy=remedy)
        return
    try:
        config = dvc_config(root)
    except configparser.Error as error:
        yield Finding(level="bad", what="DVC", found=str(error).splitlines()[0], remedy="mend that file")
        return
    cache = (root / ".dvc" / config.get("cache", "dir", fallback="cache")).resolve()
    yield Finding(level="ok", what="DVC cache", found=f"{cache}{'' if cache.is_dir() else ' (empty so far)'}")
    name = config.get("core", "remote", fallback=None)
    section = f"'remote \"{name}\"'"
    if name is None:
        found = "none: artifacts stay on this machine (`dvc remote add --default NAME URL` shares them)"
        yield Finding(level="ok", what="DVC remote", found=found)
    elif not config.has_option(section, "url"):
        remedy = f"run `dvc remote add {name} URL`, or take `remote` out of .dvc/config"
        yield Finding(level="bad", what="DVC remote", found=f"{name} is the default but is not defined", remedy=remedy)
    else:
        yield Finding(level="ok", what="DVC remote", found=f"{name}: {without_password(config.get(section, 'url'))}")


def without_password(url: str) -> str:
    """Leave out what stands before an @ in a URL's host, which may be a password."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def check_telemetry(root: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Nothing here reports to anybody: DVC, Dagster and Evidently are told not to."""
    remedies = []
    try:
        config = dvc_config(root)
        off = config.get("core", "analytics", fallback="true").strip().lower() in {"false", "0", "no", "off"}
    except configparser.Error:
        off = False
    if not off:
        remedies.append("run `dvc config core.analytics false`")
    home = Path(environment["DAGSTER_HOME"]) if environment.get("DAGSTER_HOME") else root / ".dagster"
    files = [path for path in (home / "dagster.yaml", root / "dagster_project" / "dagster.yaml") if path.is_file()]
    settings = [read_yaml(path).get("telemetry") for path in files]
    if not settings or any(not isinstance(value, dict) or value.get("enabled") is not False for value in settings):
        where = " and ".join(map(str, files)) or str(home / "dagster.yaml")
        remedies.append(f"put `telemetry: {{enabled: false}}` into {where}")
    if remedies:
        found = "DVC or Dagster may report that they are used"
        yield Finding(level="bad", what="telemetry", found=found, remedy="; ".join(remedies))
    else:
        yield Finding(level="ok", what="telemetry", found="off for DVC and Dagster")
    if environment.get("DO_NOT_TRACK", "") in {"", "0", "false"}:
        found = "DO_NOT_TRACK is not set; `make` and the stages set it, but `evidently` by hand would report"
        yield Finding(level="warn", what="telemetry", found=found, remedy="export DO_NOT_TRACK=1")


def check_params(params: Path) -> Iterator[Finding]:
    """params.yaml against its schema."""
    from bert_ops.params import load_all

    try:
        load_all(params)
    except BertOpsError as error:
        first, *rest = str(error).splitlines()
        found = " ".join([first, *(line.strip() for line in rest if "remedy:" not in line)])
        yield Finding(level="bad", what="params.yaml", found=found, remedy=error.remedy)
    else:
        yield Finding(level="ok", what="params.yaml", found=f"{params} is valid")
