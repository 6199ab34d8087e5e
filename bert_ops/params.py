"""The whole of params.yaml, composed of the sections that stand beside each package's code.

``bert-ops params`` prints every key with its value, unit and allowed range, and fails if one is not allowed; stages
load their own section only (:func:`bert_ops.schema.load_section`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, Field, model_validator

from bert_ops.compress.params import CompressParams
from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.sample_params import SampleParams
from bert_ops.evaluate.params import EvaluateParams, PromoteParams, ReportParams
from bert_ops.finetune.multi_task_params import MultiTaskParams, wrong_names
from bert_ops.finetune.params import BaselinesParams, FinetuneParams, TaskParams
from bert_ops.pretrain.params import PretrainParams
from bert_ops.quality.params import ValidateCorpusParams, ValidateTokensParams
from bert_ops.schema import Section, read_yaml, validate
from bert_ops.tokenizer.params import TokenizeParams, TokenizerParams


class Params(Section):
    """All sections: one a stage, and what starts runs."""

    sample: SampleParams
    ingest: IngestParams
    validate_corpus: ValidateCorpusParams
    tokenizer: TokenizerParams
    tokenize: TokenizeParams
    validate_tokens: ValidateTokensParams
    pretrain: PretrainParams
    tasks: dict[str, TaskParams] = Field(min_length=1, description="a task a key; the pipeline grows by it")
    multi_task: dict[str, MultiTaskParams] = Field(
        description="tasks that learn one encoder together, a name each; the pipeline grows by it, and none is needed"
    )
    finetune: FinetuneParams
    baselines: BaselinesParams
    evaluate: EvaluateParams
    compress: CompressParams
    promote: PromoteParams
    report: ReportParams
    automation: dict[str, Any] = Field(
        default_factory=dict, description="what starts runs by itself; checked when Dagster loads (docs/automation.md)"
    )

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Self:
        positions = self.pretrain.model.max_positions
        for name, task in self.tasks.items():
            if task.max_tokens > positions:
                raise ValueError(
                    f"tasks.{name}.max_tokens {task.max_tokens} exceeds pretrain.model.max_positions {positions}"
                )
            if not any(source.task == name for source in self.ingest.sources.values()):
                raise ValueError(f"tasks.{name} has no source: give one of ingest.sources `task: {name}`")
        for name, several in self.multi_task.items():
            if wrong := wrong_names(name, several, known=self.tasks):
                raise ValueError(wrong)
        return self


def load_all(path: Path) -> Params:
    """Load and validate every section.

    Raises:
        InputError: a key is unknown or missing, or a value is not allowed; the message names the dotted key.

    """
    return validate(read_yaml(path), Params, where="", source=path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--check", action="store_true", help="print nothing but errors")
    parser.add_argument("section", nargs="?", help="show this section only")


def run(arguments: argparse.Namespace) -> None:
    """Check params.yaml and explain its keys."""
    params = load_all(arguments.params)
    if arguments.check:
        return
    for key, value, about in explain(params, ""):
        if arguments.section is None or key.startswith(arguments.section):
            sys.stdout.write(f"{key} = {value}\n" + (f"    {about}\n" if about else ""))


def explain(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Yield dotted key, value and description of every field, depth first."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from explain(value, f"{key}.")
        elif isinstance(value, dict) and value and all(isinstance(item, BaseModel) for item in value.values()):
            for inner, item in value.items():
                yield from explain(item, f"{key}.{inner}.")
        else:
            bounds = ", ".join(
                str(bound) for bound in field.metadata if type(bound).__name__ in {"Ge", "Gt", "Le", "Lt"}
            )
            choices = get_args(field.annotation)
            allowed = " | ".join(map(str, choices)) if choices and all(isinstance(c, str) for c in choices) else bounds
            yield key, value, " — ".join(part for part in (field.description or "", allowed) if part)
