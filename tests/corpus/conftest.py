"""Fixtures of the corpus tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace; it is the current folder, as the project's root is for a stage."""
    monkeypatch.chdir(tmp_path)
    # The command line asks the kernel to end the process with its parent; a test process must not.
    monkeypatch.setattr("bert_ops.__main__.die_with_parent", lambda: None)
    (tmp_path / "raw").mkdir()
    return Workspace(tmp_path)


@pytest.fixture
def fails(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the stage, expect one clear message without a traceback and no output, and return the message."""

    def run(*arguments: Any, **changes: Any) -> str:
        code = workspace.ingest(*arguments, **changes)
        message = capsys.readouterr().err
        assert code != 0, "the stage should have failed"
        assert "Traceback" not in message
        assert not workspace.out.exists()
        assert not workspace.metrics_file.exists()
        return message

    return run
