"""How fast text becomes ids, side by side with the libraries that are used for it, on the same cores and text.

`encode_ratio` is our encoder to `tokenizers`' `encode_batch_fast` on Chinese, `latin_ratio` on English, `mixed_ratio`
on lines that hold both, `random_ratio` on words that never come again (the worst case of a memory of words), each with
an encoder that has seen nothing. `datasets_map_ratio` is the stage `tokenize` to `datasets.map` with the fast tokenizer
of `transformers` writing Arrow, both on all cores; `datasets_map_with_words_ratio` is the same while our side also
finds the words of Chinese. Ids are compared before anything is timed. Rounds are interleaved; ratios are medians of
rounds; `…_ids_ratio` is to the library when its ids are taken out as well. `peak_rss_mib` and `cost_growth` are those
of `corpus_scale.py`.

    python benchmarks/corpus.py [--quick] [--rounds 7] [--scale 64 1024]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import random
import shutil
import statistics
import string
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tokenizers import Tokenizer

from bert_ops.processes import cores
from bert_ops.tokenizer import encode, learning, wordpiece
from bert_ops.tokenizer.fast import FastEncoder
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS, TokenizerParams
from bert_ops.tokenizer.store import TokenStore

BATCH = 4096
Times = dict[str, list[float]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less text, fewer rounds: under a minute")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each kind (default: %(default)s)")
    parser.add_argument(
        "--scale", type=int, nargs="*", default=None, help="MiB of text to take all the way (default: 64 1024)"
    )
    arguments = parser.parse_args()
    quick = arguments.quick
    rounds = 3 if quick else arguments.rounds
    limit = 2_000_000 if quick else 8_000_000
    kinds = {name: cut(lines, limit) for name, lines in texts().items()}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(kinds, Path(folder) / "tokenizer")
        result = encoding(kinds, tokenizer, rounds=rounds)
        stage_lines = resampled(kinds["Chinese"], size=8_000_000 if quick else 64_000_000)
        result |= stage(stage_lines, Path(folder), rounds=1 if quick else max(3, rounds // 2), warm=not quick)
        result |= reading(Path(folder) / "ours-none" / "tokens")
    sizes = ([2, 4] if quick else [64, 1024]) if arguments.scale is None else arguments.scale
    if sizes:
        from corpus_scale import scale

        scaled = scale(sizes)
        result |= {key: scaled[key] for key in ("peak_rss_mib", "cost_growth")}
    print(json.dumps(result))


def texts() -> dict[str, list[str]]:
    """Lines of each kind: the sample's Chinese; English from installed documentation; both; random words."""
    from corpus_scale import sample_sentences

    chinese = [unicodedata.normalize("NFKC", line) for line in sample_sentences()]
    english = english_lines()
    count = min(len(chinese), len(english))
    rng = random.Random(2)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(4, 10))) for _ in range(1_200_000)]
    return {
        "Chinese": chinese,
        "English": english,
        "mixed": [f"{one} {two}" for one, two in zip(chinese[:count], english[:count], strict=True)],
        "random words": [" ".join(words[start : start + 12]) for start in range(0, len(words), 12)],
    }


def english_lines() -> list[str]:
    """Paragraphs of Python's own manual and of the descriptions of the installed packages, each once."""
    from pydoc_data.topics import topics

    documents = list(topics.values())
    for distribution in sorted(importlib.metadata.distributions(), key=lambda d: d.metadata["Name"] or ""):
        documents.append(distribution.read_text("METADATA") or "")
    paragraphs = (" ".join(part.split()) for document in documents for part in document.split("\n\n"))
    return [part for part in dict.fromkeys(paragraphs) if part]


def cut(lines: Sequence[str], limit: int) -> list[str]:
    """As many lines as hold ``limit`` bytes."""
    sizes = np.cumsum([len(line.encode()) for line in lines])
    return list(lines[: int(np.searchsorted(sizes, limit)) + 1])


def resampled(lines: Sequence[str], *, size: int) -> list[str]:
    """Random lines of about ``size`` bytes in all."""
    mean = sum(len(line.encode()) for line in lines) / len(lines)
    return random.Random(3).choices(lines, k=int(size / mean))


def make_tokenizer(kinds: dict[str, list[str]], folder: Path) -> Tokenizer:
    """Train 21,128 pieces, the size of Google's Chinese BERT, on the Chinese and the English lines."""
    params = TokenizerParams(
        vocab_size=21_128,
        min_frequency=2,
        lowercase=True,
        strip_accents=False,
        special_tokens=list(REQUIRED_SPECIAL_TOKENS),
        user_tokens=[],
    )
    tokenizer = learning.train(learning.count([kinds["Chinese"], kinds["English"]], params), params)
    wordpiece.save(tokenizer, folder, params)
    return wordpiece.load(folder)


def encoding(kinds: dict[str, list[str]], tokenizer: Tokenizer, *, rounds: int) -> dict[str, Any]:
    """Time our encoder against the library's on each kind of text."""
    begin = time.perf_counter()
    encoder = FastEncoder(tokenizer)
    result: dict[str, Any] = {"table_s": round(time.perf_counter() - begin, 3)}
    names = {"Chinese": "encode", "English": "latin", "mixed": "mixed", "random words": "random"}
    print(f"ids of {BATCH} lines at a time, on {cores()} cores (MB/s of UTF-8: median, lowest to highest)\n")
    for kind, key in names.items():
        batches = [kinds[kind][start : start + BATCH] for start in range(0, len(kinds[kind]), BATCH)]
        require_equal(batches, tokenizer)
        size = sum(len(line.encode()) for line in kinds[kind])
        times = interleaved(
            {
                "ours": lambda batches=batches: ours(batches, encoder),
                "encode_batch_fast": lambda batches=batches: theirs(batches, tokenizer, take=False),
                "the same, ids taken": lambda batches=batches: theirs(batches, tokenizer, take=True),
            },
            rounds=rounds,
        )
        ratio = ratios(times, "encode_batch_fast", "ours")
        show(f"{kind}, {size / 1e6:.1f} MB", times, size=size, ratio=ratio)
        result |= {f"{key}_ratio": ratio[0], f"{key}_ratio_range": ratio[1:]}
        result[f"{key}_ids_ratio"] = ratios(times, "the same, ids taken", "ours")[0]
        result[f"{key}_mb_s"] = round(size / 1e6 / statistics.median(times["ours"]), 1)
    return result


def ours(batches: list[list[str]], encoder: FastEncoder) -> None:
    """Encode with an encoder that remembers nothing."""
    encoder.forget()
    for batch in batches:
        encoder.encode(batch)


def theirs(batches: list[list[str]], tokenizer: Tokenizer, *, take: bool) -> None:
    """Encode with the library; unless they are taken, ids stay in its own objects, where Python cannot use them."""
    for batch in batches:
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        if take:
            for encoding in encodings:
                _ = encoding.ids


def require_equal(batches: list[list[str]], tokenizer: Tokenizer) -> None:
    """Stop if any id differs."""
    encoder = FastEncoder(tokenizer)
    for batch in batches:
        encoded = encoder.encode(batch)
        expected = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for number, line in enumerate(batch):
            if encoded.text(number).tolist() != expected[number].ids:
                sys.exit(f"ids differ: {line!r}")


def stage(lines: list[str], folder: Path, *, rounds: int, warm: bool) -> dict[str, Any]:
    """Time the stage `tokenize` against `datasets.map`, from the same Parquet file to files on the same disk."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    sentences = folder / "sentences.parquet"
    write_sentences(sentences, lines)
    reference = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    loaded = datasets.Dataset.from_parquet(str(sentences), cache_dir=str(folder / "cache"))

    def encode_batch(batch: dict[str, list[str]]) -> dict[str, Any]:
        return {
            "input_ids": reference(
                batch["text"], add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
            )["input_ids"]
        }

    def datasets_map() -> None:
        target = folder / "arrow.arrow"
        loaded.map(
            encode_batch,
            batched=True,
            num_proc=cores(),
            remove_columns=loaded.column_names,
            load_from_cache_file=False,
            cache_file_name=str(target),
        )
        for path in folder.glob("arrow*"):
            path.unlink()

    times = interleaved(
        {
            "tokenize": lambda: run_stage(folder, sentences, segmentation="none"),
            "datasets.map": datasets_map,
            "tokenize, with words": lambda: run_stage(folder, sentences, segmentation="jieba"),
        },
        rounds=rounds,
        warm=warm,
    )
    size = sum(len(line.encode()) for line in lines)
    ratio, with_words = (ratios(times, "datasets.map", name) for name in ("tokenize", "tokenize, with words"))
    show(f"Parquet to ids on disk, Chinese, {size / 1e6:.1f} MB", times, size=size, ratio=ratio)
    return {
        "datasets_map_ratio": ratio[0],
        "datasets_map_ratio_range": ratio[1:],
        "datasets_map_with_words_ratio": with_words[0],
        "tokenize_mb_s": round(size / 1e6 / statistics.median(times["tokenize"]), 1),
    }


def write_sentences(path: Path, lines: list[str]) -> None:
    """Write ``sentences.parquet`` as ingest does: five sentences a document, 16 MiB of text a row group."""
    rows = max(int((16 << 20) / (sum(len(line.encode()) for line in lines[:5000]) / min(len(lines), 5000))), 1)
    count = len(lines)
    table = pa.table(
        {
            "doc_id": [f"{number // 5:016x}" for number in range(count)],
            "source": ["sample"] * count,
            "split": ["train"] * count,
            "text": lines,
        }
    )
    pq.write_table(table, path, row_group_size=rows - rows % 5, compression="zstd")


def run_stage(folder: Path, sentences: Path, *, segmentation: str) -> None:
    """Run the stage with all cores, its processes' start included."""
    work = folder / f"ours-{segmentation}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    section = {"shard_tokens": 8_000_000, "batch_sentences": BATCH, "segmentation": segmentation}
    (work / "params.yaml").write_text(yaml.safe_dump({"tokenize": section}))
    with contextlib.redirect_stderr(io.StringIO()):
        encode.run(
            argparse.Namespace(
                params=work / "params.yaml",
                sentences=sentences,
                tokenizer=folder / "tokenizer",
                out=work / "tokens",
                metrics=work / "tokenize.json",
                work=work / "work",
                workers=cores(),
            )
        )


def reading(tokens: Path, *, rounds: int = 300) -> dict[str, Any]:
    """Time opening a store and copying 32 random spans of 128 tokens with their word starts."""
    rng = np.random.default_rng(4)

    def open_and_read() -> None:
        view = TokenStore.open(tokens)["train"]
        for start in rng.integers(0, view.tokens - 128, 32).tolist():
            view.span(start, start + 128).astype(np.int64)

    times = sorted([timed(open_and_read) for _ in range(rounds + 20)][20:])
    middle, most = statistics.median(times) * 1e3, times[int(rounds * 0.9)] * 1e3
    print(f"open a store and read a batch of 32 x 128 tokens: {middle:.2f} ms (90% within {most:.2f})")
    return {"store_open_batch_ms": round(middle, 3)}


def interleaved(work: dict[str, Callable[[], None]], *, rounds: int, warm: bool = True) -> Times:
    """Do each piece of work once a round, in turning order; with ``warm``, one round before is not counted."""
    times: Times = {name: [] for name in work}
    names = list(work)
    for number in range(0 if warm else 1, rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds = timed(work[name])
            if number:
                times[name].append(seconds)
    return times


def timed(work: Callable[[], None]) -> float:
    """Seconds that work takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratios(times: Times, peer: str, mine: str) -> tuple[float, float, float]:
    """How many times as long the peer takes: median over rounds, lowest, highest."""
    each = [theirs / ours for theirs, ours in zip(times[peer], times[mine], strict=True)]
    return round(statistics.median(each), 2), round(min(each), 2), round(max(each), 2)


def show(title: str, times: Times, *, size: int, ratio: tuple[float, float, float]) -> None:
    """Print a small table."""
    print(title)
    for name, seconds in times.items():
        middle, slow, fast = (size / 1e6 / s for s in (statistics.median(seconds), max(seconds), min(seconds)))
        print(f"  {name:<22} {middle:8.1f}  ({slow:.1f} to {fast:.1f})")
    print(f"  ratio {ratio[0]:.1f} ({ratio[1]:.1f} to {ratio[2]:.1f})\n", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
