"""Files of images and sounds in folders: found by their suffix, looked at, and labelled by the folder they lie in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tunesmith.core.errors import DataError, SecurityError
from tunesmith.data.images import ImageLimits, Pixels, image_bytes, open_image


def files_of(folder: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the files of a folder and of those in it, hidden ones left out.

    Args:
        folder: that exists.
        suffixes: that they end in, in small letters.
    Returns:
        Sorted by their names below the folder.
    """
    root = Path(folder)
    found = (path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def other_files(folder: str | Path, suffixes: tuple[str, ...]) -> list[str]:
    """List the files of a folder and of those in it that are of other kinds, hidden ones left out.

    Args:
        folder: that exists.
        suffixes: of the files that are wanted, in small letters.
    Returns:
        Names below the folder, sorted.
    """
    root = Path(folder)
    names = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(
        name.as_posix()
        for name in names
        if name.suffix.lower() not in suffixes and not any(part.startswith(".") for part in name.parts)
    )


def holds_folders_of(path: str, suffixes: tuple[str, ...]) -> bool:
    """Say whether a folder has folders with files of some kind, and no such file itself.

    Args:
        path: as the user wrote it.
        suffixes: of the files.
    Returns:
        Whether it is one.
    """
    root = Path(path)
    if not root.is_dir() or any(file.suffix.lower() in suffixes for file in root.iterdir()):
        return False
    return any(file.suffix.lower() in suffixes for file in root.glob("*/**/*"))


def labelled(folder: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path, str]]:
    """Go through the files of a folder with one folder per label.

    Args:
        folder: that exists.
        suffixes: of the files.
    Returns:
        Where each stands ("file 7"), its path, and the folder that it lies in.
    """
    root = Path(folder)
    for number, path in enumerate(files_of(root, suffixes), 1):
        yield f"file {number}", path, path.parent.relative_to(root).as_posix()


def size_of(path: Path) -> tuple[int, int]:
    """Decode an image and measure it.

    Args:
        path: of the file.
    Returns:
        Width and height. [pixels]
    Raises:
        DataError: it is missing, no image, damaged or too large.
    """
    _, height, width = image_pixels(str(path)).shape
    return width, height


def image_pixels(name: str) -> Pixels:
    """Decode an image as it is stored.

    Args:
        name: of a file, or of an entry of an archive as FILE.zip/ENTRY.
    Returns:
        (3, height, width), uint8.
    Raises:
        DataError: it is missing, no image, damaged or too large.
    """
    content = image_bytes(name, ImageLimits())
    return np.asarray(open_image(content, name), np.uint8).transpose(2, 0, 1)


def thumbnail(name: str, size: int = 96) -> bytes:
    """Write an image small, for a page.

    Args:
        name: of a file, or of an entry of an archive.
        size: most height and width. [pixels]
    Returns:
        A PNG file.
    Raises:
        DataError: as `image_pixels`.
    """
    from PIL import Image

    small = Image.fromarray(image_pixels(name).transpose(1, 2, 0))
    small.thumbnail((size, size))
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()


def beside(root: Path, name: str, source: str) -> Path:
    """Find an image by the name that a list of boxes gives it.

    Args:
        root: folder of the list.
        name: of the image.
        source: what to call the list in an error.
    Returns:
        Its path: in the folder, or in one called images, JPEGImages or as the list is.
    Raises:
        DataError: it is not there.
        SecurityError: its name leads out of the data's folder.
    """
    if Path(name).is_absolute() or ".." in name.replace("\\", "/").split("/"):
        raise SecurityError(
            f"{source}: the image '{name}' would lead outside of the data's folder, so it is not read. Put it beside "
            "the others, and give its plain relative name."
        )
    stem = Path(source).stem.removeprefix("instances_")
    for place in (root, root / "images", root / "JPEGImages", root / stem, root.parent / "images",
                  root.parent / "JPEGImages", root.parent / stem):  # fmt: skip
        if name and (place / name).is_file():
            return place / name
    raise DataError(
        f"{source}: there is no image '{name}', neither beside it nor in a folder images, JPEGImages or {stem}. Put it "
        "there, or take it out of the data."
    )
