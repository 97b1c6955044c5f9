"""Other learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known
from tunesmith.search.starts.base import Start


@register("starts")
class LearningRates(Start):
    """The recipe as written with a higher and a lower learning rate: no other number matters as often."""

    name: ClassVar[str] = "learning-rates"
    order: ClassVar[int] = 3

    factor: float = setting(3.0, "Between neighbouring rates.", gt=1)

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Multiply and divide."""
        rate = float(values["training"]["learning_rate"])
        return [
            Change(
                f"learning rate {other:.2g} instead of {rate:.2g}",
                {"training.learning_rate": other},
                "the best rate depends on model, method and rows",
            )
            for other in (min(rate * self.factor, 10.0), rate / self.factor)
        ]
