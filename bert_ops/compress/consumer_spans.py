"""Find spans with this model: `echo TEXT | python predict.py`, one text a line.

Prints JSON spans and the text. Needs nothing but `pip install onnxruntime tokenizers numpy` and the files beside it.
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
OVERLAP, TAGS = INFO["overlap"], INFO["labels"]
TOKENIZER.enable_truncation(INFO["max_tokens"], stride=OVERLAP, direction=INFO["truncation_side"])
OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
SESSION = onnxruntime.InferenceSession(HERE / "model.onnx", OPTIONS, providers=["CPUExecutionProvider"])


def predict(text: str) -> list[tuple[int, int, str]]:
    """Return the spans of a text that is normalised already: first character, character after the last, label."""
    whole = TOKENIZER.encode(text)
    parts = [whole, *whole.overflowing][: None if OVERLAP else 1]
    spans, before = [], "O"
    for place, part in enumerate(parts):
        feed = {"input_ids": [part.ids], "token_type_ids": [part.type_ids], "attention_mask": [[1] * len(part.ids)]}
        logits = SESSION.run(["logits"], {name: np.array(value) for name, value in feed.items()})[0][0]
        tagged = zip(logits.argmax(1), part.offsets, part.special_tokens_mask, strict=True)
        tokens = [(TAGS[tag], start, end) for tag, (start, end), special in tagged if not special]
        # Of a token in two windows the one answers in which it is farther from the edge.
        last = len(tokens) - (OVERLAP - OVERLAP // 2 if place < len(parts) - 1 else 0)
        for tag, start, end in tokens[OVERLAP // 2 if place else 0 : last]:
            if tag != "O" and (tag[0] in "BS" or before == "O" or before[0] in "ES" or tag[2:] != before[2:]):
                spans.append((start, end, tag[2:]))
            elif tag != "O":
                spans[-1] = (spans[-1][0], end, tag[2:])
            before = tag
    return spans


if __name__ == "__main__":
    for line in filter(None, map(str.strip, io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"))):
        text = unicodedata.normalize(INFO["normalization"], line)
        sys.stdout.buffer.write(f"{json.dumps(predict(text), ensure_ascii=False)}\t{text}\n".encode())
