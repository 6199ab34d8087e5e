"""Section ``finetune.layers`` of params.yaml: which parameters of a model are trained, and at which rate."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section

#: Linear layers of an encoder layer that can get low-rank updates.
LoraModule = Literal["query", "key", "value", "attention_out", "up", "down"]


class LoraParams(Section):
    """Low-rank updates of frozen matrices (Hu et al. 2021, arXiv:2106.09685); read where ``train`` is lora."""

    rank: int = Field(ge=1, le=1024, description="rank of an update")
    alpha: float = Field(gt=0, le=4096, description="an update is multiplied by alpha / rank")
    dropout: float = Field(ge=0, lt=1, description="share of an update's inputs dropped while training")
    modules: list[LoraModule] = Field(min_length=1, description="linear layers of an encoder layer that get an update")

    @model_validator(mode="after")
    def _modules_differ(self) -> Self:
        if len(set(self.modules)) < len(self.modules):
            raise ValueError(f"modules names one twice: {', '.join(self.modules)}")
        return self


class LayerParams(Section):
    """What is trained; the head (all that is not the encoder: pooler and classifier) always is."""

    train: Literal["all", "head", "biases", "lora"] = Field(
        description="all parameters; the head alone; biases of the encoder (BitFit, Ben Zaken et al. 2022, "
        "arXiv:2106.10199); or low-rank updates of its matrices"
    )
    top: Annotated[int, Field(ge=1)] | None = Field(
        description="encoder layers that are trained, counted from the head; null: all. Those below stay as they are, "
        "embeddings too"
    )
    freeze_embeddings: bool = Field(description="embeddings stay as they are, though all layers are trained")
    rate_decay: float = Field(
        gt=0, le=1, description="learning rate of a layer relative to the one above it; embeddings are the lowest"
    )
    unfreeze_over: float = Field(
        ge=0,
        lt=1,
        description="share of the run over which one layer after the other begins to be trained, from the head down "
        "(gradual unfreezing, Howard & Ruder 2018, arXiv:1801.06146); 0: all from the start",
    )
    reinitialized: int = Field(
        ge=0, description="top layers, and then the pooler, that begin anew (Zhang et al. 2021, arXiv:2006.05987)"
    )
    lora: LoraParams

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.train == "head":
            self._only_for_trained_layers()
        if self.reinitialized and self.train in {"biases", "lora"}:
            raise ValueError(
                f"reinitialized is {self.reinitialized}, but train: {self.train} does not train the matrices of the "
                "layers that begin anew; allowed: reinitialized: 0, or train: all"
            )
        if self.top is not None and self.reinitialized > self.top:
            raise ValueError(
                f"reinitialized is {self.reinitialized}, but only the top {self.top} layers are trained: the others "
                f"would stay random; allowed: at most {self.top}, or a larger top"
            )
        return self

    def _only_for_trained_layers(self) -> None:
        neutral = {"top": None, "rate_decay": 1.0, "unfreeze_over": 0.0, "reinitialized": 0}
        for name, value in neutral.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but train: head trains no layer; "
                    f"allowed: {name}: {'null' if value is None else value}, or train: all, biases or lora"
                )


#: Every parameter at one rate, as for a network that was not pretrained.
EVERYTHING = LayerParams(
    train="all",
    top=None,
    freeze_embeddings=False,
    rate_decay=1.0,
    unfreeze_over=0.0,
    reinitialized=0,
    lora=LoraParams(rank=8, alpha=16.0, dropout=0.0, modules=["query", "value"]),
)
