"""COCO: images with boxes, listed in a JSON file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.boxes import box_of
from tunesmith.data.files import beside, image_size
from tunesmith.data.readers.base import Row, beginning
from tunesmith.data.readers.json_lines import JsonLines


@register("readers")
class Coco(JsonLines):
    """A JSON file with `images`, `annotations` and `categories`, as COCO has it; the images lie beside it."""

    name: ClassVar[str] = "coco"
    suffixes: ClassVar[tuple[str, ...]] = ()
    by_content: ClassVar[bool] = True
    holds: ClassVar[str] = "images with boxes"
    label_column: ClassVar[str | None] = "labels"
    file_column: ClassVar[str | None] = "image"

    @classmethod
    def reads(cls, path: str) -> bool:
        """Look for the beginning of images or annotations in a .json file."""
        begin = beginning(path, ".json").lstrip(b"\xef\xbb\xbf \t\r\n")
        lists = re.search(rb'"(images|annotations|categories)"\s*:\s*\[', begin)
        return begin.startswith(b"{") and lists is not None and re.search(rb'"(file_name|image_id)"', begin) is not None

    def rows(self) -> Iterator[Row]:
        """Go through the images; the file is held in memory.

        Returns:
            ("image 7", {image, boxes, labels, width, height}) for each; a box is [left, top, width, height] in pixels.
        Raises:
            DataError: a list or key is missing, a box of an unknown image or category, or an image that is not there.
        """
        whole, owned = self.whole(), dict[Any, list[tuple[list[float], str]]]()
        names = {one.get("id"): str(one.get("name")) for one in self._listed(whole, "categories")}
        images = self._listed(whole, "images")
        sizes = {one.get("id") for one in images}
        for number, one in enumerate(self._listed(whole, "annotations"), 1):
            where = f"{self.path}, annotation {number}"
            if one.get("image_id") not in sizes or one.get("category_id") not in names:
                what = "image" if one.get("image_id") not in sizes else "category"
                raise DataError(f"{where}: there is no {what} {one.get(what + '_id')!r} in the file. Add it, or take "
                                "the annotation out.")  # fmt: skip
            owned.setdefault(one["image_id"], []).append((box_of(one.get("bbox"), where), names[one["category_id"]]))
        for number, one in enumerate(images, 1):
            path = beside(Path(self.path).parent, str(one.get("file_name", "")), self.path)
            width, height = image_size(path)
            found = owned.get(one.get("id"), [])
            boxes = {"boxes": [box for box, _ in found], "labels": [label for _, label in found]}
            yield f"image {number}", {"image": str(path), **boxes, "width": width, "height": height}

    def _listed(self, whole: Any, key: str) -> list[dict[str, Any]]:
        found = whole.get(key) if isinstance(whole, dict) else None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise DataError(f"{self.path}: a list '{key}' of objects is needed, as COCO has it.")
        return found
