"""What a method is: settings, facts and a few verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from tunesmith.core.errors import CheckpointError
from tunesmith.core.settings import Component
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams


class Method(Component):
    """Base of every method. A method's file registers one subclass with `@register("methods")`.

    Freezing, saving, loading, counting, detaching and device placement are generic; a method says only what it
    attaches and, where Hugging Face PEFT has it, how its settings read there.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    mergeable: ClassVar[bool] = True
    needs_bias: ClassVar[bool] = False  # models without bias terms are refused with a TargetError
    peft_type: ClassVar[str | None] = None

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a fresh delta of this method; at the start the model answers as without it.

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

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as Hugging Face PEFT's adapter_config.json.

        Args:
            delta: attached by this method.
        Returns:
            The keys of that file; empty when PEFT has no such method.
        """
        return {}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], where: str) -> Self:
        """Read the settings from PEFT's adapter_config.json.

        Args:
            config: the file's content.
            where: its name, for errors.
        Returns:
            The method.
        Raises:
            CheckpointError: it asks for something this method does not do.
        """
        raise CheckpointError(f"{where}: '{cls.name}' has no PEFT layout.")
