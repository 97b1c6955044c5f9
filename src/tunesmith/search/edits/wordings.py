"""Edits from a small bank of wordings: insert one, or put one in the place of a phrase."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.edits.base import Edit
from tunesmith.search.phrases import Phrase, cut, free, joined, reworded
from tunesmith.search.sources import Sources

BEFORE_ROW = (
    "Text:", "Message:", "Input:", "Read this:", "Someone wrote:", "Here is a text:", "Example:", "Note:",
    "A person says:", "Consider the following.", "Quote:",
)  # fmt: skip
BEFORE_ANSWER = (
    "It is about", "This is about", "Topic:", "Category:", "Label:", "Answer:", "The topic is", "In short:",
    "Subject:", "Kind:", "It was", "The right label is", "This means", "All in all, it is", "Type:",
)  # fmt: skip
TASKS = (
    "Name the category.", "Choose the label that fits.", "Say in a word what it is.", "Classify the text.",
    "What is it about?", "Which label fits best?", "Decide what the text means.", "One word answers it.",
)  # fmt: skip


@register("edits")
class Wordings(Edit):
    """Write a wording of the bank in front of the row or of the answer, in the place of a phrase, or at the start."""

    name: ClassVar[str] = "wordings"

    own: tuple[str, ...] = setting((), "Wordings of your own that are drawn beside those of the bank.")

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Insert, or replace."""
        phrases = cut(prompt.template)
        bank = (BEFORE_ROW, BEFORE_ANSWER, TASKS)[int(draw.integers(3))] + self.own
        words, places = str(draw.choice(bank)), free(phrases)
        if places and draw.random() < 0.5:
            place = int(draw.choice(places))
            phrases[place] = Phrase(reworded(phrases[place], words), False)
            return prompt.changed(template=joined(phrases))
        fields = [number for number, phrase in enumerate(phrases) if phrase.text.startswith("{")]
        place = int(draw.choice([0, *fields]))
        before = "" if place == 0 or phrases[place - 1].text[-1:].isspace() else " "
        phrases.insert(place, Phrase(f"{before}{words} ", False))
        return prompt.changed(template=joined(phrases))
