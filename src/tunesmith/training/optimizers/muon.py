"""Muon for matrices, AdamW for the rest."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from tunesmith.core.errors import CompatibilityError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule, may_fuse


class _Both(torch.optim.Optimizer):
    """Two optimizers as one: the groups and the state are this one's, the steps are theirs."""

    def __init__(self, parts: list[torch.optim.Optimizer], groups: list[Group]) -> None:
        self.parts = parts
        super().__init__(groups, {})
        self._link()

    def _link(self) -> None:
        for part in self.parts:
            mine = {id(one) for group in part.param_groups for one in group["params"]}
            part.param_groups = [group for group in self.param_groups if id(group["params"][0]) in mine]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load, and let the two see what was loaded."""
        super().load_state_dict(state_dict)
        self._link()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Let each make its step."""
        for part in self.parts:
            part.step()


@register("optimizers")
class Muon(Rule):
    """Steps along the nearest orthogonal matrix to the momentum, as large as AdamW's; head and vectors have AdamW.

    The orthogonal matrix is found by Newton-Schulz iterations in bfloat16.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; size of the steps: Liu et al. 2025,
    arXiv:2502.16982, eq. 4.
    """

    name: ClassVar[str] = "muon"
    paper: ClassVar[str] = "Jordan et al. 2024, kellerjordan.github.io/posts/muon"

    momentum: float = setting(0.95, "Decay of the sum of gradients.", ge=0, lt=1)
    nesterov: bool = setting(True, "Take the gradient's step after the momentum's.")
    iterations: int = setting(5, "Newton-Schulz iterations.", unit="count", ge=1, le=20)
    beta1: float = setting(0.9, "AdamW's decay of the mean of gradients.", ge=0, lt=1)
    beta2: float = setting(0.999, "AdamW's decay of the mean of their squares.", ge=0, lt=1)

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make torch's two."""
        own = [group for group in groups if group["matrices"] and not group["head"]]
        rest = [group for group in groups if not any(group is one for one in own)]
        if not own:
            raise CompatibilityError(
                "training.optimizer: muon is for matrices, and the method trains none (the head aside). Choose adamw, "
                "or a method that trains matrices, for example method=lora."
            )
        parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                own, momentum=self.momentum, nesterov=self.nesterov, ns_steps=self.iterations,
                adjust_lr_fn="match_rms_adamw",
            )
        ]  # fmt: skip
        if rest:
            parts.append(torch.optim.AdamW(rest, betas=(self.beta1, self.beta2), fused=may_fuse(rest)))
        return _Both(parts, groups)
