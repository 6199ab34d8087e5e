"""Pages about a compressed model: the report, the timings that it embeds, and the model card that ships."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from bert_ops.compress.params import CompressParams
from bert_ops.evaluate.wording import METRIC_NAMES
from bert_ops.page import cards, page, table

#: Names of the timed runtimes and what a reader sees.
RUNTIMES = {
    "shipped": "this model, ONNX Runtime",
    "onnx_fp32": "float32, ONNX Runtime",
    "pytorch_fp32": "float32, PyTorch (eager)",
}


#: What the consumer prints for a line of text.
_LINES = {
    "sequence_classification": "label<TAB>probability<TAB>text",
    "multi_label_classification": "labels<TAB>probabilities<TAB>text",
    "regression": "number<TAB>number<TAB>text",
    "token_classification": "[[first character, character after the last, label], …]<TAB>text",
}


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def report_page(results: Mapping[str, Any], *, task: str, speed_page: str) -> str:
    """Render the report of a task; ``speed_page`` is the address of the timings, relative to the report."""
    parity = results["parity"]
    low, high = results["difference_ci95"]
    verdict = "good" if parity["holds"] else "bad"
    metric, equal = METRIC_NAMES[results["metric"]], results["agreement"]
    body = cards(
        [
            (size(results["bytes"]), f"what ships ({results['bytes_fp32'] / results['bytes']:.1f}× smaller)"),
            (f"{results['score']:.1%}", f"test {metric} (float32: {results['score_fp32']:.1%})"),
            *([] if equal is None else [(f"{equal:.1%}", "of answers equal to float32")]),
        ]
    )
    counted = "" if equal is None else f" lost {results['lost']} right answers and gained {results['gained']}:"
    body += (
        f'<h2>Is it still the same model?</h2><p class="{verdict}">Float32 ONNX and PyTorch differ by at most '
        f"{parity['largest_difference']:.2g} in a logit over {results['examples']:,} test texts "
        f"({'within' if parity['holds'] else 'above'} the tolerance of {parity['tolerance']:g}).</p>"
        f"<p>Quantization{counted} {100 * (results['score'] - results['score_fp32']):+.2f} points of {metric}, "
        f"95% interval {100 * low:+.2f} to {100 * high:+.2f}.</p>"
    )
    rows = [[escape(name), size(count), size(results["files_fp32"][name])] for name, count in results["files"].items()]
    rows.append(["<b>together</b>", f"<b>{size(results['bytes'])}</b>", f"<b>{size(results['bytes_fp32'])}</b>"])
    body += "<h2>Size</h2>" + table(["file", "shipped", "the same in float32"], rows, numeric=[1, 2])
    body += (
        "<h2>Latency</h2><p>Measured on the machine that ran this stage; nothing depends on it.</p>"
        f'<iframe src="{escape(speed_page)}" title="Latency"></iframe>'
    )
    return page(f"Compressed model: {task}", body, subtitle="int8 ONNX, runs without the training code")


def latency_page(latency: Mapping[str, Mapping[str, float]], *, task: str, params: CompressParams) -> str:
    """Render the timings."""
    base = latency["shipped"]["p50"]
    rows = [
        [label, f"{latency[name]['p50']:.2f}", f"{latency[name]['p95']:.2f}", f"{latency[name]['p50'] / base:.1f}×"]
        for name, label in RUNTIMES.items()
    ]
    threads = "1 thread" if params.threads == 1 else f"{params.threads} threads"
    note = f"One text of {params.latency.tokens} tokens, {threads}, {params.latency.runs} calls each, in turn"
    body = table(["runtime", "median, ms", "95th percentile, ms", "time, relative"], rows, numeric=[1, 2, 3])
    return page(f"Latency: {task}", body, subtitle=note)


def model_card(results: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """Render the README that ships with the model."""
    versions = " ".join(f"{name}=={info['versions'][name]}" for name in ("onnxruntime", "tokenizers", "numpy"))
    network = "int8 weights, activations quantized at run time" if info["quantization"] != "none" else "float32"
    labels = sorted({label.partition("-")[2] or label for label in info["labels"]} - {"O"})
    read = (
        f"read in windows of {info['max_tokens']} tokens"
        if info["overlap"]
        else f"cut to its {'last' if info['truncation_side'] == 'left' else 'first'} {info['max_tokens']} tokens"
    )
    metric, score, before = METRIC_NAMES[results["metric"]], results["score"], results["score_fp32"]
    return f"""# {info["task"]}: {", ".join(labels)}

A BERT model ({info["kind"]}), compressed for a CPU. It needs no PyTorch and no training code:

```
pip install {versions}
echo TEXT | python predict.py
```

Each line of input gives a line `{_LINES[info["kind"]]}`. Newer versions of the three packages should do.

| file | what |
|---|---|
| `model.onnx` | the network, {network} |
| `tokenizer.json` | text to ids, for the `tokenizers` library |
| `labels.json` | label of each logit, longest text in tokens, normal form of the text, versions |
| `predict.py` | how to use the three, in a page |

- Inputs `input_ids`, `token_type_ids` and `attention_mask` are int64 (batch, tokens); the output is `logits`.
- Test {metric}, {results["examples"]:,} texts: {score:.4f} ({before:.4f} in float32).
- {size(results["bytes"])} in all (`predict.py` and this page not counted); {size(results["bytes_fp32"])} in float32.
- Text is put into the form {info["normalization"]} first and {read}.
- int8 scales activations by the whole batch: score texts one at a time, as `predict.py` does, to get the figures above.
"""
