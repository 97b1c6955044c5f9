"""Image files: a folder or an archive in which every class has a folder of its own, images alone, or one image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.data.images import SUFFIXES, ImageLimits, image_bytes, image_entries, image_size
from tunesmith.data.readers.base import Reader, Row

_SAVED = ("dataset_info.json", "dataset_dict.json")  # in folders that the library datasets wrote


@register("readers")
class ImageFiles(Reader):
    """A folder of images, with or without a folder for every label, such a folder as a .zip, or one image."""

    name: ClassVar[str] = "images"
    suffixes: ClassVar[tuple[str, ...]] = (".zip", *SUFFIXES)
    holds: ClassVar[str] = "images"
    label_column: ClassVar[str | None] = "label"
    file_column: ClassVar[str | None] = "image"
    mend: ClassVar[str] = "An image's label is the folder that it lies in: put each into a folder called as its class."

    @classmethod
    def reads(cls, path: str) -> bool:
        """Take archives, image files, and folders that hold an image.

        Args:
            path: as the user wrote it.
        Returns:
            Whether it is one.
        """
        return super().reads(path) or holds_images(Path(path))

    def rows(self) -> Iterator[Row]:
        """Go through the images, sorted by name.

        Returns:
            ("image 7", values) for each: its name under "text" and "image", its folder under "label" (None for an
            image outside of every folder), and its width and height.
        Raises:
            DataError: no image, what is none by the beginning of its file, or a file too many.
            SecurityError: an archive whose names lead outside.
        """
        place = Path(self.path).expanduser()
        single = place.is_file() and place.suffix.lower() in SUFFIXES
        names = [""]
        if not single:
            entries, self.skipped = image_entries(place, ImageLimits())
            names = [name for name, _ in entries]
        for number, name in enumerate(names, 1):
            whole, folder = str(place / name if name else place), PurePosixPath(name).parent.as_posix()
            size = self.attempt(whole, _size)
            if size is None:
                continue
            values = {"text": whole, "image": whole, "label": None if folder == "." else folder}
            yield f"image {number}", {**values, "width": size[0], "height": size[1]}


def _size(name: str) -> tuple[int, int]:
    return image_size(image_bytes(name, ImageLimits()), name)


def holds_images(path: Path) -> bool:
    """Say whether a folder holds images, and is none that the library datasets wrote.

    Args:
        path: any.
    Returns:
        True when an image is found at any depth.
    """
    if not path.is_dir() or any((path / name).exists() for name in _SAVED):
        return False
    return any(file.lower().endswith(SUFFIXES) for _, _, files in os.walk(path) for file in files)
