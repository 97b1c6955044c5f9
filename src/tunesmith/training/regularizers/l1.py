"""L1 penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.regularizers.base import OnParameters


@register("regularizers")
class L1(OnParameters):
    """Adds strength x the sum of absolute values to the loss; its gradient is strength x sign.

    Source: Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x.
    """

    name: ClassVar[str] = "l1"
    paper: ClassVar[str] = "Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x"

    strength: float = setting(1e-5, "Factor of the sum.", gt=0)

    def penalty(self, now: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor | None:
        """Add up absolute values."""
        return self.strength * torch.stack([one.abs().sum() for one in now]).sum()
