"""No training: the model answers as it came."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams


@register("methods")
class NoTraining(Method):
    """Train nothing: a prompt's words, class means of frozen features, or the model alone give the answers."""

    name: ClassVar[str] = "none"
    trains: ClassVar[bool] = False

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a delta without parameters.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        """
        return seams.attach(name)
