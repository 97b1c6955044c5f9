"""The optimizer and how its learning rate rises and falls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError


def scale_at(step: int, total: int, warmup: int, schedule: str) -> float:
    """Return the share of the highest learning rate at a step.

    Linear warm-up reaches 1 after `warmup` steps. Then: cosine (1 + cos(pi p)) / 2, linear 1 - p, constant 1,
    where p runs from 0 to 1 over the remaining steps.

    Args:
        step: 0 for the first.
        total: steps of the run. [count]
        warmup: of them rising. [count]
        schedule: "cosine", "linear" or "constant".
    Returns:
        A share between 0 and 1.
    Example:
        >>> [round(scale_at(step, 4, 0, "linear"), 2) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]

    Source: cosine: Loshchilov and Hutter 2016, arXiv:1608.03983, eq. 5.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0 - done if schedule == "linear" else 1.0


class Optimizer:
    """AdamW over the delta and the head, with a schedule and clipping.

    Args:
        parts: per part, its parameters, possibly none, and its highest learning rate.
        weight_decay: decoupled; on matrices only.
        total: steps of the run. [count]
        warmup_fraction: share of them in which the rate rises.
        schedule: see `scale_at`.
        clip_norm: largest norm of all gradients together, or None.
        scaled: whether losses are scaled up before their gradients are taken, for models in float16, whose small
            gradients would be zero; a step whose gradients overflow is left out and the scale halved.
    Raises:
        CompatibilityError: no parameter at all.
    Source: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """

    def __init__(
        self,
        parts: Iterable[tuple[list[nn.Parameter], float]],
        *,
        weight_decay: float,
        total: int,
        warmup_fraction: float,
        schedule: str,
        clip_norm: float | None,
        scaled: bool = False,
    ) -> None:
        groups: list[dict[str, Any]] = []
        parts = list(parts)
        for parameters, rate in parts:
            for matrices in (True, False):
                chosen = [p for p in parameters if (p.dim() > 1) == matrices]
                if chosen:
                    groups.append({"params": chosen, "lr": rate, "weight_decay": weight_decay if matrices else 0.0})
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        if not self.parameters:
            raise CompatibilityError(
                "there is nothing to train: the method has no parameters of its own, and neither has the task's head. "
                "Choose a method that changes the model, for example method=lora."
            )
        kind = self.parameters[0].device.type
        fused = kind in ("cpu", "cuda")
        self._scaler = torch.amp.GradScaler(kind, enabled=scaled)
        self._adamw = torch.optim.AdamW(groups, fused=fused)
        self._highest: list[float] = [group["lr"] for group in groups]
        self._first_rate = parts[0][1]
        self.total, self._schedule, self._clip = total, schedule, clip_norm
        self._warmup = round(warmup_fraction * total)
        self._step = 0
        self.left_out = 0  # steps whose gradients overflowed [count]

    def scale(self, loss: Tensor) -> Tensor:
        """Scale a loss up where that is wanted, before its gradients are taken.

        Args:
            loss: a scalar.
        Returns:
            A scalar.
        """
        return self._scaler.scale(loss)

    def step(self) -> dict[str, float]:
        """Clip and update; the clipped gradients stay until `clear`.

        Returns:
            learning_rate of the first part and gradient_norm before clipping.
        """
        self._scaler.unscale_(self._adamw)
        scale = scale_at(self._step, self.total, self._warmup, self._schedule)
        for group, highest in zip(self._adamw.param_groups, self._highest, strict=True):
            group["lr"] = highest * scale
        limit = math.inf if self._clip is None else self._clip
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        before = self._scaler.get_scale()
        self._scaler.step(self._adamw)
        self._scaler.update()
        self.left_out += self._scaler.get_scale() < before
        self._step += 1
        return {"learning_rate": self._first_rate * scale, "gradient_norm": float(norm)}

    def state(self) -> dict[str, Any]:
        """Return what later steps depend on.

        Returns:
            A state for `resume`.
        """
        return {
            "optimizer": self._adamw.state_dict()["state"],
            "scaler": self._scaler.state_dict(),
            "step": self._step,
            "left out": self.left_out,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: from `state`, of an optimizer of the same parameters.
        """
        own = self._adamw.state_dict()
        self._adamw.load_state_dict({**own, "state": state["optimizer"]})
        self._scaler.load_state_dict(state["scaler"])
        self._step, self.left_out = state["step"], state["left out"]

    def clear(self) -> None:
        """Forget the step's gradients."""
        self._adamw.zero_grad(set_to_none=True)
