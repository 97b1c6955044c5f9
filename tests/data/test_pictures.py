"""Images as rows of tokens."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tunesmith.core.errors import DataError
from tunesmith.data.images import ImageLimits
from tunesmith.data.pictures import Pictures

SHAPE = (1, 256, 256)
COUNT = 24


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    for number in range(COUNT):
        Image.new("L", SHAPE[1:], number).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(COUNT)]


@pytest.fixture
def pictures() -> Pictures:
    return Pictures(SHAPE, lambda image: np.asarray(image, np.uint8)[None], {})


def test_pixels_are_held_once(names: list[str], pictures: Pictures) -> None:
    pictures.rows(names[:1])  # what reading imports is there
    tracemalloc.start()
    try:
        rows = pictures.rows(iter(names))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.5 * COUNT * np.prod(SHAPE)
    assert [pixels.max() for pixels in pictures.pixels(rows.numbers.tolist())] == list(range(COUNT))


def test_too_many_images_are_refused_before_one_is_read(pictures: Pictures) -> None:
    pictures.limits = ImageLimits(total_bytes=2 * int(np.prod(SHAPE)))
    with pytest.raises(DataError, match="more than 2 images of 1 x 256 x 256 need more than 0 MiB"):
        pictures.rows(["none.png"] * 3)
    assert len(pictures.rows([])) == 0
