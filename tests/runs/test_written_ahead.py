"""Augmentations that need a model: forms written before training, drawn anew in every epoch, kept in the run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.named import build_named
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.run import Run


class Echo:
    """Stands for a run that writes: it answers with what it is told to make of a prompt."""

    def __init__(self, make: Any) -> None:
        self.make, self.asked = make, list[tuple[list[str], dict[str, Any]]]()

    def generate(self, prompts: list[str], samples: int = 1, **words: Any) -> list[list[str]]:
        self.asked.append((prompts, words))
        return [[self.make(prompt, number) for number in range(samples)] for prompt in prompts]


@pytest.fixture
def filler(tiny_folder: Path, tmp_path: Path) -> Path:
    """A random BERT with its head that fills in."""
    folder = tmp_path / "filler"
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tiny_folder)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


def test_masked_words_change_some_words_and_keep_marks_and_placeholders(filler: Path) -> None:
    how = build_named("augmentations", {"name": "masked-words", "model": str(filler), "variants": 3, "share": 0.3})
    texts = ["Good morning, my friend!", "<MAIL_1> <MAIL_2>", "(see you) soon", "hello"]
    found = how.write(texts, 0)
    assert found == how.write(texts, 0) != how.write(texts, 1)
    assert found[1] == ["<MAIL_1> <MAIL_2>"] * 3  # nothing to change
    vocabulary = set(transformers.AutoTokenizer.from_pretrained(filler).get_vocab())
    for text, forms in zip(texts, found, strict=True):
        for form in forms if text != texts[1] else ():
            pairs = list(zip(text.split(), form.split(), strict=True))
            changed = [(old, new) for old, new in pairs if old != new]
            assert len(changed) == 1
            (old, new), core = changed[0], str.maketrans("", "", "(),!")
            assert new.translate(core).lower() in vocabulary and "##" not in new
            assert [mark for mark in old if mark in "(),!"] == [mark for mark in new if mark in "(),!"]
            assert old.translate(core)[0].isupper() == new.translate(core)[0].isupper()


def test_paraphrases_and_translations_come_from_runs_that_write(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {
        "writer": Echo(lambda prompt, number: f" {prompt.removeprefix('Say: ')} {number}\nand more"),
        "there": Echo(lambda text, number: "" if number else text.upper()),
        "back": Echo(lambda text, _: text.lower()[::-1]),
    }
    monkeypatch.setattr(Run, "load", lambda folder: runs[folder])
    written = {"name": "paraphrases", "run": "writer", "request": "Say: {text}"}
    assert build_named("augmentations", written).write(["one", "two"], 5) == [["one 0", "one 1"], ["two 0", "two 1"]]
    assert runs["writer"].asked[0][1] == {"seed": 5, "temperature": 0.8, "max_new_tokens": 64}
    written = {"name": "back-translation", "there": "there", "back": "back"}
    assert build_named("augmentations", written).write(["ab", "cd"], 0) == [["ba", ""], ["dc", ""]]
    assert runs["back"].asked == [(["AB", "CD"], {"temperature": 0.0})]


def test_forms_are_drawn_and_empty_or_equal_ones_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Run, "load", lambda folder: Echo(lambda text, number: ["x y", "", "Say in other words: b"][number])
    )
    how = build_named(
        "augmentations", {"name": "paraphrases", "run": "w", "variants": 3, "rate": 0.25, "request": "{text}"}
    )
    forms = how.prepared(lambda: ["a", "a", "x y"], 0)
    assert forms.rows() == [
        {"text": "a", "forms": ["x y", "Say in other words: b"]}, {"text": "x y", "forms": ["Say in other words: b"]}
    ]  # fmt: skip
    drawn = [forms.text("a", np.random.default_rng(seed)) for seed in range(400)]
    assert 60 < sum(one != "a" for one in drawn) < 140 and len(set(drawn)) == 3
    assert forms.text("unknown", np.random.default_rng(0)) == "unknown"
    assert "wrote 3 forms of 2 training texts" in forms.sentence
    monkeypatch.setattr(Run, "load", lambda folder: Echo(lambda text, number: text))
    with pytest.raises(DataError, match="paraphrases wrote no form of 1 training texts that differs"):
        how.prepared(lambda: ["a"], 0)


def test_a_run_sees_them_and_keeps_them(recipe: dict[str, Any], filler: Path) -> None:
    step = {"name": "masked-words", "model": str(filler), "variants": 1, "rate": 1.0}
    recipe["data"] = {**recipe["data"], "augmentation": [step]}
    recipe["evaluation"] = {"resamples": 100, "baselines": False}
    run = tunesmith.train(recipe)
    rows = [json.loads(line) for line in (run.folder / "augmented.jsonl").read_text().splitlines()]
    texts = {f"{text} {extra}" for texts in TEXTS.values() for text in texts for extra in "abcde"}
    assert {row["text"] for row in rows} < texts  # those of validation have none
    assert rows[0]["by"] == "masked-words" and rows[0]["forms"][0] != rows[0]["text"]
    assert "masked-words wrote" in (run.folder / "report.html").read_text()
    again = tunesmith.train({**recipe, "output": f"{recipe['output']}-again"})
    plain = tunesmith.train(
        {**recipe, "data": {**recipe["data"], "augmentation": []}, "output": f"{recipe['output']}-2"}
    )
    first, second, third = ((one.folder / "history.jsonl").read_text() for one in (run, again, plain))
    assert first == second != third


def test_runs_and_models_are_found_beside_the_recipe(
    filler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    for name in ("there", "back"):
        (place / name).mkdir(parents=True)
        (place / name / "recipe.yaml").touch()
    shutil.copytree(filler, place / "filler")
    steps = [
        {"name": "masked-words", "model": "filler"},
        {"name": "back-translation", "there": "there", "back": "back"},
    ]
    for number, step in enumerate(steps):
        (place / "recipe.yaml").write_text(json.dumps({"data": {"train": "train.csv", "augmentation": [step]}}))
        found = load_recipe(place / "recipe.yaml")
        for values in (found.recipe.data.augmentation[0], found.resolved()["data"]["augmentation"][0]):
            named = [values[key] for key in (("model",), ("there", "back"))[number]]
            assert named == [str(place / name) for name in (("filler",), ("there", "back"))[number]]
    monkeypatch.chdir(place)
    steps = [{"name": "masked-words", "model": "filler"}]
    elsewhere = load_recipe({"data": {"train": "train.csv", "augmentation": steps}}).recipe.data.augmentation
    assert elsewhere[0]["model"] == str(place / "filler")
    steps = [{"name": "masked-words", "model": "owner/name"}]
    hub = load_recipe({"data": {"train": "train.csv", "augmentation": steps}}).recipe.data.augmentation
    assert hub[0]["model"] == "owner/name"


def test_going_on_reads_the_rows_held_out_without_writing_forms(
    recipe: dict[str, Any], filler: Path, data_folder: Path
) -> None:
    step = {"name": "masked-words", "model": str(filler), "variants": 1}
    data = {"train": recipe["data"]["train"], "validation": 0.2}
    first = tunesmith.train({**recipe, "data": {**data, "augmentation": [step]}})
    shutil.rmtree(filler)
    write_csv(data_folder / "new.csv", [(f"{text} again", label) for label, texts in TEXTS.items() for text in texts])
    again = {"data": {**data, "train": str(data_folder / "new.csv")}, "start_from": str(first.folder)}
    run = tunesmith.train({**recipe, **again, "output": f"{recipe['output']}-on"})
    before = run.summary["forgetting"]["before"]["accuracy"]["value"]
    assert before == pytest.approx(first.metrics["validation"]["accuracy"]["value"])


def test_what_is_refused() -> None:
    data: dict[str, Any] = {"train": "train.csv"}
    for steps, said in (
        (["masked-words"], "masked-words needs model: a masked language model"),
        ([{"name": "paraphrases", "run": "r", "request": "x"}], r"needs \{text\} in request"),
        ([{"name": "back-translation", "there": "r"}], "needs there and back"),
        (["swap", {"name": "paraphrases", "run": "r"}], "paraphrases writes forms of the texts as they stand .* first"),
    ):
        with pytest.raises(RecipeError, match=said):
            load_recipe({"data": {**data, "augmentation": steps}})
