"""Mirrored images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import ImageAugmentation
from tunesmith.data.images import Pixels


@register("augmentations")
class Flip(ImageAugmentation):
    """Mirror the image, left to right or upside down."""

    name: ClassVar[str] = "flip"
    vertical: bool = setting(False, "Upside down in place of left to right.")

    def pixels(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Mirror."""
        return np.ascontiguousarray(image[:, ::-1] if self.vertical else image[:, :, ::-1])
