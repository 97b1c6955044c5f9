"""IA3: trained vectors that rescale keys, values and the inner activations of feed-forward layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from tunesmith.core.errors import TargetError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import LayerMethod, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.linear import ConvSeam, EmbeddingSeam, LinearSeam
from tunesmith.models.patches import Patch, parameter
from tunesmith.models.seams import Seams
from tunesmith.models.structure import attention_modules, sublayer_outputs

# What maps to keys, to values, or to all of queries, keys and values, are called in the field.
_KEYS_AND_VALUES = (
    "key", "value", "k", "v", "k_proj", "v_proj", "key_proj", "value_proj", "k_lin", "v_lin", "c_k", "c_v", "to_k",
    "to_v", "k_head", "v_head", "kv", "kv_proj", "kv_b_proj", "c_attn", "query_key_value", "qkv", "qkv_proj", "Wqkv",
    "in_proj",
)  # fmt: skip


@register("methods")
class Ia3(LayerMethod):
    """Elementwise rescaling of keys, values and feed-forward activations.

    y = l * (x W^T + b) at keys and values, y = (l * x) W^T + b at the second feed-forward map; l = 1 at the start.

    Source: Liu et al. 2022, arXiv:2205.05638, section 3.3.
    """

    name: ClassVar[str] = "ia3"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2205.05638"
    peft_type: ClassVar[str | None] = "IA3"
    leaves: ClassVar[tuple[str, ...]] = ("ia3_l",)
    lacks: ClassVar[tuple[type[LinearSeam], ...]] = (EmbeddingSeam,)

    layers: str | tuple[str, ...] = setting(
        "auto", "Linear maps to rescale; auto takes keys, values and the second map of every feed-forward layer."
    )
    feed_forward_layers: str | tuple[str, ...] = setting(
        "auto", "Maps whose inputs are rescaled, not their outputs; auto: the second feed-forward maps among `layers`."
    )

    def chosen(self, seams: Seams) -> list[str]:
        """Find the maps to adapt.

        Args:
            seams: of the model.
        Returns:
            Their paths in the model's order.
        Raises:
            TargetError: an entry matches nothing, or the model shows no keys and values.
        """
        if self.layers != "auto":
            found = set(seams.select(self.layers))
        elif self.feed_forward_layers == "auto":
            found = {*_keys_and_values(seams), *sublayer_outputs(seams.model, seams.linear)["feed-forward"]}
        else:
            found = set(_keys_and_values(seams))
        return [path for path in seams.linear if path in found | self._named_feed_forward(seams)]

    def _named_feed_forward(self, seams: Seams) -> set[str]:
        named = self.feed_forward_layers
        return set() if named in ("auto", ()) else set(seams.select(named))

    def feed_forward(self, seams: Seams) -> set[str]:
        """Find the maps whose inputs are rescaled.

        Args:
            seams: of the model.
        Returns:
            Their paths.
        """
        if self.feed_forward_layers != "auto":
            return self._named_feed_forward(seams)
        try:
            return set(sublayer_outputs(seams.model, seams.linear)["feed-forward"])
        except TargetError:  # no blocks: then no map is a feed-forward layer's, and `layers` names all there is
            return set()

    def builders(self, seams: Seams, paths: Sequence[str]) -> dict[str, Callable[[LinearSeam], nn.Module]]:
        """Say which side of each map is rescaled.

        Args:
            seams: of the model.
            paths: of the maps to adapt.
        Returns:
            Path to a function that builds the patch of its map.
        Raises:
            TargetError: a map is a table of embeddings.
        """
        super().builders(seams, paths)
        inputs = self.feed_forward(seams)
        return {path: partial(Ia3Patch, path in inputs) for path in paths}

    def decays(self, parameter: str) -> bool:
        """Say that factors keep their size: a map is as it was where they are one."""
        return not parameter.endswith(".ia3_l")

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT IA3Config.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json.
        """
        inputs = [path for path, patch in delta.patches.items() if patch.on_input]
        return {**super().to_peft(delta), "feedforward_modules": sorted(inputs)}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT IA3Config.

        Args:
            folder: as read.
        Returns:
            The method.
        """
        own = cls.peft_layers(folder)
        named = folder.config.get("feedforward_modules") or ()
        if isinstance(named, str):
            inputs = [path for path in own["layers"] if re.fullmatch(named, path)]
        else:
            inputs = [path for path in own["layers"] if path.endswith(tuple(named))]
        return cls(feed_forward_layers=tuple(inputs), **own)


class Ia3Patch(Patch):
    """The vector of one linear map; the name and shape are PEFT's.

    Args:
        on_input: rescale what goes in, not what comes out.
        seam: the map.
    """

    def __init__(self, on_input: bool, seam: LinearSeam) -> None:
        super().__init__()
        self.on_input = on_input
        self.groups = int(seam.module.groups) if isinstance(seam, ConvSeam) else 0  # type: ignore[arg-type]
        if self.groups:
            channels = seam.stored.shape[1] * self.groups if on_input else seam.width_out
            shape: tuple[int, ...] = (1, channels, *([1] * (seam.stored.dim() - 2)))
        else:
            shape = (1, seam.width_in) if on_input else (seam.width_out, 1)
        self.ia3_l = parameter(shape, seam)
        nn.init.ones_(self.ia3_l)

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map."""
        factor = self.ia3_l if self.groups else self.ia3_l.flatten()
        if self.on_input:
            y: Tensor = seam.base((x * factor).to(x.dtype))
            return y
        y = seam.base(x)
        return (y * factor).to(y.dtype)

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to W, (out, in)."""
        more = self.ia3_l.flatten() - 1
        if not self.on_input:
            return more[:, None] * seam.weight
        if self.groups:  # a group of outputs sees its own inputs only
            cells = seam.stored[0, 0].numel()
            per_group = more.view(self.groups, -1).repeat_interleave(seam.width_out // self.groups, 0)
            return per_group.repeat_interleave(cells, 1) * seam.weight
        return more * seam.weight

    def bias_change(self, seam: LinearSeam) -> Tensor | None:
        """Return what merging adds to b, (out,): the outputs' factors reach it, the inputs' do not."""
        if self.on_input or seam.bias is None:
            return None
        return (self.ia3_l.flatten() - 1) * seam.bias


def _keys_and_values(seams: Seams) -> list[str]:
    inside = tuple(f"{path}." for path in attention_modules(seams.model))
    found = [path for path in seams.linear if path.startswith(inside) and path.rpartition(".")[2] in _KEYS_AND_VALUES]
    if not found:
        ends = sorted({path.rpartition(".")[2] for path in seams.linear})
        raise TargetError(
            f"layers: {type(seams.model).__name__} has no attention module with maps called as keys and values usually "
            f"are (key, value, k_proj, v_proj, ...). Name the layers to rescale; its linear maps end in: "
            f"{', '.join(ends)}. Nothing was trained."
        )
    return found
