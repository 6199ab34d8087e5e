"""One encoder under the heads of several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import nn

from bert_ops.finetune.problems import AnyProblem
from bert_ops.model.encoder import Encoder, EncoderConfig, Linear, initialise
from bert_ops.model.heads import Pooler, TaskModel


class SharedEncoder(nn.Module):
    """An encoder, a pooler if a task labels whole texts, and a classifier for each task.

    Each task sees a plain :class:`TaskModel` (:attr:`views`) whose parts are these very modules, so that all that works
    on the model of one task works on it: batches, measurements, export.

    Args:
        config: architecture of the encoder.
        problems: of the tasks, by name.
        classifier_dropout: share of the features before a classifier that is dropped.

    """

    def __init__(self, config: EncoderConfig, problems: Mapping[str, AnyProblem], *, classifier_dropout: float) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        whole_texts = any(problem.head == "sequence_classification" for problem in problems.values())
        self.pooler = Pooler(config) if whole_texts else None
        # By number: a task may have a name that a module of torch has already.
        self.classifiers = nn.ModuleList(Linear(config.hidden_size, each.outputs) for each in problems.values())
        self.classifiers.apply(lambda part: initialise(part, config.initializer_range))
        #: In a dictionary of Python, which torch does not search: the parts are registered above, once.
        self.views: dict[str, TaskModel] = {}
        for (name, problem), classifier in zip(problems.items(), self.classifiers, strict=True):
            with torch.device("meta"):
                view = TaskModel(
                    config, labels=problem.outputs, kind=problem.head, classifier_dropout=classifier_dropout
                )
            assert isinstance(classifier, Linear)
            view.encoder, view.classifier = self.encoder, classifier
            if view.pooler is not None:
                view.pooler = self.pooler
            self.views[name] = view

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts, those that only the views have included."""
        for view in self.views.values():
            view.train(mode)
        return super().train(mode)
