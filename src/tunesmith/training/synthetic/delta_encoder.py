"""Synthetic rows of rare classes from a small network that learns how rows of a class differ."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.synthetic.base import Draw, Rows, Synthetic, wanted_rows


class _Network(nn.Module):
    """Encoder and decoder of differences.

    Args:
        width: D.
        inner: width of the hidden layers.
        code: of a difference.
    """

    def __init__(self, width: int, inner: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2 * width, inner), nn.LeakyReLU(0.2), nn.Linear(inner, code))
        last = nn.Linear(inner, width)
        self.decoder = nn.Sequential(nn.Linear(width + code, inner), nn.LeakyReLU(0.2), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, one: Tensor, other: Tensor, place: Tensor) -> Tensor:
        """Apply the difference between two rows at a third one: place + decoder(encoder(one, other), place)."""
        code = self.encoder(torch.cat([one, other], 1))
        found: Tensor = place + self.decoder(torch.cat([place, code], 1))
        return found


@register("synthetic")
class DeltaEncoder(Synthetic):
    """Rows of rare classes bring generated ones along: a small network learns differences within all classes.

    For rows x_i, x_j of a class it learns z = E(x_i, x_j) and x_j + D(x_j, z) = x_i by the mean absolute difference. A
    generated row of class c is x + D(x, z), x a row of c and z the difference of a pair of any class; it teaches the
    head alone. A row of class c brings n_max / n_c - 1 on average, at most `most`.

    Source: Schwartz et al. 2018, arXiv:1806.04734, section 3. Differs: D adds to its row and starts at zero, so that
    generated rows begin as copies; it learns beside the delta, one step of AdamW for every pass.
    """

    name: ClassVar[str] = "delta-encoder"
    paper: ClassVar[str] = "Schwartz et al. 2018, arXiv:1806.04734"
    balances: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    inner: int = setting(256, "Width of the network's hidden layers.", unit="count", ge=1, le=65536)
    code: int = setting(16, "Numbers that a difference is told in.", unit="count", ge=1, le=4096)
    most: float = setting(10.0, "Generated rows per row, at most.", gt=0, le=1000)
    rate: float = setting(1e-3, "Learning rate of the network.", gt=0, le=1)

    def network(self, width: int) -> tuple[nn.Module, float]:
        """Make encoder and decoder."""
        return _Network(width, self.inner, self.code), self.rate

    def learn(self, rows: Rows, draw: Draw) -> Tensor | None:
        """Return how far decoded rows are from the step's rows, each with a partner of its class."""
        pairs = self._pairs(rows, draw)
        if pairs is None:
            return None
        assert rows.network is not None
        own, partners = pairs
        found: Tensor = (rows.network(own, partners, partners) - own).abs().mean()
        return found

    def make(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
        """Put the generated rows behind the others."""
        counts = wanted_rows(rows, self.most, draw)
        places = np.repeat(np.arange(len(counts)), counts)
        pairs = self._pairs(rows, draw) if len(places) else None
        origin = np.arange(len(counts))
        features = rows.features
        if pairs is not None:
            assert rows.network is not None
            drawn = torch.from_numpy(draw.integers(len(pairs[0]), size=len(places))).to(features.device)
            with torch.no_grad():
                own = features[torch.from_numpy(places).to(features.device)]
                features = torch.cat([features, rows.network(pairs[0][drawn], pairs[1][drawn], own)])
            origin = np.concatenate([origin, places])
        return features, rows.targets[torch.from_numpy(origin).to(rows.targets.device)], origin

    def _pairs(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor] | None:
        """Return rows of the step, each with another row of its class; None while none has one."""
        own, partners = [], []
        for place, label in enumerate(rows.targets.argmax(1).tolist()):
            features, numbers = rows.bank(label)
            others = np.flatnonzero(numbers != rows.index[place])
            if len(others):
                own.append(rows.features[place].detach())
                partners.append(features[int(draw.choice(others))])
        return (torch.stack(own), torch.stack(partners)) if own else None
