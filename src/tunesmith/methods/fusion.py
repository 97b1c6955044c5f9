"""Fusion: several methods trained together on one model, with a learned gate per layer if asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import torch
from pydantic import field_validator
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.core.named import build_named
from tunesmith.core.registry import find, register
from tunesmith.core.settings import setting
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.gating import GatedPrefix, gates_of
from tunesmith.models.linear import LinearSeam
from tunesmith.models.seams import Seams
from tunesmith.models.stacking import stacked


@register("methods")
class Fusion(Method):
    """Methods side by side: their patches work one after another at each map, their copies and prompt beside them.

    Source: gates as in UniPELT, Mao et al. 2022, arXiv:2110.07577. Differs: a gate is one learned number per layer
    and method, not a function of the input.
    """

    name: ClassVar[str] = "fusion"
    paper: ClassVar[str] = "Mao et al. 2022, arXiv:2110.07577"
    mergeable: ClassVar[bool] = False
    placed_by: ClassVar[tuple[str, ...]] = ("members",)
    neutral: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "linear"})

    members: tuple[dict[str, Any], ...] = setting(
        ({"name": "prefix"}, {"name": "lora"}), "The methods, each by name with its settings.", min_length=2
    )
    gate: bool = setting(False, "Learn one gate per layer and method; it starts at one.")

    @field_validator("members", mode="before")
    @classmethod
    def _build(cls, value: Any) -> Any:
        """Check every member's settings; a bare name is allowed."""
        found = []
        if not isinstance(value, list | tuple) or not all(isinstance(member, str | dict) for member in value):
            raise ValueError("give a list of methods, each by name or as a mapping with its name and settings")
        for member in value:
            settings = {"name": member} if isinstance(member, str) else dict(member)
            name = str(settings.pop("name", ""))
            if name == cls.name:
                raise ValueError("a fusion cannot be a member of a fusion")
            found.append(_written(find("methods", name)(**settings)))
        return tuple(found)

    @property
    def methods(self) -> list[Method]:
        """The members, built."""
        return [build_named("methods", member) for member in self.members]

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach all members as one delta.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            CompatibilityError: two soft prompts, or patches that cannot follow each other.
        """
        methods = self.methods
        parts = []
        for method in methods:
            parts.append(method.attach(seams, f"{name} (member)"))
            seams.detach(parts[-1].name)
        gates = gates_of(seams.model) if self.gate else None
        prompts = [(number, part.prompt) for number, part in enumerate(parts) if part.prompt is not None]
        if len(prompts) > 1:
            raise CompatibilityError(
                f"fusion: {methods[prompts[0][0]].name} and {methods[prompts[1][0]].name} both bring a soft prompt; a "
                "row sees one. Keep one of them."
            )
        prompt: Any = prompts[0][1] if prompts else None
        if prompt is not None and gates is not None:
            prompt = GatedPrefix.around(prompt, gates, prompts[0][0])
        paths = dict.fromkeys(path for part in parts for path in part.patches)
        patches: dict[str, Callable[[LinearSeam], nn.Module]] = {}
        for path in paths:
            own = [(number, part.patches[path]) for number, part in enumerate(parts) if path in part.patches]
            chosen = {} if gates is None else {number: gates.of(path, number) for number, _ in own}
            patches[path] = partial(stacked, members=own, gates=chosen)
        copies = dict.fromkeys(path for part in parts for path in part.copies)
        alone = {path for part in parts for path in part.alone}
        delta = seams.attach(name, patches, copies, prompt, alone)
        for part in parts:  # what a member's own verbs look at
            part.copies = {path: delta.copies[path] for path in part.copies}
        delta.members = list(zip(methods, parts, strict=True))
        return delta

    def blank(self) -> Self:
        """Let the members leave out what saved tensors replace; PiSSA's start is not saved here, so it stays."""
        kept = [member if getattr(member, "init", "") == "pissa" else member.blank() for member in self.methods]
        return self.model_copy(update={"members": tuple(map(_written, kept))})

    @property
    def can_merge(self) -> bool:
        """Whether weights can hold what all members do."""
        return all(method.can_merge for method in self.methods)

    @property
    def wants_full_precision(self) -> bool:
        """Whether a member reads the original weights of a quantised base."""
        return any(method.wants_full_precision for method in self.methods)

    # Members' verbs -------------------------------------------------------------------------------------------

    def warnings(self, seams: Seams) -> list[str]:
        """Repeat the members' warnings.

        Args:
            seams: of the model.
        Returns:
            Sentences, possibly none.
        """
        return [warning for method in self.methods for warning in method.warnings(seams)]

    @property
    def data_driven(self) -> bool:
        """Whether a member wants to see training batches."""
        return any(method.data_driven for method in self.methods)

    def initialise(self, delta: Delta, run: Callable[[], None]) -> None:
        """Let the members set their starting values.

        Args:
            delta: freshly attached by this method.
            run: sends a few batches through the model.
        """
        for method, part in delta.members:
            if method.data_driven:
                method.initialise(part, run)

    def rate_ratio(self, parameter: str) -> float:
        """Return the ratio of the member a parameter belongs to.

        Args:
            parameter: its name in the delta.
        Returns:
            A positive number.
        """
        found = self._owner(parameter)
        return 1.0 if found is None else found[0].rate_ratio(found[1])

    def decays(self, parameter: str) -> bool:
        """Ask the member a parameter belongs to.

        Args:
            parameter: its name in the delta.
        Returns:
            What that one says; True for what is no member's patch.
        """
        found = self._owner(parameter)
        return found is None or found[0].decays(found[1])

    def _owner(self, parameter: str) -> tuple[Method, str] | None:
        """Return the member whose patch a parameter belongs to, and what it calls the parameter."""
        place, mark, rest = parameter.partition(".members.")
        number, _, leaf = rest.partition(".")
        return (self.methods[int(number)], f"{place}.{leaf}") if mark else None

    def penalty(self, delta: Delta) -> Tensor | None:
        """Add up the members' penalties.

        Args:
            delta: attached by this method.
        Returns:
            A scalar, or None.
        """
        found = [method.penalty(part) for method, part in delta.members]
        given = [item for item in found if item is not None]
        return torch.stack(given).sum() if given else None

    def adjust(self, delta: Delta, step: int, total: int) -> None:
        """Let the members change their parts.

        Args:
            delta: attached by this method.
            step: 1 for the first.
            total: steps of the run. [count]
        """
        for method, part in delta.members:
            method.adjust(part, step, total)

    def training_state(self, delta: Delta) -> dict[str, Any]:
        """Return what the members remember, by their places."""
        return {str(number): method.training_state(part) for number, (method, part) in enumerate(delta.members)}

    def resume(self, delta: Delta, state: Mapping[str, Any]) -> None:
        """Let the members take over what they remembered."""
        for number, (method, part) in enumerate(delta.members):
            method.resume(part, state[str(number)])


def _written(method: Method) -> dict[str, Any]:
    """Write a member as a recipe has it: its name, and the settings that are not the usual ones."""
    return {"name": method.name, **method.model_dump(mode="json", exclude_defaults=True)}
