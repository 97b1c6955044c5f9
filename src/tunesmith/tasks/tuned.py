"""A model in tuning: backbone, task, head and delta as one thing that can be run, trained and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.data.tokens import TokenRows
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.dropout import DropoutSource
from tunesmith.models.layout import RaggedBatch
from tunesmith.tasks.base import Task
from tunesmith.tasks.running import extract_features, head_tensor, probabilities


@dataclass
class Tuned:
    """What trains and what it trains on top of.

    Args:
        backbone: the opened model, the delta attached and active.
        task: computes features and loss.
        head: of the task.
        delta: what trains besides the head.
    """

    backbone: Backbone
    task: Task
    head: nn.Module
    delta: Delta

    def parameters(self) -> list[nn.Parameter]:
        """Return everything that trains, the delta first."""
        return [*self.delta.parameters(), *self.head.parameters()]

    def tensors(self) -> list[Tensor]:
        """Return what trains, and what else of delta and head is computed with."""
        modules = [*self.delta.modules(), self.head]
        return [*self.parameters(), *(buffer for module in modules for buffer in module.buffers())]

    def train(self, training: bool) -> None:
        """Switch dropout on or off everywhere.

        Args:
            training: True for a training step.
        """
        self.backbone.model.train(training)
        self.head.train(training)
        self.delta.train(training)

    def loss(self, batch: RaggedBatch, smoothing: float) -> Tensor:
        """Compute a batch's loss.

        Args:
            batch: with labels.
            smoothing: share of the target spread over all classes. [fraction]
        Returns:
            A scalar that carries gradients.
        """
        self.backbone.seams.use(self.delta.name)
        return self.loss_of(self.task.read(self.backbone, batch), batch, smoothing)

    def loss_of(self, outputs: Tensor, batch: RaggedBatch, smoothing: float) -> Tensor:
        """Compute a batch's loss from what was read.

        Args:
            outputs: (items, D), from the task's `read`.
            batch: with labels or learned tokens.
            smoothing: share of the target spread over all classes. [fraction]
        Returns:
            A scalar that carries gradients.
        """
        return self.task.loss_of(self.backbone, self.head, self.delta, outputs, batch, smoothing)

    def head_tensor(self) -> Tensor:
        """Return a tensor of the type and device that the head computes with."""
        return head_tensor(self.head)

    def seed_head(self, seed: int) -> None:
        """Start the head's own stream of dropout masks.

        Args:
            seed: of the stream.
        """
        for source in self._head_sources():
            source.seed(seed)

    def _head_sources(self) -> list[DropoutSource]:
        found = [getattr(module, "source", None) for module in self.head.modules()]
        return [source for source in found if isinstance(source, DropoutSource)]

    def streams(self) -> dict[str, Any]:
        """Return where the delta's and the head's streams of dropout masks stand.

        Returns:
            A state for `set_streams`.
        """
        own = self.backbone.seams.own_dropout(self.delta.name)
        return {"delta": own.state, "head": [source.state for source in self._head_sources()]}

    def set_streams(self, state: Mapping[str, Any]) -> None:
        """Put the streams of dropout masks where they stood.

        Args:
            state: from `streams`.
        """
        self.backbone.seams.own_dropout(self.delta.name).state = state["delta"]
        for source, found in zip(self._head_sources(), state["head"], strict=True):
            source.state = found

    def features(self, tokens: TokenRows) -> Tensor:
        """Compute what the head reads of many rows.

        Args:
            tokens: the rows.
        Returns:
            (rows, D), on the CPU.
        """
        self.backbone.seams.use(self.delta.name)
        return extract_features(self.backbone, self.task, tokens)

    def probabilities(self, tokens: TokenRows) -> Tensor:
        """Answer many rows.

        Args:
            tokens: the rows.
        Returns:
            (rows, C), float64, on the CPU; of rows in several wordings the mean over them.
        """
        self.backbone.seams.use(self.delta.name)
        found = [extract_features(self.backbone, self.task, rows) for rows in tokens.wordings]
        return torch.stack([probabilities(self.head, features) for features in found]).mean(0)

    def state(self) -> list[Tensor]:
        """Copy what trains.

        Returns:
            One tensor per parameter, in the order of `parameters`.
        """
        return [parameter.detach().clone() for parameter in self.parameters()]

    @torch.no_grad()
    def restore(self, state: list[Tensor]) -> None:
        """Go back to a copied state.

        Args:
            state: from `state`.
        """
        for parameter, kept in zip(self.parameters(), state, strict=True):
            parameter.copy_(kept)
