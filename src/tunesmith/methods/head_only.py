"""Head only: the backbone stays as it is and the task's head trains (a linear probe by gradient)."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams


@register("methods")
class HeadOnly(Method):
    """Train the task's head on the frozen model's features."""

    name: ClassVar[str] = "head-only"
    paper: ClassVar[str] = "Alain and Bengio 2016, arXiv:1610.01644"

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a delta without parameters.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        """
        return seams.attach(name)
