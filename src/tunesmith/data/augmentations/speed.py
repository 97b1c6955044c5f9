"""Faster and slower sounds."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import SoundAugmentation
from tunesmith.data.sounds import Samples, Sound


@register("augmentations")
class Speed(SoundAugmentation):
    """Play the sound faster or slower, which changes its pitch and length."""

    name: ClassVar[str] = "speed"
    paper: ClassVar[str] = "Ko et al. 2015, Interspeech"
    most: float = setting(0.1, "Most that it is faster or slower.", unit="fraction", gt=0, lt=1)

    def samples(self, sound: Sound, draw: np.random.Generator) -> Samples:
        """Read the sound at other places, between samples by straight lines."""
        factor = float(draw.uniform(1 - self.most, 1 + self.most))
        length = sound.samples.shape[1]
        places = np.arange(0, length - 1, factor) if length > 1 else np.zeros(1)
        return np.stack([np.interp(places, np.arange(length), one) for one in sound.samples]).astype(np.float32)
