"""Logistic regression on the frozen model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.registry import register
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Known, has_head
from tunesmith.search.starts.base import Start


@register("starts")
class LinearProbe(Start):
    """Fit a logistic regression to the frozen model's features: the cheapest that can be right."""

    name: ClassVar[str] = "linear-probe"
    order: ClassVar[int] = 4

    def propose(self, known: Known, values: Mapping[str, Any]) -> Sequence[Change]:
        """Train nothing of the model."""
        if not has_head(values["task"]["name"]):
            return []
        changes = {"task.head_kind": "logistic-regression", "method": {"name": "none"}}
        return [Change("logistic regression on the frozen model", changes, "nearly nothing has to be trained")]
