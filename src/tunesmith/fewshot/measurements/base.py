"""What a family of measurements is: names, and numbers for every input."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.arrays import Array
from tunesmith.core.settings import Component


class Measurements(Component):
    """Base of every family. Its file registers one subclass with `@register("measurements")`."""

    name: ClassVar[str]
    reads: ClassVar[str] = "text"  # or "images"

    def names(self) -> list[str]:
        """Return what is measured.

        Returns:
            Names, in order.
        """
        raise NotImplementedError

    def measure(self, inputs: Any) -> Array:
        """Measure inputs.

        Args:
            inputs: rows of the kind that the family reads.
        Returns:
            (rows, names), float64.
        """
        raise NotImplementedError
