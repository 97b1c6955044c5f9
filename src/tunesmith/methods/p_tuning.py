"""P-tuning: virtual tokens whose embeddings a small network makes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PeftFolder
from tunesmith.methods.soft import TokenTable, VirtualTokenMethod
from tunesmith.models.delta import Delta
from tunesmith.models.reparameterised import Reparameterised
from tunesmith.models.soft_prompts import Place, SoftPrompt, TokenPrompt


@register("methods")
class PTuning(VirtualTokenMethod):
    """Prompt tuning through an MLP or an LSTM, which ties the virtual tokens together while they train.

    Source: Liu et al. 2021, arXiv:2103.10385.
    """

    name: ClassVar[str] = "p-tuning"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.10385"
    peft_type: ClassVar[str | None] = "P_TUNING"

    encoder: Literal["mlp", "lstm", "none"] = setting(
        "mlp", "Network that makes the embeddings; none once only what it made is left, as in PEFT's files."
    )
    encoder_width: int | None = setting(None, "Width of the network; the model's when empty.", ge=1)
    encoder_dropout: float = setting(0.0, "Dropout inside the LSTM.", unit="fraction", ge=0, lt=1)

    def prompt(self, start: Tensor, place: Place) -> SoftPrompt:
        """Build the prompt and its network.

        Args:
            start: (P, D).
            place: in an encoder's rows.
        Returns:
            A fresh prompt.
        """
        if self.encoder == "none":
            return TokenTable(start, place)
        width = start.shape[1]
        made = Reparameterised(start, width, self.encoder_width or width, self.encoder, self.encoder_dropout)
        return EncodedTokens(made, len(start), place)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT PromptEncoderConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json; no peft_type where PEFT would put the tokens elsewhere.
        """
        shared = super().to_peft(delta)
        kind = "LSTM" if self.encoder == "lstm" else "MLP"
        width = self.encoder_width or shared["token_dim"]
        return {**shared, "encoder_reparameterization_type": kind, "encoder_hidden_size": width}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT PromptEncoderConfig; the file holds what its network made.

        Args:
            folder: as read.
        Returns:
            The method.
        """
        return cls(
            length=cls.peft_length(folder),
            modules_to_save=cls.peft_heads(folder),
            start="random",
            encoder="none",
            place="start",
        )


class EncodedTokens(TokenPrompt):
    """Virtual tokens that a network makes."""

    def __init__(self, made: Reparameterised, length: int, place: Place) -> None:
        super().__init__(length, place)
        self.made = made

    def flat(self) -> Tensor:
        """Return the embeddings, (P, D)."""
        return self.made()
