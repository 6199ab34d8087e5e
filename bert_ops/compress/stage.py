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

from bert_ops import __version__
from bert_ops.compress.params import CompressParams
from bert_ops.corpus.cleaning.params import CleaningParams
from bert_ops.errors import ArtifactError, InputError, ValidationFailed
from bert_ops.finetune.encoding import OVERLAP
from bert_ops.finetune.params import load_task
from bert_ops.io import atomic_folder, dump_json, read_parquet, rerun, write_json, write_text
from bert_ops.progress import note
from bert_ops.schema import load_section

if TYPE_CHECKING:
    from bert_ops.finetune.examples import Split
    from bert_ops.finetune.inference import LoadedTask

#: Rows of the padded batch that checks the mask.
_PADDED_ROWS = 32


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
    task = load_task(arguments.params, arguments.task)
    params = for_length(params, max_tokens=model.max_tokens)
    test = read_test_split(arguments.examples, model)
    info = describe(model, params, task=arguments.task, normalization=normalization)
    compress(model, test, params=params, info=info, metric=task.metric, arguments=arguments)


def for_length(params: CompressParams, *, max_tokens: int) -> CompressParams:
    """The parameters for a task: its latency is measured on its longest text where that is shorter than asked for."""
    tokens = min(params.latency.tokens, max_tokens)
    return params.model_copy(update={"latency": params.latency.model_copy(update={"tokens": tokens})})


def read_test_split(path: Path, model: LoadedTask) -> Split:
    """The test split, encoded as the model reads it.

    Raises:
        ArtifactError: the file is missing or damaged, has no test example, or an answer that the model does not know.

    """
    from bert_ops.finetune.examples import COLUMNS
    from bert_ops.finetune.inference import encode_examples_for

    frame = read_parquet(path, columns=COLUMNS, made_by="ingest")
    frame = frame[frame["split"] == "test"]
    if frame.empty:
        raise ArtifactError(f"{path} has no test example", remedy="add examples, or raise `ingest.split.test`")
    try:
        return encode_examples_for(model, frame)
    except InputError as error:
        raise ArtifactError(f"{path}: {error.what}", allowed=error.allowed, remedy=rerun("finetune")) from error


def describe(model: LoadedTask, params: CompressParams, *, task: str, normalization: str) -> dict[str, Any]:
    """Everything that a consumer must know beside the graph and the tokenizer (``labels.json``)."""
    packages = ("onnxruntime", "tokenizers", "numpy")
    return {
        "task": task,
        "kind": model.problem.kind,
        "labels": list(model.labels),
        "max_tokens": model.max_tokens,
        "overlap": int(model.max_tokens * OVERLAP) if model.truncation == "windows" else 0,
        "truncation_side": "left" if model.truncation == "tail" else "right",
        "normalization": normalization,
        "quantization": params.quantization,
        "versions": {"bert_ops": __version__, "onnx_opset": params.onnx_opset}
        | {name: version(name) for name in packages},
    }


def compress(
    model: LoadedTask,
    test: Split,
    *,
    params: CompressParams,
    info: Mapping[str, Any],
    metric: str,
    arguments: argparse.Namespace,
) -> None:
    """Do the work of :func:`run` on a loaded model and the test split."""
    import torch

    from bert_ops.compress import latency, report, scoring
    from bert_ops.compress.export import export

    torch.set_num_threads(params.threads)
    fp32 = export(model.model, opset=params.onnx_opset, int8=False)
    shipped = export(model.model, opset=params.onnx_opset, int8=params.quantization == "dynamic_int8")
    scorers = {
        "shipped": scoring.onnx_scorer(shipped, threads=params.threads),
        "onnx_fp32": scoring.onnx_scorer(fp32, threads=params.threads),
        "pytorch_fp32": scoring.pytorch_scorer(model.model),
    }
    rows, items = test.rows, test.items
    logits = {name: scoring.score_all(scorer, rows, items, what=f"scoring {name}") for name, scorer in scorers.items()}
    padded = scoring.score_padded(scorers["onnx_fp32"], rows, items, count=_PADDED_ROWS)
    exact = logits["pytorch_fp32"]
    # Where logits are numbers of the task's own, thousands perhaps, float32 has as many digits and no more.
    unit = max(1.0, float(np.abs(exact).max()))
    difference = max(
        float(np.abs(logits["onnx_fp32"] - exact).max()) / unit,
        float(np.abs(padded - exact[: len(padded)]).max()) / unit,
    )
    answers = {name: model.problem.answer(found, items, rows) for name, found in logits.items()}
    compared = scoring.compare(model.problem, answers["pytorch_fp32"], answers["shipped"], test.truth, metric=metric)
    files = {
        "model.onnx": shipped,
        "tokenizer.json": scoring.plain(model.tokenizer).to_str(pretty=False).encode(),
        "labels.json": dump_json(info).encode(),
    }
    sizes = {name: len(content) for name, content in files.items()}
    results = asdict(compared) | {
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
    timings = latency.measure(scorers, rows.ids, params.latency, threads=params.threads)
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
        consumer = "consumer_spans.py" if info["kind"] == "token_classification" else "consumer.py"
        write_text(folder / "predict.py", Path(__file__).with_name(consumer).read_text(encoding="utf-8"))
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
        f"compressed {results['bytes_fp32'] / 1e6:.2f} MB to {results['bytes'] / 1e6:.2f} MB, test {results['metric']} "
        f"{results['score_fp32']:.4f} to {results['score']:.4f}, one text in {timings['shipped']['p50']:.2f} ms "
        f"(ONNX float32 {timings['onnx_fp32']['p50']:.2f} ms, PyTorch {timings['pytorch_fp32']['p50']:.2f} ms)"
    )
