"""Pascal VOC: images with boxes, one XML file per image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from tunesmith.core.errors import DataError, SecurityError
from tunesmith.core.registry import register
from tunesmith.data.boxes import box_of
from tunesmith.data.files import beside, files_of, size_of
from tunesmith.data.readers.base import Reader, Row


@register("readers")
class Voc(Reader):
    """A folder with `Annotations`, one XML file per image; images lie in `JPEGImages` or `images`."""

    name: ClassVar[str] = "voc"
    holds: ClassVar[str] = "images with boxes"
    by_content: ClassVar[bool] = True
    file_column: ClassVar[str | None] = "image"
    label_column: ClassVar[str | None] = "labels"

    @classmethod
    def reads(cls, path: str) -> bool:
        """Take folders with such a folder."""
        return (Path(path) / "Annotations").is_dir()

    def rows(self) -> Iterator[Row]:
        """Go through the XML files.

        Returns:
            ("file 7", {image, boxes, labels, width, height}) for each; a box is [left, top, width, height] in pixels.
        Raises:
            DataError: a file that is no such XML, or an image that is not there or cannot be decoded.
            SecurityError: a file declares entities, or the name of an image leads out of the data's folder.
        """
        for number, path in enumerate(files_of(Path(self.path) / "Annotations", (".xml",)), 1):
            root = _parsed(path)
            image = beside(Path(self.path), root.findtext("filename", ""), str(path))
            size = self.attempt(image, size_of)
            if size is None:
                continue
            found = [(_box(one, path), _name(one, path)) for one in root.iter("object")]
            boxes = {"boxes": [box for box, _ in found], "labels": [label for _, label in found]}
            yield f"file {number}", {"image": str(image), **boxes, "width": size[0], "height": size[1]}


def _parsed(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    plain = content.replace(b"\0", b"")  # of UTF-16 too
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise SecurityError(f"{path}: declares entities, which boxes do not need, so it is not read. Take them out.")
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not valid XML: {error}. Restore the file, or take it out.") from None


def _name(found: ElementTree.Element, path: Path) -> str:
    name = found.findtext("name", "").strip()
    if not name:
        raise DataError(f"{path}: an object has no name, which is its label. Add it, or take the object out.")
    return name


def _box(found: ElementTree.Element, path: Path) -> list[float]:
    texts = [found.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError:
        raise DataError(f"{path}: an object's bndbox holds numbers xmin, ymin, xmax and ymax, not {texts}.") from None
    return box_of([left, top, right - left, bottom - top], str(path))
