"""An optimizer with its schedule, clipping and scaling, over the parts of a delta and its head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.core.named import build_named
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.training.optimizers.base import Group, Rule
from tunesmith.training.rounding import Exact
from tunesmith.training.schedules.base import Schedule


class Optimizer:
    """An optimizer over the delta and the head, with a schedule and clipping.

    Args:
        parts: per part, its parameters, possibly none, and its highest learning rate.
        settings: the recipe's.
        total: steps of the run. [count]
        scaled: whether losses are scaled up before their gradients are taken, for models in float16, whose small
            gradients would be zero; a step whose gradients overflow is left out and the scale halved.
        head: parameters of the head, which some optimizers treat apart.
        still: parameters that do not decay, whatever their shape.
    Raises:
        CompatibilityError: no parameter at all, or none that the optimizer is for.
    """

    def __init__(
        self,
        parts: Iterable[tuple[list[nn.Parameter], float]],
        settings: TrainingSettings,
        total: int,
        scaled: bool = False,
        head: Iterable[nn.Parameter] = (),
        still: Iterable[nn.Parameter] = (),
    ) -> None:
        parts = list(parts)
        known = {id(one) for one in head}, {id(one) for one in still}
        groups = list(_groups(parts, settings.weight_decay, *known))
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        if not self.parameters:
            raise CompatibilityError(
                "there is nothing to train: the method has no parameters of its own, and neither has the task's head. "
                "Choose a method that changes the model, for example method=lora, or none to take it as it is."
            )
        self._exact = Exact(self.parameters)
        numbers = iter(self._exact.numbers)
        groups = [{**group, "params": [next(numbers) for _ in group["params"]]} for group in groups]
        self._rule: Rule = build_named("optimizers", settings.optimizer)
        self._inner = self._rule.build(groups)
        self._scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=scaled)
        self._highest: list[float] = [group["lr"] for group in self._inner.param_groups]
        self._first_rate = parts[0][1]
        self.schedule: Schedule = build_named("schedules", settings.schedule)
        self.total, self._clip, self._clip_value = total, settings.clip_norm, settings.clip_value
        self._warmup = 0 if self.schedule.rises else round(settings.warmup_fraction * total)
        self._step = 0
        self.left_out = 0  # steps whose gradients overflowed [count]

    def share(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return the share of the highest learning rate at a step; a linear warm-up reaches 1 in its last step.

        Args:
            step: 0 for the first.
            losses: on validation after each epoch so far.
        Returns:
            A share between 0 and 1.
        """
        if step < self._warmup:
            return (step + 1) / self._warmup
        return self.schedule.share(step - self._warmup, max(1, self.total - self._warmup), losses)

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled, so that a gradient that is no number is left out rather than wrong."""
        return self._scaler.is_enabled()

    def scale(self, loss: Tensor) -> Tensor:
        """Scale a loss up where that is wanted, before its gradients are taken.

        Args:
            loss: a scalar.
        Returns:
            A scalar.
        """
        return self._scaler.scale(loss)

    def step(self, losses: Sequence[float] = ()) -> dict[str, float]:
        """Clip and update, unless a gradient is no number; the clipped gradients stay until `clear`.

        Gradients that overflowed are cleared here: nobody who reads gradients after a step should see them.

        Args:
            losses: on validation after each epoch so far; some schedules go by them.
        Returns:
            learning_rate of the first part, and gradient_norm before it is clipped.
        """
        self._exact.take()
        self._scaler.unscale_(self._inner)
        scale = self.share(self._step, losses)
        for group, highest in zip(self._inner.param_groups, self._highest, strict=True):
            group["lr"] = highest * scale
        norm = self._norm()
        if not self.scaled and not torch.isfinite(norm):
            return {"learning_rate": self._first_rate * scale, "gradient_norm": float(norm)}
        self._clip_all(norm)
        before = self._scaler.get_scale()
        self._scaler.step(self._inner)
        self._scaler.update()
        self._exact.give()
        if self._scaler.get_scale() < before:
            self.left_out += 1
            self.clear()
        self._step += 1
        return {"learning_rate": self._first_rate * scale, "gradient_norm": float(norm)}

    def _norm(self) -> Tensor:
        return nn.utils.get_total_norm([one.grad for one in self._exact.numbers if one.grad is not None])

    def _clip_all(self, norm: Tensor) -> None:
        """Clip by value, then by norm."""
        if self._clip_value is not None:
            nn.utils.clip_grad_value_(self._exact.numbers, self._clip_value)
            norm = self._norm()
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(self._exact.numbers, self._clip, norm)

    def answering(self) -> list[Tensor] | None:
        """Return what the model should answer with in the place of `parameters`, where the optimizer averages.

        Returns:
            One tensor per parameter; None where the parameters themselves answer.
        """
        return self._rule.answering(self._inner, self._exact.numbers)

    def state(self) -> dict[str, Any]:
        """Return what later steps depend on.

        Returns:
            A state for `resume`.
        """
        return {
            "optimizer": self._inner.state_dict()["state"],
            "exact": self._exact.state(),
            "scaler": self._scaler.state_dict(),
            "step": self._step,
            "left out": self.left_out,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: from `state`, of an optimizer of the same parameters.
        """
        own = self._inner.state_dict()
        self._inner.load_state_dict({**own, "state": state["optimizer"]})
        for parameter, kept in self._inner.state.items():
            kept.update({name: _laid_out_as(parameter, value) for name, value in kept.items()})
        self._exact.resume(state.get("exact", ()))  # checkpoints of older versions have none
        self._scaler.load_state_dict(state["scaler"])
        self._step, self.left_out = state["step"], state["left out"]

    def clear(self) -> None:
        """Forget the step's gradients."""
        for one in (*self.parameters, *self._exact.numbers):
            one.grad = None


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """Lay a state out in memory as the optimizer made it: fused steps of another layout round in other places."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _groups(
    parts: Iterable[tuple[list[nn.Parameter], float]], weight_decay: float, head: set[int], still: set[int]
) -> Iterable[Group]:
    """Part parameters by rate, by whether they are matrices, kernels, which decay too, or others, and by whose."""
    for parameters, rate in parts:
        dims = {id(p): 1 if id(p) in still else min(max(p.dim(), 1), 3) for p in parameters}
        for dim in (2, 3, 1):
            for of_head in (False, True):
                chosen = [p for p in parameters if dims[id(p)] == dim and (id(p) in head) == of_head]
                if chosen:
                    own = {"weight_decay": weight_decay if dim > 1 else 0.0, "matrices": dim == 2, "head": of_head}
                    yield {"params": chosen, "lr": rate, **own}


class NoOptimizer(Optimizer):
    """Stands in where nothing trains; it is never asked for a step."""

    def __init__(self) -> None:
        self.parameters, self.total, self.left_out = [], 0, 0

    def answering(self) -> list[Tensor] | None:
        """Return None: nothing trains, so nothing is averaged."""
        return None
