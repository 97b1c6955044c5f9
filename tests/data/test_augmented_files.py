"""Images and sounds in other forms: within their bounds, and by draw and row alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import components
from tunesmith.data.augmentations.base import build_augmentations
from tunesmith.data.augmented_files import AugmentedImages, AugmentedSounds
from tunesmith.data.images import Images
from tunesmith.data.pictures import Pictures
from tunesmith.data.sounds import Sound
from tunesmith.recipe.loading import load_recipe

KINDS = components("augmentations")


def images(channels: int = 3, rows: int = 4) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (rows, channels, 12, 10)).astype(np.uint8)
    return Images(pixels, np.arange(rows) % 2, ["a", "b"], [f"{row}.png" for row in range(rows)])


def sounds() -> list[Sound]:
    time = np.arange(800) / 8000
    return [Sound(np.sin(time * height)[None].astype(np.float32) / 2, 8000) for height in (500, 2000, 9000)]


def drawn(step: Any, image: np.ndarray[Any, Any], count: int = 60) -> list[np.ndarray[Any, Any]]:
    return [step.pixels(image, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.of == "images"])
def test_an_image_depends_on_draw_and_row_alone(name: str, channels: int) -> None:
    rows = AugmentedImages(images(channels), build_augmentations([{"name": name, "rate": 1}]))
    plain = rows.images.pixels
    assert all(np.array_equal(rows.seen(row)[0], plain[row]) for row in range(4))
    first = [rows.seen(row, 7) for row in range(4)]
    again = [rows.seen(row, 7) for row in reversed(range(4))][::-1]
    for (one, shares), (other, same) in zip(first, again, strict=True):
        assert one.shape == (channels, 12, 10) and one.dtype == np.uint8
        assert np.array_equal(one, other) and np.array_equal(shares, same) and shares.sum() == pytest.approx(1)
    assert any(not np.array_equal(one, plain[row]) for row, (one, _) in enumerate(first))
    if name != "flip":
        assert any(not np.array_equal(first[row][0], rows.seen(row, 8)[0]) for row in range(4)), "another epoch"
    assert np.array_equal(plain, images(channels).pixels), "what is stored stays"


def test_as_many_images_change_as_wanted() -> None:
    rows = AugmentedImages(images(), build_augmentations([{"name": "flip", "rate": 0.3}]))
    changed = [not np.array_equal(rows.seen(0, draw)[0], rows.images.pixels[0]) for draw in range(1, 501)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)


def test_what_each_augmentation_of_images_does() -> None:
    image, grey = images().pixels[0], np.full((1, 12, 10), 100, np.uint8)
    assert np.array_equal(KINDS["flip"]().pixels(image, np.random.default_rng(0)), image[:, :, ::-1])
    assert np.array_equal(KINDS["flip"](vertical=True).pixels(image, np.random.default_rng(0)), image[:, ::-1])
    assert all((one == 100).all() for one in drawn(KINDS["crop"](), grey)), "a part of one shade is of that shade"
    assert all((one[:, 5:7, 4:6] == 100).all() for one in drawn(KINDS["rotate"](most=45), grey)), "the middle stays"
    assert any((one == 0).any() for one in drawn(KINDS["scale"](most=0.5), grey))
    assert any((one == 100).all() for one in drawn(KINDS["scale"](most=0.5), grey)), "larger things fill the image"
    holes = [(one != 100).mean() for one in drawn(KINDS["erase"](most=0.2), grey)]
    assert 0 < max(holes) <= 0.2
    shades = [int(one[0, 0, 0]) for one in drawn(KINDS["colour"](strength=0.3), grey)]
    assert 70 <= min(shades) < 85 and 115 < max(shades) <= 130


def test_cutmix_takes_the_share_of_the_label_that_it_covers() -> None:
    found = images(1, 2)
    found.pixels[0], found.pixels[1] = 0, 255
    rows = AugmentedImages(found, [KINDS["cutmix"](rate=1)])
    covered = []
    for draw in range(1, 40):
        mixed, shares = rows.seen(0, draw)
        assert shares[1] == pytest.approx((mixed == 255).mean(), abs=1e-6)
        covered.append(float(shares[1]))
    assert len(set(covered)) > 5 and min(covered) == 0, "now and then the other image is the image itself"


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.of == "sounds"])
def test_a_sound_depends_on_draw_and_row_alone(name: str) -> None:
    rows = AugmentedSounds(sounds(), build_augmentations([{"name": name, "rate": 1}]))
    assert all(rows.seen(row) is rows.sounds[row] for row in range(3))
    first = [rows.seen(row, 5).samples for row in range(3)]
    again = [rows.seen(row, 5).samples for row in reversed(range(3))][::-1]
    assert all(np.array_equal(one, other) and one.dtype == np.float32 for one, other in zip(first, again, strict=True))
    assert all(np.abs(one).max() <= 1 for one in first)
    assert any(not np.array_equal(first[row], rows.seen(row, 6).samples) for row in range(3)), "another epoch"


def test_what_each_augmentation_of_sounds_does() -> None:
    sound = sounds()[0]

    def forms(step: Any) -> list[np.ndarray[Any, Any]]:
        return [step.samples(sound, np.random.default_rng(seed)) for seed in range(40)]

    power: Callable[[Any], float] = lambda values: float(np.square(values).mean())  # noqa: E731
    for one in forms(KINDS["noise"](least=20, most=20)):
        assert 10 * np.log10(power(sound.samples) / power(one - sound.samples)) == pytest.approx(20, abs=1)
    assert {len(one[0]) for one in forms(KINDS["speed"](most=0.2))} <= set(range(660, 1001))
    assert max(len(one[0]) for one in forms(KINDS["speed"]())) > 820 > 780 > min(
        len(one[0]) for one in forms(KINDS["speed"]()))  # fmt: skip
    for one in forms(KINDS["shift"](most=0.25)):
        moved = [by for by in range(-200, 201) if np.array_equal(one, np.pad(
            sound.samples, ((0, 0), (200, 200)))[:, 200 - by : 1000 - by] * _inside(by))]  # fmt: skip
        assert moved, "the sound itself, silence before or behind it"
    quiet = [int((one == 0).sum()) for one in forms(KINDS["masking"](time=0.5, band=0))]
    assert max(quiet) > 100 and max(quiet) <= 402


def _inside(by: int) -> np.ndarray[Any, Any]:
    places = np.arange(800) - by
    return ((places >= 0) & (places < 800)).astype(np.float32)


def test_augmentations_of_something_else_are_refused() -> None:
    with pytest.raises(RecipeError, match="'typo' is for text, not for images"):
        AugmentedImages(images(), build_augmentations([{"name": "typo"}]))
    with pytest.raises(RecipeError, match="'flip' is for images, not for sounds"):
        AugmentedSounds(sounds(), build_augmentations([{"name": "flip"}]))
    with pytest.raises(RecipeError, match="flip is for images, and task 'text-classification' reads text"):
        load_recipe({"data": {"train": "a.csv", "augmentation": ["flip"]}, "task": "text-classification"})
    with pytest.raises(RecipeError, match="data.augmentation: it is about texts"):
        load_recipe({"data": {"train": "a.csv", "augmentation": ["typo"]}, "task": "image-classification"})


def test_rows_of_a_run_are_read_in_the_form_of_the_epoch(tmp_path: Path) -> None:
    pictures = Pictures((1, 12, 10), lambda image: np.asarray(image, np.uint8)[None], {})
    pictures.length = 4
    for number, one in enumerate(images(1).pixels):
        Image.fromarray(one[0]).save(tmp_path / f"{number}.png")
    plain = pictures.rows([str(tmp_path / f"{number}.png") for number in range(4)])
    rows = pictures.augmented(plain, build_augmentations([{"name": "rotate", "rate": 1}, {"name": "flip", "rate": 1}]))

    def read(row: int, draw: int, of: Any = rows) -> list[Any]:
        return pictures.pixels([int(of.seen(row, draw).ids[0]) // 4]).tolist()

    assert rows.varies and [read(row, 0) for row in range(4)] == images(1).pixels[:, None].tolist()
    first = [read(row, 7) for row in range(4)]
    assert [read(row, 8) for row in range(4)] != first == [read(row, 7) for row in reversed(range(4))][::-1]
    assert read(0, 7, rows.take(np.array([2, 1]))) == first[2], "also where other rows were dropped"
    assert (rows.seen(1, 7).ids % 4 == np.arange(4)).all() and rows.seen(1, 7).ids.dtype == np.int64
    mixed = pictures.pixels([int(rows.seen(1, draw).ids[0]) // 4 for draw in (0, 7, 8)])
    assert mixed[1].tolist() == first[1][0] and mixed[0].tolist() == images(1).pixels[1].tolist()
