"""Readers of sentences with tags, questions about texts, images, boxes, masks and sounds."""

import json
import shutil
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tunesmith.api import inspect_data
from tunesmith.cli.main import app
from tunesmith.core.errors import DataError, SecurityError
from tunesmith.data.cleaned import read_cleaned
from tunesmith.data.cleaning.unicode import Unicode
from tunesmith.data.examples import Columns, find_reader, read_examples
from tunesmith.data.files import image_pixels, size_of
from tunesmith.data.inspection import Inspection
from tunesmith.data.several import Several
from tunesmith.data.sounds import Sound, read_sound
from tunesmith.evaluation.sound_plots import waveforms


def image(path: Path, shade: int = 0, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode != "RGB" else (shade, shade, shade)).save(path)
    return path


def sound(path: Path, samples: np.ndarray[Any, Any], rate: int = 8000, width: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, width, rate, 0, "NONE", ""))
        whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype("<i4")
        file.writeframes(whole.view(np.uint8).reshape(-1, 4)[:, :width].tobytes())
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [values for _, values in find_reader(path).rows()]


def kind(path: Path) -> str:
    return find_reader(path).name


@pytest.mark.parametrize("name", ["rows.parquet", "saved"])
def test_columns_that_nobody_looks_at_are_not_read(tmp_path: Path, name: str) -> None:
    table = pa.table({"text": ["one", "two"], "label": ["a", "b"], "scan": [b"x" * 9, None]})
    if name == "saved":
        datasets.Dataset(table).save_to_disk(tmp_path / name)
    else:
        parquet.write_table(table, tmp_path / name)
    assert list(rows(tmp_path / name)[0]) == ["text", "label", "scan"]
    reader = find_reader(tmp_path / name)
    for changes in ([], [Unicode()]):
        found = read_cleaned(Several([reader, reader]), Columns("text", "label"), changes=changes)
        assert [row["text"] for row in found.rows()] == ["one", "two"] * 2 and found.label_names == ["a", "b"]
        assert [list(values) for _, values in reader.rows()] == [["text", "label"]] * 2
    with pytest.raises(DataError, match=r"unknown column 'lable'; did you mean 'label'.*label, scan, text"):
        read_examples(find_reader(tmp_path / name), Columns("text", "lable"))


def test_conll(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("-DOCSTART- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\n# NN O\n")
    with pytest.raises(DataError, match=r"line 3: 3 columns; as many as the lines before"):
        path.with_suffix(".bio").write_text("a O\n\nb\tX\tO\n"), rows(path.with_suffix(".bio"))
    found = list(find_reader(path).rows())
    assert found == [
        ("line 3", {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}),
        ("line 7", {"tokens": ["#"], "tags": ["O"]}),
    ]
    examples = read_examples(find_reader(path), Columns("tokens", None, nested=("tokens", "tags")))
    assert examples.value(0, "tags") == ["B-ORG", "O"] and examples.where[1] == "line 7"
    facts = inspect_data([path])["files"][0]
    assert facts["what"] == "sentences with tags, 2 labels" and facts["labels"] == {"O": 2, "B-ORG": 1}
    assert facts["words"]["most"] == 2 and facts["text"] == "tokens"


def test_conll_u_has_words_and_their_classes(tmp_path: Path) -> None:
    path = tmp_path / "train.conllu"
    lines = ["# text = al", "1-2\tal" + "\t_" * 8, "1\ta\ta\tADP" + "\t_" * 6, "2\tel\tel\tDET" + "\t_" * 6]
    path.write_text("\n".join(lines))
    assert rows(path) == [{"tokens": ["a", "el"], "tags": ["ADP", "DET"]}]


def test_squad_rows_are_those_of_question_answering(tmp_path: Path) -> None:
    asked = {"id": "1", "question": "who?", "answers": [{"text": "Ada", "answer_start": 0}]}
    none = {"id": "2", "question": "why?", "answers": []}
    whole = {"data": [{"title": "t", "paragraphs": [{"context": "Ada did.", "qas": [asked, none]}]}]}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(whole))
    assert kind(path) == "squad"
    first, second = rows(path)
    assert first == {"id": "1", "title": "t", "context": "Ada did.", "question": "who?",
                     "answers": {"text": ["Ada"], "answer_start": [0]}}  # fmt: skip
    assert second["answers"] == {"text": [], "answer_start": []}
    assert inspect_data([path])["files"][0]["what"] == "questions about texts"
    del asked["question"]
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"question 1: not as SQuAD has it \(KeyError: 'question'\)"):
        rows(path)


def test_a_list_of_objects_is_still_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "one", "images": ["file_name"]}]')
    assert kind(tmp_path / "a.json") == "json"


def test_images_in_folders_of_their_labels(tmp_path: Path) -> None:
    for name, shade in (("cat/1.png", 0), ("cat/2.png", 0), ("dog/1.jpg", 90)):
        image(tmp_path / "pets" / name, shade)
    assert kind(tmp_path / "pets") == "images"
    found = rows(tmp_path / "pets")
    assert [row["label"] for row in found] == ["cat", "cat", "dog"] and found[0]["width"] == 6
    examples = read_examples(find_reader(tmp_path / "pets"), Columns("image", "label"))
    assert examples.label(2) == "dog" and examples.text(0).endswith("cat/1.png")
    shown = inspect_data([tmp_path / "pets"], output=tmp_path / "seen")
    facts = shown["files"][0]
    assert facts["what"] == "images, 2 labels" and facts["duplicates"] == 1 and facts["characters"] is None
    width = next(one for one in facts["columns"] if one["name"] == "width")
    assert width["least"] == width["most"] == width["mean"] == 6
    page = (tmp_path / "seen" / "inspection.html").read_text()
    assert page.count("data:image/png;base64") >= 3 and "images, 2 labels" in page
    (tmp_path / "pets" / "dog" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"dog/2\.png: the image cannot be decoded"):
        rows(tmp_path / "pets")
    damaged = tmp_path / "pets" / "dog" / "2.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:1000])  # its size can be read, its pixels cannot
    assert [row["width"] for row in rows(tmp_path / "pets")] == [6, 6, 6, 60]
    with pytest.raises(DataError, match=r"dog/2\.png: the image cannot be decoded"):
        Inspection(find_reader(tmp_path / "pets"))


def pets(folder: Path) -> Path:
    """Three images, one whose pixels are cut off, and one that is none."""
    for place in ("cat/1.png", "cat/2.png", "dog/1.png"):
        image(folder / place, len(place) if "1" in place else 90)
    damaged = folder / "dog" / "2.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:1000])  # its size can be read, its pixels cannot
    (folder / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_images_that_cannot_be_decoded_are_listed_beside_the_others(
    tmp_path: Path, packed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pets(tmp_path / "pets")
    if packed:
        source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source))
    found = inspect_data([source], output=tmp_path / "seen")
    facts = found["files"][0]
    assert facts["rows"] == 3 and facts["labels"] == {"cat": 2, "dog": 1} and len(facts["files"]) == 3
    lost = facts["unreadable"]
    assert [one["file"].rpartition("/")[2] for one in lost] == ["2.png", "3.png"]
    assert all("the image cannot be decoded (" in one["why"] for one in lost)
    assert "2 of 5 files cannot be read, and everything else is said of the others; the first is" in found["notes"][0]
    page = (tmp_path / "seen" / "inspection.html").read_text()
    assert page.count("data:image/png;base64") == 3 and "files that cannot be read" in page
    assert page.index("dog/3.png") < page.index("data:image/png"), "they come first"
    assert not app(["data", "inspect", str(source)], standalone_mode=False)
    assert "2 files: 2.png, 3.png" in capsys.readouterr().out


def test_inspection_ends_where_no_file_can_be_read(tmp_path: Path) -> None:
    for name, content in (("1.png", b"none"), ("2.jpg", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"none of {name[0]} files can be read\. The first is .*1\.png: the image"):
            inspect_data([tmp_path])


def test_images_with_boxes_or_masks_that_cannot_be_decoded_are_listed(tmp_path: Path) -> None:
    path = coco(tmp_path / "boxes", images=[{"id": n, "file_name": f"{name}.png"} for n, name in ((5, "a"), (6, "b"))])
    (tmp_path / "boxes" / "images" / "b.png").write_bytes(b"none")
    for folder, name in (("images", "1"), ("images", "2"), ("masks", "1")):
        image(tmp_path / "cut" / folder / f"{name}.png", 0, mode="L")
    (tmp_path / "cut" / "masks" / "2.png").write_bytes(b"none")
    for source, lost in ((path, "b.png"), (tmp_path / "cut", "2.png")):
        facts = inspect_data([source])["files"][0]
        assert facts["rows"] == 1 and [Path(one["file"]).name for one in facts["unreadable"]] == [lost]


def test_the_size_of_an_image_is_that_of_the_upright_one(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.new("L", (6, 4)).save(tmp_path / "a" / "1.jpg", exif=turned)
    (found,) = rows(tmp_path)
    assert (found["width"], found["height"]) == (4, 6) == image_pixels(str(tmp_path / "a" / "1.jpg")).shape[:0:-1]


def test_images_without_folders_and_in_archives_are_inspected_as_images(tmp_path: Path) -> None:
    image(tmp_path / "pets" / "1.png")
    image(tmp_path / "pets" / "2.png", 90)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "pets")
    for source in (tmp_path / "pets", archive):
        facts = inspect_data([source], output=tmp_path / f"seen-{Path(source).name}")["files"][0]
        assert facts["what"] == "images" and facts["duplicates"] == 0 and facts["characters"] is None
    assert (tmp_path / "seen-packed.zip" / "inspection.html").read_text().count("data:image/png;base64") >= 2
    with pytest.raises(DataError, match="put each into a folder called as its class"):
        read_examples(find_reader(archive), Columns("text", "label"))


def coco(folder: Path, **changed: Any) -> Path:
    image(folder / "images" / "a.png")
    whole = {
        "images": [{"id": 5, "file_name": "a.png", "width": 6, "height": 4}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [1, 0, 3, 2]}],
    } | changed
    path = folder / "boxes.json"
    path.write_text(json.dumps(whole))
    return path


def test_coco(tmp_path: Path) -> None:
    path = coco(tmp_path)
    assert kind(path) == "coco"
    (found,) = rows(path)
    assert found == {"image": str(tmp_path / "images" / "a.png"), "boxes": [[1, 0, 3, 2]], "labels": ["cell"],
                     "width": 6, "height": 4}  # fmt: skip
    assert inspect_data([path])["files"][0]["labels"] == {"cell": 1}
    for changed, said in (
        ({"annotations": [{"image_id": 6, "category_id": 1, "bbox": [1, 0, 3, 2]}]}, "there is no image 6"),
        ({"annotations": [{"image_id": 5, "category_id": 2, "bbox": [1, 0, 3, 2]}]}, "there is no category 2"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 0, 0, 2]}]}, "0 x 2 pixels holds nothing"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 0]}]}, "a box is left, top"),
        ({"images": [{"id": 5, "file_name": "b.png"}]}, r"there is no image 'b\.png'"),
        ({"categories": None}, "a list 'categories' of objects is needed"),
        ({"categories": [{"id": 1}]}, "categories: number 1 has id '1' and name 'None'"),
        ({"images": [{"id": [5], "file_name": "a.png"}]}, "images: number 1 has id"),
        ({"images": [{"id": 5, "file_name": "a.png"}] * 2}, "images: number 2 has id '5'.* an id of its own"),
        ({"annotations": [{"image_id": [5], "category_id": 1, "bbox": [1, 0, 3, 2]}]}, "there is no image \\[5\\]"),
        ({"images": [{"id": 5, "file_name": "a.png", "width": 60, "height": 40}]}, "6 x 4 pixels, .* says 60 x 40"),
    ):
        with pytest.raises(DataError, match=said):
            rows(coco(tmp_path, **changed))


def voc(
    folder: Path,
    box: str = "<xmin>1</xmin><ymin>0</ymin><xmax>4</xmax><ymax>2</ymax>",
    head: str = "",
    name: str = "cell",
) -> Path:
    image(folder / "JPEGImages" / "a.png")
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / "a.xml").write_text(
        f"{head}<annotation><filename>a.png</filename><object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"
    )
    return folder


def test_voc_gives_the_rows_of_coco(tmp_path: Path) -> None:
    assert kind(voc(tmp_path / "voc")) == "voc"
    (theirs,), (ours,) = rows(coco(tmp_path / "coco")), rows(voc(tmp_path / "voc"))
    assert ours | {"image": ""} == theirs | {"image": ""}
    with pytest.raises(DataError, match=r"a\.xml: an object's bndbox holds numbers"):
        rows(voc(tmp_path / "voc", box="<xmin>1</xmin>"))
    with pytest.raises(DataError, match=r"a\.xml: not valid XML"):
        rows(voc(tmp_path / "voc", head="<"))
    with pytest.raises(DataError, match=r"a\.xml: an object has no name"):
        rows(voc(tmp_path / "voc", name=""))
    path = voc(tmp_path / "wide") / "Annotations" / "a.xml"
    path.write_text(f"<!DOCTYPE a>{path.read_text()}", encoding="utf-16")
    with pytest.raises(SecurityError, match="declares entities"):
        rows(tmp_path / "wide")
    with pytest.raises(SecurityError, match="declares entities"):
        rows(voc(tmp_path / "voc", head='<!DOCTYPE a [<!ENTITY b "c">]>'))


@pytest.mark.parametrize("name", ["../outside.png", "{folder}/outside.png", "images/../../outside.png"])
def test_names_of_images_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    """Pages show the images: whoever writes the list could have any image of this machine put into one."""
    image(tmp_path / "outside.png")
    name = name.format(folder=tmp_path)
    with pytest.raises(SecurityError, match=r"boxes\.json: the image .*outside\.png' would lead outside"):
        rows(coco(tmp_path / "coco", images=[{"id": 5, "file_name": name}]))
    listed = voc(tmp_path / "voc") / "Annotations" / "a.xml"
    listed.write_text(listed.read_text().replace("a.png", name))
    with pytest.raises(SecurityError, match=r"a\.xml: the image .*outside\.png' would lead outside"):
        rows(tmp_path / "voc")


def test_masks(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    image(tmp_path / "masks" / "a.png", 2, mode="L")
    assert kind(tmp_path) == "masks"
    (found,) = rows(tmp_path)
    assert found["classes"] == [2] and found["mask"].endswith("masks/a.png") and found["height"] == 4
    image(tmp_path / "masks" / "a.png", 2, (5, 4), "L")
    with pytest.raises(DataError, match=r"masks/a\.png: 5 x 4 pixels, but its image has 6 x 4"):
        rows(tmp_path)
    image(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the image cannot be decoded \(pixels of mode RGB"):
        rows(tmp_path)
    image(tmp_path / "images" / "b.png")
    with pytest.raises(DataError, match=r"images, b: there is no mask of this name"):
        rows(tmp_path)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_sounds_of_every_width_are_the_same(tmp_path: Path, width: int) -> None:
    wanted = np.sin(np.arange(80) / 3)
    found = read_sound(sound(tmp_path / "a.wav", wanted, width=width))
    assert found.samples.dtype == np.float32 and found.seconds == 0.01
    assert np.allclose(found.samples, wanted, atol=2 ** (2 - 8 * width) + 1e-6)


def test_sounds_in_folders_of_their_labels(tmp_path: Path) -> None:
    sound(tmp_path / "words" / "one" / "a.wav", np.zeros(400))
    sound(tmp_path / "words" / "two" / "b.wav", np.ones(1200) / 2)
    assert kind(tmp_path / "words") == "audio-folder"
    found = rows(tmp_path / "words")
    assert [(row["label"], row["seconds"], row["rate"]) for row in found] == [("one", 0.05, 8000), ("two", 0.15, 8000)]
    facts = inspect_data([tmp_path / "words"])["files"][0]
    seconds = next(one for one in facts["columns"] if one["name"] == "seconds")
    assert facts["what"] == "sounds, 2 labels" and (seconds["least"], seconds["most"]) == (0.05, 0.15)
    sound(tmp_path / "words" / "one" / "c.wav", np.zeros(0))
    with pytest.raises(DataError, match=r"one/c\.wav: the sound has length zero"):
        rows(tmp_path / "words")
    (tmp_path / "words" / "one" / "c.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"one/c\.wav: the sound cannot be read"):
        rows(tmp_path / "words")
    sound(tmp_path / "words" / "one" / "d.wav", np.zeros(0))
    facts = inspect_data([tmp_path / "words"])["files"][0]
    assert facts["rows"] == 2 and facts["labels"] == {"one": 1, "two": 1}
    assert [(Path(one["file"]).name, one["why"].partition(" (")[0]) for one in facts["unreadable"]] == [
        ("c.wav", "the sound cannot be read"),
        ("d.wav", "the sound has length zero. Record it again, or take it out of the data."),
    ]


@pytest.mark.usefixtures("pictures")
def test_the_page_draws_sounds_of_every_label(tmp_path: Path) -> None:
    for number in range(5):
        for place in range(4):
            sound(tmp_path / "words" / f"w{number}" / f"{place}.wav", np.sin(np.arange(400 * (place + 1))) / 4)
    sound(tmp_path / "words" / "w$5$" / "short.wav", np.zeros(1))
    found = inspect_data([tmp_path / "words"], output=tmp_path / "seen")
    shown = [f"{one['label']}/{Path(one['file']).name}" for one in found["files"][0]["files"]]
    assert shown == ["w$5$/short.wav", *(f"w{number}/{place}.wav" for number in range(5) for place in range(2))]
    page = (tmp_path / "seen" / "inspection.html").read_text()
    sounds = page[page.index("words: sounds") : page.index("words: labels")]
    assert sounds.count("<svg") == 3, "four beside each other"
    assert sounds.count("0.05 s, peak 25 %") == sounds.count("0.10 s, peak 25 %") == 5
    assert "0.00 s, peak 0 %" in sounds and "w$5$" in sounds and sounds.count("<path") >= 11


def test_the_first_labels_are_shown_where_there_are_many(tmp_path: Path) -> None:
    for number in range(14):
        sound(tmp_path / f"w{number:02}" / "a.wav", np.ones(80) / 2)
    shown = inspect_data([tmp_path])["files"][0]["files"]
    assert [one["label"] for one in shown] == [f"w{number:02}" for number in range(12)]


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("seconds", [0.001, 1.0, 90.0])
def test_a_waveform_keeps_its_peaks_however_long_it_is(seconds: float) -> None:
    samples = np.zeros((2, int(8000 * seconds)), np.float32)
    samples[1, -1] = -0.75
    drawn = waveforms([("x" * 40, Sound(samples, 8000))])
    assert "peak 75 %" in drawn and f"{'x' * 21}…" in drawn and len(drawn) < 60_000


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_in_a_header_is_an_error_of_the_file(tmp_path: Path) -> None:
    whole, kinds = sound(tmp_path / "a.wav", np.ones(400)).read_bytes(), ("PNG", "TIFF")
    cases: list[tuple[Path, bytes, Any]] = [(tmp_path / "a.wav", whole, read_sound)]
    for name in kinds:
        path = tmp_path / f"a.{name.lower()}"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)).save(path, name)
        cases.append((path, path.read_bytes(), size_of))
    for path, content, read in cases:
        for place in range(60):
            for byte in (1, 255):
                path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
                with suppress(DataError):
                    read(path)


def test_a_sound_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", np.ones(400))
    path.write_bytes(path.read_bytes()[:-100])
    wide = bytearray(path.read_bytes())
    wide[34:36] = (64).to_bytes(2, "little")
    (tmp_path / "wide.wav").write_bytes(wide)
    with pytest.raises(DataError, match=r"wide\.wav: the sound has 64 bits per sample"):
        read_sound(tmp_path / "wide.wav")
    with pytest.raises(DataError, match=r"a\.wav: the sound is cut short: 350 of 400 samples"):
        read_sound(path)


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no data that is read from a folder"):
        rows(tmp_path / "a")


def test_images_of_one_name_with_different_endings_have_no_mask_of_their_own(tmp_path: Path) -> None:
    for folder, name, mode in (("images", "1.png", "RGB"), ("images", "1.bmp", "RGB"), ("masks", "1.png", "L")):
        image(tmp_path / folder / name, mode=mode)
    with pytest.raises(DataError, match=r"1\.png: 1\.bmp has the same name with another ending"):
        rows(tmp_path)


def test_questions_that_stand_deeper_than_squad_has_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"meta": {"data": [{"paragraphs": []}]}}')
    with pytest.raises(DataError, match=r"a\.json, behind question 0: a list 'data' is needed there"):
        rows(tmp_path / "a.json")


def test_class_labels_inside_lists_and_objects_are_given_by_name(tmp_path: Path) -> None:
    import datasets

    tag = datasets.ClassLabel(names=["O", "B-ORG"])
    spans = datasets.List({"kind": tag, "start": datasets.Value("int64")})
    features = datasets.Features({"words": datasets.List(datasets.Value("string")), "tags": datasets.List(tag),
                                  "spans": spans})  # fmt: skip
    whole = [{"words": ["EU", "acts"], "tags": [1, 0], "spans": [{"kind": 1, "start": 0}]},
             {"words": ["so"], "tags": [-1], "spans": None}]  # fmt: skip
    datasets.Dataset.from_list(whole, features=features).save_to_disk(tmp_path / "saved")
    first, second = rows(tmp_path / "saved")
    assert first == {"words": ["EU", "acts"], "tags": ["B-ORG", "O"], "spans": [{"kind": "B-ORG", "start": 0}]}
    assert second["tags"] == [-1] and second["spans"] is None


def test_a_saved_folder_with_a_colon_in_its_name(tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset.from_list([{"text": "a"}])
    saved.save_to_disk(tmp_path / "a:b")
    datasets.DatasetDict({"test": saved}).save_to_disk(tmp_path / "c:d")
    assert rows(tmp_path / "a:b") == [{"text": "a"}] == rows(tmp_path / "c:d:test")
    with pytest.raises(DataError, match=r"c:d: unknown split 'train'.* Choose one with .*c:d:SPLIT"):
        rows(tmp_path / "c:d")
