"""Prompt tuning: trained embeddings in front of every row's tokens."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PeftFolder
from tunesmith.methods.soft import SoftPromptMethod
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams
from tunesmith.models.soft_prompts import Place, Plain, SoftPrompt, TokenPrompt


@register("methods")
class PromptTuning(SoftPromptMethod):
    """Virtual tokens whose embeddings train; in a causal model they are computed once per step.

    Source: Lester et al. 2021, arXiv:2104.08691.
    """

    name: ClassVar[str] = "prompt-tuning"
    paper: ClassVar[str] = "Lester et al. 2021, arXiv:2104.08691"
    needs: ClassVar[frozenset[str]] = frozenset({"tokens", "attention"})
    peft_type: ClassVar[str | None] = "PROMPT_TUNING"

    place: Literal["auto", "start", "after-first"] = setting(
        "auto",
        "Where they stand in an encoder's rows; auto: after the first token, which heads may read; PEFT: start.",
    )

    def build(self, seams: Seams) -> SoftPrompt:
        """Build the prompt.

        Args:
            seams: of the model.
        Returns:
            A fresh prompt.
        """
        self.check_reads_tokens(seams)
        return TokenTable(self.start_embeddings(seams), seams.place_of_virtual_tokens(self.place))

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
        return cls(length=cls.peft_length(folder), start="random", place="start")


class TokenTable(Plain, TokenPrompt):
    """Virtual tokens held as their embeddings."""

    def __init__(self, start: Tensor, place: Place) -> None:
        super().__init__(len(start), place)
        self.prompt_embeddings = nn.Parameter(start.clone())
