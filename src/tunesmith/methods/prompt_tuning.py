"""Prompt tuning: trained embeddings in front of every row's tokens."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from tunesmith.core.registry import register
from tunesmith.methods.base import PeftFolder
from tunesmith.methods.soft import VirtualTokenMethod
from tunesmith.models.delta import Delta


@register("methods")
class PromptTuning(VirtualTokenMethod):
    """Virtual tokens whose embeddings train; in a causal model they are computed once per step.

    Source: Lester et al. 2021, arXiv:2104.08691.
    """

    name: ClassVar[str] = "prompt-tuning"
    paper: ClassVar[str] = "Lester et al. 2021, arXiv:2104.08691"
    peft_type: ClassVar[str | None] = "PROMPT_TUNING"

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT PromptTuningConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json; no peft_type where PEFT would put the tokens elsewhere.
        """
        return {**super().to_peft(delta), "prompt_tuning_init": "RANDOM"}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT PromptTuningConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        """
        return cls(
            length=cls.peft_length(folder), modules_to_save=cls.peft_heads(folder), start="random", place="start"
        )
