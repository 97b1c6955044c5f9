"""Tasks that give every row one label: a head on the model's pooled output."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from tunesmith.core.errors import RecipeError
from tunesmith.core.named import build_named
from tunesmith.core.settings import setting
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.layout import Layout, RaggedBatch
from tunesmith.tasks.base import Task
from tunesmith.tasks.heads.base import Head, RowsHead, Start, unit
from tunesmith.tasks.loss import Classes, Learned, Loss
from tunesmith.tasks.rejecting import Rejecting, RejectSettings, plain

_TEXT_STARTS = ("label-text", "prototypes+label-text")


class LabelTask(Task):
    """Base of tasks with a label per row, of texts or images: heads and losses are components of their own."""

    own_settings: ClassVar[tuple[str, ...]] = ("head_kind", "head_start", "head_scale", "head_dropout", "losses")

    head_kind: str | dict[str, Any] = setting(
        "cosine", "The head by name, or a mapping with its settings: see `tunesmith list heads`."
    )
    head_start: Literal["prototypes", "random", "label-text", "prototypes+label-text"] = setting(
        "prototypes",
        "Where class vectors start: class means of the frozen features, random numbers, the labels' texts, or the mean "
        "direction of means and texts.",
    )
    head_scale: float = setting(20.0, "Scale of a head's cosines.", gt=0)
    head_dropout: float = setting(0.1, "Dropout before a trained head.", unit="fraction", ge=0, lt=1)
    reject: RejectSettings | None = setting(
        None, "Reject rows that belong to no label; predictions say out-of-scope. Never when empty."
    )
    losses: list[str | dict[str, Any]] = setting(
        ["cross-entropy"],
        "What is minimised: losses by name, or mappings with their settings and `weight`, added up.",
        min_length=1,
    )

    @field_validator("head_kind")
    @classmethod
    def _head_exists(cls, value: Any) -> Any:
        build_named("heads", value)
        return value

    @field_validator("losses")
    @classmethod
    def _losses_exist(cls, value: list[Any]) -> list[Any]:
        for one in value:
            build_named("losses", one)
        return value

    @model_validator(mode="after")
    def _head_and_losses_fit(self) -> LabelTask:
        head, read = self.head_component, {loss.reads for loss in self.loss_components}
        if "vectors" in read and not head.has_vectors:
            name = next(loss.name for loss in self.loss_components if loss.reads == "vectors")
            raise ValueError(
                f"task.losses: {name} compares with class vectors, which the head {head.name} does not have. Take the "
                "head cosine or proxies, or another loss"
            )
        drawn = next((loss.name for loss in self.loss_components if loss.copies > 1), None)
        if drawn is not None and head.keeps_rows:
            raise ValueError(
                f"task.losses: {drawn} has every row twice in a step, and the head {head.name} keeps each once. Take "
                "the head cosine or linear"
            )
        if drawn is not None and len(self.loss_components) > 1:
            raise ValueError(
                f"task.losses: {drawn} has every row twice in a step, so it stands alone; it holds the cross-entropy"
            )
        if self.compares_rows and self.copies > 1:
            raise ValueError(
                f"task.losses: a loss reads every row several times in a step, and the head {head.name} compares rows "
                "with each other. Take a head with class vectors, or another loss"
            )
        if head.has_vectors and read == {"features"}:
            raise ValueError(
                f"task.losses: no loss reads the head {head.name}, so it would not train. Add cross-entropy, or take a "
                "head that keeps rows (prototypes, matching, nearest-neighbours)"
            )
        return self

    @cached_property
    def head_component(self) -> Head:
        """The head with its settings."""
        found: Head = build_named("heads", self.head_kind)
        return found

    @cached_property
    def loss_components(self) -> list[Loss]:
        """The losses with their settings."""
        return [build_named("losses", one) for one in self.losses]

    @property
    def separable(self) -> bool:
        """Whether a batch may be cut into parts whose losses are averaged."""
        return all(loss.separable for loss in self.loss_components) and not self.compares_rows

    @property
    def compares_rows(self) -> bool:
        """Whether the head answers from rows it keeps while it trains."""
        head = self.head_component
        return head.keeps_rows if head.compares_rows is None else head.compares_rows

    @property
    def copies(self) -> int:
        """How often a row stands in a step."""
        return max(loss.copies for loss in self.loss_components)

    # Model ----------------------------------------------------------------------------------------------------

    def features(self, backbone: Backbone, hidden: Tensor, layout: Layout) -> Tensor:
        """Reduce hidden states to what the head reads.

        Args:
            backbone: the model.
            hidden: (N, D).
            layout: of R rows.
        Returns:
            (R, D).
        """
        raise NotImplementedError

    def places(self, layout: Layout) -> Tensor | None:
        """Say which tokens `features` reads.

        Args:
            layout: of R rows.
        Returns:
            (R,), one of every row; None for all tokens.
        """
        return None

    def read(self, backbone: Backbone, batch: RaggedBatch) -> Tensor:
        """Run the model and pool each row; where one token of a row is read, the last block ends with it."""
        places = self.places(batch.layout)
        if places is None:
            return self.features(backbone, backbone.hidden(batch), batch.layout)
        return self.features(backbone, backbone.hidden_at(batch, places), Layout((1,) * batch.layout.rows))

    # Head -----------------------------------------------------------------------------------------------------

    def head(self, width: int, classes: int) -> nn.Module:
        """Make the head.

        Args:
            width: D.
            classes: C; with `reject` the last one is what is out of scope.
        Returns:
            (R, D) -> (R, C).
        """
        inside = classes if self.reject is None else classes - 1
        head = self.head_component.build(width, inside, self.head_scale, self.head_dropout)
        return head if self.reject is None else Rejecting(head, self.reject)

    @property
    def starts_from_features(self) -> bool:
        """Random numbers need no features, unless the head keeps rows or starts in a way of its own."""
        own = self.head_component.keeps_rows or self.head_component.needs_label_text
        return own or self.head_start != "random"

    @property
    def starts_from_all_rows(self) -> bool:
        """Whether the head keeps the training rows or is fitted to them, so that class means of some will not do."""
        return self.head_component.keeps_rows or self.head_component.fits_rows

    @property
    def reads_label_text(self) -> bool:
        """Whether the head starts from the labels' texts."""
        wanted = self.head_component.needs_label_text and self.reads == "text"  # of images, rows alone
        return wanted or self.head_start in _TEXT_STARTS

    def start(self, head: nn.Module, features: Tensor, labels: Tensor, label_features: Tensor | None = None) -> None:
        """Start class vectors at mean directions, labels' texts or between them; give rows to heads that keep them.

        Args:
            head: from `head`.
            features: (rows, D).
            labels: (rows,), int64.
            label_features: (C, D), of the labels' texts; None where nobody reads them.
        """
        head = plain(head)
        weight = getattr(head, "weight", None)
        directions = None if weight is None else self._directions(weight, features, labels, label_features)
        start = Start(features, labels, label_features, directions)
        self.head_component.start(head, start, self.head_scale)

    @torch.no_grad()
    def _directions(self, weight: Tensor, features: Tensor, labels: Tensor, texts: Tensor | None) -> Tensor | None:
        if self.head_start == "random":
            return None
        parts = []
        if self.head_start != "label-text":
            rows = unit(features.to(weight.dtype))
            sums = torch.zeros(weight.shape, dtype=rows.dtype)
            sums.index_add_(0, labels.cpu(), rows.cpu())  # a GPU would add in another order at every run
            parts.append(unit(sums).to(rows.device))
        if self.head_start in _TEXT_STARTS:
            assert texts is not None
            parts.append(unit(texts.to(weight)))
        return parts[0] if len(parts) == 1 else unit(parts[0] + parts[1])

    # Loss -----------------------------------------------------------------------------------------------------

    def loss_of(
        self, backbone: Backbone, head: nn.Module, delta: Delta, outputs: Tensor, batch: RaggedBatch, smoothing: float
    ) -> Tensor:
        """Apply the head and add up the losses, each a mean over the rows."""
        if self.copies > 1:
            outputs, batch = _copies_apart(outputs, batch, self.copies)
        assert batch.labels is not None
        head, labels = plain(head), batch.labels.to(outputs.device)
        soft = labels if labels.ndim == 2 else None
        labels = labels if soft is None else soft.argmax(-1)
        rows = isinstance(head, RowsHead)
        logits = head.learn(outputs, batch.index.to(outputs.device)) if rows else head(outputs)  # type: ignore[operator]
        known = getattr(plain(head), "known_classes", None)
        counts = known.counts.to(outputs.device) if isinstance(known, Classes) else None
        weights = _factors(known if isinstance(known, Classes) else None, labels, batch.weights, logits)
        learned = Learned(outputs, labels, logits, getattr(head, "weight", None), smoothing, soft, counts, weights)
        losses = self.loss_components
        hard = [loss.name for loss in losses if soft is not None and not loss.learns_soft]
        if hard:
            raise RecipeError(
                f"task.losses: {', '.join(hard)} cannot learn soft labels (data.soft_labels, data.teacher). Take "
                "cross-entropy alone."
            )
        found = [loss.weight * loss.compute(learned) for loss in losses]
        return found[0] if len(found) == 1 else torch.stack(found).sum()


def _copies_apart(outputs: Tensor, batch: RaggedBatch, copies: int) -> tuple[Tensor, RaggedBatch]:
    """Put a step's rows in the order in which losses compare copies: every row once, then every row once more.

    A batch lies by length, so copies of several rows of one length are mixed there.
    """
    assert batch.labels is not None
    by_row = batch.index.argsort(stable=True)
    order = torch.cat([by_row[copy::copies] for copy in range(copies)])
    weights = None if batch.weights is None else batch.weights[order.to(batch.weights.device)]
    labels, index = batch.labels[order.to(batch.labels.device)], batch.index[order]
    return outputs[order.to(outputs.device)], replace(batch, labels=labels, index=index, weights=weights)


def _factors(known: Classes | None, labels: Tensor, rows: Tensor | None, like: Tensor) -> Tensor | None:
    """Multiply the factors of the rows' classes with the rows' own, (R,); None where all weigh the same."""
    found = None if known is None or known.weights is None else known.weights.to(like)[labels]
    if rows is None:
        return found
    own = rows.to(like)
    return own if found is None else own * found
