"""The one best member."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.ensembles.combining.base import Combination


@register("combinations")
class Best(Combination):
    """Keep the member that is best on validation; only it is scored on test."""

    name: ClassVar[str] = "best"
    keeps: ClassVar[Literal["one", "all", "mean"]] = "one"
    learns_from: ClassVar[Literal["nothing", "validation", "out-of-fold"]] = "validation"
