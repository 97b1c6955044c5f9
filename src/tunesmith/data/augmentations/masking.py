"""Sounds with gaps."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import SoundAugmentation
from tunesmith.data.sounds import Samples, Sound


@register("augmentations")
class SoundMasking(SoundAugmentation):
    """Silence a stretch of the sound, and a band of its frequencies."""

    name: ClassVar[str] = "masking"
    paper: ClassVar[str] = "Park et al. 2019, arXiv:1904.08779. Differs: on the sound itself, not on its spectrogram"
    time: float = setting(0.1, "Longest stretch, of the sound's length.", unit="fraction", ge=0, lt=1)
    band: float = setting(0.1, "Widest band, of all frequencies.", unit="fraction", ge=0, lt=1)

    def samples(self, sound: Sound, draw: np.random.Generator) -> Samples:
        """Silence both."""
        length = sound.samples.shape[1]
        spectrum = np.fft.rfft(sound.samples)
        spectrum[:, _stretch(spectrum.shape[1], self.band, draw)] = 0
        found = np.fft.irfft(spectrum, length).astype(np.float32).clip(-1, 1)
        found[:, _stretch(length, self.time, draw)] = 0
        return found


def _stretch(length: int, most: float, draw: np.random.Generator) -> slice:
    size = int(draw.integers(int(most * length) + 1))
    start = int(draw.integers(length - size + 1))
    return slice(start, start + size)
