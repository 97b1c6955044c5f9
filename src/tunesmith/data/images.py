"""Labelled images from a folder or a zip archive in which every class has a folder of its own.

An archive is read entry by entry in memory and never unpacked, so nothing is written outside; names that would lead
outside are refused all the same, as are files and totals beyond the limits.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tunesmith.core.errors import DataError, MissingDependency, SecurityError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")

_ARCHIVE = ".zip"
_ORIENTATION = 0x0112  # the tag of a photograph that says how it is to be turned
_TURNING = (b"eXIf", b"exif", b"xmp")  # what a PNG with that tag contains
_SIXTEEN = ("PNG", "PPM")  # formats whose images of more than 8 bits have 16, which pillow may give as 32
_ACROSS = (5, 6, 7, 8)  # its values that exchange width and height

# What pillow raises for damaged files, by kind of image and place of the damage.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError,
           struct.error, zlib.error)  # fmt: skip

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Used = TypeVar("Used")
Entry = tuple[str, Callable[[], bytes]]  # name below the root with slashes, and what reads its bytes


@dataclass(frozen=True)
class ImageLimits:
    """How much is read before a source is refused.

    Args:
        file_bytes: largest file, unpacked. [bytes]
        image_pixels: largest image as stored. [count]
        total_bytes: all images together as they are held in memory. [bytes]
        files: most files. [count]
    """

    file_bytes: int = 64 << 20
    image_pixels: int = 64_000_000
    total_bytes: int = 4 << 30
    files: int = 2_000_000


@dataclass(frozen=True)
class Images:
    """Labelled images of one size.

    Args:
        pixels: (rows, channels, height, width), uint8.
        labels: (rows,), int64, a code per row into `label_names`.
        label_names: sorted.
        where: where each image stands in its source, for messages.
        skipped: files that are no images by their suffix.
    """

    pixels: Pixels
    labels: np.ndarray[Any, np.dtype[np.int64]]
    label_names: list[str]
    where: list[str]
    skipped: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def content_hash(self) -> str:
        """SHA-256 of all pixels and labels."""
        digest = hashlib.sha256(repr((self.pixels.shape, self.label_names)).encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def read_images(path: str | Path, size: int = 28, channels: int = 1, limits: ImageLimits | None = None) -> Images:
    """Read every image of a folder or zip archive; the label is the folder that an image lies in.

    Folders may be nested: a label is the path from the top, for example "Greek/character01". A single folder that
    holds everything in an archive is left out. Images of another shape are stretched.

    Args:
        path: a folder, or a `.zip`.
        size: height and width that images are scaled to. [pixels]
        channels: 1 for grey, 3 for colour.
        limits: of what is read.
    Returns:
        The images, sorted by label and name.
    Raises:
        DataError: nothing there, no image, an image outside a class folder, one that cannot be decoded, or a limit.
        SecurityError: an archive whose names lead outside.
        MissingDependency: pillow is not installed.
    """
    if size < 1 or channels not in (1, 3):
        raise DataError(f"images of size={size} and channels={channels}: a size of at least 1, and 1 or 3 channels.")
    path, limits = Path(path).expanduser(), limits or ImageLimits()
    entries, skipped = image_entries(path, limits)
    most = limits.total_bytes // (size * size * channels)
    if len(entries) > most:
        raise DataError(
            f"{path}: {len(entries):,} images of {channels} x {size} x {size} need more than "
            f"{limits.total_bytes >> 20} MiB; at most {most:,} are read. Choose a smaller size, or fewer images."
        )
    names = sorted({_label(name, path) for name, _ in entries})
    codes = {name: code for code, name in enumerate(names)}
    pixels = np.empty((len(entries), channels, size, size), np.uint8)
    for row, (name, read) in enumerate(entries):
        pixels[row] = decode(read(), f"{path}, {name}", size, channels, limits)
    labels = np.array([codes[_label(name, path)] for name, _ in entries], np.int64)
    return Images(pixels, labels, names, [name for name, _ in entries], skipped)


def decode(content: bytes, where: str, size: int, channels: int = 1, limits: ImageLimits | None = None) -> Pixels:
    """Decode one image and scale it.

    Args:
        content: of the file.
        where: its name, for errors.
        size: height and width to scale to. [pixels]
        channels: 1 for grey, 3 for colour.
        limits: of what is read.
    Returns:
        (channels, size, size), uint8.
    Raises:
        DataError: it is no image, damaged, too large, or holds several.
        MissingDependency: pillow is not installed.
    """
    array = np.asarray(open_image(content, where, channels, limits, size), np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def open_image(
    content: bytes, where: str, channels: int = 3, limits: ImageLimits | None = None, size: int | None = None
) -> Image:
    """Decode one image: upright, in grey or colour of 8 bits.

    Args:
        content: of the file.
        where: its name, for errors.
        channels: 1 for grey, 3 for colour.
        limits: of what is read.
        size: height and width to scale to; as it is stored when None. [pixels]
    Returns:
        A pillow image.
    Raises:
        DataError: it is no image, damaged, too large, or holds several.
        MissingDependency: pillow is not installed.
    """

    def plain(found: Image) -> Image:
        from PIL import Image as Kind
        from PIL import ImageOps

        found = _plain(ImageOps.exif_transpose(found), channels, found.format in _SIXTEEN)
        return found if size is None else found.resize((size, size), Kind.Resampling.BILINEAR)

    return _opened(content, where, plain, limits or ImageLimits())


def image_size(content: bytes, where: str, limits: ImageLimits | None = None) -> tuple[int, int]:
    """Read the size of an image from its header; pixels are decoded of a PNG only that may say how it is to be turned.

    Args:
        content: of the file.
        where: its name, for errors.
        limits: of what is read.
    Returns:
        Width and height, as it stands upright. [pixels]
    Raises:
        DataError: it is no image, too large, or holds several.
        MissingDependency: pillow is not installed.
    """

    def upright(found: Image) -> tuple[int, int]:
        width, height = found.size
        if found.format == "PNG" and not any(mark in content for mark in _TURNING):
            return width, height  # pillow would decode all pixels to look for the tag behind them
        return (height, width) if found.getexif().get(_ORIENTATION) in _ACROSS else (width, height)

    return _opened(content, where, upright, limits or ImageLimits())


def mask_classes(path: Path) -> np.ndarray[Any, Any]:
    """Read the numbers of classes that the pixels of a mask are.

    Args:
        path: of the file.
    Returns:
        (height, width); of an image with a palette the places in it, not the colours.
    Raises:
        DataError: it cannot be decoded, or is in colour.
    """

    def numbers(found: Image) -> Image:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(found)
        if upright.mode not in ("1", "L", "P", "I", "I;16"):
            raise ValueError(f"pixels of mode {upright.mode}, not one number each")
        upright.load()
        return upright

    content = read_image_file(path, str(path), ImageLimits())
    return np.asarray(_opened(content, str(path), numbers, ImageLimits()))


def _opened(content: bytes, where: str, use: Callable[[Image], Used], limits: ImageLimits) -> Used:
    """Open an image, and use it."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingDependency("pillow", "vision", "reading images") from None
    import io
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours
            found = Image.open(io.BytesIO(content))
            _check_image(found, where, limits)
            return use(found)
    except (Image.DecompressionBombError, *_DAMAGE) as error:
        said = "no kind of image that is known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(
            f"{where}: the image cannot be decoded ({said}). Restore the file, or take it out of the data."
        ) from None


def _check_image(found: Image, where: str, limits: ImageLimits) -> None:
    width, height = found.size
    if width * height > limits.image_pixels:
        raise DataError(
            f"{where}: {width} x {height} pixels, more than {limits.image_pixels:,}. Scale the image down first."
        )
    frames = getattr(found, "n_frames", 1)
    if frames > 1:
        raise DataError(f"{where}: holds {frames} images; one per file is needed. Save the one that is meant alone.")


def _plain(found: Image, channels: int, sixteen: bool) -> Image:
    """Convert to grey or colour of 8 bits; what is transparent becomes white.

    Numbers of 32 bits do not say which is white: it is 255 where none is larger, but for formats whose deep images are
    of `sixteen` bits.
    """
    from PIL import Image as Kind

    if found.mode.startswith(("I", "F")):
        values = np.asarray(found)
        if found.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels of mode {found.mode} that are not whole numbers from 0 to 65535")
        low = found.mode == "I" and not sixteen and values.max() < 256
        found = Kind.fromarray((values if low else values >> 8).astype(np.uint8))
    if found.has_transparency_data:
        above = found.convert("RGBA")
        found = Kind.alpha_composite(Kind.new("RGBA", above.size, "white"), above)
    return found.convert("L" if channels == 1 else "RGB")


def image_entries(path: Path, limits: ImageLimits) -> tuple[list[Entry], list[str]]:
    """List the images of a source by name, and the names of what is no image.

    Args:
        path: a folder, or a `.zip`.
        limits: of what is read.
    Returns:
        Name below the top and what reads it, of every image; and the names of other files.
    Raises:
        DataError: nothing there, no image, or a limit.
        SecurityError: an archive whose names lead outside.
    """
    if path.is_dir():
        found = list(_in_folder(path, limits))
    elif path.is_file() and zipfile.is_zipfile(path):
        found = _without_top(list(_in_archive(path, limits)))
    elif path.exists():
        raise DataError(f"{path} is no folder and no zip archive. Images are read from one of the two.")
    else:
        raise DataError(f"there is no folder or zip archive {path}.")
    images = sorted((entry for entry in found if entry[0].lower().endswith(SUFFIXES)), key=lambda entry: entry[0])
    skipped = sorted(name for name, _ in found if not name.lower().endswith(SUFFIXES))
    if not images:
        raise DataError(
            f"{path} holds no image in a folder of its class. Images end in {', '.join(SUFFIXES)}; "
            f"{len(skipped)} other files were seen."
        )
    return images, skipped


def _hidden(name: str) -> bool:
    """Say whether a file belongs to the system that made the archive or folder."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _in_folder(path: Path, limits: ImageLimits) -> Iterator[Entry]:
    count = 0
    for folder, _, files in os.walk(path):
        for file in files:
            whole = Path(folder) / file
            name = whole.relative_to(path).as_posix()
            count += 1
            _check_count(count, path, limits)
            if not _hidden(name):
                yield name, lambda whole=whole, name=name: read_image_file(whole, f"{path}, {name}", limits)  # type: ignore[misc]


def read_image_file(whole: Path, where: str, limits: ImageLimits) -> bytes:
    """Read a file that is not too large.

    Args:
        whole: where it is.
        where: its name, for errors.
        limits: of what is read.
    Returns:
        Its content.
    Raises:
        DataError: it is too large, or cannot be read.
    """
    try:
        _check_bytes(whole.stat().st_size, where, limits)
        return whole.read_bytes()
    except OSError as error:
        raise DataError(f"{where}: the file cannot be read: {error.strerror}.") from None


def _in_archive(path: Path, limits: ImageLimits) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"{path}: the archive is damaged ({error}). Fetch or pack it again.") from None
    _check_count(len(infos), path, limits)
    opened: list[zipfile.ZipFile] = []

    def read(info: zipfile.ZipInfo) -> bytes:
        if not opened:
            opened.append(zipfile.ZipFile(path))
        return _read_entry(opened[0], info, f"{path}, {info.filename}", limits)

    seen: set[str] = set()
    for info in infos:
        name = info.filename.replace("\\", "/")
        if name in seen:
            raise DataError(f"{path}: the entry '{name}' stands twice in the archive. Pack it again with each once.")
        seen.add(name)
        if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0]:
            raise SecurityError(
                f"{path}: the entry '{info.filename}' would lead outside of the archive's folder, so the archive is "
                "not read. Pack it again with plain relative names."
            )
        if not _hidden(name):
            yield name, lambda info=info: read(info)  # type: ignore[misc]


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, limits: ImageLimits) -> bytes:
    """Read one entry, never more than it may hold, whatever its header says."""
    _check_bytes(info.file_size, where, limits)
    try:
        with archive.open(info) as file:
            content = file.read(limits.file_bytes + 1)
    except RuntimeError as error:  # of encrypted ones
        raise DataError(f"{where}: cannot be read ({error}). Pack the archive without a password.") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: is damaged in the archive ({error}). Fetch or pack it again.") from None
    _check_bytes(len(content), where, limits)
    return content


def _check_bytes(size: int, where: str, limits: ImageLimits) -> None:
    if size > limits.file_bytes:
        raise DataError(f"{where}: {size:,} bytes, more than {limits.file_bytes:,}. Take it out, or make it smaller.")


def _check_count(count: int, path: Path, limits: ImageLimits) -> None:
    if count > limits.files:
        raise DataError(f"{path}: more than {limits.files:,} files. Give a smaller folder or archive.")


def _without_top(entries: list[Entry]) -> list[Entry]:
    """Leave out the one folder that archives often hold everything in, where classes have folders below it."""
    images = [name for name, _ in entries if name.lower().endswith(SUFFIXES)]
    tops = {name.split("/")[0] for name in images}
    if len(tops) != 1 or any(name.count("/") < 2 for name in images):
        return entries
    top = f"{tops.pop()}/"
    return [(name.removeprefix(top), read) for name, read in entries]


def _label(name: str, path: Path) -> str:
    folder = PurePosixPath(name).parent.as_posix()
    if folder == ".":
        raise DataError(
            f"{path}, {name}: the image lies in no class's folder. Put every image into a folder named as its class."
        )
    return folder


def rotated(
    pixels: Pixels, labels: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str]
) -> tuple[Pixels, np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Add every class turned by 90, 180 and 270 degrees as three classes more.

    Args:
        pixels: (rows, channels, size, size).
        labels: (rows,), codes.
        names: by code.
    Returns:
        (4 rows, channels, size, size), (4 rows,), and names: "x", then "x@90", "x@180", "x@270".
    Source: Santoro et al. 2016, arXiv:1605.06065, section 4.1.
    """
    turned = [np.rot90(pixels, quarter, axes=(2, 3)) for quarter in range(4)]
    codes = [labels + quarter * len(names) for quarter in range(4)]
    more = [f"{name}@{90 * quarter}" if quarter else name for quarter in range(4) for name in names]
    return np.ascontiguousarray(np.concatenate(turned)), np.concatenate(codes), more


def image_bytes(name: str, limits: ImageLimits) -> bytes:
    """Read the file of an image.

    Args:
        name: of a file, or of an entry of an archive as FILE.zip/ENTRY.
        limits: of what is read.
    Returns:
        Its content.
    Raises:
        DataError: it is missing, too large, or cannot be read.
    """
    place = Path(name).expanduser()
    archive = next((one for one in place.parents if one.suffix.lower() == _ARCHIVE and one.is_file()), None)
    if archive is None:
        if not place.is_file():
            raise DataError(f"there is no image file {name}.")
        return read_image_file(place, name, limits)
    found = _entries(str(archive), archive.stat().st_mtime_ns, limits).get(place.relative_to(archive).as_posix())
    if found is None:
        raise DataError(f"{archive} holds no image {place.relative_to(archive).as_posix()}.")
    return found()


@lru_cache(maxsize=4)
def _entries(archive: str, changed: int, limits: ImageLimits) -> dict[str, Callable[[], bytes]]:
    """List an archive once; `changed` tells its states apart."""
    return dict(image_entries(Path(archive), limits)[0])
