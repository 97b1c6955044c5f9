"""Unicode normalisation."""

from __future__ import annotations

import unicodedata
from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Change


@register("cleaning")
class Unicode(Change):
    """Write every character in one way: NFC composes accents, NFKC also folds ligatures, full-width forms and so on."""

    name: ClassVar[str] = "unicode"
    paper: ClassVar[str] = "Unicode Standard Annex 15"
    form: Literal["NFC", "NFKC"] = setting("NFC", "NFC keeps what a text says letter by letter, NFKC also folds forms.")

    def text(self, text: str) -> str:
        """Normalise."""
        return unicodedata.normalize(self.form, text)
