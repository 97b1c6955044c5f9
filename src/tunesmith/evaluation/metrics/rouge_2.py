"""ROUGE-2."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import RougeN


@register("metrics")
class Rouge2(RougeN):
    """Mean F1 of the pairs of neighbouring words of an answer against its nearest reference; no stemming.

    Source: Lin 2004, ROUGE: a package for automatic evaluation of summaries.
    """

    name: ClassVar[str] = "rouge-2"
    size: ClassVar[int] = 2
