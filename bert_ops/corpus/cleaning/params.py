"""Section ``ingest.clean`` of params.yaml: one sub-section a step, in the order of the steps."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section


class IntakeParams(Section):
    """Texts that no step should touch."""

    max_characters: int = Field(ge=1, description="characters that a text may have before cleaning")


class LengthParams(Section):
    """Length of a cleaned text."""

    min_characters: int = Field(ge=1, description="characters that a text needs at least, white space not counted")
    max_characters: int = Field(ge=1, description="characters that a text may have at most, white space counted")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError(
                f"min_characters is {self.min_characters}; it must not exceed max_characters = {self.max_characters}"
            )
        return self


class CleaningParams(Section):
    """What each step of cleaning does."""

    intake: IntakeParams = Field(description="texts that no step should touch")
    normalization: Literal["NFC", "NFKC"] = Field(
        description="Unicode normalisation form (Unicode Standard Annex 15); NFKC also folds full-width forms"
    )
    length: LengthParams = Field(description="length of a cleaned text")
