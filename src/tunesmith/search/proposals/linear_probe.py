"""Logistic regression on the frozen model's features."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Proposal


@register("proposals")
class Probe(Proposal):
    """Fit a head to the frozen model's features, and leave the model as it is."""

    name: ClassVar[str] = "linear-probe"
    score: ClassVar[str] = "probe"
    why: ClassVar[str] = "one pass over the rows and a regression on what the frozen model says: no step of training"

    def changes(self, given: Given) -> dict[str, Any]:
        """Start the head at the regression and stay there."""
        return {"task": {"head_kind": "logistic-regression"}, "method": {"name": "none"}}
