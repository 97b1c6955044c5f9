"""A delta: the trained parameters of one method on one model, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, CompatibilityError

if TYPE_CHECKING:
    from tunesmith.models.seams import Seams


class Delta:
    """Trained parameters attached to a model's seams.

    Args:
        seams: of the model.
        name: of the delta.
        patches: per linear map's path, the module that computes with it.
        copies: per parameter's dotted name, the trained copy that stands in for it while the delta is active.
        prompt: soft prompt at the attention or the embedding seam, or None.
    """

    def __init__(
        self,
        seams: Seams,
        name: str,
        patches: dict[str, nn.Module],
        copies: dict[str, nn.Parameter],
        prompt: nn.Module | None = None,
    ) -> None:
        self.seams = seams
        self.name = name
        self.patches = patches
        self.copies = copies
        self.prompt = prompt
        self.places = seams.owners(copies)  # (path of the module, its parameter's name, the copy)
        self._replaced: list[tuple[nn.Module, str, nn.Parameter | None]] = []

    def modules(self) -> list[nn.Module]:
        """Return the modules that hold what trains, copies aside."""
        return [*self.patches.values(), *([self.prompt] if self.prompt is not None else [])]

    def train(self, training: bool) -> None:
        """Switch the delta's own dropout on or off.

        Args:
            training: True for a training step.
        """
        for module in self.modules():
            module.train(training)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Go through what trains.

        Returns:
            (dotted name, parameter), patches first.
        """
        for path, patch in self.patches.items():
            for name, parameter in patch.named_parameters():
                yield f"{path}.{name}", parameter
        yield from self.copies.items()
        if self.prompt is not None:
            yield from self.prompt.named_parameters()

    def parameters(self) -> list[nn.Parameter]:
        """Return what trains, for an optimizer."""
        return [parameter for _, parameter in self.named_parameters()]

    @property
    def trainable_share(self) -> float:
        """Trained numbers over the model's numbers. [fraction]"""
        trained = sum(parameter.numel() for parameter in self.parameters())
        return trained / sum(parameter.numel() for parameter in self.seams.model.parameters())

    def state(self) -> dict[str, Tensor]:
        """Return the delta's tensors.

        Returns:
            Dotted name to tensor, detached, on the CPU.
        """
        return {name: parameter.detach().cpu().clone() for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], where: str = "the saved delta") -> None:
        """Take values from tensors; all names and shapes must agree.

        Args:
            tensors: as `state` returns them.
            where: what to call their source in an error.
        Raises:
            CheckpointError: a name is missing or unknown, or a shape differs.
        """
        own = dict(self.named_parameters())
        if own.keys() != tensors.keys():
            missing = sorted(own.keys() - tensors.keys())[:3]
            foreign = sorted(tensors.keys() - own.keys())[:3]
            raise CheckpointError(
                f"{where} does not fit the model. Missing: {missing or 'none'}; unknown: {foreign or 'none'}. "
                "It was made for another base model or by another method."
            )
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise CheckpointError(
                    f"{where}: '{name}' has shape {tuple(tensors[name].shape)}, the model needs "
                    f"{tuple(parameter.shape)}. It was made for another base model or other settings."
                )
            parameter.copy_(tensors[name])

    def detach(self) -> None:
        """Take the delta off its model; the model answers as before, bit for bit."""
        self.seams.detach(self.name)

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Write the delta into the base weights and take it off.

        Returns:
            The model, which now answers by itself as it did with the delta.
        Raises:
            CompatibilityError: the delta is not attached any more.
        """
        if self.seams.deltas.get(self.name) is not self:
            raise CompatibilityError(f"delta '{self.name}' is not attached, so it cannot be merged (again).")
        if self.prompt is not None:
            raise CompatibilityError(
                f"delta '{self.name}' has a soft prompt, which no weight can hold, so it cannot be merged. "
                "Keep it attached."
            )
        for path, patch in self.patches.items():
            seam = self.seams.linear[path]
            change, shift = patch.weight_change(seam), patch.bias_change(seam)  # type: ignore[operator]
            seam.add_to_weight(change)
            if shift is not None:
                seam.add_to_bias(shift)
        values = {path: copy.detach() for path, copy in self.copies.items()}
        self.detach()
        for path, value in values.items():
            self.seams.parameter(path).copy_(value)
        return self.seams.model

    def swap_in(self) -> None:
        """Put the trained copies in the place of the model's parameters, at every module that shares one."""
        for path, leaf, copy in self.places:
            module = self.seams.model.get_submodule(path)
            self._replaced.append((module, leaf, module._parameters[leaf]))
            module._parameters[leaf] = copy

    def swap_out(self) -> None:
        """Put the model's own parameters back."""
        for module, leaf, parameter in self._replaced:
            module._parameters[leaf] = parameter
        self._replaced.clear()
