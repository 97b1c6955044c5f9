"""The linear seam: every map of a model that is linear in its weight, seen in one way.

A seam stands in for the module's forward. Without a delta it is the module's own forward; with one, the delta's
patch computes the output from the input and the frozen map, or the delta's copies stand in for the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.dropout import drop
from tunesmith.models.low_rank import frozen_linear, grouped_low_rank, one_low_rank
from tunesmith.models.products import chosen
from tunesmith.models.quantized import dense, is_quantised, requantise
from tunesmith.models.routing import Routing, Span
from tunesmith.models.sharding import whole_weight


class Seam:
    """One module that owns parameters, with what deltas put in its place.

    Args:
        path: dotted name of the module in the model.
        module: the module.
        routing: which rows use which delta.
    """

    def __init__(self, path: str, module: nn.Module, routing: Routing) -> None:
        self.path = path
        self.module = module
        self.routing = routing
        self.patches: dict[str, nn.Module] = {}
        self.copies: dict[str, dict[str, nn.Parameter]] = {}
        self.base: Callable[..., Any] = module.forward

    def __call__(self, x: Any = None, *rest: Any, **settings: Any) -> Any:
        """Call the module with the patches and copies of the rows' deltas."""
        x = self._named(settings) if x is None else x
        if self.routing.names is None:
            return self._one(x, rest, settings)
        if not self.routing.touches(self.patches) and not self.routing.touches(self.copies):
            return self.base(x, *rest, **settings)
        if not self.routing.layout and x.shape[0] == 1 < len(self.routing.names):  # shared by all rows, as positions
            x = x.expand(len(self.routing.names) * self.routing.repeat, *x.shape[1:])
        return self._mixed(x, self.routing.spans(x, self.path), rest, settings)

    def _named(self, settings: dict[str, Any]) -> Any:
        """Take the module's first argument out of those that are given by name."""
        names = list(signature(type(self.module).forward).parameters)[1:2]
        return settings.pop(names[0], None) if names else None

    def _mixed(self, x: Tensor, spans: list[Span], rest: tuple[Any, ...], settings: dict[str, Any]) -> Tensor:
        dim, outputs = spans[0].dim, []
        for span, piece in zip(spans, x.split([span.size for span in spans], dim=dim), strict=True):
            with self.routing.only(span.name):
                y = self._one(piece, rest, settings)
            if not isinstance(y, Tensor):
                raise CompatibilityError(
                    f"'{self.path}' gives a {type(y).__name__}, not one tensor of its rows, so deltas cannot be mixed "
                    "there. Give each delta batches of its own."
                )
            shared = y.shape[0] == 1 < span.size and self.routing.layout is None  # BART's table makes one row for all
            outputs.append(y.expand(span.size, *y.shape[1:]) if shared else y)
        return torch.cat(outputs, dim=dim)

    def _one(self, x: Tensor, rest: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        """Compute with the active delta; its copies stand in for the whole pass unless rows are mixed."""
        name = self.routing.active or ""
        patch, copies = self.patches.get(name), self.copies.get(name)
        if copies and self.routing.swapped != name:
            with self._standing_in(copies):
                return self.base(x, *rest, **settings) if patch is None else patch(x, self)
        return self.base(x, *rest, **settings) if patch is None else patch(x, self)

    @contextmanager
    def _standing_in(self, copies: dict[str, nn.Parameter]) -> Iterator[None]:
        own = self.module._parameters
        before = {leaf: own[leaf] for leaf in copies}
        own.update(copies)
        try:
            yield
        finally:
            own.update(before)

    def drop(self, x: Tensor, rate: float) -> Tensor:
        """Zero elements of a patch's input at random, from the delta's own stream.

        Args:
            x: any shape.
            rate: probability of dropping. [fraction]
        Returns:
            The shape and dtype of x.
        """
        return nn.functional.dropout(x, rate) if self.routing.recomputes else drop(x, rate, self.routing.source())


class LinearSeam(Seam):
    """One linear map: y = x W^T + b.

    nn.Linear, transformers' Conv1D (which stores W transposed) and linears whose weight is quantised.
    """

    module: nn.Module
    looks_up: ClassVar[bool] = False  # whether the input is ids

    def __init__(self, path: str, module: nn.Module, routing: Routing) -> None:
        super().__init__(path, module, routing)
        self.transposed = isinstance(module, Conv1D)
        self.exact = False  # the output map, whose logits stay in the model's own type
        self._plain: Callable[[Tensor], Tensor] = module.forward
        if self.quantised:
            self.base = self._read_back
        elif type(self) is LinearSeam:
            self.base = self._frozen
        self._joins_others = type(self) is LinearSeam and not self.quantised

    def __call__(self, x: Any = None, *rest: Any, **settings: Any) -> Any:
        """Call the map with the patches of the rows' deltas, together with those that read the same tensor."""
        x = self._named(settings) if x is None else x
        if self._joins_others and self.routing.quick and self.routing.names is None and not rest and not settings:
            found = self.routing.joint.run(self, x)
            if found is not None:
                return found
        return super().__call__(x, *rest, **settings)

    def _frozen(self, x: Tensor) -> Tensor:
        """Map by the fastest product, in a narrower type where asked for; as the module does where it trains."""
        narrow = chosen() is not None and not self.exact
        quick = self.routing.quick and x.device.type == "cpu" and chosen() is None
        if not (narrow or quick) or not self.fused or x.dtype != self.stored.dtype:
            return self._plain(x)
        return frozen_linear(x, self.weight, self.bias)

    def _read_back(self, x: Tensor) -> Tensor:
        """Map by a quantised weight, or by the copy that stands in for it."""
        if self.quantised:
            return frozen_linear(x, self.stored, self.bias)
        return nn.functional.linear(x, self.stored, self.bias)

    @property
    def stored(self) -> Tensor:
        """The weight as the module holds it."""
        return self.module.weight  # type: ignore[return-value]

    @property
    def quantised(self) -> bool:
        """Whether the weight is held in fewer bits than it computes with."""
        return is_quantised(self.stored)

    @property
    def weight(self) -> Tensor:
        """W as a matrix, (out, in); a view where possible, a copy where it is quantised, or lies in parts."""
        if self.quantised:
            return dense(self.stored)
        stored = whole_weight(self.module)
        return stored.t() if self.transposed else stored

    @property
    def stores_transposed(self) -> bool:
        """Whether the module is a Conv1D; PEFT calls that fan_in_fan_out."""
        return isinstance(self.module, Conv1D)

    @property
    def dtype(self) -> torch.dtype:
        """What patches compute in: float64 for a float64 map, else float32."""
        return torch.float64 if self.stored.dtype == torch.float64 else torch.float32

    @property
    def bias(self) -> Tensor | None:
        """b, (out,), or None."""
        return self.module.bias  # type: ignore[return-value]

    @property
    def scale(self) -> Any:
        """What the map's output is multiplied by besides W; some models do that to embeddings."""
        return 1.0

    @property
    def width_in(self) -> int:
        """Columns of W."""
        return self.stored.shape[0] if self.transposed else self.stored.shape[1]

    @property
    def width_out(self) -> int:
        """Rows of W."""
        return self.stored.shape[1] if self.transposed else self.stored.shape[0]

    def low_rank_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the two factors of a low-rank change.

        Args:
            rank: inner width. [count]
        Returns:
            Of `down` and of `up`, as `plus_low_rank` takes them.
        """
        return (rank, self.width_in), (self.width_out, rank)

    def product(self, down: Tensor, up: Tensor) -> Tensor:
        """Multiply two factors out.

        Args:
            down: first factor.
            up: second factor.
        Returns:
            What they add to W, (out, in).
        """
        return up.flatten(1) @ down.flatten(1)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map with another matrix in the place of W.

        Args:
            x: input of the module.
            weight: (out, in).
            bias: (out,) or None.
        Returns:
            Output of the module.
        """
        return nn.functional.linear(x, weight, bias)

    def low_rank(self, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Map by the low-rank product alone.

        Args:
            x: input of the module.
            down: first factor.
            up: second factor.
        Returns:
            Output of the module's shape, in the factors' dtype.
        """
        return (x.to(down.dtype) @ down.t()) @ up.t()

    @property
    def fused(self) -> bool:
        """Whether the frozen map and a low-rank product can run as one node of the graph."""
        return not self.quantised and not self.stored.requires_grad and not self.routing.twice

    def plus_low_rank(self, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        """Frozen map plus a product of low rank, in one step that keeps only x.

        y = x W^T + b + scale * (x down^T) up^T

        Args:
            x: hidden states, (..., in).
            down: (rank, in).
            up: (out, rank).
            scale: of the product.
        Returns:
            (..., out), dtype of x.
        """
        if (self.fused or self.quantised) and x.dtype == self.stored.dtype and self._joins(down):
            return one_low_rank(x, self.stored if self.quantised else self.weight, self.bias, down, up, scale)
        y: Tensor = self.base(x)
        return y + (scale * self.low_rank(x, down, up)).to(y.dtype)

    def _mixed(self, x: Tensor, spans: list[Span], rest: tuple[Any, ...], settings: dict[str, Any]) -> Tensor:
        """Run the frozen map once for all rows where every delta only adds a low-rank product."""
        factors = [self.factors_of(span.name) for span in spans] if type(self) is LinearSeam and self.fused else [None]
        if any(found is None for found in factors):
            return super()._mixed(x, spans, rest, settings)
        per_part = x[..., 0].numel() // x.shape[spans[0].dim]
        sizes = [span.size * per_part for span in spans]
        return grouped_low_rank(x, self.weight, self.bias, sizes, [found or () for found in factors])

    def _joins(self, factor: Tensor) -> bool:
        """Say whether a factor may be multiplied in the map's own type: the same, or 16 bits of its 32."""
        return factor.dtype == self.stored.dtype or (factor.dtype == torch.float32 and self.stored.dtype.itemsize == 2)

    def factors_of(self, name: str | None) -> tuple[Any, ...] | None:
        """Return what a delta adds here.

        Args:
            name: of the delta; None for the base.
        Returns:
            (down, up, scale); () when it adds nothing, None when it does more than a low-rank product.
        """
        if self.copies.get(name or ""):
            return None
        patch = self.patches.get(name or "")
        if patch is None:
            return ()
        factors = getattr(patch, "factors", None)
        found: tuple[Any, ...] | None = None if factors is None else factors(self)
        return found if found is None or self._joins(found[0]) else None

    @torch.no_grad()
    def add_to_weight(self, change: Tensor) -> None:
        """Add to W for good; used by merge.

        Args:
            change: (out, in).
        Raises:
            CompatibilityError: W is quantised.
        """
        stored = self.stored
        if self.quantised:
            raise CompatibilityError(
                f"'{self.path}' is quantised: rounding the merged weight again would change the answers. Keep the "
                "delta attached, or load the base in full precision (without model.quantization) and merge there."
            )
        stored += (change.t() if self.transposed else change).reshape(stored.shape).to(stored.dtype)

    @torch.no_grad()
    def requantise(self, change: Tensor) -> float:
        """Add to a quantised W for good and quantise the sum.

        Args:
            change: (out, in).
        Returns:
            What that lost: the norm of the error over the norm of the sum. [fraction]
        """
        fewer, lost = requantise(self.stored, change)
        self.module.weight = nn.Parameter(fewer, requires_grad=False)
        return lost


class ConvSeam(LinearSeam):
    """One convolution (nn.Conv1d, nn.Conv2d); its W has one column per input channel and kernel cell."""

    @property
    def weight(self) -> Tensor:
        """The kernels as a matrix, (out, in * kernel)."""
        return whole_weight(self.module).flatten(1)

    @property
    def width_in(self) -> int:
        """Columns of W."""
        return self.stored.shape[1:].numel()

    def low_rank_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of kernels to `rank` channels and of kernels of size one back."""
        kernel = self.stored.shape[2:]
        return (rank, *self.stored.shape[1:]), (self.width_out, rank, *([1] * len(kernel)))

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with other kernels, (out, in * kernel)."""
        y: Tensor = self.module._conv_forward(x, weight.view(self.stored.shape), bias)  # type: ignore[operator]
        return y

    def low_rank(self, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Convolve to few channels, then mix them."""
        narrow: Tensor = self.module._conv_forward(x.to(down.dtype), down, None)  # type: ignore[operator]
        mix = nn.functional.conv1d if up.dim() == 3 else nn.functional.conv2d
        return mix(narrow, up)

    @property
    def fused(self) -> bool:
        """Convolutions have no fused form."""
        return False


class EmbeddingSeam(LinearSeam):
    """One table of embeddings; x holds ids and W, (D, V), is the table transposed."""

    looks_up: ClassVar[bool] = True

    def __init__(self, path: str, module: nn.Module, routing: Routing) -> None:
        super().__init__(path, module, routing)
        self.transposed = True

    @property
    def bias(self) -> None:
        """A table has no bias."""
        return None

    @property
    def scale(self) -> Any:
        """What some models multiply embeddings by."""
        return getattr(self.module, "embed_scale", 1.0)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Look ids up in another table, (D, V)."""
        return nn.functional.embedding(x, weight.t(), self.module.padding_idx) * self.scale  # type: ignore[arg-type]

    def low_rank(self, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Look ids up in the narrow table, then widen."""
        return (nn.functional.embedding(x, down.t()) @ up.t()) * self.scale

    @property
    def fused(self) -> bool:
        """Tables have no fused form."""
        return False


_KINDS: tuple[tuple[type[nn.Module], type[LinearSeam]], ...] = (
    (nn.Linear, LinearSeam),
    (Conv1D, LinearSeam),
    (nn.Conv1d, ConvSeam),
    (nn.Conv2d, ConvSeam),
    (nn.Embedding, EmbeddingSeam),
)


def linear_seam(path: str, module: nn.Module, routing: Routing) -> LinearSeam | None:
    """Open a module at the linear seam.

    Args:
        path: its dotted name.
        module: any module.
        routing: of the model.
    Returns:
        The seam; None when the module is not linear in one weight.
    """
    for kind, seam in _KINDS:
        if isinstance(module, kind):
            return seam(path, module, routing)
    return None
