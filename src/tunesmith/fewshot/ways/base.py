"""What a way is: the keys of a recipe that it sets."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.settings import Component


class Way(Component):
    """Base of every way to learn from a few examples. Its file registers one subclass with `@register("ways")`."""

    name: ClassVar[str]
    effort: ClassVar[int]  # among ways that answer alike the one of least effort is taken
    trains: ClassVar[bool] = False  # else it is read off the frozen model's features
    reads_text: ClassVar[bool] = False  # of the labels, so the model must read text
    reads_images: ClassVar[bool] = False  # it is for models of images alone

    def changes(self) -> dict[str, dict[str, Any]]:
        """Return what it sets in a recipe.

        Returns:
            "task", "method" and "training" with their keys; other keys stay as they are. A task with a name takes the
            place of the recipe's own.
        """
        raise NotImplementedError
