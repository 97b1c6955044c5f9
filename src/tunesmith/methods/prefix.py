"""Prefix tuning: trained keys and values in front of every attention layer's own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PeftFolder
from tunesmith.methods.soft import SoftPromptMethod
from tunesmith.models.delta import Delta
from tunesmith.models.probing import attention_layers, recorded_keys
from tunesmith.models.reparameterised import Reparameterised
from tunesmith.models.seams import Seams
from tunesmith.models.soft_prompts import Layer, Plain, PrefixPrompt, SoftPrompt

Part = Literal["self", "cross", "encoder"]


@register("methods")
class PrefixTuning(SoftPromptMethod):
    """Keys and values that every row of the delta attends to, at every layer; on an encoder this is P-tuning v2.

    Source: Li and Liang 2021, arXiv:2101.00190; Liu et al. 2021 (P-tuning v2), arXiv:2110.07602.
    """

    name: ClassVar[str] = "prefix"
    paper: ClassVar[str] = "Li and Liang 2021, arXiv:2101.00190"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    peft_type: ClassVar[str | None] = "PREFIX_TUNING"

    reparameterised: bool = setting(False, "Let a two-layer network make the prefix while it trains.")
    network_width: int | None = setting(None, "Width of that network; the model's when empty.", ge=1)
    parts: tuple[Part, ...] = setting(
        ("self",),
        "In a model with encoder and decoder, where prefixes go: the decoder's self and cross attention, the encoder.",
    )

    every_second: bool = setting(
        False, "In such a model, let layer i take pair 2i modulo the layers; PEFT's files there mean that."
    )

    def build(self, seams: Seams) -> SoftPrompt:
        """Build the prefix.

        Args:
            seams: of the model.
        Returns:
            A fresh prefix.
        """
        layers = [layer for layer in attention_layers(seams) if self._wants(seams, layer)]
        start = self._starting(seams, layers)
        if not self.reparameterised:
            return PlainPrefix(layers, start, self.every_second)
        width = self.network_width or int(seams.model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        return MadePrefix(layers, Reparameterised(start, width, width, "tanh"), self.every_second)

    def _wants(self, seams: Seams, layer: Layer) -> bool:
        encoder = seams.encoder
        if encoder is None:
            return True
        if any(layer.module is module for module in encoder.modules()):
            return "encoder" in self.parts
        return ("cross" if layer.cross else "self") in self.parts

    def _starting(self, seams: Seams, layers: list[Layer]) -> Tensor:
        """Start from the keys and values that real tokens leave; a model without tokens gets random numbers."""
        reads_tokens = getattr(seams.model, "main_input_name", "") == "input_ids"
        if self.start == "random" or not reads_tokens:
            return torch.randn(self.length, sum(layer.numbers for layer in layers)) * 0.02
        return recorded_keys(seams, layers, self.start_ids(seams))

    def warnings(self, seams: Seams) -> list[str]:
        """Say when there are no tokens to start from, and what a start text loses.

        Args:
            seams: of the model.
        Returns:
            Sentences, possibly none.
        """
        name = type(seams.model).__name__
        if self.start == "random" or getattr(seams.model, "main_input_name", "") == "input_ids":
            return super().warnings(seams)
        return [f"method.start={self.start}: {name} reads no tokens; the prefix starts at random."]

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT PrefixTuningConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json; no peft_type where PEFT's layout cannot hold this prefix.
        """
        prompt = delta.prompt
        assert isinstance(prompt, PrefixPrompt)
        shapes = {(layer.heads, layer.width) for layer in prompt.layers}
        both = delta.seams.encoder is not None
        count = len(prompt.layers)
        blocks = count if both else getattr(delta.seams.model.config, "num_hidden_layers", count)
        if len(shapes) > 1 or self.parts != ("self",) or blocks != count:
            return {"peft_type": None}
        if both and not self.every_second and count > 1:
            return {"peft_type": None}
        heads, width = shapes.pop()
        config = super().to_peft(delta)
        config |= {"token_dim": heads * width, "num_attention_heads": heads, "num_layers": len(prompt.layers)}
        if config["task_type"] == "SEQ_2_SEQ_LM":
            config["num_transformer_submodules"] = 2
        return {**config, "prefix_projection": False, "encoder_hidden_size": heads * width}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT PrefixTuningConfig; the file holds the keys and values themselves.

        Args:
            folder: as read.
        Returns:
            The method.
        """
        if "prompt_embeddings" not in folder.tensors:
            raise CheckpointError(f"{folder.where}: the weights hold no 'prompt_embeddings'.")
        both = folder.config.get("num_transformer_submodules") == 2
        return cls(
            length=cls.peft_length(folder), modules_to_save=cls.peft_heads(folder), start="random", every_second=both
        )


class PlainPrefix(Plain, PrefixPrompt):
    """A prefix held as its keys and values."""

    def __init__(self, layers: list[Layer], start: Tensor, every_second: bool) -> None:
        super().__init__(layers, len(start), every_second)
        self.prompt_embeddings = nn.Parameter(start.clone())


class MadePrefix(PrefixPrompt):
    """A prefix that a network makes."""

    def __init__(self, layers: list[Layer], made: Reparameterised, every_second: bool) -> None:
        super().__init__(layers, len(made.start), every_second)
        self.made = made

    def flat(self) -> Tensor:
        """Return keys and values, (P, numbers)."""
        return self.made()
