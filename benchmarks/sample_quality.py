"""Does pretraining pay on the embedded sample? Several seeds, equal tuning, baselines beside, for any task.

For each seed: pretrain, fine-tune from the result, fine-tune the same network from random weights. With ``--init`` all
seeds start from one pretrained model, and only the tuning differs. Nothing is chosen here, and in particular nothing on
the test split: parameters are those of params.yaml (or ``--set``), and so are the weights that fine-tuning keeps. Needs
data/corpus, data/tokens and models/tokenizer (`dvc repro tokenize`).

The last line is one JSON object of figures of the test split in the task's metric: ``score``, ``score_no_pretraining``,
``gain``, ``validation_score``, ``mlm_accuracy`` and ``mlm_loss``, a list over seeds each; ``gain_ci95``, Student's
interval over them; ``score_shallow``, that of the shallow baseline; ``metric``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1500")  # as bert_ops.__main__ does

import numpy as np
import yaml
from scipy import stats

from bert_ops.finetune import baselines, inference
from bert_ops.finetune.examples import TaskData, encode_examples, read_examples
from bert_ops.finetune.params import BaselinesParams, TaskParams, load_finetune, load_task
from bert_ops.finetune.tuning import tune
from bert_ops.model import huggingface
from bert_ops.pretrain import fitting, stage
from bert_ops.pretrain.params import PretrainParams
from bert_ops.schema import load_section
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training.device import pick_device, prepare


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--task", default="sentiment")
    parser.add_argument("--root", type=Path, default=Path(), help="project folder")
    parser.add_argument("--labels", type=int, help="use this many training labels only")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override a value of params.yaml")
    parser.add_argument("--keep", type=Path, help="keep the pretrained models here and use those that are there")
    parser.add_argument("--init", type=Path, help="model folder that the tuning of every seed starts from")
    parser.add_argument("--pretrain-only", action="store_true")
    parser.add_argument("--skip-no-pretraining", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a run of under a minute that prints the same keys")
    arguments = parser.parse_args()
    params = yaml.safe_load((arguments.root / "params.yaml").read_text(encoding="utf-8"))
    quick = ["pretrain.steps=60", "pretrain.schedule.warmup_steps=20", "pretrain.embedding_init.kind=normal"]
    for setting in [*(quick if arguments.quick else []), *arguments.set]:
        override(params, setting)
    study(arguments, params)


def override(params: dict[str, Any], setting: str) -> None:
    """Apply ``a.b.c=value`` in place."""
    key, value = setting.split("=", 1)
    *path, last = key.split(".")
    for part in path:
        params = params[part]
    params[last] = yaml.safe_load(value)


def study(arguments: argparse.Namespace, params: dict[str, Any]) -> None:
    """Run all seeds and print a table, then JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        changed = Path(scratch) / "params.yaml"
        changed.write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
        task = load_task(changed, arguments.task)
        finetune = load_finetune(changed, task, name=arguments.task)
        shallow = load_section(changed, "baselines", BaselinesParams)
    tokenizer_folder = arguments.init or arguments.root / "models/tokenizer"
    frame = read_examples(arguments.root / f"data/corpus/examples/{arguments.task}.parquet")
    data = encode_examples(frame, wordpiece.load(tokenizer_folder), task)
    if arguments.quick:
        data.splits["train"] = first(data, 600)
    if arguments.labels:
        data.splits["train"] = first(data, arguments.labels)
    answers, _ = baselines.shallow(data, shallow, task=task, seed=finetune.seed)
    result: dict[str, Any] = {"metric": task.metric, "score_shallow": score(answers["test"], data, task)}
    for key in ("mlm_loss", "mlm_accuracy", "score", "score_no_pretraining", "validation_score"):
        result[key] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = arguments.init or pretrained(arguments, params, Path(scratch), seed=seed)
            if not arguments.init:
                results = json.loads((folder / "results.json").read_text())
                for key in ("mlm_loss", "mlm_accuracy"):
                    result[key].append(results[key])
            if arguments.pretrain_only:
                continue
            tuning = finetune.model_copy(update={"seed": seed})
            config = huggingface.load_config(folder, made_by="pretrain")
            for key, init in (("score", folder), ("score_no_pretraining", None)):
                if init is None and arguments.skip_no_pretraining:
                    continue
                tuned = tune(data, config=config, pretrained=init, task=task, params=tuning, what=f"{key} {seed}")
                test = data.splits["test"]
                logits = inference.item_logits(tuned.model, test.rows, test.items)
                result[key].append(score(tuned.problem.answer(logits, test.items, test.rows), data, task))
                if init is not None:
                    result["validation_score"].append(tuned.best[f"validation_{task.metric}"])
        print(json.dumps(result), file=sys.stderr, flush=True)
    gains = np.subtract(result["score"], result["score_no_pretraining"]) if result["score_no_pretraining"] else []
    if len(gains) > 1:
        # Student's t: with a handful of seeds the normal quantile would promise too much.
        half = float(stats.t.ppf(0.975, len(gains) - 1)) * np.std(gains, ddof=1) / len(gains) ** 0.5
        result |= {"gain": list(gains), "gain_ci95": [float(np.mean(gains) - half), float(np.mean(gains) + half)]}
    for key, values in result.items():
        print(f"{key:<26} {values if isinstance(values, str) else np.round(values, 4)}")
    print(json.dumps(result))


def pretrained(arguments: argparse.Namespace, params: dict[str, Any], scratch: Path, *, seed: int) -> Path:
    """Folder of the model that was pretrained with a seed: one that was kept, or a new one."""
    folder: Path = (arguments.keep / f"seed-{seed}") if arguments.keep else scratch
    if not (folder / "results.json").exists():
        store = TokenStore.open(arguments.root / "data/tokens")
        values = PretrainParams(**{**params["pretrain"], "seed": seed})
        pretrain(store, values, folder, arguments.root / "models/tokenizer")
    return folder


def pretrain(store: TokenStore, params: PretrainParams, folder: Path, tokenizer: Path) -> None:
    """Pretrain into a model folder, its figures beside the weights."""
    prepare(threads=params.threads, seed=params.seed)
    held_out = fitting.held_out_units(store["validation"], params, store.vocab_size)
    model = fitting.build_model(store, params).to(pick_device())
    outcome = fitting.fit(model, store, params, held_out=held_out, probe=held_out[:1], checkpoints=None)
    folder.mkdir(parents=True, exist_ok=True)
    huggingface.save_model(model, folder)
    shutil.copyfile(tokenizer / "tokenizer.json", folder / "tokenizer.json")
    results = stage.summarise(outcome, model.config, store, held_out=held_out)
    (folder / "results.json").write_text(json.dumps(results | {"history": outcome.history}))


def first(data: TaskData, count: int) -> Any:
    """The first ``count`` training examples; their order is that of their hashes, which is random."""
    split = data.splits["train"]
    order = np.argsort(split.example_ids)[:count]
    return split.part(order)


def score(answers: Any, data: TaskData, task: TaskParams) -> float:
    """Score of answers to the test split."""
    return baselines.validation_score(data.problem, answers, data.splits["test"], metric=task.metric)


if __name__ == "__main__":
    main()
