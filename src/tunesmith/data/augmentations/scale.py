"""Images of larger and smaller things."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import ImageAugmentation, on_canvas
from tunesmith.data.images import Pixels


@register("augmentations")
class Scale(ImageAugmentation):
    """Draw the image larger or smaller around its middle, its size kept; what comes in is of one shade."""

    name: ClassVar[str] = "scale"
    most: float = setting(0.2, "Most that it grows or shrinks by.", unit="fraction", gt=0, lt=1)
    fill: int = setting(0, "Shade of what comes in, 0 to 255.", ge=0, le=255)

    def pixels(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Grow or shrink."""
        from PIL import Image

        height, width = image.shape[1:]
        factor = float(draw.uniform(1 - self.most, 1 + self.most))
        shade = self.fill if len(image) == 1 else (self.fill,) * 3
        left, top = (width - width / factor) / 2, (height - height / factor) / 2
        places = (1 / factor, 0, left, 0, 1 / factor, top)
        return on_canvas(image, lambda one: one.transform(
            one.size, Image.Transform.AFFINE, places, Image.Resampling.BILINEAR, fillcolor=shade
        ))  # fmt: skip
