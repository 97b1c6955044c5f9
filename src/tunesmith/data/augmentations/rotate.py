"""Turned images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import ImageAugmentation, on_canvas
from tunesmith.data.images import Pixels


@register("augmentations")
class Rotate(ImageAugmentation):
    """Turn the image around its middle; corners that come in are of one shade."""

    name: ClassVar[str] = "rotate"
    most: float = setting(15.0, "Largest angle, to either side.", unit="degrees", gt=0, le=180)
    fill: int = setting(0, "Shade of what comes in, 0 to 255.", ge=0, le=255)

    def pixels(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Turn."""
        from PIL import Image

        angle = float(draw.uniform(-self.most, self.most))
        shade = self.fill if len(image) == 1 else (self.fill,) * 3
        return on_canvas(image, lambda one: one.rotate(angle, Image.Resampling.BILINEAR, fillcolor=shade))
