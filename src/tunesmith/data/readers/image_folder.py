"""Images in a folder with one folder per label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.data.files import holds_folders_of, labelled
from tunesmith.data.images import SUFFIXES, ImageLimits, image_bytes, image_size
from tunesmith.data.readers.base import Reader, Row
from tunesmith.data.readers.masks import Masks
from tunesmith.data.readers.voc import Voc


@register("readers")
class ImageFolder(Reader):
    """A folder of folders of images, each called as its label."""

    name: ClassVar[str] = "image-folder"
    by_content: ClassVar[bool] = True
    holds: ClassVar[str] = "images"
    label_column: ClassVar[str | None] = "label"
    file_column: ClassVar[str | None] = "image"

    @classmethod
    def reads(cls, path: str) -> bool:
        """Take folders of images that are neither masks nor have boxes."""
        return holds_folders_of(path, SUFFIXES) and not Masks.reads(path) and not Voc.reads(path)

    def rows(self) -> Iterator[Row]:
        """Go through the images.

        Returns:
            ("file 7", {text, image, label, width, height}) for each; its path is the text too, which a task reads.
        Raises:
            DataError: what is no image, by the beginning of its file; its pixels are decoded where they are read.
        """
        for where, path, label in labelled(self.path, SUFFIXES):
            width, height = image_size(image_bytes(str(path), ImageLimits()), str(path))
            yield where, {"text": str(path), "image": str(path), "label": label, "width": width, "height": height}
