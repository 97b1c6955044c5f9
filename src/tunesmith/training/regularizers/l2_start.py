"""L2 penalty towards the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import OnParameters


@register("regularizers")
class L2Start(OnParameters):
    """Adds strength / 2 x the squared distance from where parameters began to the loss.

    Source: Li et al. 2018, arXiv:1802.01483, eq. 2.
    """

    name: ClassVar[str] = "l2-start"
    paper: ClassVar[str] = "Li et al. 2018, arXiv:1802.01483"
    reads_start: ClassVar[bool] = True

    strength: float = setting(1e-2, "Factor of half the squared distance.", gt=0)

    def penalty(self, now: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor | None:
        """Add up squared distances."""
        squares = [(one - first).square().sum() for one, first in zip(now, start, strict=True)]
        return self.strength / 2 * torch.stack(squares).sum()
