"""A pretrained model opened at its seams: where deltas attach, and how they leave without a trace."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from weakref import ref

from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError, TargetError, nearest, unknown
from tunesmith.models.attention import NAME, AttentionSeam, close_attention, open_attention
from tunesmith.models.delta import Delta
from tunesmith.models.dropout import DropoutSource
from tunesmith.models.hosting import DecoderSeam, HostSeam
from tunesmith.models.instead import instead_of
from tunesmith.models.linear import ConvSeam, EmbeddingSeam, LinearSeam, Seam, linear_seam
from tunesmith.models.placing import device_of
from tunesmith.models.quantized import dense, is_quantised
from tunesmith.models.routing import Routing
from tunesmith.models.sharding import check_whole
from tunesmith.models.soft_prompts import Place
from tunesmith.models.structure import is_causal, stacks

_ATTRIBUTE = "_tunesmith_seams"  # on the model itself, so that both are freed together


class Seams:
    """The seams of one model. Get them with `open_seams`.

    Args:
        model: any torch module; a transformers model also opens at attention.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tokenizer: Any = None  # of the model, where known: methods may start from a text
        self.routing = Routing()
        self.routing.layers = [ref(module) for module in model.modules() if hasattr(module, "gradient_checkpointing")]
        self.attending = AttentionSeam(self.routing)
        self.hosts: list[HostSeam] = []  # opened by the first soft prompt
        self.deltas: dict[str, Delta] = {}
        self.linear = dict(self._open_linear())
        self.modules: dict[str, Seam] = dict(self.linear)  # grows by the owners of parameters that a delta copies
        output = self._output()
        for seam in self.linear.values():
            seam.module.forward = seam
            seam.exact = seam.module is output
        for module in model.modules():
            instead = instead_of(module, self.routing)
            if instead is not None:
                module.forward = instead
        self._frozen = [path for path, own in model.named_parameters(remove_duplicate=False) if own.requires_grad]
        for path in self._frozen:  # by name, as a merge puts new tensors in their places
            self.parameter(path).requires_grad_(False)
        self.attention = self._open_attention()
        model.__dict__["_apply"] = self._moved  # .to, .half, .cuda and their kin come through it

    def _moved(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Move the model's own parameters and those of deltas; patches keep their type and follow the device."""
        with self.bare():
            type(self.model)._apply(self.model, move, recurse)
            for delta in self.deltas.values():
                for own in delta.copies.values():
                    own.data = move(own.data)
                for module in delta.modules():
                    module.to(device=device_of(self.model))
            self.forget_prefixes()
        return self.model

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Take the copies of the delta in use out of the model inside the block, to read the base."""
        active = self.routing.active
        self.use(None)
        try:
            yield
        finally:
            self.use(active)

    def __deepcopy__(self, memo: dict[int, Any]) -> Seams:
        """Copy with the model."""
        copied = memo[id(self)] = object.__new__(Seams)
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    def __reduce__(self) -> Any:
        """Refuse to pickle: methods are found by name again, and a seam stands where forward was."""
        raise CompatibilityError(
            f"an opened {type(self.model).__name__} cannot be pickled (torch.save of the whole model). Save its "
            "state_dict() or the delta, or close the seams first: open_seams(model).close()."
        )

    def _open_linear(self) -> Iterator[tuple[str, LinearSeam]]:
        """Find the linear maps; those inside nn.MultiheadAttention are never called, so they are left out."""
        whole = [path for path, module in self.model.named_modules() if isinstance(module, nn.MultiheadAttention)]
        closed = tuple(f"{path}." if path else "" for path in whole)
        for path, module in self.model.named_modules():
            seam = linear_seam(path, module, self.routing)
            if seam is not None and not path.startswith(closed):
                yield path, seam

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
        open_attention(self.model, self.attending)
        return True

    def close(self) -> None:
        """Give the model back as it was: no delta, no seam, its own attention."""
        for name in list(self.deltas):
            self.detach(name)
        for host in self.hosts:
            host.close()
        for module in self.model.modules():
            module.__dict__.pop("forward", None)
        for path in self._frozen:
            self.parameter(path).requires_grad_(True)
        if self.attention:
            close_attention(self.model)
            self.model.set_attn_implementation(self._attention_before)  # type: ignore[operator]
        self.model.__dict__.pop("_apply", None)
        self.model.__dict__.pop(_ATTRIBUTE, None)

    # Attaching ------------------------------------------------------------------------------------------------

    def attach(
        self,
        name: str,
        patches: dict[str, Callable[[LinearSeam], nn.Module]] | None = None,
        parameters: Iterable[str] = (),
        prompt: nn.Module | None = None,
        alone: Iterable[str] = (),
    ) -> Delta:
        """Attach a delta: patches at linear maps, trained copies of the model's own parameters, a soft prompt.

        Args:
            name: of the delta, free so far.
            patches: per linear map's path, a function that builds its patch.
            parameters: dotted names of parameters that the delta replaces by trained copies.
            prompt: keys and values, or virtual tokens, that every row of the delta sees.
            alone: those of `parameters` whose copies do not stand in for what is tied to them.
        Returns:
            The delta, active for all rows.
        Raises:
            CompatibilityError: the name is taken, or a copy would stand for a matrix that processes share out.
        """
        check_whole(self.model, parameters := list(parameters))
        if prompt is not None:
            self._open_hosts()
            prompt.to(device=device_of(self.model))
        if not isinstance(name, str) or not name:
            raise CompatibilityError(f"a delta's name is a text that is not empty, not {name!r}.")
        if name in self.deltas:
            raise CompatibilityError(f"a delta named '{name}' is attached already; detach it or choose another name.")
        with self.bare():  # it begins at the base, not at the copies of another delta
            built = {path: build(self.linear[path]) for path, build in (patches or {}).items()}
            for path, patch in built.items():
                patch.to(device=self.linear[path].stored.device)
            copies = {path: nn.Parameter(dense(self.parameter(path)).detach().clone()) for path in parameters}
            delta = Delta(self, name, built, copies, prompt, frozenset(alone))
        self.place(delta)
        return delta

    def place(self, delta: Delta) -> None:
        """Put a delta's patches and copies at their places and use it for all rows.

        Args:
            delta: built for this model and not attached now; its name is free.
        """
        self.deltas[delta.name] = delta
        for path, patch in delta.patches.items():
            self.linear[path].patches[delta.name] = patch
        for path, leaf, copy in delta.places:
            self._seam(path).copies.setdefault(delta.name, {})[leaf] = copy
        self.use(delta.name)

    # Soft prompts ---------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> nn.Module | None:
        """The encoder of a model that has a decoder beside it."""
        config: Any = getattr(self.model, "config", None)
        if not getattr(config, "is_encoder_decoder", False):
            return None
        return self.model.base_model.get_encoder()  # type: ignore[operator,union-attr]

    @property
    def reader(self) -> nn.Module:
        """The part that reads the input: the encoder, or the whole model without its head."""
        return self.encoder or getattr(self.model, "base_model", self.model)  # type: ignore[return-value]

    @property
    def embedding_weight(self) -> Tensor:
        """The table of input embeddings, (V, D)."""
        return self.reader.get_input_embeddings().weight  # type: ignore[operator]

    def place_of_virtual_tokens(self, wanted: str) -> Place:
        """Settle where virtual tokens stand in a row.

        Args:
            wanted: "auto", "start" or "after-first".
        Returns:
            For auto: after the first token of an encoder, which heads may read; else the start.
        """
        if wanted != "auto":
            return wanted  # type: ignore[return-value]
        return "start" if self.encoder is not None or is_causal(self.reader) else "after-first"

    def _open_hosts(self) -> None:
        """Open the parts of the model where soft prompts come in, once."""
        if self.hosts:
            return
        self.hosts.append(HostSeam(self.reader, self))
        if self.encoder is not None:
            self.hosts.append(DecoderSeam(self.model.base_model.get_decoder(), self))  # type: ignore[operator,union-attr]
        for host in self.hosts:
            host.module.forward = host

    def forget_prefixes(self) -> None:
        """Compute the keys and values of soft prompts anew: the model under them has changed."""
        for host in self.hosts:
            host.kept.clear()

    def _seam(self, path: str) -> Seam:
        """Open one module that owns parameters, once."""
        if path not in self.modules:
            seam = self.modules[path] = Seam(path, self.model.get_submodule(path), self.routing)
            seam.module.forward = seam
        return self.modules[path]

    def trainable(self) -> list[str]:
        """Return the parameters that were not frozen when the model was opened; all where every one was.

        Returns:
            Dotted names, each shared parameter once.
        """
        free = set(self._frozen)
        with self.bare():  # a copy that stands alone would show a shared parameter twice
            names = [path for path, _ in self.model.named_parameters()]
            return [path for path in names if path in free or is_quantised(self.parameter(path))] or names

    def biases(self) -> list[str]:
        """Return those of `trainable` that are biases.

        Returns:
            Dotted names; none where the model has no bias.
        """
        return [path for path in self.trainable() if path.rsplit(".", 1)[-1] == "bias"]

    def owners(
        self, copies: dict[str, nn.Parameter], alone: Container[str] = ()
    ) -> list[tuple[str, str, nn.Parameter]]:
        """Find every place that a copied parameter has in the model; tied ones have several.

        Args:
            copies: dotted name of a parameter to its copy.
            alone: names among them that mean one place.
        Returns:
            (module's path, parameter's name there, copy).
        """
        own = {id(self.parameter(path)): copy for path, copy in copies.items() if path not in alone}
        places = []
        for path, module in self.model.named_modules(remove_duplicate=False):
            for leaf, parameter in module._parameters.items():
                name = f"{path}.{leaf}".removeprefix(".")
                copy = copies[name] if name in alone else own.get(id(parameter))
                if copy is not None:
                    places.append((path, leaf, copy))
        return places

    def detach(self, name: str) -> None:
        """Take a delta off; the model answers as before, bit for bit.

        Args:
            name: of an attached delta.
        """
        if name not in self.deltas:
            raise CompatibilityError(f"no delta named '{name}' is attached: it was detached or merged before.")
        delta = self.deltas[name]
        views = [view for view in delta.views if view in self.deltas]  # one may have left before
        if not {name, *views}.isdisjoint(self.routing.names or ()):
            raise CompatibilityError(f"delta '{name}' answers rows of a route; leave the block before it is detached.")
        if self.routing.active == name:
            self.use(None)
        del self.deltas[name]
        for view in views:
            self.detach(view)
        self.forget_prefixes()
        self.routing.sources.pop(name, None)
        for path in delta.patches:
            del self.linear[path].patches[name]
        for path, _, _ in delta.places:
            self.modules[path].copies.pop(name, None)

    def use(self, name: str | None) -> None:
        """Choose the delta for all rows.

        Args:
            name: of an attached delta; None for the untouched base.
        Raises:
            CompatibilityError: an unknown name.
        """
        if name is not None and name not in self.deltas:
            raise CompatibilityError(unknown("delta", name, self.deltas))
        if name == self.routing.active == self.routing.swapped:
            return
        if (before := self.deltas.get(self.routing.active or "")) is not None:
            before.swap_out()
        self.routing.active = self.routing.swapped = name
        if name is not None:
            self.deltas[name].swap_in()

    @contextmanager
    def route(self, names: Sequence[str | None]) -> Iterator[None]:
        """Choose each row's delta for the forward passes inside the block.

        Args:
            names: one per row of the batch; None stands for the untouched base.
        Raises:
            CompatibilityError: an unknown name.
        """
        if isinstance(names, str) or not isinstance(names, Sequence) or not names:
            raise CompatibilityError(f"route takes a list with one delta name (or None) per row, not {names!r}.")
        for name in names:
            if name is not None and name not in self.deltas:
                raise CompatibilityError(unknown("delta", str(name), self.deltas))
        before = self.routing.active
        mixed = len(set(names)) > 1
        if len(names) > 1 and hasattr(self.model, "base_model"):
            self._open_hosts()  # they know how many rows a batch has
        self.use(None if mixed else names[0])
        try:
            with self.routing.rows(names if mixed else None, len(names)):
                yield
        finally:
            self.use(before if before in self.deltas else None)

    def own_dropout(self, name: str) -> DropoutSource:
        """Return a delta's own stream of dropout masks, which no other delta's rows advance.

        Args:
            name: of the delta.
        Returns:
            The stream; made by the first call.
        """
        return self.routing.sources.setdefault(name, DropoutSource())

    def streams(self) -> dict[str | None, DropoutSource]:
        """Return every stream of dropout masks: each delta's own by its name, and the one of all other rows."""
        found: dict[str | None, DropoutSource] = {None: self.routing.dropout}
        return found | self.routing.sources

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
            layers: one or several of: "all-linear" (convolutions, embeddings and the output map over the vocabulary
                left out), "top-half" (those of the upper half of every stack of blocks), a dotted name, the end of one
                (`query`, `attention.self.query`), a pattern with `*`, or `re:` and a regular expression.
        Returns:
            Dotted names in the model's order.
        Raises:
            TargetError: an entry matches no linear map; every entry must match one.
        """
        if not self.linear:
            raise TargetError(f"layers: {type(self.model).__name__} has no linear map, so nothing would train.")
        groups = {"all-linear": self._all_linear, "top-half": self._top_half}
        wanted = [layers] if isinstance(layers, str) else list(layers)
        if not wanted:
            raise TargetError("layers: the list is empty, so nothing would train. 'all-linear' takes every linear map.")
        found: set[str] = set()
        for entry in wanted:
            own = groups.get(entry)
            matched = [path for path in self.linear if matches(entry, path)] if own is None else own()
            if not matched:
                raise TargetError(self._no_match(entry))
            found.update(matched)
        return [path for path in self.linear if path in found]

    def _all_linear(self) -> list[str]:
        output = self._output()
        plain = {path: seam for path, seam in self.linear.items() if not isinstance(seam, ConvSeam | EmbeddingSeam)}
        found = [path for path, seam in plain.items() if seam.module is not output]
        if not found:
            raise TargetError(
                f"layers: {type(self.model).__name__} has convolutions or embeddings but no plain linear map. Name the "
                f"ones to adapt, for example '{next(iter(self.linear))}'."
            )
        return found

    def _top_half(self) -> list[str]:
        upper = tuple(f"{block}." for stack in stacks(self.model) for block in stack[len(stack) // 2 :])
        found = [path for path in self._all_linear() if path.startswith(upper)]
        if not found:
            raise TargetError(f"layers: {type(self.model).__name__} has no stack of blocks, so it has no 'top-half'.")
        return found

    def _output(self) -> Any:
        """Return the map over the vocabulary, where there is one."""
        find = getattr(self.model, "get_output_embeddings", None)
        return find() if find is not None else None

    def _no_match(self, entry: str) -> str:
        ends = sorted({path.rsplit(".", 1)[-1] for path in self.linear})
        near = nearest(entry, [*ends, *self.linear])
        hint = f" Did you mean '{near}'?" if near else ""
        return (
            f"layers: '{entry}' matches no linear map of {type(self.model).__name__}.{hint} "
            f"Linear maps end in: {', '.join(ends)}; 'all-linear' takes them all. Nothing was trained."
        )


def matches(entry: str, path: str, setting: str = "layers") -> bool:
    """Say whether an entry means a module.

    Args:
        entry: a dotted name, the end of one, a pattern with `*`, or `re:` and a regular expression.
        path: dotted name of the module.
        setting: where the entry stands, for errors.
    Returns:
        True when it does.
    Raises:
        TargetError: it is no regular expression.
    """
    if entry.startswith("re:"):
        try:
            return re.fullmatch(entry[3:], path) is not None
        except re.error as error:
            raise TargetError(f"{setting}: '{entry}' is not a regular expression: {error}.") from None
    if any(sign in entry for sign in "*?["):
        return fnmatch.fnmatchcase(path, entry) or fnmatch.fnmatchcase(path, f"*.{entry}")
    return path == entry or path.endswith(f".{entry}")


def is_open(model: nn.Module) -> bool:
    """Say whether a model is open at its seams.

    Args:
        model: any torch module.
    Returns:
        True from `open_seams` until `close`.
    """
    return _ATTRIBUTE in model.__dict__


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
