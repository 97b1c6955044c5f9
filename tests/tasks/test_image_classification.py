"""Images are rows of tokens: trained, loaded, answered and refused as texts are."""

import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from typer.testing import CliRunner

import tunesmith
from tests.conftest import save_drawings, write_csv
from tunesmith.cli.main import app
from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.core.registry import components
from tunesmith.models.layout import ragged
from tunesmith.models.loading import load_config, locate
from tunesmith.models.pictures import ImageBackbone, image_tokens, load_pictures
from tunesmith.recipe.loading import load_recipe

CHANCE = 1 / 4


def image_recipe(model: Path, train: Path, output: Path, **more: Any) -> dict[str, Any]:
    """A recipe that trains in about a second."""
    return {
        "task": "image-classification", "model": str(model), "output": str(output),
        "data": {"train": str(train), "validation": 0.2, "test": 0.2},
        "method": {"name": "lora", "rank": 4}, "evaluation": {"resamples": 100},
        "training": {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3}, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_drawings(tmp_path_factory.mktemp("drawings") / "drawings.zip", classes=4, each=10)


@pytest.fixture(scope="module")
def unpacked(drawings: Path) -> Path:
    with zipfile.ZipFile(drawings) as archive:
        archive.extractall(drawings.parent / "files")
    return drawings.parent / "files" / "drawings"


@pytest.fixture(scope="module")
def run(tiny_vision: Path, drawings: Path) -> tunesmith.Run:
    return tunesmith.train(image_recipe(tiny_vision, drawings, drawings.parent / "run"))


def opened(folder: Path, dtype: torch.dtype = torch.float64) -> ImageBackbone:
    source = locate(str(folder))
    model = transformers.AutoModel.from_pretrained(folder).to(dtype).eval()
    pictures = load_pictures(source, load_config(source))
    pictures.length = image_tokens(model, pictures)
    return ImageBackbone(model, pictures)


def test_lora_on_a_vision_encoder_learns_drawings(run: tunesmith.Run) -> None:
    assert run.summary["fast_path"]["fast"]
    assert run.metrics["test"]["accuracy"]["value"] > 2 * CHANCE
    assert {"majority", "linear-probe"} == set(run.summary["baselines"])
    assert (run.folder / "report.html").is_file()


def test_a_loaded_run_answers_files_folders_and_archives(
    run: tunesmith.Run, unpacked: Path, drawings: Path, tmp_path: Path
) -> None:
    again = tunesmith.Run.load(run.folder)
    files = sorted(unpacked.rglob("*.png"))
    one = again.predict(str(files[0]))[0]
    assert one.label == files[0].parent.name
    assert again.predict_file(unpacked)[0].probabilities == pytest.approx(one.probabilities, abs=1e-6)  # float32
    assert again.predict_file(files[0])[0].probabilities == pytest.approx(one.probabilities)
    assert again.predict(f"{drawings}/class0/0.png")[0].probabilities == pytest.approx(one.probabilities)
    assert again.evaluate(drawings)["accuracy"].value == again.evaluate(unpacked)["accuracy"].value
    shutil.copy(files[0], tmp_path / "one.png")
    write_csv(tmp_path / "rows.csv", [("one.png", "class0")])  # beside the file that names it
    assert again.predict_file(tmp_path / "rows.csv")[0].probabilities == pytest.approx(one.probabilities)


def test_the_command_line_answers_images(run: tunesmith.Run, unpacked: Path) -> None:
    file = sorted(unpacked.rglob("*.png"))[-1]
    given = CliRunner().invoke(app, ["predict", str(run.folder), str(file), "--json"])
    assert json.loads(given.stdout)["predictions"][0]["label"] == file.parent.name
    all_of_them = CliRunner().invoke(app, ["predict", str(run.folder), str(unpacked), "--json"])
    assert [one["where"] for one in json.loads(all_of_them.stdout)["predictions"]] == [
        str(file) for file in sorted(unpacked.rglob("*.png"))
    ]
    shown = CliRunner().invoke(app, ["predict", str(run.folder), str(unpacked)])
    assert shown.stdout.splitlines()[-1].startswith(f"{file}: {file.parent.name} ")


def test_flat_images_equal_the_models_own_pass(tiny_vision: Path) -> None:
    core = opened(tiny_vision)
    assert core.proof.fast and core.pictures.length == 5
    batch = core.three_rows()
    numbers = (batch.ids[::5] // 5).tolist()
    pixels = torch.from_numpy(core.pictures.pixels(numbers)).double() / 255
    with torch.no_grad():
        wanted = core.model(pixel_values=(pixels - 0.5) / 0.5).last_hidden_state.flatten(0, 1)
        found = core.hidden(batch)
        alone = torch.cat([core.hidden(batch.part(row, row + 1)) for row in range(3)])
        read = core.hidden_at(batch, torch.tensor([0, 5, 10]))
    for other in (wanted, alone):
        assert (found - other).abs().max() <= 1e-10 * found.abs().max()
    assert (found[[0, 5, 10]] - read).abs().max() <= 1e-10 * found.abs().max()


def test_an_image_may_leave_tokens_out(tiny_vision: Path) -> None:
    core = opened(tiny_vision)
    whole = core.three_rows().ids[:5]
    with torch.no_grad():
        some = core.hidden(ragged([whole, whole[[0, 2, 4]]]))
        states = core.hidden(ragged([whole]))
    assert (some[3:] - states).abs().max() <= 1e-10 * states.abs().max()  # rows are sorted by length
    assert (some[:3] - states[[0, 2, 4]]).abs().max() > 1e-6 * states.abs().max()  # they see fewer tokens


def test_images_are_scaled_by_the_models_own_processor(tiny_vision: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_vision, tmp_path / "vit")
    processor = transformers.ViTImageProcessor(
        size={"height": 8, "width": 8}, image_mean=[0.2], image_std=[0.7], resample=3
    )
    processor.save_pretrained(folder)
    colours = np.random.default_rng(0).integers(0, 256, (21, 13), np.uint8)
    Image.fromarray(colours).save(tmp_path / "one.png")
    core = opened(folder)
    rows = core.pictures.rows([str(tmp_path / "one.png")])
    found, _ = core._images(ragged([torch.from_numpy(rows[0])]))
    wanted = processor([colours[..., None]], input_data_format="channels_last")["pixel_values"][0]
    assert np.abs(found[0].numpy() - wanted).max() < 1e-6


def test_pixels_go_with_the_rows_that_use_them(tiny_vision: Path, unpacked: Path) -> None:
    pictures = opened(tiny_vision).pictures
    rows = pictures.rows(map(str, sorted(unpacked.rglob("*.png"))[:3]))
    few = rows.take(np.array([2]))
    number = int(few[0][0] // 5)
    del rows
    assert pictures.pixels([number]).shape == (1, 1, 8, 8)
    del few
    assert len(pictures._albums) == 1  # the samples


def test_the_same_image_under_another_name_is_a_leak(tiny_vision: Path, unpacked: Path, tmp_path: Path) -> None:
    shutil.copytree(unpacked, tmp_path / "train")
    (tmp_path / "test" / "class0").mkdir(parents=True)
    shutil.copy(unpacked / "class0" / "3.png", tmp_path / "test" / "class0" / "other.png")
    given = image_recipe(tiny_vision, tmp_path / "train", tmp_path / "run")
    given["data"] |= {"test": str(tmp_path / "test"), "leakage": "error"}
    with pytest.raises(DataError, match="1 rows of test.* also stand in train"):
        tunesmith.train(given)


HEADS = [name for name in components("heads") if name != "cosine"]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_images(head: str, tiny_vision: Path, drawings: Path, tmp_path: Path) -> None:
    given = image_recipe(
        tiny_vision, drawings, tmp_path / "run", task={"name": "image-classification", "head_kind": head}
    )
    given["training"]["epochs"] = 2
    given["evaluation"]["baselines"] = False
    assert tunesmith.train(given).metrics["test"]["accuracy"]["value"] > 2 * CHANCE


def broken(tmp_path: Path, content: bytes) -> Path:
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            place = tmp_path / "data" / name / f"{number}.png"
            Image.fromarray(np.full((8, 8), 20 * number + (name == "b"), np.uint8)).save(place)
    (tmp_path / "data" / "b" / "2.png").write_bytes(content)
    return tmp_path / "data"


def test_an_image_that_cannot_be_decoded_is_named(tiny_vision: Path, tmp_path: Path) -> None:
    data = broken(tmp_path, b"no image")
    with pytest.raises(DataError, match=r"b.2\.png: the image cannot be decoded"):
        tunesmith.train(image_recipe(tiny_vision, data, tmp_path / "run"))


def test_a_missing_image_is_named(run: tunesmith.Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no image file nowhere.png"):
        run.predict("nowhere.png")
    with open(tmp_path / "rows.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], ["gone.png", "class0"]])
    with pytest.raises(DataError, match=r"there is no image file gone\.png"):
        run.evaluate(tmp_path / "rows.csv")


def test_looks_at_test_images_are_known_by_their_pixels(run: tunesmith.Run, tiny_vision: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    images = json.loads((folder / "splits.json").read_text())["test"]
    again = tunesmith.Run.load(folder)
    before = len(again.openings)
    again.evaluate(save_drawings(tmp_path / "others.zip", classes=4, group="others"))
    assert len(again.openings) == before
    again.evaluate(images["file"])
    assert again.openings[before]["test_rows"] == len(images["numbers"])


def test_what_is_kept_by_tokens_is_not_kept_of_images(tiny_vision: Path, drawings: Path) -> None:
    given = image_recipe(tiny_vision, drawings, drawings.parent / "never")
    given["training"]["cache"] = "disk"
    with pytest.raises(RecipeError, match=r"training.cache=disk: .* Take auto, memory or off"):
        load_recipe(given)


def test_models_of_another_kind_are_refused(
    recipe: dict[str, Any], tiny_vision: Path, tiny_folder: Path, drawings: Path, tmp_path: Path
) -> None:
    with pytest.raises(CompatibilityError, match="image_size"):
        tunesmith.train(image_recipe(tiny_folder, drawings, tmp_path / "run"))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "label_rows", 0.5), ("training", "token_dropout", 0.1), ("data", "near_copies", 0.7),
        ("data", "augmentation", ["swap"]), ("data", "max_tokens", 4), ("prompt", "template", "it is {text}"),
        ("task", "head_start", "label-text"), ("evaluation", "baselines", ["zero-shot"]),
    ],
)  # fmt: skip
def test_what_is_about_texts_is_refused(section: str, key: str, value: Any, tiny_vision: Path, drawings: Path) -> None:
    given = image_recipe(tiny_vision, drawings, drawings.parent / "never")
    given["task"] = {"name": "image-classification"}
    given.setdefault(section, {})[key] = value
    with pytest.raises(RecipeError, match=rf"(?m)^\s*{section}.*(about|labels') texts"):
        load_recipe(given)


def test_images_are_augmented_in_training(
    run: tunesmith.Run, tiny_vision: Path, drawings: Path, tmp_path: Path
) -> None:
    recipe = image_recipe(tiny_vision, drawings, tmp_path / "run")
    recipe["data"]["augmentation"] = ["rotate", {"name": "erase", "rate": 0.3}]
    found = tunesmith.train(recipe)
    assert found.metrics["test"]["accuracy"]["value"] > 1.5 * CHANCE
    histories = [(one.folder / "history.jsonl").read_text().splitlines() for one in (run, found)]
    losses = [[json.loads(line)["train loss"] for line in lines] for lines in histories]
    assert losses[0] != losses[1] and len(losses[1]) == 3


def test_images_are_cleaned_by_their_features(tiny_vision: Path, tmp_path: Path) -> None:
    """Two images lie in the wrong folder."""
    save_drawings(tmp_path / "d.zip", classes=4, each=12)
    with zipfile.ZipFile(tmp_path / "d.zip") as archive:
        archive.extractall(tmp_path)
    for number in (0, 1):
        moved = tmp_path / "drawings" / "class0" / f"{number}.png"
        moved.rename(tmp_path / "drawings" / "class1" / f"wrong{number}.png")
    recipe = image_recipe(tiny_vision, tmp_path / "drawings", tmp_path / "run")
    recipe["data"] = {
        "train": recipe["data"]["train"],
        "cleaning": ["label-errors", {"name": "outliers", "do": "list"}],
    }
    run = tunesmith.train(recipe)
    listed = [json.loads(line) for line in (run.folder / "cleaning.jsonl").read_text().splitlines()]
    gone = [one["where"] for one in listed if one["what"] == "dropped"]
    assert gone == ["image 23", "image 24"], "behind 10 images of class0 and 12 of class1"
    recipe["data"]["cleaning"] = ["html"]
    with pytest.raises(RecipeError, match=r"data\.cleaning: it is about texts"):
        load_recipe(recipe)
