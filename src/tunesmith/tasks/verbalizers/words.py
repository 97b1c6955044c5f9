"""Words given by hand."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.tasks.verbalizers.base import Verbalizer


@register("verbalizers")
class Words(Verbalizer):
    """A label is as probable as its words are in the mean; nothing trains in it.

    Source: Schick and Schütze 2021, arXiv:2001.07676. Differs: several words per label, of several tokens.
    """

    name: ClassVar[str] = "words"
