"""A delta: the trained parameters of one method on one model, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, CompatibilityError
from tunesmith.models.quantized import dense
from tunesmith.models.sharding import is_sharded

if TYPE_CHECKING:
    from tunesmith.models.linear import LinearSeam
    from tunesmith.models.seams import Seams


class ChangedTensors:
    """The parameters that a merge put aside, each at its place in the model.

    Args:
        seams: of the model.
    """

    def __init__(self, seams: Seams) -> None:
        self.seams = seams
        self.places: list[tuple[nn.Module, str, nn.Parameter | None]] = []
        self.present: dict[tuple[nn.Module, str], nn.Parameter | None] = {}

    def replace(self, module: nn.Module, leaf: str) -> None:
        """Put a plain copy in the place of a parameter; tied places keep the untouched one.

        Args:
            module: that owns it.
            leaf: its name there; it may be None, as a missing bias is.
        Raises:
            CompatibilityError: processes share it out.
        """
        if is_sharded(module):
            raise CompatibilityError(
                "a base that processes share out (training.shard_base) cannot hold a merged delta. Merge it in one "
                "process, from the run's folder."
            )
        own = module._parameters[leaf]
        self._put(module, leaf, None if own is None else nn.Parameter(dense(own.detach()).clone(), False))

    def grow(self, seam: LinearSeam, shift: Tensor) -> None:
        """Add to a map's bias, which it may not have had.

        Args:
            seam: the map.
            shift: (out,).
        """
        own: Any = seam.bias if seam.bias is not None else shift.new_zeros(len(shift), dtype=seam.stored.dtype)
        self._put(seam.module, "bias", nn.Parameter((own.detach() + shift.to(own)), False))

    def share(self, module: nn.Module, leaf: str, leader: nn.Module) -> None:
        """Put another module's present parameter in the place of one, so that the two stay tied.

        Args:
            module: that owns the one.
            leaf: its name there and in the other.
            leader: the other module.
        """
        self._put(module, leaf, leader._parameters[leaf])

    def replace_all(self, places: list[tuple[str, str, nn.Parameter]]) -> None:
        """Put trained copies into the model, one tensor for all places that share a copy.

        Args:
            places: path of the module, the parameter's name there, the copy.
        """
        new: dict[int, nn.Parameter] = {}
        for path, leaf, copy in places:
            value = new.setdefault(id(copy), nn.Parameter(copy.detach().clone(), False))
            self._put(self.seams.model.get_submodule(path), leaf, value)

    def _put(self, module: nn.Module, leaf: str, value: nn.Parameter | None) -> None:
        own = module._parameters[leaf]
        self.places.append((module, leaf, own))
        self.present[module, leaf] = module._parameters[leaf] = value

    def restore(self) -> None:
        """Put every parameter back, the very tensor that was there."""
        for module, leaf, own in reversed(self.places):
            module._parameters[leaf] = own
        self.places.clear()
        self.present.clear()

    def check(self, name: str) -> None:
        """Refuse to restore over what came after the merge.

        Args:
            name: of the delta, for the error.
        Raises:
            CompatibilityError: a later merge changed the same tensors, or the model has another type or device.
        """
        for module, leaf, own in self.places:
            now = module._parameters[leaf]
            if now is not self.present[module, leaf]:
                raise CompatibilityError(
                    f"delta '{name}' cannot be unmerged: '{leaf}' of a {type(module).__name__} was changed after it "
                    "was merged. Undo what came after it first: unmerge or detach the later deltas, the last one first."
                )
            if own is None or now is None:
                continue
            if now.device != own.device or now.dtype not in (own.dtype, dense(own).dtype):
                raise CompatibilityError(
                    f"delta '{name}' cannot be unmerged: the model is {now.dtype} on {now.device} by now, and its "
                    f"untouched tensors are {own.dtype} on {own.device}. Move the model back there first."
                )


class Delta:
    """Trained parameters attached to a model's seams.

    Args:
        seams: of the model.
        name: of the delta.
        patches: per linear map's path, the module that computes with it.
        copies: per parameter's dotted name, the trained copy that stands in for it while the delta is active.
        prompt: soft prompt at the attention or the embedding seam, or None.
        alone: names among the copies' that stand in at their own place only, not where a parameter is tied to it.
    """

    def __init__(
        self,
        seams: Seams,
        name: str,
        patches: dict[str, nn.Module],
        copies: dict[str, nn.Parameter],
        prompt: nn.Module | None = None,
        alone: frozenset[str] = frozenset(),
    ) -> None:
        self.seams = seams
        self.name = name
        self.patches = patches
        self.copies = copies
        self.prompt = prompt
        self.members: list[tuple[Any, Delta]] = []  # of a fusion: each method and the part it attached
        self.views: list[str] = []  # deltas that share this one's parameters and leave with it
        self.alone = alone
        self.places = seams.owners(copies, alone)  # (path of the module, its parameter's name, the copy)
        self.untouched: ChangedTensors | None = None  # while merged
        self.writer: Callable[[Path, Delta], None] | None = None  # of the method that attached it
        self._replaced: list[tuple[nn.Module, str, nn.Parameter | None]] = []

    def modules(self) -> list[nn.Module]:
        """Return the modules that hold what trains, copies aside."""
        return [*self.patches.values(), *([self.prompt] if self.prompt is not None else [])]

    def train(self, training: bool) -> None:
        """Switch the delta's own dropout on or off.

        Args:
            training: True for a training step.
        """
        for module in self.modules():
            module.train(training)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Go through what trains.

        Returns:
            (dotted name, parameter), patches first.
        """
        seen: set[int] = set()  # gates of a fusion stand in several patches
        for path, patch in self.patches.items():
            for name, parameter in patch.named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}", parameter
        yield from self.copies.items()
        if self.prompt is not None:
            for name, parameter in self.prompt.named_parameters():
                if id(parameter) not in seen:
                    yield name, parameter

    def parameters(self) -> list[nn.Parameter]:
        """Return what trains, for an optimizer."""
        return [parameter for _, parameter in self.named_parameters()]

    @property
    def trainable_share(self) -> float:
        """Trained numbers over the model's numbers. [fraction]"""
        trained = sum(parameter.numel() for parameter in self.parameters())
        return trained / sum(parameter.numel() for parameter in self.seams.model.parameters())

    def state(self) -> dict[str, Tensor]:
        """Return the delta's tensors.

        Returns:
            Dotted name to tensor, detached, on the CPU.
        """
        return {name: parameter.detach().cpu().clone() for name, parameter in self.named_parameters()}

    def save(self, folder: str | Path) -> None:
        """Write the delta as a folder that `tunesmith.attach` reads, and Hugging Face PEFT where it has the method.

        Args:
            folder: made when absent; the files of a delta that was there before are replaced, each whole.
        Raises:
            CheckpointError: it was not attached by `tunesmith.attach`, or the folder is a file.
        """
        if self.writer is None:
            raise CheckpointError(
                f"delta '{self.name}' does not know its method, so it cannot be saved. Attach it by tunesmith.attach, "
                "or save it with tunesmith.methods.store.save_delta."
            )
        if Path(folder).is_file():
            raise CheckpointError(f"{folder} is a file. Give a folder for delta '{self.name}'.")
        self.writer(Path(folder), self)

    def load(self, tensors: Mapping[str, Tensor], where: str = "the saved delta") -> None:
        """Take values from tensors; all names and shapes must agree.

        Args:
            tensors: as `state` returns them.
            where: what to call their source in an error.
        Raises:
            CheckpointError: a name is missing or unknown, or a shape differs.
        """
        self._fill(dict(self.named_parameters()), tensors, where)

    def load_copies(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take values of the trained copies alone, as `load` takes those of all that trains.

        Args:
            tensors: by the copies' names.
            where: what to call their source in an error.
        """
        self._fill(self.copies, tensors, where)

    @staticmethod
    @torch.no_grad()
    def _fill(own: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], where: str) -> None:
        if own.keys() != tensors.keys():
            missing = sorted(own.keys() - tensors.keys())[:3]
            foreign = sorted(tensors.keys() - own.keys())[:3]
            raise CheckpointError(
                f"{where} does not fit the model. Missing: {missing or 'none'}; unknown: {foreign or 'none'}. "
                "It was made for another base model or by another method."
            )
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise CheckpointError(
                    f"{where}: '{name}' has shape {tuple(tensors[name].shape)}, the model needs "
                    f"{tuple(parameter.shape)}. It was made for another base model or other settings."
                )
            parameter.copy_(tensors[name])

    def detach(self) -> None:
        """Take the delta off its model; the model answers as before, bit for bit."""
        self.seams.detach(self.name)

    @torch.no_grad()
    def merge(self, keep: bool = True) -> nn.Module:
        """Write the delta into the base weights and take it off.

        The changed tensors are new ones; a quantised one is read back first and stays in full precision.

        Args:
            keep: hold the untouched tensors for `unmerge`; costs the memory of what changed.
        Returns:
            The model, which now answers by itself as it did with the delta.
        Raises:
            CompatibilityError: the delta is not attached any more, or no weight can hold it.
        """
        if self.seams.deltas.get(self.name) is not self:
            raise CompatibilityError(f"delta '{self.name}' is not attached, so it cannot be merged (again).")
        if self.prompt is not None:
            raise CompatibilityError(
                f"delta '{self.name}' has a soft prompt, which no weight can hold, so it cannot be merged. "
                "Keep it attached."
            )
        active = self.seams.routing.active
        self.seams.use(None)  # copies of the active delta stand in the place of what is to change
        changed = ChangedTensors(self.seams)
        try:
            changed.replace_all(self.places)  # first: a fusion's patches compute with these
            for path, patch in self.patches.items():
                seam = self.seams.linear[path]
                shift = patch.bias_change(seam)  # type: ignore[operator]
                if patch.follows is None:
                    changed.replace(seam.module, "weight")
                    patch.write(seam)
                else:
                    changed.share(seam.module, "weight", self.seams.linear[patch.follows].module)  # type: ignore[index]
                if shift is not None:
                    changed.grow(seam, shift)
        except BaseException:
            changed.restore()
            self.seams.use(active)
            raise
        self.detach()
        self.seams.forget_prefixes()
        self.untouched = changed if keep else None
        self.seams.use(active if active in self.seams.deltas else None)
        return self.seams.model

    def unmerge(self) -> nn.Module:
        """Undo `merge`: the base weights are the untouched ones, bit for bit, and the delta is attached again.

        Returns:
            The model.
        Raises:
            CompatibilityError: the delta was not merged, its name is taken by now, the tensors were not kept, or the
                model was changed after the merge.
        """
        if self.untouched is None:
            raise CompatibilityError(
                f"delta '{self.name}' is not merged, or was merged with keep=False, so there is nothing to go back to."
            )
        if self.name in self.seams.deltas:
            raise CompatibilityError(f"a delta named '{self.name}' was attached meanwhile; detach it first.")
        active = self.seams.routing.active
        self.seams.use(None)  # its copies may stand in the place of what was merged
        try:
            self.untouched.check(self.name)
        except CompatibilityError:
            self.seams.use(active)
            raise
        self.untouched.restore()
        self.untouched = None
        self.seams.place(self)
        return self.seams.model

    def swap_in(self) -> None:
        """Put the trained copies in the place of the model's parameters, at every module that shares one."""
        for path, leaf, copy in self.places:
            module = self.seams.model.get_submodule(path)
            self._replaced.append((module, leaf, module._parameters[leaf]))
            module._parameters[leaf] = copy

    def swap_out(self) -> None:
        """Put the model's own parameters back."""
        for module, leaf, parameter in self._replaced:
            module._parameters[leaf] = parameter
        self._replaced.clear()
