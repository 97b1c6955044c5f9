"""Images as rows of tokens: a token is one place of one image, and the pixels are kept beside the numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
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


@dataclass(frozen=True, eq=False)
class Form:
    """How images look in one epoch.

    Args:
        steps: augmentations of images, in order.
        draw: of the epoch.
        others: (rows,), numbers of the images that one may get parts of.
    """

    steps: Sequence[Any]
    draw: int
    others: np.ndarray[Any, np.dtype[np.int64]]

    def pixels(self, number: int, plain: Callable[[int], Pixels]) -> Pixels:
        """Draw an image.

        Args:
            number: of the image.
            plain: gives the image of a number as it is.
        Returns:
            (channels, height, width), uint8.
        """
        found, random = plain(number), np.random.default_rng([self.draw, number])
        for place, step in enumerate(self.steps):
            if not step.mixes:
                found = step.pixels(found, random) if random.random() < step.rate else found
            elif (mixed := self._partner(place, number)) is not None:
                other, own = mixed
                found, _ = step.mixed(found, lambda other=other: plain(int(self.others[other])), own)
        return found

    def shares(self, row: int, shape: tuple[int, int, int]) -> tuple[tuple[int, float], ...]:
        """Say how much of a row's image is of which row, without drawing it.

        Args:
            row: its place among `others`.
            shape: (channels, height, width).
        Returns:
            Rows with their shares, which sum to 1; none where all of it is the row's own.
        """
        found, number = [(row, 1.0)], int(self.others[row])
        for place, step in enumerate(self.steps):
            mixed = self._partner(place, number) if step.mixes else None
            if mixed is not None:
                blank = np.zeros((1, *shape[1:]), np.uint8)  # shares depend on what is drawn, not on the pixels
                _, kept = step.mixed(blank, lambda blank=blank: blank, mixed[1])
                found = [(one, share * kept) for one, share in found] + [(mixed[0], 1 - kept)]
        return tuple(found) if len(found) > 1 else ()

    def _partner(self, place: int, number: int) -> tuple[int, np.random.Generator] | None:
        """Draw the row that a step mixes an image with, from a stream of its own; None where it leaves the image."""
        random = np.random.default_rng([self.draw, number, place + 1])
        other = int(random.integers(len(self.others)))
        return (other, random) if random.random() < self.steps[place].rate else None


class AugmentedPictures(ImageRows):
    """Images that training sees in another form in each epoch; evaluation sees them as they are.

    What an image becomes depends on the epoch's draw and on its own number alone; where parts of another image are put
    into it, on which images these rows are too, for it is one of them. It is made when it is read, so no form is kept.

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
        """Return an image in the form of a draw, with the rows that share it; as it is for draw 0."""
        whole = super().seen(row)
        if not draw:
            return whole
        number, form = self._pictures.form(Form(self._steps, draw, self.numbers))
        shares = form.shares(row, self._pictures.shape)
        return Seen(whole.ids + (number << _BITS) * self._length, None, shares=shares)

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
        self._forms: dict[tuple[int, int, int], int] = {}  # numbers of the forms that were asked for, from 1
        self._by_number: dict[int, Form] = {}
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
        most = self.limits.total_bytes // int(np.prod(self.shape))
        names = list(islice(texts, most + 1))
        if len(names) > most:
            raise DataError(
                f"more than {most:,} images of {' x '.join(map(str, self.shape))} need more than "
                f"{self.limits.total_bytes >> 20} MiB. Give fewer at once."
            )
        pixels = np.empty((len(names), *self.shape), np.uint8)  # filled one by one: all are held once, not twice
        for place, name in enumerate(names):
            pixels[place] = self._read(name)
        album = self._keep(pixels)
        return ImageRows([album], album.first + np.arange(len(names)), self.length)

    def augmented(self, rows: TokenRows, steps: Sequence[Any]) -> TokenRows:
        """Let training see images in other forms."""
        assert isinstance(rows, ImageRows)
        return AugmentedPictures(rows, self, steps)

    def form(self, wanted: Form) -> tuple[int, Form]:
        """Number a form.

        Args:
            wanted: how images are to look.
        Returns:
            Its number, which stands above the numbers of its images; and the form that had it first.
        """
        key = id(wanted.steps), wanted.draw, id(wanted.others)  # kept with the form, so nothing else takes their place
        number = self._forms.setdefault(key, len(self._forms) + 1)
        return number, self._by_number.setdefault(number, wanted)

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
            numbers: of images whose rows are in use, below the number of their form.
        Returns:
            (images, channels, height, width), uint8.
        """
        if not numbers:
            return np.zeros((0, *self.shape), np.uint8)
        return np.stack([self._drawn(one >> _BITS, one & ((1 << _BITS) - 1)) for one in numbers])

    def _drawn(self, form: int, number: int) -> Pixels:
        return self._by_number[form].pixels(number, self._plain) if form else self._plain(number)

    def _plain(self, number: int) -> Pixels:
        first = max(start for start in self._albums if start <= number)
        return self._albums[first].pixels[number - first]

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
