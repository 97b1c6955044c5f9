"""L2 penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import OnParameters


@register("regularizers")
class L2(OnParameters):
    """Adds strength / 2 x the sum of squares to the loss; unlike AdamW's weight decay it is part of the gradient.

    Source: Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634.
    """

    name: ClassVar[str] = "l2"
    paper: ClassVar[str] = "Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634"

    strength: float = setting(1e-3, "Factor of half the sum.", gt=0)

    def penalty(self, now: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor | None:
        """Add up squares."""
        return self.strength / 2 * torch.stack([one.square().sum() for one in now]).sum()
