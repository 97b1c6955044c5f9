"""Measurements of a light figure on a dark ground, such as a written digit or letter."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from tunesmith.core.arrays import Array
from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.measurements.base import Measurements

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_SIDES = ("left", "right", "top", "bottom")


@register("measurements")
class Figures(Measurements):
    """Holes, bays, size and ink of the figure in a grey image; places are shares of the figure's own box.

    `holes` counts patches of ground that the figure encloses, `hole_top` and `hole_bottom` say whether one of them has
    its centre in that half, `hole_area` their share of the box. A bay is ground inside the box that meets ink in all
    of the four directions but one, towards which it is open: `bay_left_top` is the share of the box's upper half that
    is open to the left, and so on for all four sides and both halves. `aspect` is the box's width over its height,
    `ink` the figure's share of the box, `ink_top` and `ink_left` the shares of the ink in that half, `mirror_lr` and
    `mirror_tb` how alike the figure is to its mirror image (1 the same), `bar_top` and `bar_bottom` the longest run of
    ink in a row of the upper or lower fifth over the box's width, `stem` the longest run in a column over its height.
    """

    name: ClassVar[str] = "figures"
    reads: ClassVar[str] = "images"

    ink: float = setting(0.4, "Least brightness of ink, of the brightest pixel.", unit="fraction", gt=0, lt=1)
    smallest_hole: int = setting(2, "Fewer pixels are no hole.", unit="pixels", ge=1)

    def names(self) -> list[str]:
        """Return what is measured."""
        bays = [f"bay_{side}_{half}" for side in _SIDES for half in ("top", "bottom")]
        return [
            "holes", "hole_top", "hole_bottom", "hole_area", *bays, "aspect", "ink", "ink_top", "ink_left", "mirror_lr",
            "mirror_tb", "bar_top", "bar_bottom", "stem",
        ]  # fmt: skip

    def measure(self, inputs: Any) -> Array:
        """Measure images.

        Args:
            inputs: (rows, height, width) or (rows, 1, height, width), any numbers, figure brighter than ground.
        Returns:
            (rows, names).
        Raises:
            DataError: another shape, or an image without any ink.
        """
        images = np.asarray(inputs)
        images = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
        if images.ndim != 3:
            raise DataError(
                f"images of shape {np.shape(inputs)}: figures are measured on grey images (rows, height, width)."
            )
        return np.array([self._one(image, row) for row, image in enumerate(images)], np.float64)

    def _one(self, image: np.ndarray[Any, Any], row: int) -> list[float]:
        mask = image > self.ink * image.max()
        if not mask.any():
            raise DataError(f"image {row} has no ink: every pixel is alike. Leave it out.")
        box = mask[np.ix_(np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0)))]
        found = {**self._holes(box), **_bays(box), **_shape(box)}
        return [found[name] for name in self.names()]

    def _holes(self, box: Mask) -> dict[str, float]:
        ground, count = ndimage.label(np.pad(~box, 1, constant_values=True))
        sizes = ndimage.sum_labels(np.ones_like(ground), ground, range(1, count + 1))
        outside = ground[0, 0] - 1
        inside = [number for number in range(count) if number != outside and sizes[number] >= self.smallest_hole]
        centres = ndimage.center_of_mass(ground > 0, ground, [number + 1 for number in inside]) if inside else []
        middle = (box.shape[0] + 1) / 2
        return {
            "holes": float(len(inside)),
            "hole_top": float(any(y < middle for y, _ in centres)),
            "hole_bottom": float(any(y >= middle for y, _ in centres)),
            "hole_area": float(sum(sizes[number] for number in inside) / box.size),
        }


def _bays(box: Mask) -> dict[str, float]:
    """Measure the ground that is open to one side only."""
    meets = {
        "left": np.maximum.accumulate(box, 1),
        "right": np.maximum.accumulate(box[:, ::-1], 1)[:, ::-1],
        "top": np.maximum.accumulate(box, 0),
        "bottom": np.maximum.accumulate(box[::-1], 0)[::-1],
    }
    half = (box.shape[0] + 1) // 2
    found = {}
    for side in _SIDES:
        others = [meets[other] for other in _SIDES if other != side]
        bay = ~meets[side] & np.logical_and.reduce(others)
        found[f"bay_{side}_top"] = float(bay[:half].mean())
        found[f"bay_{side}_bottom"] = float(bay[-half:].mean())
    return found


def _shape(box: Mask) -> dict[str, float]:
    height, width = box.shape
    fifth, ink = max(1, height // 5), box.sum()
    return {
        "aspect": width / height,
        "ink": float(box.mean()),
        "ink_top": float(box[: height // 2].sum() / ink),
        "ink_left": float(box[:, : width // 2].sum() / ink),
        "mirror_lr": _overlap(box, box[:, ::-1]),
        "mirror_tb": _overlap(box, box[::-1]),
        "bar_top": max(_longest(line) for line in box[:fifth]) / width,
        "bar_bottom": max(_longest(line) for line in box[-fifth:]) / width,
        "stem": max(_longest(line) for line in box.T) / height,
    }


def _overlap(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def _longest(line: Mask) -> int:
    """Return the longest run of ink. [pixels]"""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
