"""Images in other colours."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.augmentations.base import ImageAugmentation, on_canvas
from tunesmith.data.images import Pixels


@register("augmentations")
class Colour(ImageAugmentation):
    """Change brightness, contrast and, of images in colour, saturation."""

    name: ClassVar[str] = "colour"
    strength: float = setting(0.3, "Most that each is raised or lowered by.", unit="fraction", gt=0, le=1)

    def pixels(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        """Change all three, in this order."""
        from PIL import ImageEnhance

        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[: 3 if len(image) == 3 else 2]
        for kind in kinds:
            factor = float(draw.uniform(1 - self.strength, 1 + self.strength))
            image = on_canvas(image, lambda one, kind=kind, factor=factor: kind(one).enhance(factor))  # type: ignore[misc]
        return image
