"""What a start is: settings and one verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.settings import Component
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known


class Start(Component):
    """Base of every start. A start's file registers one subclass with `@register("starts")`."""

    name: ClassVar[str]
    order: ClassVar[int]  # starts of low order come first where time does not allow all

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Say what of the recipe as written should be otherwise.

        Args:
            known: of the task.
            values: the recipe, every key.
        Returns:
            Changes that suit the task, the likeliest first; none where the start does not suit it.
        """
        raise NotImplementedError
