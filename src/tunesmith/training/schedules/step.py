"""A learning rate that falls in steps."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.training.schedules.base import Schedule


@register("schedules")
class Step(Schedule):
    """The rate is multiplied by a factor at some places: factor^k after the k-th."""

    name: ClassVar[str] = "step"

    places: list[Annotated[float, Field(gt=0, lt=1)]] = setting(
        [0.5, 0.75], "Shares of the steps after which it falls, rising.", unit="fraction", min_length=1
    )
    factor: float = setting(0.1, "What it is multiplied by.", gt=0, lt=1)

    @field_validator("places")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if sorted(set(value)) != value:
            raise ValueError("the places must rise, for example [0.5, 0.75]")
        return value

    def at(self, done: float) -> float:
        """Count the places passed."""
        return float(self.factor ** sum(done >= place for place in self.places))
