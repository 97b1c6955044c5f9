"""AdamW whose means are kept in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tunesmith.core.errors import MissingDependency
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.optimizers.base import Group, Rule

_BLOCK = 256  # numbers that share a scale
_FORMS = {"mean": True, "square": False}  # what is kept, and whether it has a sign


def _codes() -> Any:
    try:
        from torchao.optim import quant_utils
    except ImportError:
        raise MissingDependency("torchao", "quantization", "training.optimizer: adamw-8bit") from None
    return quant_utils


class _AdamW8Bit(torch.optim.Optimizer):
    def __init__(self, groups: list[Group], beta1: float, beta2: float, eps: float, smallest: int) -> None:
        super().__init__(groups, {"beta1": beta1, "beta2": beta2, "eps": eps, "smallest": smallest})
        self._by = _codes()
        self._maps: dict[tuple[str, torch.device], Tensor] = {}

    def _map(self, kind: str, device: torch.device) -> Tensor:
        if (kind, device) not in self._maps:
            values = self._by.create_dynamic_map(signed=_FORMS[kind])
            self._maps[kind, device] = torch.tensor(values, dtype=torch.float32, device=device)
        found: Tensor = self._maps[kind, device]
        return found

    def _read(self, state: Mapping[str, Tensor], kind: str, like: Tensor) -> Tensor:
        if kind not in state:
            return torch.zeros_like(like, dtype=torch.float32)
        if f"{kind}_scale" not in state:
            return state[kind]
        blocks = self._by.dequant_with_qmap(state[kind], self._map(kind, like.device), state[f"{kind}_scale"])
        return blocks.flatten()[: like.numel()].view_as(like)

    def _keep(self, state: dict[str, Tensor], kind: str, value: Tensor, smallest: int) -> None:
        if value.numel() < smallest:
            state[kind] = value
            return
        blocks = torch.nn.functional.pad(value.flatten(), (0, -value.numel() % _BLOCK)).view(-1, _BLOCK)
        scaled, state[f"{kind}_scale"] = self._by.scale_tensor(blocks, _BLOCK)
        state[kind] = self._by.quantize_8bit_with_qmap(scaled, self._map(kind, value.device))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: Group) -> None:
        state, gradient = self.state[parameter], parameter.grad.float()  # type: ignore[union-attr]
        state["step"] = state.get("step", torch.zeros(())) + 1
        mean = self._read(state, "mean", parameter).lerp(gradient, 1 - group["beta1"])
        square = self._read(state, "square", parameter).lerp(gradient.square(), 1 - group["beta2"])
        for kind, value in (("mean", mean), ("square", square)):
            self._keep(state, kind, value, group["smallest"])
        count = float(state["step"])
        root = (square / (1 - group["beta2"] ** count)).sqrt() + group["eps"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_((group["lr"] / (1 - group["beta1"] ** count) * mean / root).to(parameter))

    def load_state_dict(self, given: dict[str, Any]) -> None:
        """Take a state as it is: torch would give codes and scales the type of their parameter."""
        super().load_state_dict(given)
        owners = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, kept in given["state"].items():
            own = owners[number]
            self.state[own] = {key: one.to(own.device, copy=True) for key, one in kept.items()}


@register("optimizers")
class AdamW8Bit(Rule):
    """AdamW that keeps the means of large parameters in 8 bits: a quarter of the memory of its state.

    Blocks of 256 numbers share a scale; the code has few bits for large numbers and many for small ones. A step
    computes in float32.

    Source: Dettmers et al. 2021, arXiv:2110.02861, sections 2.1 and 2.2; the code is torchao's.
    """

    name: ClassVar[str] = "adamw-8bit"
    paper: ClassVar[str] = "Dettmers et al. 2021, arXiv:2110.02861"

    beta1: float = setting(0.9, "Decay of the mean of gradients.", ge=0, lt=1)
    beta2: float = setting(0.999, "Decay of the mean of their squares.", ge=0, lt=1)
    eps: float = setting(1e-8, "Added to the root of that mean.", gt=0)
    smallest: int = setting(4096, "Smaller parameters keep their means in float32.", unit="count", ge=0)

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make it.

        Raises:
            MissingDependency: torchao is not installed.
        """
        return _AdamW8Bit(groups, self.beta1, self.beta2, self.eps, self.smallest)
