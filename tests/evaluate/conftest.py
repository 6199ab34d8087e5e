"""Fixtures of the evaluation tests: a tree that was evaluated once, because Evidently takes seconds to import."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from evaluate_tree import fake_model, make_tree, stage_arguments


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree after a two-class evaluation of a run that overfits and kept its last weights; read it, copy to change."""
    from bert_ops.evaluate import stage

    root = make_tree(tmp_path_factory.mktemp("evaluated"), ["negative", "positive"], rise=0.02)
    with pytest.MonkeyPatch.context() as patch:
        fake_model(patch, root, ["negative", "positive"])
        stage.run(stage_arguments(root))
    return root


@pytest.fixture
def copied(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of the evaluated tree that a test may change."""
    root = tmp_path / "copy"
    shutil.copytree(evaluated, root)
    return root
