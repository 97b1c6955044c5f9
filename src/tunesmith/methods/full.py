"""Full fine-tuning: every parameter of the model trains."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams


@register("methods")
class Full(Method):
    """Train a copy of every parameter; the base stays as it was and comes back on detach."""

    name: ClassVar[str] = "full"
    paper: ClassVar[str] = "Howard and Ruder 2018, arXiv:1801.06146"

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach trained copies of all parameters, fixed tables of positions and others frozen before left out.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        """
        return seams.attach(name, parameters=seams.trainable())
