"""Mixup of embeddings and hidden states."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.training.synthetic.base import Draw, MixingInside, Rows


@register("synthetic")
class ManifoldMixup(MixingInside):
    """Rows are mixed token by token inside the model, at a layer drawn for every step, and their labels with them.

    h_t = lam h_t(i) + (1 - lam) h_t(j) where row j has a token t; other tokens of row i stay as they are.

    Source: Verma et al. 2019, arXiv:1806.05236, section 2; of texts Chen et al. 2020, arXiv:2004.12239, who pad rows to
    one length instead.
    """

    name: ClassVar[str] = "manifold-mixup"
    paper: ClassVar[str] = "Verma et al. 2019, arXiv:1806.05236"

    def make(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
        """Mix the labels as the model has mixed the rows."""
        self.layer(draw)
        pairs = self.pairs(len(rows.features), draw)
        return rows.features, pairs.mixed(rows.targets), np.arange(len(rows.features))
