"""Words that move: the rows of the output map that stand for the labels train."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.tasks.verbalizers.base import Verbalizer


@register("verbalizers")
class Learned(Verbalizer):
    """One trained row of the output map per label, which starts at the mean of its words' rows.

    Source: Hambardzumyan et al. 2021, arXiv:2101.00121 (WARP).
    """

    name: ClassVar[str] = "learned"
    reads: ClassVar[Literal["scores", "said", "state"]] = "said"
    trains: ClassVar[bool] = True
