"""What a method is: settings, facts and a few verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, TargetError, nearest
from tunesmith.core.settings import Component, setting
from tunesmith.models.delta import Delta
from tunesmith.models.linear import LinearSeam
from tunesmith.models.patches import Patch
from tunesmith.models.seams import Seams

PREFIX = "base_model.model."  # of every name in a PEFT weights file, soft prompts aside
_NOT_WHOLE = (".lora_", ".base_layer.", ".original_module.", ".modules_to_save.")  # in names of other tensors


@dataclass(frozen=True)
class PeftFolder:
    """A delta folder in Hugging Face PEFT's layout, as read.

    Args:
        config: content of adapter_config.json.
        tensors: content of the weights file, PEFT's names.
        where: the folder's config file, for errors.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    where: str

    def modules(self, leaves: Sequence[str]) -> tuple[str, ...]:
        """Find which modules have tensors of a method.

        Args:
            leaves: what the method's tensors are called below their module, for example "lora_A.weight".
        Returns:
            Dotted names of modules in the model, in the file's order.
        """
        found: dict[str, None] = {}
        for name in self.tensors:
            for leaf in leaves:
                if name.endswith(f".{leaf}"):
                    found[name.removeprefix(PREFIX).removesuffix(f".{leaf}")] = None
        return tuple(found)

    def whole(self) -> tuple[str, ...]:
        """Find which modules were trained whole.

        Returns:
            Those of modules_to_save that the weights hold, and with ensure_weight_tying the ones tied to them.
        """
        named = [
            entry for entry in self.config.get("modules_to_save") or () if any(f".{entry}." in n for n in self.tensors)
        ]
        if self.config.get("ensure_weight_tying"):
            plain = [name.removeprefix(PREFIX) for name in self.tensors if not any(mark in name for mark in _NOT_WHOLE)]
            named += [name.removesuffix(".weight") for name in plain if name.endswith(".weight")]
        return tuple(dict.fromkeys(named))

    def settings(self, names: Mapping[str, str]) -> dict[str, Any]:
        """Read settings that PEFT has under other names.

        Args:
            names: our name to PEFT's.
        Returns:
            Our names to the values in the config; without those that it lacks.
        """
        return {ours: self.config[theirs] for ours, theirs in names.items() if theirs in self.config}

    def refuse(self, options: Sequence[str]) -> None:
        """Raise a CheckpointError when the config asks for one of these options.

        Args:
            options: keys of the config that are not supported.
        """
        for option in options:
            if self.config.get(option):
                raise CheckpointError(
                    f"{self.where}: the option '{option}' = {self.config[option]!r} of PEFT's "
                    f"{self.config.get('peft_type')} is not supported."
                )


class Method(Component):
    """Base of every method. A method's file registers one subclass with `@register("methods")`.

    Freezing, saving, loading, counting, detaching and device placement are generic; a method says only what it
    attaches and, where Hugging Face PEFT has it, how its settings read there.

    `needs` names what a model must have, else `attach` raises a TunesmithError: "bias" (bias terms), "tokens" (it
    reads token ids), "attention" (it opens at the attention seam), "linear" (plain linear maps).
    `neutral` says that a fresh delta leaves the model's answers as they were, `trains` that there are steps at all,
    `placed_by` which settings decide where in the model it begins.
    `example` holds settings for trying the method out where it cannot do without, as the contract does.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    mergeable: ClassVar[bool] = True
    neutral: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    chooses: ClassVar[bool] = False  # what chooses a method stands in the place of one
    placed_by: ClassVar[tuple[str, ...]] = ("layers",)
    needs: ClassVar[frozenset[str]] = frozenset()
    peft_type: ClassVar[str | None] = None
    example: ClassVar[dict[str, Any]] = {}

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a fresh delta of this method.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        """
        raise NotImplementedError

    def warnings(self, seams: Seams) -> list[str]:
        """Say what is allowed but probably not meant.

        Args:
            seams: of the model.
        Returns:
            Sentences, possibly none.
        """
        return []

    @property
    def can_merge(self) -> bool:
        """Whether weights can hold what this method, as set, does."""
        return self.mergeable

    @property
    def wants_full_precision(self) -> bool:
        """Whether attaching to a quantised base reads the original weights too."""
        return False

    # Training -------------------------------------------------------------------------------------------------

    @property
    def data_driven(self) -> bool:
        """Whether `initialise` wants to see training batches."""
        return False

    def initialise(self, delta: Delta, run: Callable[[], None]) -> None:
        """Set starting values from what the model does on training batches.

        Args:
            delta: freshly attached by this method.
            run: sends a few batches through the model.
        """

    def rate_ratio(self, parameter: str) -> float:
        """Return what the learning rate is multiplied by for one parameter.

        Args:
            parameter: its name in the delta.
        Returns:
            A positive number.
        """
        return 1.0

    def decays(self, parameter: str) -> bool:
        """Say whether weight decay may draw a parameter of the delta towards zero, where it is a matrix.

        Args:
            parameter: its name in the delta.
        Returns:
            False for factors and lengths, which leave the model as it is at another value than zero.
        """
        return True

    def penalty(self, delta: Delta) -> Tensor | None:
        """Return what is added to the loss of a step, or None.

        Args:
            delta: attached by this method.
        Returns:
            A scalar that carries gradients.
        """
        return None

    def adjust(self, delta: Delta, step: int, total: int) -> None:
        """Change the delta after an optimizer update, while the step's gradients are still there.

        Args:
            delta: attached by this method.
            step: 1 for the first.
            total: steps of the run. [count]
        """

    def training_state(self, delta: Delta) -> dict[str, Any]:
        """Return what `adjust` remembers between steps, besides the delta's parameters, for a checkpoint.

        Args:
            delta: attached by this method.
        Returns:
            Numbers, texts, tensors and containers of them.
        """
        return {}

    def resume(self, delta: Delta, state: Mapping[str, Any]) -> None:
        """Take over what `training_state` returned.

        Args:
            delta: attached by this method, its parameters already as they were.
            state: of the same method on the same model.
        """

    # Saving ---------------------------------------------------------------------------------------------------

    def blank(self) -> Self:
        """Return the method that attaches what saved tensors then fill; costly starting values can be left out.

        Returns:
            This method, unless a method says otherwise.
        """
        return self

    def saved(self, delta: Delta) -> Self:
        """Return the method as it is written beside its tensors: what it looked up at attaching is spelt out.

        Args:
            delta: attached by this method.
        Returns:
            This method, unless a method says otherwise.
        """
        return self

    def tensors(self, delta: Delta) -> dict[str, Tensor]:
        """Return what is saved, named as in a PEFT weights file.

        Args:
            delta: attached by this method.
        Returns:
            Name to tensor, on the CPU.
        """
        return {PREFIX + name: tensor for name, tensor in delta.state().items()}

    def extras(self, delta: Delta) -> dict[str, Tensor]:
        """Return what continued training needs beyond `tensors`; PEFT's layout has no place for it.

        Args:
            delta: attached by this method.
        Returns:
            Name to tensor, on the CPU; empty for most methods. `load` takes it in the place of `tensors`.
        """
        return {}

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over saved tensors.

        Args:
            delta: freshly attached by this method.
            tensors: as `tensors` returns them, or as PEFT wrote them.
            where: their file, for errors.
        Raises:
            CheckpointError: they do not fit.
        """
        delta.load({name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}, where)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as Hugging Face PEFT's adapter_config.json.

        Args:
            delta: attached by this method.
        Returns:
            The keys of that file; empty when PEFT has no such method.
        """
        return {}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read the settings from a PEFT folder.

        Args:
            folder: as read.
        Returns:
            The method.
        Raises:
            CheckpointError: it asks for something this method does not do.
        """
        raise CheckpointError(f"{folder.where}: '{cls.name}' has no PEFT layout.")


def whole_modules(seams: Seams, modules: Sequence[str]) -> list[str]:
    """Find the parameters of modules that train whole; as in PEFT, what is tied to one of them does not train with it.

    Args:
        seams: of the model.
        modules: names, or ends of names.
    Returns:
        Dotted names of parameters in the model's order, also second names of tied ones.
    Raises:
        TargetError: one of them is no module with parameters.
    """
    named = [path for path, _ in seams.model.named_parameters(remove_duplicate=False)]
    found = {module: {path for path in named if f".{module}." in f".{path}"} for module in modules}
    missing = [module for module, inside in found.items() if not inside]
    if missing:
        ends = sorted({path.split(".")[-2] for path in named if "." in path})
        near = nearest(missing[0], ends)
        hint = f" Did you mean '{near}'?" if near else ""
        raise TargetError(
            f"modules_to_save: {type(seams.model).__name__} has no module '{missing[0]}' with parameters.{hint} "
            f"Modules with parameters end in: {', '.join(ends)}."
        )
    return [path for path in named if any(path in inside for inside in found.values())]


class LayerMethod(Method):
    """Base of methods that put a patch at chosen linear maps, and train some modules whole if asked to."""

    default_layers: ClassVar[str] = "all-linear"
    leaves: ClassVar[tuple[str, ...]] = ()  # what PEFT calls the tensors below a module; the first is always there
    lacks: ClassVar[tuple[type[LinearSeam], ...]] = ()  # kinds of linear maps that the method has no form for

    layers: str | tuple[str, ...] = setting(
        "auto", "Linear maps to adapt: auto, all-linear, top-half, names, ends of names, patterns with *, or re:REGEX."
    )
    modules_to_save: tuple[str, ...] = setting(
        (), "Modules that train whole beside the patches, by name or end of name, for example a model's own head."
    )

    def patch(self, seam: LinearSeam) -> Patch:
        """Build the patch of one map.

        Args:
            seam: the map.
        Returns:
            A fresh patch.
        """
        raise NotImplementedError

    def chosen(self, seams: Seams) -> list[str]:
        """Find the maps to adapt.

        Args:
            seams: of the model.
        Returns:
            Their paths in the model's order.
        Raises:
            TargetError: an entry of `layers` matches nothing.
        """
        return seams.select(self.default_layers if self.layers == "auto" else self.layers)

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a patch to every chosen linear map.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            TargetError: an entry of `layers`, or one of `modules_to_save`, matches nothing.
        """
        whole = self.whole(seams)
        paths = [path for path in self.chosen(seams) if f"{path}.weight" not in whole]
        return seams.attach(name, self.builders(seams, paths), [*whole, *self.extra(seams, paths)], alone=whole)

    def builders(self, seams: Seams, paths: Sequence[str]) -> dict[str, Callable[[LinearSeam], nn.Module]]:
        """Say how each map's patch is built; a method whose patches share something makes it here.

        Args:
            seams: of the model.
            paths: of the maps to adapt.
        Returns:
            Path to a function that builds the patch of its map.
        Raises:
            TargetError: a map is of a kind that the method has no form for.
        """
        for path in paths:
            if isinstance(seams.linear[path], self.lacks):
                raise TargetError(
                    f"layers: '{path}' is an {type(seams.linear[path].module).__name__}, which '{self.name}' cannot "
                    "adapt. Leave it out of `layers`."
                )
        return dict.fromkeys(paths, self.patch)

    def extra(self, seams: Seams, paths: Sequence[str]) -> list[str]:
        """Return parameters of the model that train besides, none by default.

        Args:
            seams: of the model.
            paths: of the adapted maps.
        Returns:
            Dotted names of parameters.
        """
        return []

    def whole(self, seams: Seams) -> list[str]:
        """Return the parameters of `modules_to_save`; see `whole_modules`.

        Args:
            seams: of the model.
        Returns:
            Dotted names of parameters.
        """
        return whole_modules(seams, self.modules_to_save)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word what all such methods of PEFT share.

        Args:
            delta: attached by this method.
        Returns:
            target_modules, modules_to_save and fan_in_fan_out.
        """
        return {
            "target_modules": sorted(delta.patches),
            "modules_to_save": list(self.modules_to_save) or None,
            "fan_in_fan_out": any(delta.seams.linear[path].stores_transposed for path in delta.patches),
        }

    @classmethod
    def peft_layers(cls, folder: PeftFolder) -> dict[str, Any]:
        """Read `layers` and `modules_to_save` from a PEFT folder.

        Args:
            folder: as read.
        Returns:
            The two settings; layers by full name, as the weights have them.
        """
        config = folder.config
        found = folder.modules(cls.leaves)
        if not found:
            raise CheckpointError(f"{folder.where}: the weights hold no tensor of {config.get('peft_type')}.")
        return {"layers": found, "modules_to_save": folder.whole()}
