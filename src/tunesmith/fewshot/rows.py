"""Labelled rows as features of a model with a delta: images or texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.data.tokens import TokenRows
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.layout import ragged
from tunesmith.models.placing import device_of
from tunesmith.tasks.labelling import LabelTask
from tunesmith.training.batching import cut_by_length


class Rows:
    """Rows that a model turns into features; a learner asks for them by number."""

    width: int  # D
    most: int = 256  # that a pass without gradients holds, counted by `size`

    def __len__(self) -> int:
        raise NotImplementedError

    def features(self, rows: Tensor) -> Tensor:
        """Run the model, with the delta in use, over some rows.

        Args:
            rows: their numbers, of any shape.
        Returns:
            (..., D), with gradients where they are enabled.
        """
        raise NotImplementedError

    @contextmanager
    def twice(self) -> Iterator[None]:
        """Let gradients inside the block be differentiated again; without a delta nothing need be done."""
        yield

    def size(self, row: int) -> int:
        """Say what a row counts for in a pass: tokens of a text, 1 of an image."""
        return 1

    @torch.no_grad()
    def known(self, rows: Tensor, per_pass: int | None = None) -> KnownRows:
        """Compute the features of rows once, for what reads them often and trains nothing below them.

        Args:
            rows: numbers, of any shape, some of them twice.
            per_pass: most tokens of texts, or images, that run together; `most` when None. [count]
        Returns:
            Rows of the same numbers.
        """
        needed = rows.unique()
        parts = cut_by_length([self.size(row) for row in needed.tolist()], per_pass or self.most)
        found = torch.cat([self.features(needed[part]) for part in parts])
        order = torch.tensor([place for part in parts for place in part], device=found.device).argsort()
        return KnownRows(needed, found[order])


class KnownRows(Rows):
    """Rows whose features were computed before.

    Args:
        numbers: of the rows, rising.
        found: (rows, D).
    """

    def __init__(self, numbers: Tensor, found: Tensor) -> None:
        self.numbers, self.found, self.width = numbers, found, found.shape[-1]

    def __len__(self) -> int:
        return len(self.numbers)

    def features(self, rows: Tensor) -> Tensor:
        """Look features up."""
        return self.found[torch.searchsorted(self.numbers, rows)]


class ImageRows(Rows):
    """Images of one size before an encoder that gives a vector per image.

    Args:
        model: (rows, channels, height, width) to (rows, D); it has a `width`.
        images: (rows, channels, height, width).
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model, self.images = model, images
        self.width = int(model.width)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.images)

    def features(self, rows: Tensor) -> Tensor:
        """Encode images."""
        found: Tensor = self.model(self.images[rows.flatten()].to(device_of(self.model)))
        return found.view(*rows.shape, -1)


class TextRows(Rows):
    """Token rows before a text model with its pooling.

    Args:
        backbone: the model.
        task: that pools the rows, with every setting decided.
        tokens: the rows.
    """

    most = 8192

    def __init__(self, backbone: Backbone, task: LabelTask, tokens: TokenRows) -> None:
        self.backbone, self.task, self.tokens = backbone, task, tokens
        self.width = backbone.width

    def __len__(self) -> int:
        return len(self.tokens)

    def size(self, row: int) -> int:
        """Count a row's tokens."""
        return int(self.tokens.lengths[row])

    def features(self, rows: Tensor) -> Tensor:
        """Encode texts; a row that is asked for twice runs once."""
        needed, places = rows.unique(return_inverse=True)
        batch = ragged([torch.from_numpy(np.asarray(self.tokens[int(row)])) for row in needed])
        order = batch.index.argsort()[places]  # a batch sorts its rows by length
        return self.task.read(self.backbone, batch)[order.to(self.backbone.device)]

    @contextmanager
    def twice(self) -> Iterator[None]:
        """Run the model's own path inside the block: fused nodes give first gradients only."""
        with self.backbone.differentiable_twice():
            try:
                yield
            except RuntimeError as error:
                if "once_differentiable" not in str(error):
                    raise
                raise CompatibilityError(
                    "learner.order=second needs gradients of gradients, which this method or a quantised base does "
                    "not give. Take order=first, or method lora or full on a base in full precision."
                ) from None


class FastWeights:
    """Other tensors in the place of what a delta trains, for as long as a block runs.

    Args:
        delta: in use.
    """

    def __init__(self, delta: Delta) -> None:
        model = delta.seams.model
        places: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in delta.modules():
            for part in module.modules():
                for leaf, own in part._parameters.items():
                    if own is not None:
                        places.setdefault(id(own), []).append((part, leaf))
        for path, leaf, own in delta.places:
            places.setdefault(id(own), []).append((model.get_submodule(path), leaf))
        self.own: list[nn.Parameter] = list(delta.parameters())
        self._places = [places[id(own)] for own in self.own]

    @contextmanager
    def standing_in(self, tensors: list[Tensor]) -> Iterator[None]:
        """Let tensors stand in for the parameters.

        Args:
            tensors: in the order of `own`.
        """
        before = [(module, leaf, module._parameters[leaf]) for found in self._places for module, leaf in found]
        try:
            for found, tensor in zip(self._places, tensors, strict=True):
                for module, leaf in found:
                    module._parameters[leaf] = tensor  # type: ignore[assignment]
            yield
        finally:
            for module, leaf, own in before:
                module._parameters[leaf] = own
