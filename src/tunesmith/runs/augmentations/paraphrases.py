"""Texts said in other words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.runs.augmentations.base import WrittenAhead


@register("augmentations")
class Paraphrases(WrittenAhead):
    """Let a run that writes say every training text in other words, before training.

    Source: Kumar et al. 2020, arXiv:2003.02245, section 2. Differs: the text alone is given, not its label.
    """

    name: ClassVar[str] = "paraphrases"
    paper: ClassVar[str] = "Kumar et al. 2020, arXiv:2003.02245"
    folders: ClassVar[tuple[str, ...]] = ("run",)

    run: str = setting("", "Folder of a run that writes; needed.")
    request: str = setting("Say in other words: {text}", "What it is asked; {text} stands for the text.")
    temperature: float = setting(0.8, "Of sampling.", gt=0, le=10)
    most_tokens: int = setting(64, "Longest form.", unit="tokens", ge=1)

    @property
    def lacks(self) -> str:
        """Say which setting is missing, or cannot be used."""
        if not self.run:
            return "run: the folder of a run that writes"
        return "" if "{text}" in self.request else "{text} in request: it stands for the text"

    def write(self, texts: Sequence[str], seed: int) -> list[list[str]]:
        """Sample forms; the first line of an answer counts."""
        from tunesmith.runs.run import Run  # the registry reads this file while a recipe is checked

        answers = Run.load(self.run).generate(
            [self.request.replace("{text}", text) for text in texts],
            samples=self.variants,
            seed=seed,
            temperature=self.temperature,
            max_new_tokens=self.most_tokens,
        )
        return [[next(iter(form.strip().splitlines()), "") for form in forms] for forms in answers]
