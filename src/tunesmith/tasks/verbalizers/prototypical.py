"""Prototypes of what the model thinks at the place of the answer."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.tasks.verbalizers.base import Verbalizer


@register("verbalizers")
class Prototypical(Verbalizer):
    """One trained direction per label, which starts at the mean hidden state of its training rows; no words.

    Source: Cui et al. 2022, arXiv:2203.09770 (ProtoVerb). Differs: class means and cross-entropy instead of a
    contrastive loss.
    """

    name: ClassVar[str] = "prototypical"
    reads: ClassVar[Literal["scores", "said", "state"]] = "state"
    trains: ClassVar[bool] = True
    from_rows: ClassVar[bool] = True
