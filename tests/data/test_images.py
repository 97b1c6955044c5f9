"""Images of folders and archives: labels, shapes, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tunesmith.core.errors import DataError, SecurityError
from tunesmith.data.images import ImageLimits, decode, read_images


def png(shade: int = 0, size: tuple[int, int] = (6, 6), mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, shade).save(file, "PNG")
    return file.getvalue()


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_a_folder_and_its_archive_give_the_same(tmp_path: Path) -> None:
    entries = {f"{label}/{number}.png": png(40 * code) for code, label in enumerate(["b/x", "a"]) for number in (1, 2)}
    for name, content in {**entries, "notes.txt": b"hello"}.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(content)
    folder = read_images(tmp_path / "all", size=4)
    packed = read_images(archive(tmp_path / "all.zip", {**entries, "notes.txt": b"hello"}), size=4)
    assert folder.label_names == ["a", "b/x"] and folder.labels.tolist() == [0, 0, 1, 1]
    assert folder.pixels.shape == (4, 1, 4, 4) and folder.pixels[0].max() == 40 and folder.pixels[3].max() == 0
    assert folder.skipped == ["notes.txt"] and folder.where[2] == "b/x/1.png"
    assert folder.content_hash == packed.content_hash


def test_one_folder_around_everything_is_no_part_of_a_label(tmp_path: Path) -> None:
    around = archive(tmp_path / "a.zip", {"top/Greek/one/1.png": png(), "top/Latin/two/1.png": png(), "top/x.txt": b""})
    assert read_images(around).label_names == ["Greek/one", "Latin/two"]
    alone = archive(tmp_path / "b.zip", {"cat/1.png": png(), "cat/2.png": png()})
    assert read_images(alone).label_names == ["cat"]


def test_colour_transparency_and_sixteen_bits() -> None:
    red = io.BytesIO()
    Image.new("RGB", (3, 5), (255, 0, 0)).save(red, "PNG")
    assert decode(red.getvalue(), "red", 4, channels=3)[:, 0, 0].tolist() == [255, 0, 0]
    clear = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(clear, "PNG")
    assert decode(clear.getvalue(), "clear", 4).min() == 255
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(deep, "PNG")
    assert decode(deep.getvalue(), "deep", 4).max() == 40000 >> 8


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (200, 200), (255, 255), (256, 1), (40000, 40000 >> 8)])
def test_thirty_two_bits(value: int, grey: int) -> None:
    wide = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.int32)).save(wide, "TIFF")
    assert set(decode(wide.getvalue(), "wide", 4).ravel().tolist()) == {grey}


def test_sixteen_bits_are_sixteen_however_dark() -> None:
    """pillow gives them in 32."""
    assert decode(b"P5 2 2 65535\n" + (200).to_bytes(2, "big") * 4, "dark", 2).max() == 0


@pytest.mark.parametrize("name", ["../out/1.png", "/etc/1.png", "a/../../1.png", "C:/a/1.png", "..\\a\\1.png"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SecurityError, match="would lead outside"):
        read_images(archive(tmp_path / "bad.zip", {"a/1.png": png(), name: png()}))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = archive(tmp_path / "bad.zip", {"a/1.png": png(), "b/broken.png": b"no image"})
    with pytest.raises(DataError, match=r"bad\.zip, b/broken\.png: the image cannot be decoded"):
        read_images(bad)
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)).save(noise, "PNG")
    for content in (noise.getvalue()[:4000], noise.getvalue()[:2000] + bytes(6000)):
        with pytest.raises(DataError, match=r"a/1\.png: the image cannot be decoded"):
            read_images(archive(tmp_path / "short.zip", {"a/1.png": content}))
    with pytest.raises(DataError, match="1.png: the image lies in no class's folder"):
        read_images(archive(tmp_path / "flat.zip", {"1.png": png()}))
    with pytest.raises(DataError, match="holds no image"):
        read_images(archive(tmp_path / "none.zip", {"a/1.txt": b"x"}))
    with pytest.raises(DataError, match="no folder or zip archive"):
        read_images(tmp_path / "absent")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(DataError, match="no folder and no zip archive"):
        read_images(tmp_path / "text.zip")
    frames = io.BytesIO()
    Image.new("L", (4, 4)).save(frames, "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 255)])
    with pytest.raises(DataError, match="holds 2 images"):
        decode(frames.getvalue(), "moving.gif", 4)


def test_limits(tmp_path: Path) -> None:
    path = archive(tmp_path / "all.zip", {f"a/{number}.png": png(size=(50, 50)) for number in range(3)})
    with pytest.raises(DataError, match="bytes, more than 10"):
        read_images(path, limits=ImageLimits(file_bytes=10))
    with pytest.raises(DataError, match="50 x 50 pixels, more than 100"):
        read_images(path, limits=ImageLimits(image_pixels=100))
    with pytest.raises(DataError, match="at most 1 are read"):
        read_images(path, size=4, limits=ImageLimits(total_bytes=20))
    with pytest.raises(DataError, match="more than 2 files"):
        read_images(path, limits=ImageLimits(files=2))
    with pytest.raises(DataError, match="1 or 3 channels"):
        read_images(path, channels=2)


def test_an_entry_larger_than_its_header_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/1.png", b"\0" * 100_000)
    content = path.read_bytes()
    size = (100_000).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (50).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"a/1\.png"):
        read_images(path, limits=ImageLimits(file_bytes=1000))


def test_an_entry_that_stands_twice_in_an_archive(tmp_path: Path) -> None:
    """By its name only the last one could be read."""
    path = archive(tmp_path / "twice.zip", {"a/1.png": png(), "b/1.png": png()})
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("a/1.png", png())
    with pytest.raises(DataError, match=r"twice\.zip: the entry 'a/1\.png' stands twice in the archive"):
        read_images(path)
