"""Images with a part of another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import ImageAugmentation
from tunesmith.data.images import Pixels


@register("augmentations")
class CutMix(ImageAugmentation):
    """Put a rectangle of another image over a part of the image; its label counts by its share of the area."""

    name: ClassVar[str] = "cutmix"
    mixes: ClassVar[bool] = True
    paper: ClassVar[str] = "Yun et al. 2019, arXiv:1905.04899, eq. 1 and 2"
    concentration: float = setting(1.0, "Parameter of the beta distribution of the shares.", gt=0)

    def mixed(self, image: Pixels, other: Callable[[], Pixels], draw: np.random.Generator) -> tuple[Pixels, float]:
        """Mix; the share is that of the area really covered."""
        height, width = image.shape[1:]
        side = float(1 - draw.beta(self.concentration, self.concentration)) ** 0.5
        middle, centre = int(draw.integers(height)), int(draw.integers(width))
        high, wide = side * height / 2, side * width / 2
        top, bottom = max(0, round(middle - high)), min(height, round(middle + high))
        left, right = max(0, round(centre - wide)), min(width, round(centre + wide))
        found = image.copy()
        found[:, top:bottom, left:right] = other()[:, top:bottom, left:right]
        return found, 1 - (bottom - top) * (right - left) / (height * width)
