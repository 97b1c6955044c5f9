"""Prompts: one that is searched for the labels that are confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.search.adjustments.base import Adjustment
from tunesmith.search.changes import Change
from tunesmith.search.evidence import Evidence


@register("adjustments")
class PromptSearch(Adjustment):
    """Where labels are confused, search a prompt on training rows by the untuned model's answers, aimed at them."""

    name: ClassVar[str] = "prompt-search"
    order: ClassVar[int] = 0

    pairs: int = setting(3, "Confused pairs whose labels the search is aimed at.", unit="count", ge=1)

    def propose(self, evidence: Evidence) -> Sequence[Change]:
        """Take the prompt that was found, where one was better than the present one."""
        if evidence.design is None:
            return []
        confused = evidence.errors.confused[: self.pairs]
        found = evidence.design(list(dict.fromkeys(one for pair in confused for one in (pair.true, pair.predicted))))
        if not found.values:
            return []
        parts = ", ".join(key.removeprefix("prompt.").replace("_", " ") for key in found.values)
        why = (
            f"{confused[0].true} is taken for {confused[0].predicted} in {confused[0].rows} rows; of {found.tried} "
            f"prompts it is the best: {found.scores()}"
        )
        return [Change(f"a searched prompt ({parts})", found.values, why)]
