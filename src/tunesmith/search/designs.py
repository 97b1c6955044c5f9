"""What searches of prompts inside a closed loop found, or why there was none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.evaluation.metrics.base import is_share, number


@dataclass(frozen=True)
class Design:
    """One search of a prompt, on training rows held aside.

    Args:
        before: number of the round that it was made for. [count]
        began: hash of the prompt that it began with; empty where nothing was searched.
        aimed: labels that edits changed first.
        refused: why nothing was searched; empty where something was.
        values: what the found prompt changes, plain ones by dotted key; empty where none was better.
        tried: prompts that were scored on all rows that chose. [count]
        proposing: training rows that edits read. [count]
        choosing: training rows held aside, that chose. [count]
        metric: that decided.
        start: what the untuned model scored on these by the first prompt, of the metric.
        found: the same by the best prompt.
        evaluations: spent; one is a prompt on all rows that chose. [count]
        trials: share of the loop's budget that this is, in rows read. [trials]
        seconds: that it took.
        folder: with every prompt that was tried, in the loop's.
    """

    before: int
    began: str = ""
    aimed: Sequence[str] = ()
    refused: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    tried: int = 0
    proposing: int = 0
    choosing: int = 0
    metric: str = ""
    start: float = 0.0
    found: float = 0.0
    evaluations: float = 0.0
    trials: float = 0.0
    seconds: float = 0.0
    folder: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Design:
        """Read it from plain values.

        Args:
            values: from `plain`.
        Returns:
            The design.
        """
        return cls(**values)

    def scores(self) -> str:
        """Word how the untuned model did by both prompts, where one is better."""
        form = ".1%" if is_share(self.metric) else ".3f"
        return (
            f"{self.metric} of the untuned model {number(self.found, form)} instead of {number(self.start, form)} on "
            f"{self.choosing} training rows held aside, which chose it"
        )

    def said(self) -> str:
        """Say in a sentence what was found, or why there was nothing."""
        if self.refused:
            return f"before round {self.before} no prompt was searched: {self.refused.rstrip('.')}"
        found = self.scores() if self.values else f"none is better on {self.choosing} training rows held aside"
        return (
            f"before round {self.before} {self.tried} prompts were tried in {self.seconds:.0f} s, aimed at "
            f"{', '.join(self.aimed)}: {found}"
        )
