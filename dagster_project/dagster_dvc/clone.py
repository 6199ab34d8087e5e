"""A copy of a project to run experiments in: Git clone, uncommitted and untracked files, DVC's cache shared."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ExperimentError
from .lock_repair import try_lock
from .pipeline import Pipeline

#: Where the copies and the notes on experiments lie; DVC ignores its own `tmp`, and so does Git.
FOLDER = Path(".dvc/tmp/dagster")
#: Never part of an experiment's inputs, though untracked: DVC's own, and what the clone writes for itself.
_NOT_COPIED = (".dvc/tmp/", ".dvc/cache/", ".dvc/config.local")


@contextmanager
def clone(root: Path) -> Iterator[Path]:
    """A clone of the last commit in a folder of its own, removed afterwards; leftovers of killed ones are removed."""
    parent = root / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob("*.lock"):
        with lock.open("a") as file:
            if try_lock(file.fileno()):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    lock = folder.with_suffix(".lock")
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            top = Path(git(root, "rev-parse", "--show-toplevel"))
            git(root, "clone", "--quiet", "--shared", "--no-tags", str(top), str(folder))
            for name in ("user.name", "user.email"):
                git(folder, "config", name, git(root, "config", "--default", "dagster-dvc", "--get", name))
            project = folder / root.resolve().relative_to(top.resolve())
            _share_cache(root, project)
            yield project
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _share_cache(root: Path, folder: Path) -> None:
    """Let the clone use the project's cache, linked where possible, and the settings of this machine."""
    from dvc.config import Config
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        cache = repo.cache.local_cache_dir
    config = Config(str(folder / ".dvc"), validate=False)
    local = Config(str(root / ".dvc"), validate=False).load_one("local")
    with config.edit("local", validate=False) as settings:
        settings.update(local)
        # Hard links cost nothing and are safe in a folder that is thrown away: DVC write-protects what it links.
        settings.setdefault("cache", {}).update({"dir": cache, "type": ["reflink", "hardlink", "symlink", "copy"]})


def overlay(root: Path, folder: Path, pipeline: Pipeline) -> dict[str, str]:
    """Copy what differs from the last commit, and given inputs that Git ignores; return the hash of each such file."""
    listed = git(root, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0")
    given = [path for stage in pipeline.stages for path in pipeline.given(stage.name)]
    ignored = git(root, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", *given).split("\0")
    hashes = {}
    for path in filter(None, dict.fromkeys([*listed, *ignored])):
        source, target = root / path, folder / path
        if path.startswith(_NOT_COPIED) or source.is_dir() or "__pycache__" in path:
            continue
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            target.unlink(missing_ok=True)
        hashes[path] = digest(source)
    return hashes


def digest(path: Path) -> str:
    """Hash of a file's content; ``missing`` if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def git(root: Path, *arguments: str) -> str:
    """Run Git and return what it prints.

    Raises:
        ExperimentError: Git is not installed, or refuses.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise ExperimentError("the command git is not installed", remedy="install it: `apt-get install git`") from error
    except subprocess.CalledProcessError as error:
        raise ExperimentError(
            f"`git {' '.join(arguments)}`: {error.stderr.strip()}", remedy="mend what it names"
        ) from error
    return done.stdout.strip("\n")
