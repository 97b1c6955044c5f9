"""What an adjustment is: settings and one verb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.settings import Component
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


class Adjustment(Component):
    """Base of every adjustment. Its file registers one subclass with `@register("adjustments")`."""

    name: ClassVar[str]
    order: ClassVar[int]  # adjustments of low order come first where time does not allow all

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Say what of the best recipe so far should be otherwise, and what speaks for it.

        Args:
            evidence: the recipe and its errors.
        Returns:
            Changes, the likeliest first; none where the errors do not speak for any.
        """
        raise NotImplementedError
