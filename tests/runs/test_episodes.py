"""Meta-training from a recipe to a run folder and back, on images and on texts."""

from __future__ import annotations

import io
import json
import re
import signal
import zipfile
from collections.abc import Callable
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
from tunesmith.fewshot.episodes import EpisodeSampler, EpisodeShape
from tunesmith.fewshot.meta_training import MetaTrained, MetaTraining
from tunesmith.fewshot.scoring import _by_class
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
        "classes.json", "fingerprint.json", "report.html",
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


def left_by(run: tunesmith.EpisodeRun) -> dict[str, bytes]:
    """What a run folder holds, without times and its own place."""
    found = {str(path.relative_to(run.folder)): path for path in run.folder.rglob("*") if path.is_file()}
    other = {"metrics.json", "fingerprint.json", "recipe.yaml", "report.html"}
    return {name: path.read_bytes() for name, path in found.items() if name not in other}


def stopped_in(step: int, how: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen in a step of meta-training, once."""
    own = MetaTraining._step

    def stepping(self: MetaTraining, learned: Any, rows: Any, found: MetaTrained, bar: Any) -> None:
        if found.steps == step - 1:
            monkeypatch.setattr(MetaTraining, "_step", own)
            how()
        own(self, learned, rows, found, bar)

    monkeypatch.setattr(MetaTraining, "_step", stepping)


class Killed(BaseException):
    """Stands for the end of the process."""


def kill() -> None:
    raise Killed


def signalled(number: int) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


@pytest.mark.parametrize("kind", ["images", "texts"])
@pytest.mark.parametrize("learner", ["prototypical", "anil", "maml"])
def test_a_killed_run_ends_as_one_that_was_not(
    kind: str,
    learner: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = {**request.getfixturevalue(kind), "learner": learner}
    recipe["training"] = {"steps": 4, "learning_rate": 0.01, "checkpoint_every_steps": 1}
    whole = tunesmith.episodes(recipe)
    output = f"output={recipe['output']}-2"
    stopped_in(4, kill, monkeypatch)
    with pytest.raises(Killed):
        tunesmith.episodes(recipe, [output])
    with pytest.raises(CheckpointError, match=r"holds a run that is not finished. Go on with it with --resume"):
        tunesmith.episodes(recipe, [output])
    capsys.readouterr()
    run = tunesmith.episodes(recipe, [output], resume=True)
    assert "going on from step 3" in capsys.readouterr().err
    assert left_by(run) == left_by(whole) and run.metrics == whole.metrics
    assert not (run.folder / "checkpoints").exists()
    again = tunesmith.episodes(recipe, [output], resume=True)
    assert f"{run.folder} is finished: nothing to resume" in capsys.readouterr().err and left_by(again) == left_by(
        whole
    )


def test_ctrl_c_scores_what_was_learned_and_can_be_gone_on_from(
    images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tunesmith.episodes(images, [f"output={images['output']}-1"])
    stopped_in(2, signalled(signal.SIGINT), monkeypatch)
    run = tunesmith.episodes(images)
    assert run.summary["interrupted"] and run.summary["steps"] == 2, "the step is finished first"
    run = tunesmith.episodes(images, resume=True)
    assert not run.summary["interrupted"] and left_by(run) == left_by(whole)


def test_a_process_that_is_asked_to_end_leaves_a_checkpoint(
    images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_in(2, signalled(signal.SIGTERM), monkeypatch)
    with pytest.raises(SystemExit) as ended:
        tunesmith.episodes(images)
    assert ended.value.code == 143
    with pytest.raises(CheckpointError, match=r"run is not finished: its last checkpoint is of step 2"):
        tunesmith.EpisodeRun.load(images["output"])
    assert tunesmith.episodes(images, resume=True).summary["steps"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.steps=5"], r"made by another recipe: training\.steps was 4 and is 5\. Only output, "
                               r"training\.checkpoint_every_steps, evaluation\.resamples, evaluation\.confidence may"),
        (["learner=matching"], r"learner"),
        (["seed=1"], r"seed was 0 and is 1"),
    ],
)  # fmt: skip
def test_another_recipe_does_not_go_on(
    images: dict[str, Any], words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_in(2, signalled(signal.SIGTERM), monkeypatch)
    with pytest.raises(SystemExit):
        tunesmith.episodes(images)
    with pytest.raises(CheckpointError, match=said):
        tunesmith.episodes(images, words, resume=True)
    save_drawings(Path(images["data"]["train"]), classes=8, each=7, group="some")
    with pytest.raises(CheckpointError, match=r"made with other data or another model.*data\.train was"):
        tunesmith.episodes(images, resume=True)


@pytest.mark.usefixtures("pictures")
def test_the_report_says_and_draws_what_was_gained(texts: dict[str, Any]) -> None:
    changed = Path(texts["data"]["train"]).read_text(encoding="utf-8").replace("tea,", "<b>tea</b>,")
    Path(texts["data"]["train"]).write_text(changed.replace(" tea\n", " <b>tea</b>\n"), encoding="utf-8")
    run = tunesmith.episodes(texts, ["data.held_out=*tea*", "data.test=0.2"])
    written = run.report().read_text(encoding="utf-8")
    score, before = run.metrics["3-way 1-shot"], run.summary["before"]["3-way 1-shot"]
    assert f"{100 * score['value']:.1f} %" in written and f"have {100 * before['value']:.1f} %" in written
    assert written.count("<svg") == 3 and "class means, untrained" in written
    assert "<b>tea" not in written and "&lt;b&gt;tea" in written
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", written, flags=re.DOTALL)


def test_the_share_right_by_class_is_that_of_all_answers(images: dict[str, Any]) -> None:
    _, rows = read_split(load_episodes(images))
    sampler = EpisodeSampler(rows.labels, rows.names, EpisodeShape(3, 1, 2), 0)
    right = np.random.default_rng(0).integers(0, 2, (40, 6))
    codes = sampler.codes[sampler.draw(0, 40).query.numpy()]
    expected = {int(code): right[codes == code].mean() for code in np.unique(codes)}
    assert _by_class(right.astype(float), codes) == pytest.approx(expected) and len(expected) == 6


def test_going_on_and_replacing_are_two_things(images: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="--resume goes on with a run, --overwrite replaces it"):
        tunesmith.episodes(images, resume=True, overwrite=True)


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


def test_images_on_both_sides_are_counted(images: dict[str, Any]) -> None:
    assert read_split(load_episodes(images))[1].notes == ()
    with zipfile.ZipFile(images["data"]["train"]) as archive:
        pixels = archive.read("some/class3/2.png")
    with zipfile.ZipFile(images["data"]["test"], "a") as archive:
        archive.writestr("others/other0/copy.png", pixels)
    (note,) = read_split(load_episodes(images))[1].notes
    assert note.startswith("1 of 37 images that are scored also stand under classes that are learned from")


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
    printed = capsys.readouterr().out
    assert "3-way 1-shot" in printed and f"report: {images['output']}" in printed
    app(["show", images["output"]], standalone_mode=False)
    assert capsys.readouterr().out == printed
    with pytest.raises(CheckpointError, match=r"a run of `tunesmith episodes`; tunesmith\.EpisodeRun\.load opens it"):
        tunesmith.Run.load(images["output"])
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
