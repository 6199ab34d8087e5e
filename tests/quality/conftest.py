from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from quality_corpus import VALUES, Corpus, make_corpus

from bert_ops.quality.params import ValidateCorpusParams


@pytest.fixture
def corpus() -> Corpus:
    return make_corpus()


@pytest.fixture(scope="session")
def params() -> ValidateCorpusParams:
    return ValidateCorpusParams.model_validate(VALUES)


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"validate_corpus": VALUES}), encoding="utf-8")
    return path
