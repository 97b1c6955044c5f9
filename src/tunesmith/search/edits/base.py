"""What an edit is: settings and one verb."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.settings import Component
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.sources import Sources


class Edit(Component):
    """Base of every edit. An edit's file registers one subclass with `@register("edits")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""

    def able(self, sources: Sources) -> bool:
        """Say whether what the edit reads is there.

        Args:
            sources: of the search.
        Returns:
            False where it could propose nothing.
        """
        return True

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Change a prompt once.

        Args:
            prompt: any.
            sources: what may be read.
            draw: of everything random.
        Returns:
            The changed prompt, or None where this draw changes nothing.
        Raises:
            RecipeError: the changed prompt is none; the search draws again.
            ValueError: the same.
        """
        raise NotImplementedError
