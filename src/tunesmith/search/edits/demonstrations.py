"""Edits of demonstrations: add a training row, replace or remove one, change their order."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.prompt import DemonstrationSettings
from tunesmith.search.edits.base import Edit
from tunesmith.search.sources import Sources


@register("edits")
class Demonstrations(Edit):
    """Show training rows with their answers; which ones and in what order is chosen by the score of the prompt.

    Source: that order matters: Lu et al. 2021, arXiv:2104.08786.
    """

    name: ClassVar[str] = "demonstrations"
    paper: ClassVar[str] = "Lu et al. 2021, arXiv:2104.08786"

    most: int = setting(4, "Demonstrations, at most.", unit="count", ge=1)

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Add, replace, remove or exchange."""
        shown = [dict(one) for one in prompt.demonstrations.examples]
        kinds = [*(["add"] if len(shown) < self.most else []), *(["replace", "remove"] if shown else []),
                 *(["exchange"] if len(shown) > 1 else [])]  # fmt: skip
        kind = str(draw.choice(kinds))
        place = int(draw.integers(len(shown) + (kind == "add")))
        if kind == "exchange":
            other = int(draw.integers(len(shown)))
            shown[place], shown[other] = shown[other], shown[place]
        elif kind == "remove":
            del shown[place]
        else:
            fresh = self._drawn(prompt, sources, draw)
            if fresh in shown:
                return None
            shown[place : place + (kind == "replace")] = [fresh]
        if not shown:
            return prompt.changed(demonstrations=DemonstrationSettings().model_dump())
        return prompt.changed(demonstrations={"examples": shown, "count": 0})

    def _drawn(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> dict[str, Any]:
        """Draw a row, every label alike but for those aimed at."""
        label = sources.drawn([sources.labels[one] for one in np.unique(sources.truth)], draw)
        code = sources.labels.index(label)
        row = int(draw.choice(np.flatnonzero(sources.truth == code)))
        return {**{name: sources.rows[row][name] for name in prompt.fields}, "label": label}
