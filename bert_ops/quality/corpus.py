"""Stage ``validate_corpus``: documents, sentences and labelled examples, before anything is trained on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from bert_ops.quality.engine import run_suites
from bert_ops.quality.frames import read_corpus
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.report import conclude
from bert_ops.quality.suites import corpus_suites, corpus_tables
from bert_ops.schema import load_section


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder that ingest wrote (documents, sentences, examples)"
    )
    parser.add_argument(
        "--report", type=Path, required=True, help="folder for the report: index.html is its first page"
    )
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the verdict and every result")


def run(arguments: argparse.Namespace) -> None:
    """Check the corpus, write the report, then fail if a critical expectation does not hold.

    Raises:
        ArtifactError: the corpus is missing, damaged, or lacks a column.
        ValidationFailed: a critical expectation does not hold; the report says which.

    """
    params = load_section(arguments.params, "validate_corpus", ValidateCorpusParams)
    corpus = read_corpus(arguments.corpus)
    validation = run_suites(corpus_tables(corpus, params), corpus_suites(corpus, params))
    conclude(
        validation,
        stage="validate_corpus",
        about=f"the corpus in {arguments.corpus}",
        report=arguments.report,
        metrics=arguments.metrics,
    )
