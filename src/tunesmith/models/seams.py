"""A pretrained model opened at its seams: where deltas attach, and how they leave without a trace."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError, TargetError, nearest, unknown
from tunesmith.models.attention import NAME, AttentionSeam, close_attention, open_attention
from tunesmith.models.delta import Delta
from tunesmith.models.dropout import DropoutSeam, DropoutSource
from tunesmith.models.linear import LinearSeam, is_linear
from tunesmith.models.routing import Routing

_ATTRIBUTE = "_tunesmith_seams"  # on the model itself, so that both are freed together


class Seams:
    """The seams of one model. Get them with `open_seams`.

    Args:
        model: any torch module; a transformers model also opens at attention.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.routing = Routing()
        self.dropout = DropoutSource()
        self.deltas: dict[str, Delta] = {}
        self.linear = {
            path: LinearSeam(path, module, self.routing) for path, module in model.named_modules() if is_linear(module)
        }
        for seam in self.linear.values():
            seam.module.forward = seam
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.forward = DropoutSeam(module, self.dropout)  # type: ignore[method-assign]
        self._frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        self.attention = self._open_attention()

    def _open_attention(self) -> bool:
        """Put our attention function in place; False when the model does not use the interface."""
        choose = getattr(self.model, "set_attn_implementation", None)
        if choose is None:
            return False
        self._attention_before = self.model.config._attn_implementation  # type: ignore[union-attr]
        try:
            choose(NAME)
        except (ValueError, ImportError):
            return False
        open_attention(self.model, AttentionSeam(self.routing, self.dropout))
        return True

    def close(self) -> None:
        """Give the model back as it was: no delta, no seam, its own attention."""
        for name in list(self.deltas):
            self.detach(name)
        for module in self.model.modules():
            module.__dict__.pop("forward", None)
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        if self.attention:
            close_attention(self.model)
            self.model.set_attn_implementation(self._attention_before)  # type: ignore[operator]
        self.model.__dict__.pop(_ATTRIBUTE, None)

    # Attaching ------------------------------------------------------------------------------------------------

    def attach(
        self,
        name: str,
        patches: dict[str, Callable[[LinearSeam], nn.Module]] | None = None,
        parameters: Iterable[str] = (),
    ) -> Delta:
        """Attach a delta: patches at linear maps, or trained copies of the model's own parameters.

        Args:
            name: of the delta, free so far.
            patches: per linear map's path, a function that builds its patch.
            parameters: dotted names of parameters that the delta replaces by trained copies.
        Returns:
            The delta, active for all rows.
        Raises:
            CompatibilityError: the name is taken.
        """
        if name in self.deltas:
            raise CompatibilityError(f"a delta named '{name}' is attached already; detach it or choose another name.")
        built = {path: build(self.linear[path]) for path, build in (patches or {}).items()}
        for path, patch in built.items():
            weight = self.linear[path].weight
            patch.to(device=weight.device)
            self.linear[path].patches[name] = patch
        copies = {path: nn.Parameter(self.parameter(path).detach().clone()) for path in parameters}
        self.deltas[name] = Delta(self, name, built, copies)
        self.use(name)
        return self.deltas[name]

    def detach(self, name: str) -> None:
        """Take a delta off; the model answers as before, bit for bit.

        Args:
            name: of an attached delta.
        """
        if name not in self.deltas:
            raise CompatibilityError(f"no delta named '{name}' is attached: it was detached or merged before.")
        if self.routing.active == name:
            self.use(None)
        delta = self.deltas.pop(name)
        for path in delta.patches:
            del self.linear[path].patches[name]

    def use(self, name: str | None) -> None:
        """Choose the delta for all rows.

        Args:
            name: of an attached delta; None for the untouched base.
        """
        before = self.deltas.get(self.routing.active or "")
        if before is not None:
            before.swap_out()
        self.routing.active = name
        if name is not None:
            self.deltas[name].swap_in()

    @contextmanager
    def route(self, names: Sequence[str | None]) -> Iterator[None]:
        """Choose each row's delta for the forward passes inside the block.

        Args:
            names: one per row of the batch; None stands for the untouched base.
        Raises:
            CompatibilityError: an unknown name, or a delta that replaces parameters among others: such a
                delta serves all rows of a pass or none.
        """
        for name in sorted({name for name in names if name is not None}):
            if name not in self.deltas:
                raise CompatibilityError(unknown("delta", name, self.deltas))
            if self.deltas[name].copies and len(set(names)) > 1:
                raise CompatibilityError(
                    f"delta '{name}' replaces parameters of the model, so it cannot share a forward pass with "
                    "other deltas; give it batches of its own."
                )
        before = self.routing.active
        if len(set(names)) > 1:
            self.use(None)
            scope: AbstractContextManager[None] = self.routing.rows(names)
        else:
            self.use(names[0])
            scope = nullcontext()
        try:
            with scope:
                yield
        finally:
            self.use(before)

    def parameter(self, path: str) -> Tensor:
        """Return one of the model's parameters by its dotted name.

        Args:
            path: as in `named_parameters`.
        Returns:
            The parameter.
        """
        return self.model.get_parameter(path)

    # Choosing layers ------------------------------------------------------------------------------------------

    def select(self, layers: str | Sequence[str]) -> list[str]:
        """Find the linear maps that a method should adapt.

        Args:
            layers: "all-linear", or one or several of: a dotted name, the end of one (`query`,
                `attention.self.query`), a pattern with `*`, or `re:` and a regular expression.
        Returns:
            Dotted names in the model's order.
        Raises:
            TargetError: an entry matches no linear map; every entry must match one.
        """
        if not self.linear:
            raise TargetError(f"layers: {type(self.model).__name__} has no linear map, so nothing would train.")
        if layers == "all-linear":
            return list(self.linear)
        wanted = [layers] if isinstance(layers, str) else list(layers)
        if not wanted:
            raise TargetError("layers: the list is empty, so nothing would train. 'all-linear' takes every linear map.")
        found: set[str] = set()
        for entry in wanted:
            matched = [path for path in self.linear if _matches(entry, path)]
            if not matched:
                raise TargetError(self._no_match(entry))
            found.update(matched)
        return [path for path in self.linear if path in found]

    def _no_match(self, entry: str) -> str:
        ends = sorted({path.rsplit(".", 1)[-1] for path in self.linear})
        near = nearest(entry, [*ends, *self.linear])
        hint = f" Did you mean '{near}'?" if near else ""
        return (
            f"layers: '{entry}' matches no linear map of {type(self.model).__name__}.{hint} "
            f"Linear maps end in: {', '.join(ends)}; 'all-linear' takes them all. Nothing was trained."
        )


def _matches(entry: str, path: str) -> bool:
    if entry.startswith("re:"):
        try:
            return re.fullmatch(entry[3:], path) is not None
        except re.error as error:
            raise TargetError(f"layers: '{entry}' is not a regular expression: {error}.") from None
    if any(sign in entry for sign in "*?["):
        return fnmatch.fnmatchcase(path, entry) or fnmatch.fnmatchcase(path, f"*.{entry}")
    return path == entry or path.endswith(f".{entry}")


def open_seams(model: nn.Module) -> Seams:
    """Open a model at its seams, once; the same model gives the same seams.

    Opening freezes the model's parameters: what trains afterwards is a delta.

    Args:
        model: any torch module.
    Returns:
        Its seams.
    """
    seams: Seams | None = model.__dict__.get(_ATTRIBUTE)
    if seams is None:
        seams = model.__dict__[_ATTRIBUTE] = Seams(model)
    return seams


def count(tensors: Iterable[Tensor]) -> int:
    """Count the numbers in tensors.

    Args:
        tensors: any.
    Returns:
        Their total number of elements. [count]
    """
    return sum(tensor.numel() for tensor in tensors)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model lives.

    Args:
        model: with at least one parameter.
    Returns:
        The device of its first parameter.
    """
    return next(model.parameters()).device
