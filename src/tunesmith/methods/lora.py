"""LoRA: a product of two narrow matrices beside each frozen linear map."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import LayerMethod, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.linear import EmbeddingSeam, LinearSeam
from tunesmith.models.patches import LowRankPatch, Patch, Weight, parameter
from tunesmith.models.seams import Seams


@register("methods")
class Lora(LayerMethod):
    """Low-rank update of frozen linear maps.

    y = x W^T + b + (alpha / rank) x A^T B^T, with B = 0 at the start.

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    peft_type: ClassVar[str | None] = "LORA"
    leaves: ClassVar[tuple[str, ...]] = ("lora_A.weight", "lora_embedding_A")

    rank: int = setting(8, "Inner width of the update.", unit="count", ge=1, le=4096)
    alpha: float | None = setting(None, "Numerator of the scale alpha / rank; twice the rank when empty.", gt=0)
    dropout: float = setting(0.0, "Dropout on the input of A.", unit="fraction", ge=0, lt=1)

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return (2.0 * self.rank if self.alpha is None else self.alpha) / self.rank

    def patch(self, seam: LinearSeam) -> Patch:
        """Build A and B of one map.

        Args:
            seam: the map.
        Returns:
            The patch.
        """
        return LoraPatch(seam, self.rank, self.scale, self.dropout)

    def warnings(self, seams: Seams) -> list[str]:
        """Warn of a rank above a layer's width: the product is then no longer narrow.

        Args:
            seams: of the model.
        Returns:
            At most one sentence.
        """
        maps = [seams.linear[path] for path in self.chosen(seams)]
        wide = [seam for seam in maps if self.rank > min(seam.width_in, seam.width_out)]
        if not wide:
            return []
        width = min(min(seam.width_in, seam.width_out) for seam in wide)
        return [
            f"method.rank={self.rank} is above the width of {len(wide)} of {len(maps)} layers (for example "
            f"'{wide[0].path}', narrowest width {width}): more parameters than training those layers in full."
        ]

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT LoraConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json.
        """
        return {
            **super().to_peft(delta),
            "r": self.rank,
            "lora_alpha": self.scale * self.rank,
            "lora_dropout": self.dropout,
            "bias": "none",
        }

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT LoraConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        Raises:
            CheckpointError: an option that is not supported.
        """
        config = folder.config
        folder.refuse(("use_dora", "rank_pattern", "alpha_pattern", "target_parameters", "lora_bias"))
        rank, alpha = int(config.get("r", 8)), float(config.get("lora_alpha", 8))
        if config.get("use_rslora"):
            alpha *= math.sqrt(rank)
        return cls(rank=rank, alpha=alpha, dropout=float(config.get("lora_dropout", 0.0)), **cls.peft_layers(folder))


class LoraPatch(LowRankPatch):
    """A and B of one linear map; the names are PEFT's."""

    def __init__(self, seam: LinearSeam, rank: int, scale: float, dropout: float) -> None:
        super().__init__(dropout)
        down, up = seam.low_rank_shapes(rank)
        if isinstance(seam, EmbeddingSeam):
            self.lora_embedding_A, self.lora_embedding_B = parameter(down, seam), parameter(up, seam)
        else:
            self.lora_A, self.lora_B = Weight(down, seam), Weight(up, seam)
        first, second, _ = self.product(seam)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5))
        nn.init.zeros_(second)
        self.scale = scale

    scale: float = 1.0

    def product(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float]:
        """Return A, B and the scale."""
        if isinstance(seam, EmbeddingSeam):
            return self.lora_embedding_A, self.lora_embedding_B, self.scale
        return self.lora_A.weight, self.lora_B.weight, self.scale
