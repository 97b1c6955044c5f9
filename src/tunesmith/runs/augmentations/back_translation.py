"""Texts that were translated there and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.runs.augmentations.base import WrittenAhead


@register("augmentations")
class BackTranslation(WrittenAhead):
    """Translate every training text into another language and back, before training, with two translation runs.

    Source: Xie et al. 2019, arXiv:1904.12848 (UDA), section 3.1: sampled there, with a temperature.
    """

    name: ClassVar[str] = "back-translation"
    paper: ClassVar[str] = "Xie et al. 2019, arXiv:1904.12848"
    folders: ClassVar[tuple[str, ...]] = ("there", "back")

    there: str = setting("", "Folder of the run that translates into the other language; needed.")
    back: str = setting("", "Folder of the run that translates back; needed.")
    temperature: float = setting(0.9, "Of sampling in the other language.", gt=0, le=10)

    @property
    def lacks(self) -> str:
        """Say which setting is missing."""
        return "" if self.there and self.back else "there and back: the folders of two translation runs"

    def write(self, texts: Sequence[str], seed: int) -> list[list[str]]:
        """Sample translations, and translate each back greedily."""
        from tunesmith.runs.run import Run  # the registry reads this file while a recipe is checked

        foreign = Run.load(self.there).generate(
            list(texts), samples=self.variants, seed=seed, temperature=self.temperature
        )
        flat = [text for forms in foreign for text in forms]
        given = [number for number, text in enumerate(flat) if text.strip()]
        home = [""] * len(flat)
        answers = Run.load(self.back).generate([flat[number] for number in given], temperature=0.0) if given else []
        for number, (form,) in zip(given, answers, strict=True):
            home[number] = form
        return [home[start : start + self.variants] for start in range(0, len(home), self.variants)]
