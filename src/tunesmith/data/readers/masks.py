"""Segmentation masks: a folder of images beside one of masks of the same names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.files import files_of, size_of
from tunesmith.data.images import SUFFIXES, mask_classes
from tunesmith.data.readers.base import Reader, Row


@register("readers")
class Masks(Reader):
    """Images in `images`, and in `masks` one of the same name and size whose pixels are numbers of classes."""

    name: ClassVar[str] = "masks"
    by_content: ClassVar[bool] = True
    holds: ClassVar[str] = "images with masks"
    label_column: ClassVar[str | None] = "classes"
    file_column: ClassVar[str | None] = "image"

    @classmethod
    def reads(cls, path: str) -> bool:
        """Take folders with both folders."""
        return (Path(path) / "images").is_dir() and (Path(path) / "masks").is_dir()

    def rows(self) -> Iterator[Row]:
        """Go through the images.

        Returns:
            ("file 7", {image, mask, classes, width, height}) for each; `classes` are the numbers in the mask.
        Raises:
            DataError: an image without a mask or a mask without an image, two of one name, different sizes, or one that
                cannot be read.
        """
        root = Path(self.path)
        images, masks = _by_name(root / "images"), _by_name(root / "masks")
        for name in sorted({*images, *masks}):
            if name not in images or name not in masks:
                there, lacking = ("images", "mask") if name in images else ("masks", "image")
                raise DataError(f"{root / there}, {name}: there is no {lacking} of this name. Each image needs one "
                                "mask of its name; add it, or take this one out.")  # fmt: skip
        for number, name in enumerate(sorted(images), 1):
            size, mask = self.attempt(images[name], size_of), self.attempt(masks[name], mask_classes)
            if size is None or mask is None:
                continue
            if mask.shape[::-1] != size:
                raise DataError(
                    f"{masks[name]}: {mask.shape[1]} x {mask.shape[0]} pixels, but its image has {size[0]} x {size[1]}."
                    " Save both at one size."
                )
            classes = [int(code) for code in np.unique(mask)]
            paths = {"image": str(images[name]), "mask": str(masks[name])}
            yield f"file {number}", {**paths, "classes": classes, "width": size[0], "height": size[1]}


def _by_name(folder: Path) -> dict[Path, Path]:
    found: dict[Path, Path] = {}
    for path in files_of(folder, SUFFIXES):
        other = found.setdefault(path.relative_to(folder).with_suffix(""), path)
        if other != path:
            raise DataError(f"{path}: {other.name} has the same name with another ending, so it is not known which of "
                            "the two is meant. Rename one, or take it out.")  # fmt: skip
    return found
