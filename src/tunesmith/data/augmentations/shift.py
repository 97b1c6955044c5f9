"""Sounds that begin earlier or later."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import SoundAugmentation
from tunesmith.data.sounds import Samples, Sound


@register("augmentations")
class Shift(SoundAugmentation):
    """Move the sound in time; silence comes in, and what leaves is cut off."""

    name: ClassVar[str] = "shift"
    most: float = setting(0.1, "Most that it moves by, of its length.", unit="fraction", gt=0, lt=1)

    def samples(self, sound: Sound, draw: np.random.Generator) -> Samples:
        """Move."""
        length = sound.samples.shape[1]
        by = int(draw.integers(-int(self.most * length), int(self.most * length) + 1))
        found = np.zeros_like(sound.samples)
        found[:, max(0, by) : length + min(0, by)] = sound.samples[:, max(0, -by) : length - max(0, by)]
        return found
