"""What the documentation tells a newcomer to do can be done: commands, targets, keys, files and links exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from bert_ops.__main__ import COMMANDS
from bert_ops.params import Params, load_all

PAGES = ["README.md", "CONTRIBUTING.md", "data/README.md", "data/raw/README.md", "docs/decisions/0002-dvc-lock.md"]
_LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)\)")


def code(text: str) -> str:
    """Everything that stands in code blocks and code spans."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return "\n".join([*blocks, *spans])


@pytest.fixture(scope="module", params=PAGES)
def page(request, root: Path) -> Path:
    return root / request.param


def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_commands_exist(page: Path) -> None:
    for name in re.findall(r"bert-ops ([a-z_]+)", code(page.read_text(encoding="utf-8"))):
        assert name in COMMANDS, f"{page}: bert-ops {name}"


def test_make_targets_exist(page: Path, root: Path) -> None:
    targets = set(re.findall(r"^make ([a-z]+)$|`make ([a-z]+)`", page.read_text(encoding="utf-8"), flags=re.M))
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for pair in targets:
        name = "".join(pair)
        assert re.search(rf"^{name}:", makefile, flags=re.M), f"{page}: make {name}"


def test_help_of_make_lists_what_the_readme_names(root: Path) -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=root, capture_output=True, text=True, check=True)
    for name in ("run", "test", "ui", "quick", "format"):
        assert f"make {name} " in done.stdout


def test_keys_of_params_exist(page: Path, root: Path) -> None:
    sections = set(Params.model_fields)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    for key in re.findall(r"\b((?:[a-z_]+\.)+[a-z_]+)\b", code(page.read_text(encoding="utf-8"))):
        parts = key.split(".")
        if parts[0] not in sections or parts[-1] in {"yaml", "json", "txt", "py", "md", "parquet"}:
            continue
        value = params
        for part in parts:
            assert part in value, f"{page}: {key}"
            value = value[part]


def test_the_source_in_the_readme_is_accepted(root: Path, tmp_path: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    snippet = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, flags=re.S)[1])
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["ingest"]["sources"] |= snippet["ingest"]["sources"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    assert "mine" in load_all(tmp_path / "params.yaml").ingest.sources


def test_paths_in_the_readme_are_outputs_of_the_pipeline(root: Path) -> None:
    pipeline = (root / "dvc.yaml").read_text(encoding="utf-8").replace("${key}", "sentiment")
    for path in ("models/compressed/sentiment", "models/finetuned/sentiment", "reports/index.html"):
        assert path in (root / "README.md").read_text(encoding="utf-8") and path in pipeline


def test_no_value_of_the_readme_is_left_open(page: Path) -> None:
    assert "@@" not in page.read_text(encoding="utf-8")
