"""Installs this project into the virtual environment that runs the script: uv if it can be had, else pip.

uv is some ten times faster but reads neither pip.conf nor the PIP_* variables. A machine's administrator set those for
a reason (a mirror, a certificate, a CPU build of torch in a folder), so they are translated into uv's own variables.
Standard library only. Usage: ``.venv/bin/python .ci/install.py EXTRA[,EXTRA...]``.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def pip_settings() -> dict[str, str]:
    """Return what pip is configured with by name ("find-links"); variables win over files, `install` over `global`."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    ranked: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.stdout.splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([\w-]+)='(.*)'", line)
        if match:
            ranked[match[1]][match[2]] = match[3].replace("\\n", " ")
    return ranked["global"] | ranked["install"] | ranked[":env:"]


def reachable(location: str) -> bool:
    """Tell whether a location can serve anything; only a folder can be told to be absent without asking a network."""
    url = urlparse(location)
    return url.scheme != "file" or Path(unquote(url.path)).is_dir()


def uv_environment(settings: dict[str, str]) -> dict[str, str]:
    """Translate pip's settings into variables that uv reads; variables that a user gave uv himself win."""
    wanted = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # pip's own way: the best version of all indexes
    if "index-url" in settings:
        wanted["UV_DEFAULT_INDEX"] = settings["index-url"]
    if extra := [url for url in settings.get("extra-index-url", "").split() if reachable(url)]:
        wanted["UV_INDEX"] = " ".join(extra)
    if links := settings.get("find-links", "").split():
        wanted["UV_FIND_LINKS"] = ",".join(links)
    if "cert" in settings:
        wanted["SSL_CERT_FILE"] = settings["cert"]
    if hosts := settings.get("trusted-host", "").split():
        wanted["UV_INSECURE_HOST"] = " ".join(hosts)
    if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        wanted["UV_NO_INDEX"] = "1"
    if "timeout" in settings or "default-timeout" in settings:
        wanted["UV_HTTP_TIMEOUT"] = settings.get("timeout", settings.get("default-timeout", ""))
    return {**wanted, **os.environ}


def uv_requirement() -> str:
    """Return the pinned requirement of uv itself."""
    pins = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next((pin for pin in pins if pin.startswith("uv==")), "uv")


def main(extras: str) -> int:
    """Install the project with extras; return the exit code of the installer that was used last."""
    target = ["--editable", f"{ROOT}[{extras}]", "--constraint", str(CONSTRAINTS)]
    pip = [sys.executable, "-m", "pip"]
    got_uv = subprocess.run([*pip, "install", "--quiet", uv_requirement()], check=False).returncode == 0
    if got_uv:
        # Compiled now, as pip does: with PYTHONDONTWRITEBYTECODE set, each start of Dagster would compile 3 s of code.
        uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--compile-bytecode"]
        if subprocess.run([*uv, *target], env=uv_environment(pip_settings()), check=False).returncode == 0:
            return 0
        print("uv could not install the project; trying pip", file=sys.stderr)
    return subprocess.run([*pip, "install", *target], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "sample,dev"))
