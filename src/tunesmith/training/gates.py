"""Gates on parameters that learn to be open or shut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.training.regularizers.base import Gating


class Gates:
    """The gates of one trial's parameters.

    Args:
        how: their form.
        own: parameters that have them.
    """

    def __init__(self, how: Gating, own: Sequence[nn.Parameter]) -> None:
        self.how, self._own = how, list(own)
        self.shapes = [how.shape(one) for one in own]
        self.logs = [
            nn.Parameter(one.new_full((torch.Size(shape).numel(),), how.start))
            for one, shape in zip(own, self.shapes, strict=True)
        ]  # flat: weight decay leaves vectors alone
        self._aside: list[tuple[Tensor, Tensor, Tensor]] = []  # values, gates and their derivatives

    def _logs(self) -> list[Tensor]:
        return [log_a.view(shape) for log_a, shape in zip(self.logs, self.shapes, strict=True)]

    def penalty(self) -> Tensor:
        """Return strength x the expected share of numbers that are not zero, with gradients."""
        sizes = [one.numel() / log_a.numel() for one, log_a in zip(self._own, self.logs, strict=True)]
        shares = [size * self.how.open_share(log_a).sum() for size, log_a in zip(sizes, self.logs, strict=True)]
        return self.how.strength * torch.stack(shares).sum() / sum(one.numel() for one in self._own)

    @torch.no_grad()
    def enter(self, draw: torch.Generator) -> None:
        """Before a step's passes: draw gates, and let what they leave stand in the place of the parameters.

        Args:
            draw: stream of random numbers.
        """
        for one, log_a in zip(self._own, self._logs(), strict=True):
            uniform = torch.rand(log_a.shape, generator=draw, dtype=torch.float64)
            gate, slope = self.how.drawn(log_a, uniform.to(log_a))
            self._aside.append((one.detach().clone(), gate, slope))
            one.mul_(gate)

    @torch.no_grad()
    def leave(self) -> None:
        """After a step's passes: put the parameters back, and share their gradients with the gates."""
        for one, log_a, (value, gate, slope) in zip(self._own, self.logs, self._aside, strict=True):
            one.copy_(value)
            if one.grad is not None:
                own = (one.grad * value * slope).sum_to_size(gate.shape).view(-1)
                log_a.grad = own if log_a.grad is None else log_a.grad + own
                one.grad.mul_(gate)
        self._aside.clear()

    @torch.no_grad()
    def answers(self) -> list[Tensor]:
        """Return what the model should answer with in the place of the parameters."""
        return [one * self.how.settled(log_a) for one, log_a in zip(self._own, self._logs(), strict=True)]

    def by_id(self) -> dict[int, Tensor]:
        """Return the same by the parameters' ids."""
        return dict(zip(map(id, self._own), self.answers(), strict=True))

    def state(self) -> dict[str, Any]:
        """Return the gates for a checkpoint.

        Returns:
            A state for `resume`.
        """
        return {"logs": [log_a.detach() for log_a in self.logs]}

    @torch.no_grad()
    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: from `state`, of the same parameters.
        """
        for log_a, kept in zip(self.logs, state["logs"], strict=True):
            log_a.copy_(kept)
