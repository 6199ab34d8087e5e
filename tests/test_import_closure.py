"""A stage's code dependencies in dvc.yaml are exactly the modules of ours that it can import.

One too few, and DVC keeps results that the code no longer gives; one too many, and DVC trains again for nothing.
`python tests/test_import_closure.py` prints the lines of all stages.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from bert_ops.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "bert_ops"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def file_of(module: str) -> Path | None:
    """File of a module of ours; `None` if there is no such module."""
    base = ROOT / Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imported_modules(tree: ast.AST, *, package: str) -> Iterator[str]:
    """Names that may be modules in all imports below ``tree``, function-level ones too, those for types alone not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from imported_modules(other, package=package)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            start = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        yield from imported_modules(node, package=package)


def named_files(tree: ast.AST, folder: Path) -> Iterator[Path]:
    """Files beside a module that it names in a text constant: templates, lists, code that it copies."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value[1:-1]:
            name = node.value
            if len(name) < 100 and "\n" not in name and "/" not in name and (folder / name).is_file():
                yield folder / name


@cache
def direct(module: str) -> tuple[frozenset[str], frozenset[Path]]:
    """Modules of ours that a module imports, and data files that it names."""
    path = file_of(module)
    assert path is not None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = {m for m in imported_modules(tree, package=package) if m.split(".")[0] == PACKAGE and file_of(m)}
    return frozenset(found), frozenset(named_files(tree, path.parent))


def closure(module: str) -> set[str]:
    """Files, relative to the project, that importing ``module`` and calling all of its functions can load."""
    todo, seen, files = [module], set(), set()
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        parts = current.split(".")
        # Importing a.b.c runs a/__init__.py and a/b/__init__.py as well.
        todo += [".".join(parts[:n]) for n in range(1, len(parts))]
        modules, data = direct(current)
        todo += modules
        path = file_of(current)
        assert path is not None
        files |= {path, *data}
    return {path.relative_to(ROOT).as_posix() for path in files}


def expand(dependency: str) -> set[str]:
    """Files that a dependency of dvc.yaml stands for."""
    path = ROOT / dependency
    if path.is_dir():
        files = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        return {p.relative_to(ROOT).as_posix() for p in files}
    return {dependency}


def shortest(files: set[str]) -> list[str]:
    """The same files as few entries: a package of which all is needed is one entry."""
    entries = set(files)
    for init in sorted(f for f in files if f.endswith("/__init__.py")):
        folder = init.removesuffix("/__init__.py")
        if folder != PACKAGE and expand(folder) <= files:
            entries = {entry for entry in entries if not entry.startswith(f"{folder}/")} | {folder}
    return sorted(entries)


def lines_of(files: set[str]) -> str:
    """The entries as dvc.yaml has them, to be pasted at the end of `deps`."""
    indent = " " * 6
    return textwrap.fill(", ".join(shortest(files)) + "]", 120, initial_indent=indent, subsequent_indent=indent)


def declared(stage: str) -> list[str]:
    """Code dependencies of a stage as dvc.yaml has them."""
    definition = STAGES[stage].get("do", STAGES[stage])
    return [path for path in definition["deps"] if path.startswith(f"{PACKAGE}/")]


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_import_closure(stage: str) -> None:
    needed = closure(COMMANDS[stage].module)
    listed = set().union(*(expand(path) for path in declared(stage)))
    lacking, idle = sorted(needed - listed), sorted(listed - needed)
    message = (
        f"stage {stage}: lacks {lacking}, has for nothing {idle}; the end of its deps must be:\n{lines_of(needed)}"
    )
    assert not (lacking or idle), message


def test_a_data_file_and_a_function_level_import_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / PACKAGE / "part"
    package.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import sibling\n")
    (package / "sibling.py").write_text("")
    (package / "late.py").write_text("PAGE = 'page.html'\n")
    (package / "page.html").write_text("")
    (package / "types_only.py").write_text("")
    (package / "start.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from bert_ops.part import types_only\n"
        "def run():\n    from bert_ops.part.late import PAGE\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    direct.cache_clear()
    try:
        names = (
            "__init__.py",
            "part/__init__.py",
            "part/sibling.py",
            "part/late.py",
            "part/page.html",
            "part/start.py",
        )
        assert closure(f"{PACKAGE}.part.start") == {f"{PACKAGE}/{name}" for name in names}
    finally:
        direct.cache_clear()


if __name__ == "__main__":
    for name in STAGES:
        print(f"{name}:\n{lines_of(closure(COMMANDS[name].module))}")
