"""Images with a hole."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import ImageAugmentation
from tunesmith.data.images import Pixels


@register("augmentations")
class Erase(ImageAugmentation):
    """Put a rectangle of random pixels over a part of the image."""

    name: ClassVar[str] = "erase"
    paper: ClassVar[str] = "Zhong et al. 2020, arXiv:1708.04896"
    most: float = setting(0.2, "Largest share of the image's area.", unit="fraction", gt=0, lt=1)

    def pixels(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Erase."""
        height, width = image.shape[1:]
        side = float(draw.uniform(0.02, max(0.02, self.most))) ** 0.5
        high, wide = max(1, int(side * height)), max(1, int(side * width))
        top, left = int(draw.integers(height - high + 1)), int(draw.integers(width - wide + 1))
        found = image.copy()
        found[:, top : top + high, left : left + wide] = draw.integers(0, 256, (len(image), high, wide))
        return found
