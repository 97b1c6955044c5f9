"""Parts of images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import ImageAugmentation, on_canvas
from tunesmith.data.images import Pixels


@register("augmentations")
class Crop(ImageAugmentation):
    """Cut a part of the image out and stretch it to the image's size."""

    name: ClassVar[str] = "crop"
    paper: ClassVar[str] = "Szegedy et al. 2015, arXiv:1409.4842, section 6"
    least: float = setting(0.6, "Least share of the image's area.", unit="fraction", gt=0, lt=1)

    def pixels(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Cut and stretch."""
        height, width = image.shape[1:]
        side = float(draw.uniform(self.least, 1)) ** 0.5
        high, wide = max(1, round(side * height)), max(1, round(side * width))
        top, left = int(draw.integers(height - high + 1)), int(draw.integers(width - wide + 1))
        return on_canvas(image, lambda one: one.resize((width, height), box=(left, top, left + wide, top + high)))
