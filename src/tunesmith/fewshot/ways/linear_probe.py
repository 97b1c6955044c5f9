"""Logistic regression on the frozen model's features."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.fewshot.ways.base import Way


@register("ways")
class Probe(Way):
    """Fit a logistic regression to the frozen model's features."""

    name: ClassVar[str] = "linear-probe"
    effort: ClassVar[int] = 2

    def changes(self) -> dict[str, dict[str, Any]]:
        """Start the head at the regression and stay there."""
        return {"task": {"head_kind": "logistic-regression"}, "method": {"name": "none"}}
