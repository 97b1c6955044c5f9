"""Soft prompts that a small network makes while they train; afterwards only what it made is needed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Reparameterised(nn.Module):
    """A prompt's matrix as start + network(embedding); the network's last layer starts at zero.

    Args:
        start: (P, numbers), where the prompt starts; fixed.
        inner: width of the embedding that the network reads.
        hidden: width of the network.
        kind: "mlp", "lstm" (both of P-tuning) or "tanh" (of prefix tuning).
        dropout: inside an LSTM of more than one layer. [fraction]
    Source: Li and Liang 2021, arXiv:2101.00190, section 4.3; Liu et al. 2021, arXiv:2103.10385, section 3.2. Differs:
        the network's output is added to a start instead of replacing it.
    """

    start: Tensor

    def __init__(
        self, start: Tensor, inner: int, hidden: int, kind: Literal["mlp", "lstm", "tanh"], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.embedding = nn.Parameter(torch.randn(len(start), inner))
        self.lstm: nn.LSTM | None = None
        numbers = start.shape[1]
        if kind == "tanh":
            self.network = nn.Sequential(nn.Linear(inner, hidden), nn.Tanh(), nn.Linear(hidden, numbers))
        elif kind == "mlp":
            self.network = nn.Sequential(
                nn.Linear(inner, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, numbers)
            )
        else:
            self.lstm = nn.LSTM(inner, hidden, num_layers=2, dropout=dropout, bidirectional=True, batch_first=True)
            self.network = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, numbers))
        last = self.network[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self) -> Tensor:
        """Return the prompt's matrix, (P, numbers)."""
        x = self.embedding if self.lstm is None else self.lstm(self.embedding[None])[0][0]
        made: Tensor = self.network(x)
        return self.start + made
