"""Distinct-1."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.evaluation.metrics.of_texts import Distinct


@register("metrics")
class Distinct1(Distinct):
    """Different words of all answers over all of them: low when answers repeat each other.

    Source: Li et al. 2016, arXiv:1510.03055, section 5.
    """

    name: ClassVar[str] = "distinct-1"
    size: ClassVar[int] = 1
