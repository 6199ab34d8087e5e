"""The command line: ``python -m bert_ops STAGE``, installed as ``bert-ops``.

One command a stage. A stage's module is imported only when its command runs, so that ``bert-ops --help`` answers at
once and a broken optional dependency of one stage stops no other. Each module offers ``add_arguments(parser)`` and
``run(arguments)``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from bert_ops import __version__
from bert_ops.errors import BertOpsError, InputError, StorageError
from bert_ops.io import storage_errors
from bert_ops.processes import TRAINING_ENVIRONMENT, die_with_parent
from bert_ops.progress import dagster_session


@dataclass(frozen=True)
class Command:
    """A command: where its code stands, what it does in one line, whether it is a stage, and one that trains.

    ``other`` names modules that take the command's place where an option is given.
    """

    module: str
    summary: str
    is_stage: bool = True
    trains: bool = False
    other: dict[str, str] = field(default_factory=dict)


COMMANDS = {
    "sample": Command(
        "bert_ops.corpus.sample", "write the embedded Chinese sample as text files, JSON Lines and SQLite"
    ),
    "snapshot": Command("bert_ops.corpus.snapshot", "copy database tables and far files that sources name"),
    "ingest": Command("bert_ops.corpus.ingest", "read sources; clean, de-duplicate and split them"),
    "validate_corpus": Command("bert_ops.quality.corpus", "check documents and labelled examples"),
    "tokenizer": Command("bert_ops.tokenizer.train", "train the WordPiece vocabulary"),
    "tokenize": Command("bert_ops.tokenizer.encode", "turn sentences into memory-mapped token shards"),
    "validate_tokens": Command("bert_ops.tokenizer.validate", "check the token shards"),
    "pretrain": Command(
        "bert_ops.pretrain.stage", "train the encoder on masked tokens and sentence pairs", trains=True
    ),
    "finetune": Command(
        "bert_ops.finetune.stage",
        "tune the pretrained encoder for a task; with --data FILE, for a table of your own",
        trains=True,
        other={"--data": "bert_ops.finetune.own_data"},
    ),
    "finetune_together": Command(
        "bert_ops.finetune.multi_task", "tune one encoder for several tasks, with a head for each", trains=True
    ),
    "baselines": Command("bert_ops.finetune.baselines", "train what a task's model must beat", trains=True),
    "evaluate": Command("bert_ops.evaluate.stage", "score a task's model and write its HTML report"),
    "compress": Command("bert_ops.compress.stage", "make the small int8 model that ships"),
    "promote": Command("bert_ops.evaluate.promotion", "make a compressed model the champion if it passes the gates"),
    "report": Command("bert_ops.evaluate.index", "write one page over all results"),
    "summary": Command("bert_ops.evaluate.summary", "print the results of the last run", is_stage=False),
    "experiments": Command(
        "bert_ops.evaluate.experiments", "write a page that compares the experiments of DVC", is_stage=False
    ),
    "params": Command("bert_ops.params", "explain or check params.yaml", is_stage=False),
    "compare_tokenizers": Command(
        "bert_ops.tokenizer.compare", "compare sizes of the vocabulary on held-out text", is_stage=False
    ),
    "sizes": Command(
        "bert_ops.pretrain.show_sizes", "compare model sizes: parameters, FLOPs, memory, time of a run", is_stage=False
    ),
    "schedule": Command(
        "bert_ops.pretrain.show_schedule", "show learning rate and batch size before a run", is_stage=False
    ),
    "import_model": Command(
        "bert_ops.finetune.import_model",
        "bring a BERT checkpoint folder of others into this house's form",
        is_stage=False,
    ),
    "export_head": Command(
        "bert_ops.finetune.export_head",
        "write a task of a multi-task model as a model folder by itself",
        is_stage=False,
    ),
    "log": Command("bert_ops.training.log_summary", "summarise the log of a training run", is_stage=False),
    "doctor": Command(
        "bert_ops.doctor", "show versions, hardware and settings, and what is wrong with them", is_stage=False
    ),
}

# OpenMP threads that spin while they wait for each other starve as soon as the machine has anything else to do, and
# threads that sleep at once are slow to wake. A short spin is nearly as fast as a long one on an idle machine and loses
# nothing on a busy one (docs/LOG.md). libgomp reads this when it is loaded, so it must be set before torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1500")


def entry() -> None:
    """Run the command line as a program, in the environment that it is measured and reproducible in.

    What has to be said before Python, or the C library, starts can only be said to a new process: this one begins anew,
    under the same number, if something of it is missing.
    """
    missing = {name: value for name, value in wanted_environment(sys.argv[1:]).items() if os.environ.get(name) != value}
    if missing:
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, "-m", "bert_ops", *sys.argv[1:]])  # noqa: S606 — no shell is meant
    sys.exit(main())


def wanted_environment(argv: list[str]) -> dict[str, str]:
    """Environment variables that a command wants; the allocator's only if the user has not set them.

    Python's string hashes are fixed because Evidently lists labels in the order of a set, which differs from process to
    process, and with it the bytes of a report.
    """
    wanted = {"PYTHONHASHSEED": "0"}
    if argv and argv[0] in COMMANDS and COMMANDS[argv[0]].trains and "GLIBC_TUNABLES" not in os.environ:
        wanted |= TRAINING_ENVIRONMENT
    return wanted


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or the exit code of the :class:`~bert_ops.errors.BertOpsError` that ended it.

    """
    argv = sys.argv[1:] if argv is None else argv
    parser = root_parser()
    if not argv or argv[0] not in COMMANDS:
        parser.parse_args(argv)
        parser.print_help()
        return 2
    name, command = argv[0], COMMANDS[argv[0]]
    given = {part.partition("=")[0] for part in argv[1:]}
    try:
        module = import_module(next((to for option, to in command.other.items() if option in given), command.module))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package == "bert_ops":
            raise
        sys.stderr.write(
            f"bert-ops {name}: the package {package} is not installed\n"
            "  remedy:  install what is missing with `pip install -e . -c constraints.txt`\n"
        )
        return InputError.exit_code
    parser = argparse.ArgumentParser(
        prog=f"bert-ops {name}", description=f"{command.summary[0].upper()}{command.summary[1:]}."
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="values of all stages (params.yaml)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.add_arguments(parser)
    arguments = parser.parse_args(argv[1:])
    return run(lambda: module.run(arguments), name=name, debug=arguments.debug, is_stage=command.is_stage)


def root_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bert-ops --help``."""
    listing = "\n".join(f"  {name:<16} {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="bert-ops",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Raw text to a pretrained, fine-tuned, evaluated and compressed BERT.",
        epilog=f"commands:\n{listing}\n\nThe whole pipeline runs with `dvc repro`; `bert-ops COMMAND --help` explains.",
    )
    parser.add_argument("--version", action="version", version=f"bert-ops {__version__}")
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="see below")
    return parser


def run(work: Callable[[], None], *, name: str, debug: bool, is_stage: bool) -> int:
    """Call ``work`` and turn what a user can cause into one message and an exit code."""
    try:
        if is_stage:
            die_with_parent()
        with dagster_session(), storage_errors(Path.cwd()):
            work()
    except BertOpsError as error:
        if debug:
            raise
        sys.stderr.write(f"bert-ops {name}: {error}\n")
        return error.exit_code
    except MemoryError:
        if debug:
            raise
        sys.stderr.write(f"bert-ops {name}: out of memory\n  remedy:  lower the batch size in params.yaml\n")
        return StorageError.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"bert-ops {name}: stopped\n")
        return 130
    except BrokenPipeError:
        return 141
    return 0


if __name__ == "__main__":
    entry()
