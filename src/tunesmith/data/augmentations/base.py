"""What an augmentation is: it draws another form of a text, an image or a sound."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.named import build_named
from tunesmith.core.settings import Component, setting
from tunesmith.data.images import Pixels
from tunesmith.data.sounds import Samples, Sound

_WORD = re.compile(r"\S+")


class Augmentation(Component):
    """Base of every augmentation of texts. Its file registers one subclass with `@register("augmentations")`."""

    name: ClassVar[str]
    of: ClassVar[str] = "text"
    ahead: ClassVar[bool] = False  # a model writes its forms before training, of the texts as they stand in the data
    rate: float = setting(0.1, "Share of the words that are changed, on average.", unit="fraction", gt=0, le=1)

    @property
    def lacks(self) -> str:
        """Say which setting is missing that it cannot do without; empty where none is."""
        return ""

    def prepared(self, texts: Callable[[], Sequence[str]], seed: int) -> Any:
        """Get ready for training.

        Args:
            texts: gives the training texts.
            seed: of what is drawn at random before training.
        Returns:
            What draws forms with the verb `text`: by default the augmentation itself.
        """
        return self

    def words(self, words: list[str], draw: np.random.Generator) -> list[str]:
        """Draw another form of a text's words.

        Args:
            words: as they stand between white space, at least one.
            draw: the numbers to draw from, the text's own.
        Returns:
            At least one word.
        """
        raise NotImplementedError

    def text(self, text: str, draw: np.random.Generator) -> str:
        """Draw another form of a text; one without words stays as it is.

        Args:
            text: any.
            draw: the numbers to draw from.
        Returns:
            The text; its white space becomes single spaces where a word changed.
        """
        words = _WORD.findall(text)
        changed = self.words(words, draw) if words else words
        return text if changed == words else " ".join(changed)

    def chosen(self, count: int, draw: np.random.Generator) -> list[bool]:
        """Draw which of some places are changed.

        Args:
            count: of the places.
            draw: the numbers to draw from.
        Returns:
            One truth value per place.
        """
        found: list[bool] = (draw.random(count) < self.rate).tolist()
        return found


class ImageAugmentation(Component):
    """Base of every augmentation of images, registered as those of texts are."""

    name: ClassVar[str]
    of: ClassVar[str] = "images"
    mixes: ClassVar[bool] = False  # whether the form has parts of another image, so that its label is shared
    rate: float = setting(0.5, "Share of the images that are changed.", unit="fraction", gt=0, le=1)

    def pixels(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Draw another form of an image.

        Args:
            image: (channels, height, width), uint8; one channel or three.
            draw: the numbers to draw from, the image's own.
        Returns:
            Of the same shape.
        """
        raise NotImplementedError

    def mixed(self, image: Pixels, other: Callable[[], Pixels], draw: np.random.Generator) -> tuple[Pixels, float]:
        """Draw another form of an image, perhaps with parts of another one.

        Args:
            image: (channels, height, width), uint8.
            other: gives another image of the same shape.
            draw: the numbers to draw from.
        Returns:
            The form, and how much of it is of the image itself; 1 unless the augmentation mixes.
        """
        return self.pixels(image, draw), 1.0


class SoundAugmentation(Component):
    """Base of every augmentation of sounds, registered as those of texts are."""

    name: ClassVar[str]
    of: ClassVar[str] = "sounds"
    rate: float = setting(0.5, "Share of the sounds that are changed.", unit="fraction", gt=0, le=1)

    def samples(self, sound: Sound, draw: np.random.Generator) -> Samples:
        """Draw another form of a sound.

        Args:
            sound: any.
            draw: the numbers to draw from, the sound's own.
        Returns:
            (channels, T), float32; another T where the speed changes.
        """
        raise NotImplementedError


def on_canvas(image: Pixels, change: Callable[[Any], Any]) -> Pixels:
    """Change an image through pillow.

    Args:
        image: (channels, height, width), uint8.
        change: of a pillow image, to one of the same size and mode.
    Returns:
        (channels, height, width), uint8.
    """
    from PIL import Image

    plain = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    found = np.asarray(change(plain), np.uint8)
    return found[None] if len(image) == 1 else found.transpose(2, 0, 1)


def build_augmentations(given: Sequence[dict[str, Any]]) -> list[Any]:
    """Build the augmentations of a checked recipe.

    Args:
        given: `data.augmentation`: name and settings of each.
    Returns:
        In their order.
    """
    return [build_named("augmentations", one) for one in given]
