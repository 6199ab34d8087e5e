"""Label texts with this model: `echo TEXT | python predict.py`, one text a line; prints label, probability, text.

Needs nothing but `pip install onnxruntime tokenizers numpy` and the files beside it.
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
TOKENIZER.enable_truncation(INFO["max_tokens"])
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
SESSION = onnxruntime.InferenceSession(HERE / "model.onnx", OPTIONS, providers=["CPUExecutionProvider"])


def predict(text: str) -> dict[str, float]:
    """Return the probability of each label."""
    ids = np.array([TOKENIZER.encode(unicodedata.normalize(INFO["normalization"], text)).ids], dtype=np.int64)
    feed = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}
    odds = np.exp((logits := SESSION.run(["logits"], feed)[0][0]) - logits.max())
    return dict(zip(INFO["labels"], (odds / odds.sum()).tolist(), strict=True))


if __name__ == "__main__":
    for line in filter(None, map(str.strip, io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"))):
        probability, label = max((probability, label) for label, probability in predict(line).items())
        sys.stdout.buffer.write(f"{label}\t{probability:.4f}\t{line}\n".encode())
