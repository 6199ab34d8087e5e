"""Fixtures that several packages share: a small corpus made by the tests, its tokenizer and its token store."""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import settings

# A slow machine is no failure: no test may depend on the clock.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Tests run beside each other: threads that spin would starve one another (see bert_ops.__main__).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]

#: Files that take minutes begin first, so that nobody waits for them alone at the end.
_LONG = (
    "pipeline/test_pipeline",
    "test_headless",
    "test_kill",
    "test_postgres",
    "test_truth",
    "test_remote",
    "test_ui",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; the order within a file stays."""
    names = list(enumerate(_LONG))
    items.sort(key=lambda item: next((place for place, name in names if name in item.path.as_posix()), len(names)))


#: Made-up Chinese and English, with enough regularity that a small model learns something in seconds.
_SUBJECTS = ["我们", "他的朋友", "这家酒店", "那本书", "北京的春天", "老师", "新手机"]
_VERBS = ["喜欢", "看见", "需要", "买了", "介绍", "离开了"]
_OBJECTS = ["苹果", "早饭", "一间大房间", "三个故事", "playing cards", "the old city", "音乐"]
_GOOD = ["非常好", "让人满意", "值得推荐", "真漂亮"]
_BAD = ["非常差", "让人失望", "不要购买", "真难看"]


def made_up_documents(count: int, *, seed: int = 0) -> list[list[str]]:
    """Documents of one to five sentences."""
    rng = random.Random(seed)
    return [
        [f"{rng.choice(_SUBJECTS)}{rng.choice(_VERBS)}{rng.choice(_OBJECTS)}{i}。" for i in range(rng.randint(1, 5))]
        for _ in range(count)
    ]


def made_up_examples(count: int, *, seed: int = 0) -> pd.DataFrame:
    """Labelled reviews, as ingest writes them; the label follows from the words."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label = rng.choice(["negative", "positive"])
        text = f"{rng.choice(_SUBJECTS)}{rng.choice(_GOOD if label == 'positive' else _BAD)}，第{number}次。"
        split = ["train"] * 6 + ["validation", "validation", "test", "test"]
        rows.append(
            {
                "example_id": f"{number:016x}",
                "source": "made_up",
                "split": split[number % 10],
                "text": text,
                "pair": None,
                "label": label,
                "spans": None,
                "content_hash": f"{number:064x}",
                "cluster": f"{number:016x}",
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def params() -> dict:
    """params.yaml as it stands, shrunk so that training takes seconds."""
    value = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    value["tokenizer"] |= {"vocab_size": 400, "min_frequency": 1}
    value["tokenize"] |= {"shard_tokens": 1000}
    value["pretrain"] |= {
        "threads": 1,
        "steps": 30,
        "sequence_tokens": 48,
        "batch": {"tokens": 384, "micro_tokens": 192, "growth": {"kind": "constant"}},
        "evaluate_every_steps": 10,
        "evaluation_sequences": 20,
    }
    value["pretrain"]["model"] |= {
        "hidden_size": 32,
        "layers": 1,
        "heads": 2,
        "feed_forward_size": 64,
        "max_positions": 48,
    }
    value["pretrain"]["embedding_init"] |= {"epochs": 1}
    value["pretrain"]["schedule"] |= {"warmup_steps": 5}
    value["finetune"] |= {"threads": 1, "epochs": 2, "probe_examples": 20}
    value["finetune"]["batch"] |= {"examples": 16}
    for task in value["tasks"].values():
        task |= {"max_tokens": 48, "finetune": None}
    return value


@pytest.fixture(scope="session")
def params_file(params: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shrunk params.yaml as a file."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    return path


def sentences_frame(documents: list[list[str]]) -> pd.DataFrame:
    """sentences.parquet of these documents: every fifth is held out."""
    rows = [
        {
            "doc_id": f"{number:016x}",
            "source": "made_up",
            "split": {8: "validation", 9: "test"}.get(number % 10, "train"),
            "position": position,
            "text": text,
        }
        for number, document in enumerate(documents)
        for position, text in enumerate(document)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder with sentences and labelled examples."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "examples").mkdir()
    sentences_frame(made_up_documents(200)).to_parquet(folder / "sentences.parquet")
    made_up_examples(200).to_parquet(folder / "examples" / "sentiment.parquet")
    return folder


@pytest.fixture(scope="session")
def tokenizer_folder(corpus: Path, params_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer trained on the corpus by its stage."""
    from bert_ops.tokenizer import train

    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train.run(argparse.Namespace(params=params_file, sentences=corpus / "sentences.parquet", out=folder))
    return folder


@pytest.fixture(scope="session")
def tokens_folder(
    corpus: Path, tokenizer_folder: Path, params_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A token store of the corpus, written by its stage."""
    from bert_ops.tokenizer import encode

    folder = tmp_path_factory.mktemp("tokens")
    encode.run(
        argparse.Namespace(
            params=params_file,
            sentences=corpus / "sentences.parquet",
            tokenizer=tokenizer_folder,
            out=folder / "tokens",
            metrics=folder / "tokenize.json",
            work=folder / "work",
            workers=1,
        )
    )
    return folder / "tokens"


def pretrain_arguments(folder: Path, *, params_file: Path, tokens: Path, tokenizer: Path) -> argparse.Namespace:
    """Arguments of the pretrain stage with all outputs below one folder."""
    return argparse.Namespace(
        params=params_file,
        tokens=tokens,
        tokenizer=tokenizer,
        out=folder / "model",
        metrics=folder / "metrics.json",
        history=folder / "history.tsv",
        results=folder / "results.json",
        run_log=folder / "log.jsonl",
        speed_page=folder / "speed.html",
        checkpoints=folder / "checkpoints",
    )


@pytest.fixture(scope="session")
def pretrained_folder(
    tokens_folder: Path, tokenizer_folder: Path, params_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A pretrained model folder, made by its stage; its figures stand beside it."""
    from bert_ops.pretrain import stage

    folder = tmp_path_factory.mktemp("pretrain")
    stage.run(pretrain_arguments(folder, params_file=params_file, tokens=tokens_folder, tokenizer=tokenizer_folder))
    return folder / "model"


@pytest.fixture(scope="session")
def finetuned_folder(
    corpus: Path, pretrained_folder: Path, params_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A fine-tuned model folder, made by its stage; history.tsv and metrics.json stand beside it."""
    from bert_ops.finetune import stage

    folder = tmp_path_factory.mktemp("finetune")
    stage.run(
        argparse.Namespace(
            params=params_file,
            task="sentiment",
            init=pretrained_folder,
            examples=corpus / "examples" / "sentiment.parquet",
            out=folder / "model",
            history=folder / "history.tsv",
            metrics=folder / "metrics.json",
            run_log=folder / "log.jsonl",
            checkpoints=folder / "checkpoints",
        )
    )
    return folder / "model"
