"""Prompts: another wording around the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class Wording(Adjustment):
    """Ask in other words, where the task is a prompt."""

    name: ClassVar[str] = "wording"
    order: ClassVar[int] = 3

    templates: tuple[str, ...] = setting(
        ("{text} It is about {label}.", "{text}\nTopic: {label}", "Someone wrote: {text}\nThis means: {label}"),
        "Templates, taken in turn.",
    )

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Take the templates that are not in use."""
        own = evidence.values["prompt"]["template"]
        if evidence.task["name"] != "prompt-classification":
            return []
        why = f"{evidence.errors.wrong} of {evidence.errors.rows} rows are wrong with the template {own!r}"
        return [Change(f"the template {one!r}", {"prompt.template": one}, why) for one in self.templates if one != own]
