"""Images and sounds that are drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.data.images import Images, Pixels
from tunesmith.data.sounds import Sound

Steps = Sequence[Any]  # of `build_augmentations`


class AugmentedImages:
    """Labelled images that training sees in another form in each epoch; evaluation sees them as they are.

    What an image becomes depends on the epoch's draw and on its own number alone, so on no batch, order or process.

    Args:
        images: as they are.
        steps: augmentations of images, in order.
    Raises:
        RecipeError: an augmentation of something else.
    """

    def __init__(self, images: Images, steps: Steps) -> None:
        _check(steps, "images")
        self.images, self._steps = images, steps

    def __len__(self) -> int:
        return len(self.images)

    def seen(self, row: int, draw: int = 0) -> tuple[Pixels, np.ndarray[Any, np.dtype[np.float32]]]:
        """Return an image in the form of a draw; as it is for draw 0.

        Args:
            row: 0 <= row < len(self).
            draw: of the epoch.
        Returns:
            (channels, height, width), uint8, and (C,), how much of every label is in it.
        """
        images, numbers = self.images, np.random.default_rng([draw, row])
        found, shares = images.pixels[row], np.zeros(len(images.label_names), np.float32)
        shares[images.labels[row]] = 1
        for step in self._steps if draw else ():
            other = int(numbers.integers(len(images)))
            if numbers.random() < step.rate:
                found, own = step.mixed(found, lambda other=other: images.pixels[other], numbers)
                shares *= own
                shares[images.labels[other]] += 1 - own
        return found, shares


class AugmentedSounds:
    """Sounds that training sees in another form in each epoch, as `AugmentedImages`.

    Args:
        sounds: as they are.
        steps: augmentations of sounds, in order.
    Raises:
        RecipeError: an augmentation of something else.
    """

    def __init__(self, sounds: Sequence[Sound], steps: Steps) -> None:
        _check(steps, "sounds")
        self.sounds, self._steps = sounds, steps

    def __len__(self) -> int:
        return len(self.sounds)

    def seen(self, row: int, draw: int = 0) -> Sound:
        """Return a sound in the form of a draw; as it is for draw 0.

        Args:
            row: 0 <= row < len(self).
            draw: of the epoch.
        Returns:
            The sound.
        """
        found, numbers = self.sounds[row], np.random.default_rng([draw, row])
        for step in self._steps if draw else ():
            if numbers.random() < step.rate:
                found = Sound(step.samples(found, numbers), found.rate)
        return found


def _check(steps: Steps, of: str) -> None:
    for step in steps:
        if step.of != of:
            raise RecipeError(f"augmentation '{step.name}' is for {step.of}, not for {of}. Leave it out.")
