"""Sounds with noise."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import SoundAugmentation
from tunesmith.data.sounds import Samples, Sound


@register("augmentations")
class Noise(SoundAugmentation):
    """Add white noise."""

    name: ClassVar[str] = "noise"
    least: float = setting(10.0, "Least ratio of the sound's power to the noise's.", unit="dB", ge=-20, le=100)
    most: float = setting(40.0, "Largest ratio.", unit="dB", ge=-20, le=100)

    def samples(self, sound: Sound, draw: np.random.Generator) -> Samples:
        """Add."""
        ratio = float(draw.uniform(min(self.least, self.most), max(self.least, self.most)))
        power = float(np.mean(np.square(sound.samples, dtype=np.float64))) * 10 ** (-ratio / 10)
        noise = draw.standard_normal(sound.samples.shape) * power**0.5
        return (sound.samples + noise).clip(-1, 1).astype(np.float32)
