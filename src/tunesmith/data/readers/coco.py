"""COCO: images with boxes, listed in a JSON file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.boxes import box_of
from tunesmith.data.files import beside, size_of
from tunesmith.data.readers.base import Row, beginning
from tunesmith.data.readers.json_lines import JsonLines


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


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
            SecurityError: the name of an image leads out of the data's folder.
        """
        whole, owned = self.whole(), dict[Any, list[tuple[list[float], str]]]()
        names = self._by_id(whole, "categories", "name")
        images, sizes = self._listed(whole, "images"), self._by_id(whole, "images", "file_name")
        for number, one in enumerate(self._listed(whole, "annotations"), 1):
            where = f"{self.path}, annotation {number}"
            lacking = (what for what, known in (("image", sizes), ("category", names))
                       if not _is_id(one.get(f"{what}_id")) or one[f"{what}_id"] not in known)  # fmt: skip
            what = next(lacking, None)
            if what is not None:
                raise DataError(f"{where}: there is no {what} {one.get(what + '_id')!r} in the file. Add it, or take "
                                "the annotation out.")  # fmt: skip
            owned.setdefault(one["image_id"], []).append((box_of(one.get("bbox"), where), names[one["category_id"]]))
        for number, one in enumerate(images, 1):
            path = beside(Path(self.path).parent, str(one.get("file_name", "")), self.path)
            size = self.attempt(path, size_of)
            if size is None:
                continue
            width, height = size
            said = (one.get("width", width), one.get("height", height))
            if said != (width, height):
                raise DataError(
                    f"{self.path}, image {number}: {path} has {width} x {height} pixels, and the file says "
                    f"{said[0]} x {said[1]}, which its boxes are of. Give the image that was meant."
                )
            found = owned.get(one.get("id"), [])
            boxes = {"boxes": [box for box, _ in found], "labels": [label for _, label in found]}
            yield f"image {number}", {"image": str(path), **boxes, "width": width, "height": height}

    def _by_id(self, whole: Any, key: str, named: str) -> dict[Any, str]:
        """Return the names of a list's objects by their ids, which are there once each."""
        found: dict[Any, str] = {}
        for number, one in enumerate(self._listed(whole, key), 1):
            own, name = one.get("id"), one.get(named)
            if not _is_id(own) or not isinstance(name, str) or own in found:
                raise DataError(f"{self.path}, {key}: number {number} has id {str(own)[:40]!r} and {named} "
                                f"{str(name)[:40]!r}; each needs an id of its own and a {named}.")  # fmt: skip
            found[own] = name
        return found

    def _listed(self, whole: Any, key: str) -> list[dict[str, Any]]:
        found = whole.get(key) if isinstance(whole, dict) else None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise DataError(f"{self.path}: a list '{key}' of objects is needed, as COCO has it.")
        return found
