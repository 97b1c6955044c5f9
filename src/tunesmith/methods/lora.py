"""LoRA: a product of two narrow matrices beside each frozen linear map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, TargetError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.linear import LinearSeam
from tunesmith.models.patches import LowRankPatch, Weight
from tunesmith.models.seams import Seams


@register("methods")
class Lora(Method):
    """Low-rank update of frozen linear maps.

    y = x W^T + b + (alpha / rank) x A^T B^T, with B = 0 at the start.

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    peft_type: ClassVar[str | None] = "LORA"

    rank: int = setting(8, "Inner width of the update.", unit="count", ge=1, le=4096)
    alpha: float | None = setting(None, "Numerator of the scale alpha / rank; twice the rank when empty.", gt=0)
    layers: str | tuple[str, ...] = setting(
        "all-linear", "Linear maps to adapt: all-linear, names, ends of names, patterns with *, or re:REGEX."
    )
    dropout: float = setting(0.0, "Dropout on the input of A.", unit="fraction", ge=0, lt=1)
    modules_to_save: tuple[str, ...] = setting(
        (), "Modules that train whole beside the updates, by name or end of name, for example a model's own head."
    )

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return (2.0 * self.rank if self.alpha is None else self.alpha) / self.rank

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a patch to every chosen linear map.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            TargetError: an entry of `layers`, or all of `modules_to_save`, matches nothing.
        """
        whole = self._whole(seams)
        paths = [path for path in seams.select(self.layers) if f"{path}.weight" not in whole]
        return seams.attach(name, {path: self._patch for path in paths}, whole)

    def _whole(self, seams: Seams) -> list[str]:
        """Return the parameters that train whole."""
        if not self.modules_to_save:
            return []
        ends = tuple(f".{module}" for module in self.modules_to_save)
        named = [path for path, _ in seams.model.named_parameters()]
        found = [path for path in named if f".{path.rpartition('.')[0]}".endswith(ends)]
        if not found:
            raise TargetError(
                f"modules_to_save: none of {', '.join(self.modules_to_save)} is a module with parameters of "
                f"{type(seams.model).__name__}."
            )
        return found

    def _patch(self, seam: LinearSeam) -> nn.Module:
        return LoraPatch(seam, self.rank, self.scale, self.dropout)

    def warnings(self, seams: Seams) -> list[str]:
        """Warn of a rank above a layer's width: the product is then no longer narrow.

        Args:
            seams: of the model.
        Returns:
            At most one sentence.
        """
        maps = [seams.linear[path] for path in seams.select(self.layers)]
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
            "r": self.rank,
            "lora_alpha": self.scale * self.rank,
            "lora_dropout": self.dropout,
            "target_modules": sorted(delta.patches),
            "bias": "none",
            "modules_to_save": list(self.modules_to_save) or None,
            "fan_in_fan_out": any(delta.seams.linear[path].transposed for path in delta.patches),
        }

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], where: str) -> Self:
        """Read a PEFT LoraConfig.

        Args:
            config: the content of adapter_config.json.
            where: its name, for errors.
        Returns:
            The method.
        Raises:
            CheckpointError: an option that is not supported here yet.
        """
        for option in ("use_dora", "rank_pattern", "alpha_pattern", "target_parameters"):
            if config.get(option):
                raise CheckpointError(f"{where}: the option '{option}' of PEFT's LoRA is not supported yet.")
        if config.get("bias", "none") != "none" or config.get("lora_bias"):
            raise CheckpointError(f"{where}: trained biases in PEFT's LoRA are not supported yet.")
        rank, alpha = int(config.get("r", 8)), float(config.get("lora_alpha", 8))
        if config.get("use_rslora"):
            alpha *= math.sqrt(rank)
        targets = config.get("target_modules") or "all-linear"
        if isinstance(targets, str) and targets != "all-linear":
            targets = f"re:{targets}"
        layers = targets if isinstance(targets, str) else tuple(targets)
        return cls(
            rank=rank,
            alpha=alpha,
            layers=layers,
            dropout=float(config.get("lora_dropout", 0.0)),
            modules_to_save=tuple(config.get("modules_to_save") or ()),
        )


class LoraPatch(LowRankPatch):
    """A and B of one linear map; the names are PEFT's."""

    def __init__(self, seam: LinearSeam, rank: int, scale: float, dropout: float) -> None:
        super().__init__(dropout)
        down, up = seam.low_rank_shapes(rank)
        self.lora_A = Weight(down, seam)
        self.lora_B = Weight(up, seam)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.scale = scale

    def product(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float]:
        """Return A, B and the scale."""
        return self.lora_A.weight, self.lora_B.weight, self.scale
