"""Stage ``compress``: a fine-tuned model to a folder that answers without our code, and the proof that it still does.

``bytes`` counts what a consumer must have to get answers (model.onnx, tokenizer.json, labels.json); ``bytes_fp32`` the
same folder with the float32 graph. Nothing is chosen on the test split: it is only scored.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bert_ops import __version__
from bert_ops.compress.params import CompressParams
from bert_ops.corpus.cleaning.params import CleaningParams
from bert_ops.errors import ArtifactError, InputError, ValidationFailed
from bert_ops.io import atomic_folder, dump_json, read_parquet, rerun, write_json, write_text
from bert_ops.progress import note
from bert_ops.schema import load_section

if TYPE_CHECKING:
    from bert_ops.finetune.inference import LoadedTask

#: Texts of the padded batch that checks the mask.
_PADDED_TEXTS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the paths that ``dvc.yaml`` passes."""
    parser.add_argument("--task", required=True, help="name of the task, a key of `tasks` in params.yaml")
    parser.add_argument("--model", required=True, type=Path, help="folder of the fine-tuned model")
    parser.add_argument("--examples", required=True, type=Path, help="the task's labelled examples, Parquet")
    parser.add_argument("--out", required=True, type=Path, help="folder for the model that ships")
    parser.add_argument("--report", required=True, type=Path, help="folder for the HTML report and its figures")
    parser.add_argument("--metrics", required=True, type=Path, help="JSON file for sizes, accuracies and timings")
    parser.add_argument("--speed-page", required=True, type=Path, help="HTML page for the timings")


def run(arguments: argparse.Namespace) -> None:
    """Export, quantize, check, time and write.

    Raises:
        InputError: the parameters, the task or its examples cannot be used.
        ArtifactError: the model or the examples are missing or damaged.
        ValidationFailed: ONNX and PyTorch disagree; the report is written, the model is not.

    """
    params = load_section(arguments.params, "compress", CompressParams)
    normalization = load_section(arguments.params, "ingest.clean", CleaningParams).normalization

    from bert_ops.finetune.inference import load_task_model

    model = load_task_model(arguments.model)
    check(model, params, task=arguments.task, folder=arguments.model)
    texts, labels = read_test_split(arguments.examples, model.labels)
    info = describe(model, params, task=arguments.task, normalization=normalization)
    compress(model, texts, labels, params=params, info=info, arguments=arguments)


def check(model: LoadedTask, params: CompressParams, *, task: str, folder: Path) -> None:
    """Refuse what this stage cannot do.

    Raises:
        InputError: the task scores tokens, or the latency text is longer than the model takes.

    """
    if model.problem.kind != "sequence_classification" or model.truncation != "head":
        raise InputError(
            f"compress cannot score the task {task} of {folder}: its kind is {model.problem.kind}, its truncation "
            f"{model.truncation}",
            allowed="sequence_classification with truncation: head",
            remedy=f"take `tasks.{task}` out of the compress stage of dvc.yaml",
        )
    if params.latency.tokens > model.max_tokens:
        raise InputError(
            f"`compress.latency.tokens` is {params.latency.tokens}, longer than a text of {task}",
            allowed=f"3 to {model.max_tokens} (`tasks.{task}.max_tokens`)",
            remedy="lower `compress.latency.tokens`",
        )


def read_test_split(path: Path, labels: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Texts and class ids of the test split.

    Raises:
        ArtifactError: the file is missing or damaged, has no test example, or a label that the model does not know.

    """
    frame = read_parquet(path, columns=["split", "text", "label"], made_by="ingest")
    frame = frame[frame["split"] == "test"]
    unknown = sorted(set(frame["label"].astype(str)) - set(labels))
    if unknown:
        raise ArtifactError(
            f"{path} has the label {', '.join(unknown)}, which the model does not know",
            allowed=", ".join(labels),
            remedy=rerun("finetune"),
        )
    if frame.empty:
        raise ArtifactError(f"{path} has no test example", remedy="add examples, or raise `ingest.split.test`")
    return frame["text"].tolist(), frame["label"].map(labels.index).to_numpy(dtype=np.int64)


def describe(model: LoadedTask, params: CompressParams, *, task: str, normalization: str) -> dict[str, Any]:
    """Everything that a consumer must know beside the graph and the tokenizer (``labels.json``)."""
    packages = ("onnxruntime", "tokenizers", "numpy")
    return {
        "task": task,
        "kind": model.problem.kind,
        "labels": list(model.labels),
        "max_tokens": model.max_tokens,
        "normalization": normalization,
        "quantization": params.quantization,
        "versions": {"bert_ops": __version__, "onnx_opset": params.onnx_opset}
        | {name: version(name) for name in packages},
    }


def compress(
    model: LoadedTask,
    texts: list[str],
    labels: NDArray[np.int64],
    *,
    params: CompressParams,
    info: Mapping[str, Any],
    arguments: argparse.Namespace,
) -> None:
    """Do the work of :func:`run` on a loaded model and the texts and class ids of the test split."""
    import torch

    from bert_ops.compress import latency, report, scoring
    from bert_ops.compress.export import export
    from bert_ops.finetune.inference import encode_for

    torch.set_num_threads(params.threads)
    fp32 = export(model.model, opset=params.onnx_opset, int8=False)
    shipped = export(model.model, opset=params.onnx_opset, int8=params.quantization == "dynamic_int8")
    scorers = {
        "shipped": scoring.onnx_scorer(shipped, threads=params.threads),
        "onnx_fp32": scoring.onnx_scorer(fp32, threads=params.threads),
        "pytorch_fp32": scoring.pytorch_scorer(model.model),
    }
    encoded = encode_for(model, texts).ids
    logits = {name: scoring.score_all(scorer, encoded, what=f"scoring {name}") for name, scorer in scorers.items()}
    padded = scoring.score_padded(scorers["onnx_fp32"], encoded[:_PADDED_TEXTS])
    difference = max(
        float(np.abs(logits["onnx_fp32"] - logits["pytorch_fp32"]).max()),
        float(np.abs(padded - logits["pytorch_fp32"][:_PADDED_TEXTS]).max()),
    )
    files = {
        "model.onnx": shipped,
        "tokenizer.json": scoring.plain(model.tokenizer).to_str(pretty=False).encode(),
        "labels.json": dump_json(info).encode(),
    }
    sizes = {name: len(content) for name, content in files.items()}
    results = asdict(scoring.compare(logits["pytorch_fp32"], logits["shipped"], labels)) | {
        "files": sizes,
        "files_fp32": sizes | {"model.onnx": len(fp32)},
        "bytes": sum(sizes.values()),
        "bytes_fp32": sum(sizes.values()) - len(shipped) + len(fp32),
        "quantization": params.quantization,
        "parity": {
            "largest_difference": difference,
            "tolerance": params.parity_tolerance,
            "holds": difference <= params.parity_tolerance,
        },
    }
    timings = latency.measure(scorers, encoded, params.latency, threads=params.threads)
    write_text(arguments.speed_page, report.latency_page(timings, task=arguments.task, params=params))
    speed_page = Path(os.path.relpath(arguments.speed_page, arguments.report)).as_posix()
    with atomic_folder(arguments.report) as folder:
        write_json(folder / "results.json", results)
        write_text(folder / "index.html", report.report_page(results, task=arguments.task, speed_page=speed_page))
    if not results["parity"]["holds"]:
        raise ValidationFailed(
            f"a logit of the ONNX graph differs by {difference:.3g} from PyTorch's (see {arguments.report})",
            allowed=f"up to {params.parity_tolerance:g} (`compress.parity_tolerance`)",
            remedy="bring bert_ops/compress/export.py in line with bert_ops/model/encoder.py",
        )
    with atomic_folder(arguments.out) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        write_text(folder / "README.md", report.model_card(results, info))
        write_text(folder / "predict.py", Path(__file__).with_name("consumer.py").read_text(encoding="utf-8"))
    write_json(arguments.metrics, metrics(results, timings, params))
    summarise(results, timings)


def metrics(
    results: Mapping[str, Any], timings: Mapping[str, Mapping[str, float]], params: CompressParams
) -> dict[str, Any]:
    """Figures for tools: the results and the timings, which only this file and the speed page hold."""
    flat = {key: value for key, value in results.items() if key not in {"files", "files_fp32", "parity"}}
    flat["parity_difference"] = results["parity"]["largest_difference"]
    for name, suffix in (("shipped", ""), ("onnx_fp32", "_fp32"), ("pytorch_fp32", "_pytorch")):
        for quantile in ("p50", "p95"):
            flat[f"latency_ms_{quantile}{suffix}"] = timings[name][quantile]
    return flat | {"latency_tokens": params.latency.tokens, "threads": params.threads}


def summarise(results: Mapping[str, Any], timings: Mapping[str, Mapping[str, float]]) -> None:
    """Say in one line what came out."""
    note(
        f"compressed {results['bytes_fp32'] / 1e6:.2f} MB to {results['bytes'] / 1e6:.2f} MB, test accuracy "
        f"{results['accuracy_fp32']:.2%} to {results['accuracy']:.2%}, one text in {timings['shipped']['p50']:.2f} ms "
        f"(ONNX float32 {timings['onnx_fp32']['p50']:.2f} ms, PyTorch {timings['pytorch_fp32']['p50']:.2f} ms)"
    )
