"""Edits by a text model: a phrase said in other words."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.edits.base import Edit
from tunesmith.search.phrases import Phrase, cut, free, joined, reworded
from tunesmith.search.sources import Sources


@register("edits")
class Paraphrases(Edit):
    """Let a text model say a phrase of the template, or the description, in other words (`search.writer=RUN`).

    Source: Zhou et al. 2022 (APE), arXiv:2211.01910, resampling. Differs: phrases, not whole instructions.
    """

    name: ClassVar[str] = "paraphrases"
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2211.01910"

    request: str = setting("Say in other words: {phrase}", "What the model is asked; {phrase} is the text.")
    most_words: int = setting(30, "A longer answer is cut at its first sentence or line.", unit="count", ge=1)

    def able(self, sources: Sources) -> bool:
        """Only with a text model."""
        return sources.write is not None

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Reword one phrase."""
        assert sources.write is not None
        phrases, seed = cut(prompt.template), int(draw.integers(2**31))
        places = free(phrases)
        place = int(draw.choice([*places, *([-1] if prompt.description else [])])) if places else -1
        old = prompt.description if place < 0 else phrases[place].text.strip()
        words = self._tidied(sources.write(self.request.replace("{phrase}", old), 1, seed)[0]) if old else ""
        if not words or words == old:
            return None
        if place < 0:
            return prompt.changed(description=words)
        phrases[place] = Phrase(reworded(phrases[place], words), False)
        return prompt.changed(template=joined(phrases))

    def _tidied(self, text: str) -> str:
        """Take the first line; braces would be fields."""
        line = next(iter(text.strip().splitlines()), "").replace("{", "{{").replace("}", "}}").strip()
        if len(line.split()) > self.most_words:
            line = re.split(r"(?<=[.!?])\s", line)[0]
        return line if len(line.split()) <= self.most_words else ""
