"""Images as rows of tokens: a token is one place of one image, and the pixels are kept beside the numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from tunesmith.core.errors import CompatibilityError, DataError
from tunesmith.data.images import ImageLimits, Pixels, image_bytes, open_image
from tunesmith.data.tokens import RowMaker, Seen, TokenRows

if TYPE_CHECKING:
    from PIL.Image import Image

_BITS = 32  # of an image's number; what lies above says in which form it is read


class Album:
    """Pixels of images that were read together.

    Args:
        first: number of the first image.
        pixels: (images, channels, height, width), uint8.
    """

    def __init__(self, first: int, pixels: Pixels) -> None:
        self.first, self.pixels = first, pixels


class ImageRows(TokenRows):
    """Images as rows: token t of image n is n * T + t. The pixels live as long as the rows.

    Args:
        albums: with the images' pixels.
        numbers: (rows,), of the images.
        length: T, tokens of an image. [tokens]
    """

    def __init__(self, albums: Sequence[Album], numbers: np.ndarray[Any, np.dtype[np.int64]], length: int) -> None:
        self.albums, self.numbers, self._length = albums, numbers, length
        ids = (numbers[:, None] * length + np.arange(length)).reshape(-1)
        super().__init__(ids, np.arange(len(numbers) + 1) * length, np.full(len(numbers), length))

    def take(self, rows: np.ndarray[Any, Any]) -> ImageRows:
        """Return some of the rows.

        Args:
            rows: their numbers.
        Returns:
            They alone, in that order.
        """
        return ImageRows(self.albums, self.numbers[rows], self._length)

    def content(self, row: int) -> bytes:
        """Return an image's pixels: its number is another one in another run."""
        number = int(self.numbers[row])
        album = next(one for one in self.albums if one.first <= number < one.first + len(one.pixels))
        return album.pixels[number - album.first].tobytes()


class AugmentedPictures(ImageRows):
    """Images that training sees in another form in each epoch; evaluation sees them as they are.

    What an image becomes depends on the epoch's draw and on its own number alone. It is made when it is read, so no
    form is kept.

    Args:
        rows: as they are.
        pictures: that made them.
        steps: augmentations of images, in order.
    """

    varies = True

    def __init__(self, rows: ImageRows, pictures: Pictures, steps: Sequence[Any]) -> None:
        super().__init__(rows.albums, rows.numbers, rows._length)
        self._pictures, self._steps = pictures, steps

    def seen(self, row: int, draw: int = 0) -> Seen:
        """Return an image in the form of a draw; as it is for draw 0."""
        whole = super().seen(row)
        if not draw:
            return whole
        return Seen(whole.ids + self._pictures.form(self._steps, draw) * self._length, None)

    def take(self, rows: np.ndarray[Any, Any]) -> AugmentedPictures:
        """Return some of the rows; each is drawn as before."""
        return AugmentedPictures(super().take(rows), self._pictures, self._steps)


class Pictures(RowMaker):
    """Reads images for one model, and keeps the pixels of those in use.

    Args:
        shape: (channels, height, width) that the model reads.
        scaled: gives an image that shape, uint8.
        facts: plain values that decide what the model reads of the pixels.
    """

    def __init__(self, shape: tuple[int, int, int], scaled: Callable[[Image], Pixels], facts: dict[str, Any]) -> None:
        self.shape, self.facts, self._scaled = shape, facts, scaled
        self.length = 0  # tokens of an image, once the model is known
        self.limits = ImageLimits()
        self._albums: WeakValueDictionary[int, Album] = WeakValueDictionary()
        self._next = 0
        self._forms: list[tuple[Sequence[Any], int]] = []  # steps and draw of every form that was asked for
        noise = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
        self._samples = self._keep(noise)

    def samples(self) -> ImageRows:
        """Return three rows to try a model with."""
        return ImageRows([self._samples], np.arange(3), self.length)

    def rows(self, texts: Iterable[str]) -> ImageRows:
        """Read images by their files' names.

        Args:
            texts: names of files, or of entries of archives as FILE.zip/ENTRY.
        Returns:
            The rows.
        Raises:
            DataError: a file is missing, no image, damaged or too large, or all are too many.
        """
        found, most = list[Pixels](), self.limits.total_bytes // int(np.prod(self.shape))
        for name in texts:
            if len(found) >= most:
                raise DataError(
                    f"more than {most:,} images of {' x '.join(map(str, self.shape))} need more than "
                    f"{self.limits.total_bytes >> 20} MiB. Give fewer at once."
                )
            found.append(self._read(name))
        album = self._keep(np.stack(found) if found else np.zeros((0, *self.shape), np.uint8))
        return ImageRows([album], album.first + np.arange(len(found)), self.length)

    def augmented(self, rows: TokenRows, steps: Sequence[Any]) -> TokenRows:
        """Let training see images in other forms."""
        assert isinstance(rows, ImageRows)
        return AugmentedPictures(rows, self, steps)

    def form(self, steps: Sequence[Any], draw: int) -> int:
        """Say how far the numbers of a form's images lie from those of the images as they are.

        Args:
            steps: augmentations, in order.
            draw: of the epoch.
        Returns:
            What is added to a number.
        """
        if (steps, draw) not in self._forms:
            self._forms.append((steps, draw))
        return (self._forms.index((steps, draw)) + 1) << _BITS

    def content(self, text: str) -> str:
        """Return what an image is told apart by: a hash of its file.

        Args:
            text: name of the file.
        Returns:
            SHA-256.
        """
        return hashlib.sha256(image_bytes(text, self.limits)).hexdigest()

    def beside(self, text: str, path: str) -> str:
        """Look a relative name up beside the file that gives it, where it is there.

        Args:
            text: name of an image.
            path: of the data file.
        Returns:
            The name to read.
        """
        place = Path(path).parent / text
        return str(place) if place.exists() else text

    def pixels(self, numbers: Sequence[int]) -> Pixels:
        """Give images back.

        Args:
            numbers: of images whose rows are in use, with the form that `form` added.
        Returns:
            (images, channels, height, width), uint8.
        """
        if not numbers:
            return np.zeros((0, *self.shape), np.uint8)
        forms, numbers = [one >> _BITS for one in numbers], [one & ((1 << _BITS) - 1) for one in numbers]
        starts = sorted(self._albums)
        places = np.searchsorted(starts, numbers, side="right") - 1
        found = zip(numbers, forms, places, strict=True)
        return np.stack([
            self._drawn(self._albums[starts[place]].pixels[number - starts[place]], number, form)
            for number, form, place in found
        ])  # fmt: skip

    def _drawn(self, pixels: Pixels, number: int, form: int) -> Pixels:
        steps, draw = self._forms[form - 1] if form else ((), 0)
        random = np.random.default_rng([draw, number])
        for step in steps:
            if random.random() < step.rate:
                pixels = step.pixels(pixels, random)
        return pixels

    def _keep(self, pixels: Pixels) -> Album:
        album = Album(self._next, pixels)
        if len(pixels):
            self._albums[album.first] = album
        self._next += len(pixels)
        return album

    def _read(self, name: str) -> Pixels:
        image = open_image(image_bytes(name, self.limits), name, self.shape[0], self.limits)
        found = self._scaled(image)
        if found.shape != self.shape:
            raise CompatibilityError(
                f"{name}: the model's image processor gives pixels of shape {found.shape}, and the model reads "
                f"{self.shape}. Set size and crop_size in preprocessor_config.json to what the model reads."
            )
        return found
