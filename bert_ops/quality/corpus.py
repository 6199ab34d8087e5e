"""Stage ``validate_corpus``: documents, sentences and labelled examples, before anything is trained on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from bert_ops.quality import figures, rows
from bert_ops.quality.engine import Frames, run_suites
from bert_ops.quality.history import data_hash
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.read import CorpusFiles, corpus_files
from bert_ops.quality.report import Outputs, conclude
from bert_ops.quality.suites import corpus_suites
from bert_ops.quality.survey import Survey, survey
from bert_ops.schema import load_section


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder that ingest wrote (documents, sentences, examples)"
    )
    parser.add_argument("--ingest", type=Path, required=True, help="JSON file with the counts of ingest")
    parser.add_argument(
        "--report", type=Path, required=True, help="folder for the report: index.html is its first page"
    )
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the verdict and every result")
    parser.add_argument("--history", type=Path, required=True, help="JSON Lines file with the earlier verdicts")


def run(arguments: argparse.Namespace) -> None:
    """Check the corpus, write the report, then fail if a critical expectation does not hold.

    Raises:
        ArtifactError: the corpus is missing, damaged, or lacks a column.
        ValidationFailed: a critical expectation does not hold; the report says which.

    """
    params = load_section(arguments.params, "validate_corpus", ValidateCorpusParams)
    files = corpus_files(arguments.corpus, arguments.ingest)
    found = survey(files)
    tasks = {task: part.kind for task, part in found.examples.items()}
    validation = run_suites(corpus_tables(files, found, params), corpus_suites(tasks, params))
    conclude(
        validation,
        stage="validate_corpus",
        about=f"the corpus in {arguments.corpus}",
        outputs=Outputs(report=arguments.report, metrics=arguments.metrics, history=arguments.history),
        data=data_hash([*(table.path for table in files.tables), arguments.ingest]),
        params=params,
        counts={
            "documents": len(found.documents),
            "examples": sum(len(part.ids) for part in found.examples.values()),
        },
    )


def corpus_tables(files: CorpusFiles, found: Survey, params: ValidateCorpusParams) -> dict[str, Frames]:
    """Say how to derive the table of each suite of :func:`corpus_suites`; large ones come in batches."""
    tables: dict[str, Frames] = {
        "corpus": lambda: [figures.corpus_table(files, found, params)],
        "files": lambda: [figures.file_table(files.metrics)],
        "sources": lambda: [figures.source_table(files, found)],
        "documents": lambda: rows.document_rows(files, found),
        "duplicates": lambda: rows.duplicate_rows(files, found),
        "splits": lambda: [figures.split_table(files, found)],
        "sentences": lambda: rows.sentence_rows(files, found),
        "leaks": lambda: rows.leak_rows(files, found),
        "leakage": lambda: [figures.leakage_table(files, found)],
    }
    for task in files.examples:
        tables |= _task_tables(task, files, found)
    return tables


def _task_tables(task: str, files: CorpusFiles, found: Survey) -> dict[str, Frames]:
    file, kind = files.examples[task], found.examples[task].kind
    return {
        f"task_{task}": lambda: rows.example_rows(file, found, task=task),
        f"task_{task}_splits": lambda: [figures.task_split_table(file, kind)],
    }
