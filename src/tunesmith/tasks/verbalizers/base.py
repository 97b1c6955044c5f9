"""What a verbalizer is: which texts stand for a label, and how scores of labels come of what the model says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tunesmith.models.dropout import DropoutSource
from tunesmith.prompts.prompt import Prompt


class Verbalizer:
    """Base of every verbalizer. A verbalizer's file registers one subclass with `@register("verbalizers")`.

    `reads` names what its head is given: "scores", log p of every word, (R, W); "said", what the model's output map is
    given at the answer's place, (R, D); or "state", the hidden state there, (R, D). With a sentence encoder every
    verbalizer reads the row's vector, (R, D). `trains` says whether the head has parameters, `from_rows` whether they
    start from training rows. `key` names where the recipe has the texts.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["scores", "said", "state"]] = "scores"
    trains: ClassVar[bool] = False
    from_rows: ClassVar[bool] = False
    key: ClassVar[str] = "prompt.label_words"

    def texts(self, prompt: Prompt, labels: Sequence[str]) -> list[list[str]]:
        """Return the texts that stand for each label.

        Args:
            prompt: with words and descriptions.
            labels: as in the data.
        Returns:
            Per label, at least one text.
        Raises:
            RecipeError: a label without one, or texts that do not tell labels apart.
        """
        return prompt.words_of(labels)


class WordHead(nn.Module):
    """score of a label = log of the mean probability of its words - log of the label's prior.

    Args:
        owners: which label each word stands for.
        classes: C.
    """

    def __init__(self, owners: Sequence[int], classes: int) -> None:
        super().__init__()
        words: list[list[int]] = [[] for _ in range(classes)]
        for word, owner in enumerate(owners):
            words[owner].append(word)
        most = max(map(len, words))  # M
        padded = [[*some, *[some[0]] * (most - len(some))] for some in words]
        shares = [[-math.log(len(some))] * len(some) + [-math.inf] * (most - len(some)) for some in words]
        self._words, self._shares = torch.tensor(padded), torch.tensor(shares)  # (C, M): (C, W) would be C times more
        self.register_buffer("prior", torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, W) to (R, C)."""
        own = x[:, self._words.to(x.device)] + self._shares.to(x)  # (R, C, M)
        return torch.logsumexp(own, dim=-1) - self.prior.to(x)  # type: ignore[operator]


class TextHead(nn.Module):
    """scores = scale * cos(x, w_c) - log of the label's prior.

    Args:
        width: D.
        classes: C.
        scale: of the cosines.
        trains: whether w is a parameter; else it stays where it starts.
    """

    def __init__(self, width: int, classes: int, scale: float, trains: bool) -> None:
        super().__init__()
        weight = torch.zeros(classes, width)
        if trains:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        self.register_buffer("prior", torch.zeros(classes))
        self.scale, self.source = scale, DropoutSource()

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, D) to (R, C)."""
        normal = nn.functional.normalize
        cosines = nn.functional.linear(normal(x.to(self.weight.dtype), dim=-1), normal(self.weight, dim=-1))
        return self.scale * cosines - self.prior.to(x)  # type: ignore[operator]


class OutputHead(nn.Module):
    """scores = x W^T + b - log of the label's prior, W and b from the model's own output map.

    Args:
        width: D.
        classes: C.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("prior", torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, D) to (R, C)."""
        found = nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)
        return found - self.prior.to(found)  # type: ignore[operator]
