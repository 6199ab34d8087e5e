"""Find spans with this model: `echo TEXT | python predict.py`, one text a line.

Prints JSON spans and the text. Needs nothing but `pip install onnxruntime tokenizers numpy` and the files beside it.
"""

import io
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
INFO = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))
OVERLAP, TAGS = INFO["overlap"], INFO["labels"]
TOKENIZER.enable_truncation(INFO["max_tokens"], stride=OVERLAP, direction=INFO["truncation_side"])
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
SESSION = onnxruntime.InferenceSession(HERE / "model.onnx", OPTIONS, providers=["CPUExecutionProvider"])
# I and E go on what B and I of their label began, and where there is an E, they must.
OPEN, INNER = (np.array([tag[0] in kinds for tag in TAGS]) for kinds in ("BI", "IE"))
LABELS = np.array([tag[2:] for tag in TAGS])
GOES_ON = OPEN[:, None] & INNER & (LABELS[:, None] == LABELS)
MUST = OPEN & any(tag[0] == "E" for tag in TAGS)
ALLOWED = np.where(GOES_ON | ~(INNER | MUST[:, None]), 0.0, -np.inf)


def best(scores: Any) -> list[str]:
    """Return the likeliest allowed sequence of tags (Viterbi) for scores (tokens, tags)."""
    past, back = scores[0] + np.where(INNER, -np.inf, 0.0), []
    for step in scores[1:]:
        paths = past[:, None] + ALLOWED
        back.append(paths.argmax(0))
        past = paths.max(0) + step
    tags = [int((past + np.where(MUST, -np.inf, 0.0)).argmax())]
    for row in reversed(back):
        tags.append(int(row[tags[-1]]))
    return [TAGS[tag] for tag in reversed(tags)]


def predict(text: str) -> list[tuple[int, int, str]]:
    """Return the spans of a text that is normalised already: first character, character after the last, label."""
    whole = TOKENIZER.encode(text)
    parts = [whole, *whole.overflowing][: None if OVERLAP else 1]
    scores, places = [], []
    for number, part in enumerate(parts):
        feed = {"input_ids": [part.ids], "token_type_ids": [part.type_ids], "attention_mask": [[1] * len(part.ids)]}
        logits = SESSION.run(["logits"], {name: np.array(value) for name, value in feed.items()})[0][0]
        content = np.flatnonzero(np.array(part.special_tokens_mask) == 0)
        # Of a token in two windows the one answers in which it is farther from the edge.
        last = len(content) - (OVERLAP - OVERLAP // 2 if number < len(parts) - 1 else 0)
        for token in content[OVERLAP // 2 if number else 0 : last]:
            scores.append(logits[token].astype(np.float64))
            places.append(part.offsets[token])
    spans: list[tuple[int, int, str]] = []
    for tag, (start, end) in zip(best(scores) if scores else [], places, strict=True):
        if tag[0] in "BS":
            spans.append((start, end, tag[2:]))
        elif tag != "O":
            spans[-1] = (spans[-1][0], end, tag[2:])
    return spans


if __name__ == "__main__":
    for line in filter(None, map(str.strip, io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"))):
        text = unicodedata.normalize(INFO["normalization"], line)
        sys.stdout.buffer.write(f"{json.dumps(predict(text), ensure_ascii=False)}\t{text}\n".encode())
