"""Meta-training from a recipe to a run folder and back, on images and on texts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import tunesmith
from tests.conftest import TEXTS, save_drawings, write_csv, write_jsonl
from tunesmith.cli.main import app
from tunesmith.core.errors import CheckpointError, DataError, RecipeError
from tunesmith.core.registry import components
from tunesmith.models.convolution import load_conv
from tunesmith.recipe.episodes import load_episodes
from tunesmith.runs.episode_data import read_split

WORDS = ("tea", "sun", "book", "lamp", "river", "stone", "horse", "cloud")


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Any]:
    """A recipe that learns from eight classes and is scored on six others, in about a second."""
    save_drawings(tmp_path / "train.zip", classes=8, group="some")
    with_names(tmp_path / "train.zip", tmp_path / "test.zip")
    return {
        "learner": "prototypical",
        "model": {"name": "conv", "size": 8, "blocks": 2, "channels": 8},
        "data": {"train": str(tmp_path / "train.zip"), "test": str(tmp_path / "test.zip")},
        "episodes": {"ways": 4, "shots": 2, "queries": 2},
        "training": {"steps": 4, "episodes_per_step": 2, "learning_rate": 0.01},
        "evaluation": {"ways": 3, "shots": [1, 2], "queries": 2, "episodes": 20, "resamples": 100},
        "output": str(tmp_path / "run"),
    }


def with_names(source: Path, target: Path) -> None:
    """Write drawings of other classes beside those of a source."""
    save_drawings(target, classes=6, group="others")
    import zipfile

    with zipfile.ZipFile(target) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("class", "other"), content)


@pytest.fixture
def texts(tmp_path: Path, tiny_folder: Path) -> dict[str, Any]:
    rows = [(f"{text} {word}", f"{label} {word}") for label, own in TEXTS.items() for word in WORDS for text in own]
    write_csv(tmp_path / "texts.csv", rows)
    return {
        "learner": "prototypical",
        "model": str(tiny_folder),
        "data": {"train": str(tmp_path / "texts.csv"), "test": 0.25},
        "method": {"name": "lora", "rank": 2},
        "episodes": {"ways": 3, "shots": 1, "queries": 2},
        "training": {"steps": 3, "learning_rate": 0.01},
        "evaluation": {"ways": 3, "shots": 1, "queries": 2, "episodes": 10, "resamples": 100},
        "output": str(tmp_path / "run"),
    }


def test_a_run_folder_is_complete_and_answers(images: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.episodes(images)
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "base", "delta", "head.safetensors", "recipe.yaml", "history.jsonl", "accuracies.json", "metrics.json",
        "classes.json", "fingerprint.json",
    }  # fmt: skip
    assert set(run.metrics) == {"3-way 1-shot", "3-way 2-shot"}
    for shape, score in run.metrics.items():
        assert score["low"] <= score["value"] <= score["high"]
        accuracies = json.loads((run.folder / "accuracies.json").read_text())["prototypical"][shape]
        assert len(accuracies) == 20 and abs(np.mean(accuracies) - score["value"]) < 1e-4
        gain = run.summary["gain"][shape]["value"]
        assert abs(gain - (score["value"] - run.summary["before"][shape]["value"])) < 1e-9
    classes = json.loads((run.folder / "classes.json").read_text())
    assert not set(classes["train"]) & set(classes["test"])

    pixels = {label: [np.full((8, 8), shade, np.uint8)] for label, shade in (("dark", 10), ("light", 240))}
    pixels["dark"][0][:, ::2] = 90
    file = io.BytesIO()
    Image.fromarray(pixels["dark"][0]).resize((16, 16), Image.Resampling.NEAREST).save(file, "PNG")
    (tmp_path / "one.png").write_bytes(file.getvalue())
    found = tunesmith.EpisodeRun.load(run.folder).answer(pixels, [tmp_path / "one.png", pixels["light"][0]])
    assert [one.label for one in found] == ["dark", "light"]
    assert abs(sum(found[0].probabilities.values()) - 1) < 1e-6


def test_the_same_seed_gives_the_same_bits(images: dict[str, Any]) -> None:
    first = tunesmith.episodes(images)
    second = tunesmith.episodes(images, [f"output={images['output']}2"])
    other = tunesmith.episodes(images, [f"output={images['output']}3", "seed=1"])

    def weights(run: tunesmith.EpisodeRun) -> bytes:
        return (run.folder / "delta" / "adapter_model.safetensors").read_bytes()

    assert weights(first) == weights(second) != weights(other)
    assert first.summary["metrics"] == second.summary["metrics"]


@pytest.mark.parametrize("learner", sorted(components("learners")))
def test_every_learner_runs_on_texts_and_is_loaded_as_it_was(texts: dict[str, Any], learner: str) -> None:
    run = tunesmith.episodes(texts, [f"learner={learner}"])
    examples = {"hello": ["hello there tea"], "bye": ["goodbye my friend sun", "see you tomorrow then sun"]}
    answers = [run.answer(examples, ["hi how are you tea", "farewell sun"]) for _ in range(2)]
    again = tunesmith.EpisodeRun(run.folder).answer(examples, ["hi how are you tea", "farewell sun"])
    for one, other in zip(answers[0], again, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_a_learned_start_is_an_ordinary_delta(texts: dict[str, Any], images: dict[str, Any], tiny_folder: Path) -> None:
    import transformers

    run = tunesmith.episodes(texts, ["learner=reptile"])
    model = transformers.AutoModel.from_pretrained(tiny_folder)
    delta = tunesmith.attach(model, run.folder / "delta")
    assert any(own.abs().sum() > 0 for name, own in delta.named_parameters() if "lora_B" in name)
    run = tunesmith.episodes(images, [f"output={images['output']}-images", "learner={name: maml, inner_steps: 1}"])
    encoder = load_conv(run.folder / "base")
    before = encoder(torch.zeros(1, 1, 8, 8))
    tunesmith.attach(encoder, run.folder / "delta")
    assert not torch.equal(encoder(torch.zeros(1, 1, 8, 8)), before)


def test_a_run_answers_where_its_device_is_not_there(images: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    run, row = tunesmith.episodes(images), np.arange(64, dtype=np.uint8).reshape(8, 8)
    examples = {"a": [row], "b": [row[::-1]]}
    place = run.folder / "recipe.yaml"
    place.write_text(place.read_text().replace("device: auto", "device: cuda:77"))
    loaded = tunesmith.EpisodeRun.load(run.folder)
    assert loaded.answer(examples, [row])[0].label == run.answer(examples, [row])[0].label == "a"
    assert "was trained on cuda:77, which this machine does not have; it answers on " in caplog.text


def test_another_base_is_refused(images: dict[str, Any]) -> None:
    run = tunesmith.episodes(images)
    content = load_conv(run.folder / "base")
    with torch.no_grad():
        content.blocks[0].norm.bias += 1  # type: ignore[union-attr,operator]
    content.save(run.folder / "base")
    row = np.zeros((8, 8), np.uint8)
    with pytest.raises(CheckpointError, match="was trained on another base"):
        tunesmith.EpisodeRun(run.folder).answer({"a": [row], "b": [row]}, [row])


def test_classes_held_out_by_pattern_and_turned(images: dict[str, Any]) -> None:
    del images["data"]["test"]
    words = ["data.held_out=[class0, 'class[12]']", "data.rotations=true", "evaluation.ways=5"]
    run = tunesmith.episodes(images, words)
    classes = json.loads((run.folder / "classes.json").read_text())
    assert len(classes["test"]) == 12 and len(classes["train"]) == 20
    assert "class1@90" in classes["test"] and "class3@270" in classes["train"]


def test_what_is_odd_about_a_split_source_is_said_once(texts: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": n % 8 if n else False} for n in range(32)]
    texts["data"]["train"] = str(write_jsonl(tmp_path / "texts.jsonl", rows))
    learned, scored = read_split(load_episodes(texts))
    (note,) = (*learned.notes, *scored.notes)
    assert "column 'label' holds 31 numbers and 1 truth value (line 1, read as 'False')" in note


@pytest.mark.parametrize("apart", [False, True])
def test_texts_on_both_sides_are_counted(texts: dict[str, Any], tmp_path: Path, apart: bool) -> None:
    rows = [(f"text {n}", f"class{n % 4}") for n in range(16)]
    both = [("one and the same", "class0"), ("One and  the same", "class1"), ("ONE AND THE SAME", "class1")]
    held, data = ("class1", "class2"), dict[str, Any](held_out=["class1", "class2"])
    rows += both
    if apart:
        data = {"test": str(write_csv(tmp_path / "held.csv", [row for row in rows if row[1] in held]))}
        rows = [row for row in rows if row[1] not in held]
    texts["data"] = {"train": str(write_csv(tmp_path / "texts.csv", rows)), **data}
    learned, scored = read_split(load_episodes(texts))
    assert learned.notes == ()
    (note,) = scored.notes
    assert note.startswith("2 of 10 texts that are scored also stand under classes that are learned from")


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["episodes.ways=9"], DataError, r"9-way 2-shot episodes need 9 classes, and .*train\.zip holds 8"),
        (["evaluation.shots=[1, 6]"], DataError, r"3-way 6-shot .* take 8 rows of a class, .* has 6"),
        (["data.held_out=klass1", "data.test=0.2"], DataError, r"'klass1' matches none of the 8 classes.*'class1'\?"),
        (["learner=mamal"], RecipeError, r"unknown learner 'mamal'; did you mean 'maml'\?"),
        (["learner.inner_rate=0.1"], RecipeError, r"learner\.inner_rate: unknown key 'inner_rate'"),
        (["data.text=body"], RecipeError, r"data\.text: it is for texts"),
        (["evaluation.ways=[5, 5]"], RecipeError, r"evaluation\.ways: \[5, 5\]; a list of different whole numbers"),
        (["episodes.ways=1"], RecipeError, r"episodes\.ways: 1 is not allowed"),
        (["data.test=1.5"], RecipeError, r"data\.test: the share 1\.5 must lie between 0 and 1"),
        (["model.blocks=4"], DataError, r"cannot be halved 4 times"),
        (["data.held_out=class1"], RecipeError, r"data\.held_out: data\.test names a source"),
        (["data.train=absent.zip"], DataError, r"there is no folder or zip archive absent\.zip"),
    ],
)
def test_mistakes_are_worded(images: dict[str, Any], words: list[str], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        tunesmith.episodes(images, words)
    assert not Path(images["output"]).exists()


def test_classes_in_both_are_refused(images: dict[str, Any]) -> None:
    images["data"]["test"] = images["data"]["train"]
    with pytest.raises(DataError, match="8 classes stand in .* for example 'class0'"):
        tunesmith.episodes(images)


@pytest.mark.parametrize(("share", "said"), [(0.95, "0 are left to learn from"), (0.1, "1 are left to be scored on")])
def test_a_share_that_leaves_no_episode(images: dict[str, Any], share: float, said: str) -> None:
    images["data"] |= {"test": share, "held_out": []}
    with pytest.raises(DataError, match=rf"data\.test={share}: of the 8 classes .* {said}"):
        tunesmith.episodes(images)


def test_what_cannot_be_answered(images: dict[str, Any]) -> None:
    run, row = tunesmith.episodes(images), np.zeros((8, 8), np.uint8)
    for examples, queries, said in (
        ({"a": [row]}, [row], "1 labels; a task to answer has at least 2"),
        ({"a": [row], "b": []}, [row], "label 'b': give a list"),
        ({"a": [row], "b": [row]}, [], "queries: give a list"),
        ({"a": [row], "b": ["nowhere.png"]}, [row], "there is no image file nowhere.png"),
        ({"a": [row], "b": [row.astype(float)]}, [row], "type float64; the run reads uint8"),
    ):
        with pytest.raises(DataError, match=said):
            run.answer(examples, queries)


def test_the_command(images: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(images))
    app(["episodes", str(tmp_path / "recipe.yaml"), "learner=matching", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["learner"] == "matching" and found["metrics"]["3-way 2-shot"]["value"] > 1 / 3
    app(["episodes", str(tmp_path / "recipe.yaml"), "--overwrite"], standalone_mode=False)
    assert "3-way 1-shot" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="is no run of meta-training"):
        (tmp_path / "run" / "metrics.json").write_text("{}")
        tunesmith.EpisodeRun(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.name=minilm", "model.channels=8"], r"model\.channels: it is for conv, and the model is 'minilm'"),
        (["data.test=0.5", "data.held_out=a"], r"data\.held_out: data\.test is the share that is held out"),
    ],
)
def test_settings_that_nothing_would_read(words: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_episodes({"data": {"train": "texts.csv"}}, words)
