"""Mixup of features."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.training.synthetic.base import Draw, Mixing, Rows


@register("synthetic")
class Mixup(Mixing):
    """The head learns mixtures of two rows' features and of their labels, in one proportion per step.

    x = lam x_i + (1 - lam) x_j, q = lam q_i + (1 - lam) q_j, lam ~ Beta(alpha, alpha)

    Source: Zhang et al. 2018, arXiv:1710.09412, eq. 1. Differs: on what the head reads, not on inputs.
    """

    name: ClassVar[str] = "mixup"
    paper: ClassVar[str] = "Zhang et al. 2018, arXiv:1710.09412"

    def make(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
        """Mix both."""
        pairs = self.pairs(len(rows.features), draw)
        return pairs.mixed(rows.features), pairs.mixed(rows.targets), np.arange(len(rows.features))
