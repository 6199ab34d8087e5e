"""A run of the study of layer tuning: a task learned in a process of its own, with what is trained as it is told."""

from __future__ import annotations

import multiprocessing
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from pretraining_contenders import SPIN, environment_of
from torch import Tensor

from bert_ops.__main__ import wanted_environment
from bert_ops.errors import BertOpsError
from bert_ops.finetune import layers
from bert_ops.finetune.examples import TaskData, encode_examples, read_examples
from bert_ops.finetune.measuring import measure
from bert_ops.finetune.params import FinetuneParams, load_finetune, load_task
from bert_ops.finetune.tuning import Tuned, tune
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import TaskModel
from bert_ops.tokenizer import wordpiece
from bert_ops.training.device import arithmetic, pick_device, prepare
from bert_ops.training.machine_memory import peak_bytes, used_bytes

#: Texts and tokens of a text in the pass whose activations are counted.
PASS = (32, 64)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all variants of a task share.

    Args:
        init: model folder that all start from.
        examples: folder of the tasks' examples.
        params: params.yaml.
        task: name of the task.
        limit: examples of a split at most; None for all.
        changes: values of section ``finetune`` that differ from the file.

    """

    init: Path
    examples: Path
    params: Path
    task: str
    limit: int | None
    changes: dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """What is trained: values of ``finetune.layers``, and the peak rate."""

    layers: dict[str, Any]
    rate: float


@dataclass(frozen=True)
class Figures:
    """What a run showed.

    Args:
        score: of the task's metric on the test split.
        validation_loss: of the weights that were kept.
        seconds: in steps; evaluation is not counted.
        memory_mib: most that the process had while it trained, above what it had before.
        kept_mib: what autograd keeps of a pass over :data:`PASS` for the backward pass, weights aside.
        trained: parameters that are trained.
        parameters: all of them.
        steps: that were taken.

    """

    score: float
    validation_loss: float
    seconds: float
    memory_mib: float
    kept_mib: float
    trained: int
    parameters: int
    steps: int


def layers_of(setting: Setting) -> int:
    """Layers of the encoder."""
    return huggingface.load_config(setting.init, made_by="pretrain").layers


def peak_rate(setting: Setting) -> float:
    """Rate that params.yaml has for the task."""
    task = load_task(setting.params, setting.task)
    return float(load_finetune(setting.params, task, name=setting.task).optimizer.learning_rate)


def run(setting: Setting, variant: Variant, *, seed: int) -> Figures:
    """Learn the task in a new process.

    Raises:
        SystemExit: it failed; the message says why.

    """
    context = multiprocessing.get_context("forkserver")
    # Every run begins with the same things imported; modules beside this one are not found by the server.
    context.set_forkserver_preload(["bert_ops.finetune.tuning", "bert_ops.__main__", "pandas", "pyarrow.parquet"])
    here, there = context.Pipe()
    with environment_of(SPIN | wanted_environment(["finetune"])):  # what the command line starts `finetune` in
        process = context.Process(target=_serve, args=(there, setting, variant, seed))
        process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{setting.task}: the process of a run ended with code {process.exitcode}") from None
    finally:
        here.close()
    process.join()
    if isinstance(answer, str):
        raise SystemExit(answer)
    assert isinstance(answer, Figures)
    return answer


def _serve(pipe: Connection, setting: Setting, variant: Variant, seed: int) -> None:
    try:
        with redirect_stderr(StringIO()):  # progress lines
            answer: Figures | str = learn(setting, variant, seed=seed)
    except BertOpsError as error:
        answer = str(error)
    pipe.send(answer)
    pipe.close()


def learn(setting: Setting, variant: Variant, *, seed: int) -> Figures:
    """Learn the task in this process; all that this study knows of the tuning procedure stands here."""
    task = load_task(setting.params, setting.task)
    params = params_of(setting, variant, seed=seed)
    frame = read_examples(setting.examples / f"{setting.task}.parquet")
    if setting.limit is not None:
        frame = frame.sample(frac=1.0, random_state=0).groupby("split", sort=False).head(setting.limit)
    data: TaskData = encode_examples(frame, wordpiece.load(setting.init, made_by="pretrain"), task)
    config = huggingface.load_config(setting.init, made_by="pretrain")
    kept = kept_bytes(config, params)  # makes the libraries get what they need for any run, too
    made: list[Tuned] = []

    def work() -> None:
        made.append(
            tune(
                data,
                config=config,
                pretrained=setting.init,
                task=task,
                params=params,
                what=setting.task,
            )
        )

    device = pick_device()
    before = used_bytes(device)
    memory = peak_bytes(work, device) - before
    tuned = made[0]
    with torch.inference_mode():
        test = measure(tuned.model.eval(), data.splits["test"], tuned.problem)
    return Figures(
        score=test.scores[task.metric],
        validation_loss=tuned.best["validation_loss"],
        seconds=tuned.run.train_seconds,
        memory_mib=memory / 2**20,
        kept_mib=kept / 2**20,
        trained=tuned.tuning.trained,
        parameters=tuned.tuning.parameters,
        steps=tuned.run.step,
    )


def kept_bytes(config: EncoderConfig, params: FinetuneParams) -> int:
    """Bytes that autograd keeps of a forward pass for the backward pass, which is made, too; no weights."""
    prepare(threads=params.threads, seed=params.seed)
    config = replace(config, hidden_dropout=params.hidden_dropout, attention_dropout=params.attention_dropout)
    model = TaskModel(config, labels=2, kind="sequence_classification", classifier_dropout=params.classifier_dropout)
    layers.apply(model, params.layers, seed=params.seed)
    model.to(pick_device()).train()
    rows, tokens = PASS
    ids = torch.randint(config.vocab_size, (rows, min(tokens, config.max_positions)), device=pick_device())
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with arithmetic(model, params.precision):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(ids, torch.zeros_like(ids)).float().square().mean()
        loss.backward()
    return sum(kept.values())


def params_of(setting: Setting, variant: Variant, *, seed: int) -> FinetuneParams:
    """Section ``finetune`` of a run: one model, no checkpoints."""
    task = load_task(setting.params, setting.task)
    values = load_finetune(setting.params, task, name=setting.task).model_dump()
    values |= {**setting.changes, "seed": seed, "runs": {"kind": "seeds", "count": 1}}
    values["layers"] |= variant.layers
    values["optimizer"] |= {"learning_rate": variant.rate}
    return FinetuneParams.model_validate(values)
