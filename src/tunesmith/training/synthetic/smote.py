"""Synthetic rows of rare classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.synthetic.base import Draw, Rows, Synthetic, wanted_rows


@register("synthetic")
class Smote(Synthetic):
    """Rows of rare classes bring synthetic ones along, between their features and those of a near row of their class.

    x = x_i + u (x_j - x_i), u ~ U(0, 1), x_j one of the nearest rows of the class as the model last saw them. A row of
    class c brings n_max / n_c - 1 on average, at most `most`, so that the head sees all classes equally often.

    Source: Chawla et al. 2002, arXiv:1106.1813, section 4.2. Differs: features of the model in training, made anew in
    every step, with gradients through x_i.
    """

    name: ClassVar[str] = "smote"
    paper: ClassVar[str] = "Chawla et al. 2002, arXiv:1106.1813"
    balances: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    neighbours: int = setting(5, "Nearest rows of the class, of which one is drawn.", unit="count", ge=1)
    most: float = setting(10.0, "Synthetic rows per row, at most.", gt=0, le=1000)

    def make(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
        """Put the synthetic rows behind the others."""
        labels = rows.targets.argmax(1).cpu().numpy()
        counts = wanted_rows(rows, self.most, draw)
        made, places = [], []
        for place, count in enumerate(counts.tolist()):
            near = self._near(rows, place, int(labels[place])) if count else None
            if near is None:
                continue
            others = near[torch.from_numpy(draw.integers(len(near), size=count)).to(near.device)]
            shares = torch.from_numpy(draw.random((count, 1))).to(near)
            own = rows.features[place]
            made.append(own + shares * (others - own))
            places += [place] * count
        origin = np.concatenate([np.arange(len(labels)), np.array(places, np.int64)])
        return torch.cat([rows.features, *made]), rows.targets[torch.from_numpy(origin).to(rows.targets.device)], origin

    def _near(self, rows: Rows, place: int, label: int) -> Tensor | None:
        """Return the nearest other rows of the class, (n, D); None before any was seen."""
        features, numbers = rows.bank(label)
        others = features[torch.from_numpy(numbers != rows.index[place]).to(features.device)]
        if not len(others):
            return None
        apart = (others - rows.features[place].detach()).square().sum(1)
        return others[apart.argsort(stable=True)[: self.neighbours]]
