"""Learned gates of fused methods: one number per layer and method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.prefixed import Prefix
from tunesmith.models.soft_prompts import PrefixPrompt, SoftPrompt
from tunesmith.models.structure import stacks


class Gates:
    """One gate per layer and method, all starting at one.

    Args:
        blocks: dotted names of the layers.
        dtype: of the gates.
    """

    def __init__(self, blocks: list[str], dtype: torch.dtype) -> None:
        self._blocks = blocks
        self._dtype = dtype
        self._found: dict[tuple[str, int], nn.Parameter] = {}

    def of(self, path: str, method: int) -> nn.Parameter:
        """Return the gate of the layer that a module is in; modules outside all layers share one.

        Args:
            path: dotted name of the module.
            method: number of the method.
        Returns:
            The parameter, a scalar.
        """
        block = next((block for block in self._blocks if f"{path}.".startswith(f"{block}.")), "")
        return self._found.setdefault((block, method), nn.Parameter(torch.ones((), dtype=self._dtype)))


def gates_of(model: nn.Module) -> Gates:
    """Make the gates of a model's layers.

    Args:
        model: the model.
    Returns:
        The gates.
    """
    double = next(model.parameters()).dtype == torch.float64
    return Gates([block for stack in stacks(model) for block in stack], torch.float64 if double else torch.float32)


class GatedPrefix(PrefixPrompt):
    """A prefix whose values are scaled by a gate per layer.

    Args:
        inner: the prefix.
        gates: per layer of the prefix.
    """

    def __init__(self, inner: PrefixPrompt, gates: list[nn.Parameter]) -> None:
        super().__init__(inner.layers, inner.length)
        self.inner = inner
        self.gates = nn.ParameterList(gates)

    @classmethod
    def around(cls, prompt: SoftPrompt, gates: Gates, method: int) -> GatedPrefix:
        """Gate a prefix.

        Args:
            prompt: of a method.
            gates: of the model.
            method: its number.
        Returns:
            The gated prefix.
        Raises:
            CompatibilityError: virtual tokens have no layer to gate at.
        """
        if not isinstance(prompt, PrefixPrompt):
            raise CompatibilityError(
                "fusion: gate=true gates what happens in layers; virtual tokens come before all of them. Use prefix, "
                "or gate=false."
            )
        return cls(prompt, [gates.of(layer.path, method) for layer in prompt.layers])

    def flat(self) -> Tensor:
        """Return the ungated prefix, (P, numbers)."""
        return self.inner.flat()

    def prefixes(self) -> dict[nn.Module, Prefix]:
        """Return keys, and values times their layer's gate."""
        found = self.inner.prefixes()
        gated = zip(self.layers, self.gates, strict=True)
        return {layer.module: (found[layer.module][0], found[layer.module][1] * gate) for layer, gate in gated}
