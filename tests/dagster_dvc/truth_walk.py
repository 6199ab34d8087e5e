"""A random walk over everything that a person, a script or Dagster may do to a project.

DVC runs in this process, and so does the stage that Dagster materializes: what is tested is what Dagster is told.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from truth_project import DVC_YAML, GATHER, OUTPUTS, PARAMS, RAW, STAGES, TEXTS

from dagster_project.dagster_dvc.assets import stage_assets
from dagster_project.dagster_dvc.errors import StageFailed
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.runner import EXECUTED, Outcome
from dagster_project.dagster_dvc.sync import pending_events
from dagster_project.dagster_dvc.translator import source_spec
from dagster_project.dagster_dvc.workspace import all_sources


class Walk:
    """The project, a Dagster instance beside it, and the list of what was done."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, *, seed: int) -> None:
        self.root, self.instance, self.random = root, instance, random.Random(seed)
        self.done: list[str] = [f"seed {seed}"]
        self.revisions: list[str] = []
        self.params = {name: values[0] for name, values in PARAMS.items()}
        self.other, self.limit, self.frozen, self.command = "1", "2", "false", ""
        for folder in (".dvc", "code", "data/raw", "out/mark"):
            (root / folder).mkdir(parents=True)
        (root / ".dvc/config").write_text(
            "[core]\n    analytics = false\n    check_update = false\n    remote = store\n"
            f"['remote \"store\"']\n    url = {root.parent / 'remote'}\n"
        )
        (root / ".dvc/.gitignore").write_text("/tmp\n/cache\n")
        (root / ".gitignore").write_text("/out\n/metrics\n")
        (root / "code/gather.sh").write_text(GATHER)
        (root / "code/mark.sh").write_text('echo "$1"; cat "$2"/*\n')
        for name in RAW[:2]:
            (root / "data/raw" / name).write_text(TEXTS[1])
        self.write()
        self.git("init", "--quiet")
        self.commit_to_git()
        self.load()

    def write(self) -> None:
        """Write dvc.yaml and the parameter files from what was chosen."""
        p = self.params
        (self.root / "params.yaml").write_text(
            f"gather: {{limit: {p['limit']}, unused: 1}}\nmarks: {{x: {p['x']}, y: {p['y']}}}\nblind: {p['blind']}\n"
        )
        (self.root / "other.yaml").write_text(f"deep: {{x: {self.other}}}\n")
        text = DVC_YAML.replace("@LIMIT@", self.limit).replace("@FROZEN@", self.frozen)
        (self.root / "dvc.yaml").write_text(text.replace("@BLIND@", self.command))

    def load(self) -> None:
        """Load, or reload, the code location."""
        pipeline = read_pipeline(self.root)
        sources = [source_spec(source) for source in all_sources(pipeline).values()]
        self.definitions = dg.Definitions(
            assets=[*stage_assets(pipeline), *sources],
            resources={"dvc": DvcProject(root=str(self.root))},
            executor=dg.in_process_executor,
        )
        self.graph = self.definitions.resolve_asset_graph()

    # What can happen. Each returns words for the list.

    def edit_params(self) -> str:
        name = self.random.choice([*PARAMS, "other"])
        if name == "other":
            self.other = self.random.choice(["1", "2", "[a, b]"])
        else:
            self.params[name] = self.random.choice(PARAMS[name])
        self.write()
        return f"{name}: {self.params.get(name, self.other)}"

    def edit_dvc_yaml(self) -> str:
        self.limit = self.random.choice(["1", "2"])
        self.frozen = self.random.choice(["false", "false", "true"])
        self.command = self.random.choice(["", "true &&"])
        self.write()
        if reload := self.random.random() < 0.5:
            self.load()
        return f"limit {self.limit}, frozen {self.frozen}, blind {self.command!r}, reloaded {reload}"

    def edit_code(self) -> str:
        path = self.root / "code" / self.random.choice(["gather.sh", "mark.sh"])
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        path.write_text("\n".join([*lines, *(["# more"] if self.random.random() < 0.5 else [])]) + "\n")
        return path.name

    def edit_raw(self) -> str:
        path = self.root / "data/raw" / self.random.choice(RAW)
        path.parent.mkdir(exist_ok=True)
        if self.random.random() < 0.3:
            path.unlink(missing_ok=True)
            return f"remove {path.name}"
        path.write_text(self.random.choice(TEXTS))
        return f"{path.name}: {path.read_text()!r}"

    def edit_output(self) -> str:
        name = self.random.choice(OUTPUTS)
        path = self.root / name
        if path.is_dir():
            (path / "stray.txt").write_text("stray\n")
        elif path.exists():
            text = self.random.choice([*TEXTS, path.read_text()])
            path.unlink()  # it may be linked to the cache
            path.write_text(text)
        return name

    def delete_output(self) -> str:
        name = self.random.choice(OUTPUTS)
        _remove(self.root / name)
        return name

    def lose_cache_entry(self) -> str:
        lock = self.root / "dvc.lock"
        recorded = lock.read_text() if lock.exists() else ""
        files = sorted(path for path in (self.root / ".dvc/cache/files").rglob("*") if path.is_file())
        entries = [path for path in files if path.parent.name + path.name in recorded]
        if entries:
            self.random.choice(entries).unlink()
        return f"one of {len(entries)}"

    def reproduce(self) -> str:
        return self.dvc("reproduce")

    def reproduce_some(self) -> str:
        how: dict[str, Any] = self.random.choice(
            [{"single_item": True}, {"downstream": True}, {"force": True, "single_item": True}, {}]
        )
        return self.dvc("reproduce", self.random.choice(STAGES), **how)

    def checkout(self) -> str:
        targets = self.random.choice([None, [self.random.choice(STAGES)]])
        return self.dvc("checkout", targets, force=True)

    def commit(self) -> str:
        return self.dvc("commit", self.random.choice([None, self.random.choice(STAGES)]), force=True)

    def delete_lock(self) -> str:
        (self.root / "dvc.lock").unlink(missing_ok=True)
        return ""

    def delete_lock_entry(self) -> str:
        from dvc.utils.serialize import modify_yaml

        name = self.random.choice(STAGES)
        if (self.root / "dvc.lock").exists():
            with modify_yaml(str(self.root / "dvc.lock")) as content:
                if len(content.get("stages", {})) > 1:
                    content["stages"].pop(name, None)
        return name

    def commit_to_git(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "now")
        self.revisions.append(self.git("rev-parse", "HEAD"))
        return self.revisions[-1][:7]

    def go_back(self) -> str:
        self.commit_to_git()
        revision = self.random.choice(self.revisions)
        self.git("checkout", "--quiet", revision)
        self.load()
        return f"{revision[:7]} {self.dvc('checkout', None, force=True)}"

    def push_and_pull(self) -> str:
        said = self.dvc("push")
        for name in self.random.choice([["out/parts", "out/head.txt"], OUTPUTS]):
            _remove(self.root / name)
        if self.random.random() < 0.5:
            _remove(self.root / ".dvc/cache/files")
        return f"{said}; {self.dvc('pull', force=True)}"

    def materialize(self) -> str:
        names = self.random.sample(STAGES, self.random.choice([1, 2, len(STAGES)]))
        job = self.definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name.replace("@", "_")) for name in names],
            tags={"dvc/force": "true"} if self.random.random() < 0.2 else {},
        )
        return f"{names}: {'done' if result.success else 'failed'}"

    def dvc(self, command: str, *arguments: Any, **options: Any) -> str:
        """Run a command of DVC in this process; an error of DVC is part of the walk."""
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        with Repo(str(self.root)) as repo:
            try:
                getattr(repo, command)(*arguments, **options)
            except DvcException as error:
                return f"{command} {arguments} {options}: {type(error).__name__}"
        return f"{command} {arguments} {options}"

    def git(self, *arguments: str) -> str:
        nobody = {f"GIT_{a}_{b}": "nobody@localhost" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
        place = {"PATH": os.environ["PATH"], "HOME": str(self.root.parent), "GIT_CONFIG_GLOBAL": os.devnull}
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=self.root, env=place | nobody, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    # What must hold.

    def step(self) -> None:
        actions: list[tuple[Callable[[], str], int]] = [
            (self.edit_params, 4), (self.edit_dvc_yaml, 2), (self.edit_code, 2), (self.edit_raw, 4),
            (self.edit_output, 3), (self.delete_output, 3), (self.lose_cache_entry, 1), (self.reproduce, 4),
            (self.reproduce_some, 4), (self.checkout, 2), (self.commit, 1), (self.delete_lock, 1),
            (self.delete_lock_entry, 1), (self.commit_to_git, 1), (self.go_back, 2), (self.push_and_pull, 1),
            (self.materialize, 4),
        ]  # fmt: skip
        action = self.random.choices([a for a, _ in actions], [weight for _, weight in actions])[0]
        self.done.append(f"{action.__name__} {action()}")
        self.compare()

    def compare(self) -> None:
        project = DvcProject(root=str(self.root))
        keys = self.graph.executable_asset_keys
        shown = {key: self.graph.get(key).code_version for key in keys}
        events = pending_events(self.instance, project, shown=shown)
        for event in events:
            self.instance.report_runless_asset_event(event)
        again = pending_events(self.instance, project, shown=shown) if events else []
        resolver = CachingStaleStatusResolver(self.instance, self.graph, LoadingContextForTest(self.instance))
        stale = {key.to_user_string() for key in keys if resolver.get_status(key).value != "FRESH"}
        listed = _status(self.root)
        story = "\n".join(self.done[-30:])
        assert stale == {name.replace("@", "_") for name in listed}, f"{listed}\nstep {len(self.done)}\n{story}"
        assert not again, f"the second tick reports {again}\nstep {len(self.done)}\n{story}"


def _status(root: Path) -> dict[str, Any]:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return dict(repo.status())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run_in_process(stage: str, *, root: Path, force: bool, **_: Any) -> Outcome:
    """What ``run_stage`` does, without a process."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            repo.reproduce(stage, single_item=True, force=force)
    except DvcException as error:
        raise StageFailed(str(error), remedy="part of the walk", exit_code=1) from None
    return Outcome(how=EXECUTED, seconds=0.0)
