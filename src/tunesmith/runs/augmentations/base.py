"""What an augmentation that needs a model is: it writes other forms of the training texts before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import Augmentation

AUGMENTED = "augmented.jsonl"  # file of a run with the texts and their forms


class Forms:
    """Texts with their other forms.

    Args:
        by: name of the augmentation.
        rate: share of the times that a row is seen in another form. [fraction]
        written: forms by text; none for a text that has none.
    """

    def __init__(self, by: str, rate: float, written: Mapping[str, Sequence[str]]) -> None:
        self.by, self._rate, self._written = by, rate, written

    def text(self, text: str, draw: np.random.Generator) -> str:
        """Draw whether a text is seen in another form, and in which.

        Args:
            text: as it stands in the data.
            draw: the numbers to draw from, the text's own.
        Returns:
            A form, or the text.
        """
        forms = self._written.get(text, ())
        changes, place = draw.random() < self._rate, draw.random()
        return forms[int(place * len(forms))] if changes and forms else text

    @property
    def sentence(self) -> str:
        """For the user: how many there are, and one."""
        count = sum(map(len, self._written.values()))
        bare = sum(not forms for forms in self._written.values())
        text, form = next((text, forms[0]) for text, forms in self._written.items() if forms)
        return (
            f"data.augmentation: {self.by} wrote {count:,} forms of {len(self._written):,} training texts"
            f"{f' ({bare:,} have none)' if bare else ''}, for example '{_short(form)}' for '{_short(text)}'. Look at "
            f"them in {AUGMENTED} of the run."
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return every text with its forms, for a file."""
        return [{"text": text, "forms": list(forms)} for text, forms in self._written.items()]


class WrittenAhead(Augmentation):
    """Base of all. Its file registers one subclass with `@register("augmentations")`; its verb is `write`."""

    ahead: ClassVar[bool] = True

    rate: float = setting(0.5, "Share of the times that a row is seen in another form.", unit="fraction", gt=0, le=1)
    variants: int = setting(2, "Forms of every text that are written before training, at most.", unit="count", ge=1)

    def write(self, texts: Sequence[str], seed: int) -> list[list[str]]:
        """Write other forms of texts.

        Args:
            texts: all different.
            seed: of what is drawn at random.
        Returns:
            `variants` forms of each; empty ones, repeated ones and those that are the text itself are dropped.
        """
        raise NotImplementedError

    def prepared(self, texts: Callable[[], Sequence[str]], seed: int) -> Forms:
        """Write the forms.

        Args:
            texts: gives the training texts.
            seed: of what is drawn at random.
        Returns:
            What draws among them.
        Raises:
            DataError: no text got another form.
        """
        given = list(dict.fromkeys(texts()))
        written = {
            text: [form for form in dict.fromkeys(" ".join(one.split()) for one in forms) if form and form != text]
            for text, forms in zip(given, self.write(given, seed), strict=True)
        }
        if not any(written.values()):
            raise DataError(
                f"data.augmentation: {self.name} wrote no form of {len(given)} training texts that differs from its "
                "text. Give another model, or leave it out."
            )
        return Forms(self.name, self.rate, written)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
