"""Sentences that say what a label means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.prompts.prompt import Prompt
from tunesmith.tasks.verbalizers.base import Verbalizer


@register("verbalizers")
class Descriptions(Verbalizer):
    """A label is as probable as its description; nothing trains in it."""

    name: ClassVar[str] = "descriptions"
    key: ClassVar[str] = "prompt.label_descriptions"

    def texts(self, prompt: Prompt, labels: Sequence[str]) -> list[list[str]]:
        """Return the descriptions; every label needs one."""
        missing = [label for label in labels if label not in prompt.label_descriptions]
        if missing:
            raise RecipeError(
                f"prompt.label_descriptions: the label '{missing[0]}' has none ({len(missing)} of {len(labels)}). "
                "With task.verbalizer=descriptions every label needs a sentence: write it there, or choose words."
            )
        return [[prompt.label_descriptions[label]] for label in labels]
