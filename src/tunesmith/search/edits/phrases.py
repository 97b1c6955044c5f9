"""Edits of a template's own phrases: leave one out, exchange two, move one."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.edits.base import Edit
from tunesmith.search.phrases import cut, free, joined
from tunesmith.search.sources import Sources


@register("edits")
class Phrases(Edit):
    """Leave a phrase of the template out, or exchange two.

    Source: Prasad et al. 2022 (GrIPS), arXiv:2203.07281, delete and swap.
    """

    name: ClassVar[str] = "phrases"
    paper: ClassVar[str] = "Prasad et al. 2022, arXiv:2203.07281"

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Leave out, or exchange."""
        phrases = cut(prompt.template)
        places = free(phrases)
        if len(places) > 1 and draw.random() < 0.5:
            first, second = sorted(draw.choice(places, 2, replace=False).tolist())
            phrases[first], phrases[second] = phrases[second], phrases[first]
        elif places:
            del phrases[int(draw.choice(places))]
        else:
            return None
        return prompt.changed(template=joined(phrases))
