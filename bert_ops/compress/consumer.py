"""Label texts with this model: `echo TEXT | python predict.py`, one text a line, or TEXT, tab, TEXT of a pair.

Prints answer, probability, text. Needs nothing but `pip install onnxruntime tokenizers numpy` and the files beside it.
"""

import io
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
INFO = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))
TOKENIZER.enable_truncation(INFO["max_tokens"], stride=INFO["overlap"], direction=INFO["truncation_side"])
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
SESSION = onnxruntime.InferenceSession(HERE / "model.onnx", OPTIONS, providers=["CPUExecutionProvider"])
ONE, NUMBER = (INFO["kind"] == kind for kind in ("sequence_classification", "regression"))


def predict(*texts: str) -> dict[str, float]:
    """Return the probability of each label, or the number, of a text or a pair of texts."""
    first, *second = [unicodedata.normalize(INFO["normalization"], text) for text in texts]
    whole = TOKENIZER.encode(first, second[0] if second else None)
    logits = []
    for part in [whole, *whole.overflowing][: None if INFO["overlap"] else 1]:
        feed = {"input_ids": [part.ids], "token_type_ids": [part.type_ids], "attention_mask": [[1] * len(part.ids)]}
        logits.append(SESSION.run(["logits"], {name: np.array(value) for name, value in feed.items()})[0][0])
    mean = np.mean(logits, axis=0)
    odds = np.exp(mean - mean.max()) if ONE else 1 / (1 + np.exp(-mean))
    return dict(zip(INFO["labels"], (mean if NUMBER else odds / odds.sum() if ONE else odds).tolist(), strict=True))


if __name__ == "__main__":
    for line in filter(None, map(str.strip, io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"))):
        found = predict(*line.split("\t", 1))
        given = [max(found, key=found.__getitem__)] if ONE or NUMBER else [x for x, p in found.items() if p >= 0.5]
        answer = ",".join(f"{found[x]:.6g}" if NUMBER else x for x in given)
        sys.stdout.buffer.write(f"{answer}\t{','.join(f'{found[x]:.4f}' for x in given)}\t{line}\n".encode())
