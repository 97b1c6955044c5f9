"""Soft prompts: what a delta lets every one of its rows see besides its own tokens.

A prefix is keys and values in front of every attention layer's own. Virtual tokens are embeddings that go through
the model like tokens: in a causal model they run once per pass, and every row sees the keys and values they leave;
in an encoder they stand inside every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError
from tunesmith.models.prefixed import Prefix

Place = Literal["start", "after-first"]
_NAME = "prompt_embeddings"  # PEFT's name for what a soft prompt comes to


@dataclass(frozen=True)
class Layer:
    """One attention layer that can be given keys and values.

    Args:
        module: the layer.
        path: its dotted name.
        heads: of its keys. [count]
        width: of a head.
        cross: whether it reads another sequence.
    """

    module: nn.Module
    path: str
    heads: int
    width: int
    cross: bool

    @property
    def numbers(self) -> int:
        """Numbers of a virtual token's key and value together. [count]"""
        return 2 * self.heads * self.width


class SoftPrompt(nn.Module):
    """Base of prefixes and virtual tokens.

    Args:
        length: P. [tokens]
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def flat(self) -> Tensor:
        """Return what the prompt comes to, as one matrix.

        Returns:
            (P, numbers), with gradients.
        """
        raise NotImplementedError

    def exported(self) -> dict[str, Tensor]:
        """Return what other programs read; what only training needs is left out.

        Returns:
            PEFT's names to tensors, on the CPU.
        """
        return {_NAME: self.flat().detach().cpu().clone()}

    @torch.no_grad()
    def load_exported(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over what `exported` returned; the prompt must hold it directly.

        Args:
            tensors: names to tensors.
            where: their file, for errors.
        Raises:
            CheckpointError: names or shapes differ.
        """
        own = dict(self.named_parameters())
        if own.keys() != tensors.keys():
            raise CheckpointError(f"{where} holds {sorted(tensors)}; a soft prompt of this method holds {sorted(own)}.")
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise CheckpointError(
                    f"{where}: '{name}' has shape {tuple(tensors[name].shape)}, the model needs "
                    f"{tuple(parameter.shape)}. It was made for another base model or another length."
                )
            parameter.copy_(tensors[name])


class PrefixPrompt(SoftPrompt):
    """Keys and values for a list of attention layers.

    Args:
        layers: in the order of their calls.
        length: P. [tokens]
        every_second: layer i takes the pair of keys and values number 2 i modulo the layers, as PEFT does in models
            with encoder and decoder; half of the pairs are then not read.
    """

    def __init__(self, layers: list[Layer], length: int, every_second: bool = False) -> None:
        super().__init__(length)
        self.layers = layers
        self.pairs = [2 * i % len(layers) if every_second else i for i in range(len(layers))]

    def prefixes(self) -> dict[nn.Module, Prefix]:
        """Cut the matrix into keys and values: for every layer first its keys, then its values.

        Returns:
            Per layer, (heads, P, width) twice.
        """
        found = {}
        parts = self.flat().split([layer.numbers for layer in self.layers], dim=1)
        for layer, pair in zip(self.layers, self.pairs, strict=True):
            key, value = parts[pair].view(self.length, 2, layer.heads, layer.width).permute(1, 2, 0, 3)
            found[layer.module] = (key, value)
        return found


class TokenPrompt(SoftPrompt):
    """Virtual tokens.

    Args:
        length: P. [tokens]
        place: where they stand in the rows of an encoder: before everything, or after the first token, so that
            what reads the first position still finds it.
    """

    def __init__(self, length: int, place: Place) -> None:
        super().__init__(length)
        self.place = place


class Plain:
    """Mixed into a prompt whose matrix is its parameter."""

    prompt_embeddings: nn.Parameter

    def flat(self) -> Tensor:
        """Return the parameter, (P, numbers)."""
        return self.prompt_embeddings
