"""Learning rates of a delta's parts, and which of its parameters do not decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from tunesmith.core.errors import TargetError
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta


def delta_parts(
    method: Method, delta: Delta, rate: float, rates: Mapping[str, float] | None = None
) -> list[tuple[list[nn.Parameter], float]]:
    """Part a delta's parameters by their learning rate.

    Args:
        method: that attached it.
        delta: in training.
        rate: learning rate of the run.
        rates: others by a pattern of the parameters' names; the first that fits.
    Returns:
        Parameters and rate of each part; first those of the run's own rate, possibly none.
    Raises:
        TargetError: a pattern fits no parameter.
    """
    parts: dict[float, list[nn.Parameter]] = {rate: []}
    rates, unused = rates or {}, set(rates or {})
    for name, parameter in delta.named_parameters():
        pattern = next((pattern for pattern in rates if fnmatchcase(name, pattern)), None)
        unused.discard(pattern or "")
        own = (rate if pattern is None else rates[pattern]) * method.rate_ratio(name)
        parts.setdefault(own, []).append(parameter)
    if unused:
        names = [name for name, _ in delta.named_parameters()]
        raise TargetError(
            f"training.part_learning_rates: '{min(unused)}' fits no parameter of the delta that an earlier pattern has "
            f"left. The names are like '{names[0]}' ({len(names)} of them); * stands for any text."
            if names
            else "training.part_learning_rates: the method has no parameters of its own. Leave it out."
        )
    return [(parameters, own) for own, parameters in parts.items()]


def undecayed(method: Method, deltas: Sequence[Delta]) -> list[nn.Parameter]:
    """Find the parameters that weight decay leaves alone, whatever their shape.

    Args:
        method: that attached the deltas.
        deltas: in training.
    Returns:
        Those that the method says so of.
    """
    return [one for delta in deltas for name, one in delta.named_parameters() if not method.decays(name)]
