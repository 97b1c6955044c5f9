"""Bottleneck adapters: a narrow network behind or beside a sublayer's last linear map."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tunesmith.core.errors import RecipeError, TargetError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import LayerMethod
from tunesmith.models.linear import ConvSeam, EmbeddingSeam, LinearSeam
from tunesmith.models.patches import Patch, parameter
from tunesmith.models.seams import Seams
from tunesmith.models.structure import sublayer_outputs

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky-relu": nn.functional.leaky_relu,
    "none": lambda x: x,
}
_SUBLAYERS = {
    "houlsby": ("attention", "feed-forward"),
    "pfeiffer": ("feed-forward",),
    "parallel": ("feed-forward",),
}


@register("methods")
class Adapter(LayerMethod):
    """A narrow network with a skip connection at the last map of a sublayer, with up = 0 at the start.

    houlsby (behind attention and feed-forward), pfeiffer (behind feed-forward): y' = y + scale * up(act(down(y)))
    parallel (beside feed-forward): y' = y + scale * up(act(down(x))), x the input of the sublayer's last map

    Source: Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00247; He et al. 2021,
    arXiv:2110.04366, eq. 8; `active` as in Makhzani and Frey 2013, arXiv:1312.5663, section 2. Differs: the adapter
    stands before the sublayer's own dropout, and the parallel one reads the (wider) input of the feed-forward's last
    map, where the paper reads the input of its first one.
    """

    name: ClassVar[str] = "adapter"
    paper: ClassVar[str] = "Houlsby et al. 2019, arXiv:1902.00751"
    mergeable: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "attention"})

    variant: Literal["houlsby", "pfeiffer", "parallel"] = setting(
        "pfeiffer", "houlsby: behind attention and feed-forward; pfeiffer: behind feed-forward; parallel: beside it."
    )
    reduction_factor: float = setting(16.0, "Width of the map over the width of the adapter.", ge=1, le=4096)
    width: int | None = setting(
        None, "Inner width of the adapter; from reduction_factor when empty.", unit="count", ge=1, le=65536
    )
    activation: Literal["relu", "gelu", "silu", "tanh", "sigmoid", "leaky-relu", "none"] = setting(
        "relu", "Non-linearity between the two narrow maps."
    )
    active: float = setting(
        1.0,
        "Share of a token's inner units that stay, the largest ones; the others are zero.",
        unit="fraction",
        gt=0,
        le=1,
    )
    residual: bool = setting(True, "Add the adapter to the sublayer's output; false puts it in the output's place.")
    scale: float | None = setting(None, "Factor of the adapter; 4 for parallel and 1 otherwise when empty.", gt=0)
    dropout: float = setting(0.0, "Dropout on the adapter's input.", unit="fraction", ge=0, lt=1)

    def chosen(self, seams: Seams) -> list[str]:
        """Find the maps to adapt.

        Args:
            seams: of the model.
        Returns:
            Their paths in the model's order.
        Raises:
            TargetError: no such map, or one that is a convolution or a table.
            RecipeError: a parallel adapter without the sum that makes it one.
        """
        if self.variant == "parallel" and not self.residual:
            raise RecipeError(
                "method.residual=false: a parallel adapter is a sum with the sublayer's output. Set method.residual="
                "true, or choose method.variant=pfeiffer."
            )
        if self.layers == "auto":
            found = sublayer_outputs(seams.model, seams.linear)
            wanted = {path for kind in _SUBLAYERS[self.variant] for path in found[kind]}
            return [path for path in seams.linear if path in wanted]
        paths = seams.select(self.layers)
        odd = [path for path in paths if isinstance(seams.linear[path], ConvSeam | EmbeddingSeam)]
        if odd:
            raise TargetError(
                f"layers: '{odd[0]}' is a {type(seams.linear[odd[0]].module).__name__}; a bottleneck adapter stands at "
                "plain linear maps. Leave it out of method.layers."
            )
        return paths

    def patch(self, seam: LinearSeam) -> Patch:
        """Build the adapter of one map.

        Args:
            seam: the map.
        Returns:
            The patch.
        """
        width = self.width or max(1, round(seam.width_out / self.reduction_factor))
        scale = self.scale or (4.0 if self.variant == "parallel" else 1.0)
        return AdapterPatch(seam, width, scale, self)

    def warnings(self, seams: Seams) -> list[str]:
        """Warn of an adapter that cuts its sublayer off.

        Args:
            seams: of the model.
        Returns:
            At most one sentence.
        """
        if self.residual:
            return []
        return ["method.residual=false: fresh adapters cut the sublayers' outputs off, so training starts from noise."]


class Narrow(nn.Module):
    """Weight and bias of one of an adapter's maps, (out, in) and (out,)."""

    def __init__(self, seam: LinearSeam, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = parameter((outputs, inputs), seam)
        self.bias = parameter((outputs,), seam)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.zeros_(self.bias)


class Inner(nn.Module):
    """What stands between an adapter's maps: a non-linearity, and of its units the largest alone.

    Args:
        activation: by name.
        active: share of a token's units that stay. [fraction]
    """

    gives_zeros: ClassVar[bool] = True

    def __init__(self, activation: str, active: float) -> None:
        super().__init__()
        self._activation, self._active = _ACTIVATIONS[activation], active

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, width) from the same shape."""
        h = self._activation(x)
        if self._active == 1.0:
            return h
        kept = h.abs().topk(max(1, round(self._active * h.shape[-1])), -1, sorted=False).indices
        return torch.zeros_like(h).scatter(-1, kept, h.gather(-1, kept))


class AdapterPatch(Patch):
    """The two narrow maps of one adapter.

    Args:
        seam: the map.
        width: between the two maps. [count]
        scale: of the adapter's output.
        settings: of the method.
    """

    def __init__(self, seam: LinearSeam, width: int, scale: float, settings: Adapter) -> None:
        super().__init__()
        self.parallel, self.residual = settings.variant == "parallel", settings.residual
        self.scale, self.dropout = scale, settings.dropout
        self.activation = Inner(settings.activation, settings.active)
        self.adapter_down = Narrow(seam, seam.width_in if self.parallel else seam.width_out, width)
        self.adapter_up = Narrow(seam, width, seam.width_out)
        if self.residual:
            nn.init.zeros_(self.adapter_up.weight)

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the adapted map."""
        y: Tensor = seam.base(x)
        read = x if self.parallel else y
        if self.dropping(seam, self.dropout):
            read = seam.drop(read, self.dropout)
        down, up = self.adapter_down, self.adapter_up
        narrow = self.activation(nn.functional.linear(read.to(down.weight.dtype), down.weight, down.bias))
        # The scale is applied where it is cheap: to the narrow states, not to the wide output.
        added = nn.functional.linear(self.scale * narrow, up.weight, self.scale * up.bias).to(y.dtype)
        return y + added if self.residual else added
