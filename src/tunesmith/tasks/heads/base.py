"""What a head is: the map from features, of texts or images, to logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.settings import Component


@dataclass(frozen=True)
class Start:
    """What a head may start from.

    Args:
        features: (rows, D), of the training rows.
        labels: (rows,), int64.
        label_features: (C, D), of the labels' texts; None where nobody reads them.
        directions: (C, D), unit vectors where the task says that class vectors start; None for random ones.
    """

    features: Tensor
    labels: Tensor
    label_features: Tensor | None = None
    directions: Tensor | None = None


class Head(Component):
    """Base of every head. A head's file registers one subclass with `@register("heads")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    has_vectors: ClassVar[bool] = False  # a `weight`, (C, D), with a vector per class
    keeps_rows: ClassVar[bool] = False  # the module is a RowsHead
    fits_rows: ClassVar[bool] = False  # its start is a fit to the training rows, for which a draw of them will not do
    compares_rows: ClassVar[bool | None] = None  # in training, with those kept; where it keeps rows if empty
    needs_label_text: ClassVar[bool] = False

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module, untrained.

        Args:
            width: D.
            classes: C.
            scale: of cosines.
            dropout: before the head, while training. [fraction]
        Returns:
            (R, D) -> (R, C).
        """
        raise NotImplementedError

    @torch.no_grad()
    def start(self, module: nn.Module, start: Start, scale: float) -> None:
        """Give the module its starting values; class vectors are copied, and heads that keep rows keep them.

        Args:
            module: from `build`.
            start: what it may start from.
            scale: of cosines.
        """
        if isinstance(module, RowsHead):
            module.keep(start.features, start.labels)
        elif start.directions is not None:
            module.weight.copy_(start.directions)  # type: ignore[operator]


class RowsHead(nn.Module):
    """Base of modules that answer from rows they keep: features (S, D) and labels (S,) of training rows.

    Rows of a batch in training take the place of what is kept of them, so that they carry gradients, and no row answers
    for itself where its class has others.

    Args:
        width: D.
        classes: C.
    """

    rows: Tensor
    labels: Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.class_count = classes
        self.register_buffer("rows", torch.zeros(0, width))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def allocate(self, rows: int) -> None:
        """Make room for rows, before they are loaded.

        Args:
            rows: S. [count]
        """
        self.rows = self.rows.new_zeros(rows, self.rows.shape[1])
        self.labels = self.labels.new_zeros(rows)

    def keep(self, features: Tensor, labels: Tensor) -> None:
        """Keep rows in place of those kept before.

        Args:
            features: (S, D).
            labels: (S,), int64.
        """
        self.rows = features.detach().to(self.rows).clone()
        self.labels = labels.to(self.labels).clone()

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, D) to (R, C)."""
        return self.answer(x.to(self.rows.dtype), self.rows, None)

    def learn(self, x: Tensor, index: Tensor) -> Tensor:
        """Answer rows that are among those kept.

        Args:
            x: (R, D), features with gradients.
            index: (R,), int64, which of the kept rows they are.
        Returns:
            (R, C).
        """
        x = x.to(self.rows.dtype)
        return self.answer(x, self.rows.index_copy(0, index, x), index)

    def answer(self, x: Tensor, rows: Tensor, own: Tensor | None) -> Tensor:
        """Compute logits.

        Args:
            x: (R, D).
            rows: (S, D), what is answered from.
            own: (R,), int64, which of the rows each of x is; None where it is none of them.
        Returns:
            (R, C).
        """
        raise NotImplementedError

    def hidden(self, own: Tensor) -> Tensor:
        """Say which rows each row in training must not read: itself, where its class has others.

        Args:
            own: (R,), int64.
        Returns:
            (R, S), bool.
        """
        counts = torch.bincount(self.labels, minlength=self.class_count)
        several = counts[self.labels[own]] > 1
        mask = torch.zeros(len(own), len(self.labels), dtype=torch.bool, device=own.device)
        mask[torch.arange(len(own), device=own.device), own] = several
        return mask


def unit(x: Tensor) -> Tensor:
    """Scale vectors to length one.

    Args:
        x: (..., D).
    Returns:
        (..., D).
    """
    return nn.functional.normalize(x, dim=-1)


def class_sums(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Add vectors up by class.

    Args:
        values: (rows, D).
        labels: (rows,), int64.
        classes: C.
    Returns:
        (C, D).
    """
    one_hot = nn.functional.one_hot(labels, classes).to(values.dtype)
    return one_hot.T @ values  # a product: adding by index has another order at every run on a GPU


def class_logsumexp(scores: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Add up powers by class.

    Args:
        scores: (R, S).
        labels: (S,), int64.
        classes: C.
    Returns:
        (R, C): log of the sum of exp(scores) over the rows of each class.
    """
    highest = scores.amax(1, keepdim=True).detach()
    one_hot = nn.functional.one_hot(labels, classes).to(scores.dtype)
    return ((scores - highest).exp() @ one_hot).clamp(min=torch.finfo(scores.dtype).tiny).log() + highest


def label_mix(start: Start, like: Tensor, share: float) -> Tensor:
    """Mix the directions of the class means and of the labels' texts.

    Args:
        start: with the labels' texts where the model reads text.
        like: (C, D), whose type and device the answer has.
        share: of the texts, where there are any. [fraction]
    Returns:
        (C, D), of length one.
    """
    means = unit(class_sums(unit(start.features.to(like)), start.labels, len(like)))
    if start.label_features is None:
        return means
    return unit((1 - share) * means + share * unit(start.label_features.to(like)))


def load_head(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Load what a run saved.

    Args:
        module: a fresh one of the same head; it takes the precision of what was saved.
        tensors: of the run.
    Returns:
        Whether they fit; nothing is loaded where they do not.
    """
    for place, part in module.named_modules():
        rows = tensors.get(f"{place}.rows".lstrip("."))
        if isinstance(part, RowsHead) and rows is not None:
            part.allocate(len(rows))
    own = module.state_dict()
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
        return False
    precise = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None)
    module.to(dtype=precise).load_state_dict(dict(tensors))
    return True
