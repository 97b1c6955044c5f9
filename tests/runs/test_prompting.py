"""Recipes that classify by a prompt, from file to run folder and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from tests.conftest import TEXTS, save_tiny_writer, write_csv
from tunesmith.core.errors import CheckpointError, CompatibilityError, DataError, RecipeError
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.prompting import PromptScorer

WORDS = {"greeting": ["hello", "good morning"], "parting": ["goodbye"], "thanks": ["thank you so much"]}
PROMPT = {"template": "{text} this is {label}", "label_words": WORDS}
ROWS = [{"text": text} for texts in TEXTS.values() for text in texts]


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("tiny-masked")
    transformers.AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.AutoConfig.from_pretrained(tiny_folder)).save_pretrained(folder)
    return folder


def asked(recipe: dict[str, Any], model: Path | str, **changes: Any) -> dict[str, Any]:
    given = {**recipe, "evaluation": {"resamples": 100}}
    return {**given, "task": "prompt-classification", "model": str(model), "prompt": PROMPT, **changes}


def same_again(run: tunesmith.Run, data: Path) -> None:
    """What the run said in training, its folder says again."""
    found = tunesmith.Run.load(run.folder).evaluate(data)
    for name, score in run.metrics["test"].items():
        assert found[name].value == pytest.approx(score["value"], abs=1e-12), name


def test_zero_shot_trains_nothing_and_says_so(
    recipe: dict[str, Any], masked: Path, data_folder: Path, tmp_path: Path
) -> None:
    models = {"masked": masked, "causal": save_tiny_writer(tmp_path / "writer"), "similar": "minilm"}
    for scoring, model in models.items():
        given = asked(recipe, model, method="none", output=str(tmp_path / scoring))
        run = tunesmith.train(given)
        assert run.summary["trainable_parameters"] == 0 and run.summary["steps"] == 0
        assert run.recipe.task.scoring == scoring
        assert run.summary["baselines"]["untuned"]["test"] == run.metrics["test"]
        scorer = PromptScorer.open(str(model))
        texts = [row["text"] for row in ROWS]
        alone = np.exp(scorer.log_probabilities(Prompt(**PROMPT), ROWS, sorted(WORDS)))  # type: ignore[arg-type]
        assert np.allclose(run.predict_proba(texts), alone, atol=1e-5), "a run and a scorer agree"
        same_again(run, data_folder / "test.csv")
    assert run.metrics["test"]["accuracy"]["value"] > 0.5, "a sentence encoder knows what thanks and greetings are"


@pytest.mark.parametrize(
    ("verbalizer", "strategy"),
    [("words", "random"), ("learned", "nearest"), ("prototypical", "balanced"), ("descriptions", "diverse")],
)
def test_training_with_demonstrations(
    recipe: dict[str, Any], masked: Path, data_folder: Path, verbalizer: str, strategy: str
) -> None:
    told = {"greeting": "hello to you", "parting": "see you", "thanks": "many thanks"}
    shown = {"count": 2, "strategy": strategy, "separator": "\n"}
    prompt = {**PROMPT, "label_descriptions": told, "demonstrations": shown}
    task = {"name": "prompt-classification", "verbalizer": verbalizer, "calibration": "batch"}
    values = {**asked(recipe, masked), "task": task, "prompt": prompt, "training": {"epochs": 1}}
    (data_folder / "told.yaml").write_text("greeting: Someone comes.\n")
    values["data"] = {**values["data"], "label_descriptions": str(data_folder / "told.yaml")}
    run = tunesmith.train(values)
    assert any("data.label_descriptions is not read by a prompt" in said for said in run.summary["warnings"])
    same_again(run, data_folder / "test.csv")
    used = Prompt.read(run.folder / "prompt.yaml")
    assert (run.folder / "demonstrations.jsonl").exists() == (strategy == "nearest")
    assert len(used.demonstrations.examples) == (0 if strategy == "nearest" else 3)
    train = {f"{text} {extra}": label for label, texts in TEXTS.items() for text in texts for extra in "abcde"}
    assert all(train[one["text"]] == one["label"] for one in used.demonstrations.examples)
    again = tunesmith.train(values, resume=True)  # what the run has chosen is no other recipe
    assert again.metrics == run.metrics
    other = {**prompt, "demonstrations": {"examples": [{"text": "good day", "label": "greeting"}]}}
    with pytest.raises(CheckpointError, match="finished run of another recipe"):
        tunesmith.train({**values, "prompt": other}, resume=True)


def test_usefulness_is_the_mean_log_probability_of_other_rows(masked: Path) -> None:
    scorer, labels = PromptScorer.open(str(masked)), sorted(WORDS)
    prompt = Prompt(**PROMPT).changed(demonstrations={"count": 1, "strategy": "useful", "separator": "\n"})  # type: ignore[arg-type]
    names = [label for label, texts in TEXTS.items() for _ in texts]
    chooser = scorer.demonstrator(prompt, ROWS, names)
    best = chooser.chosen([{"text": "you"}])[0][0]
    means = []
    for number, row in enumerate(ROWS):
        alone = prompt.changed(demonstrations={"examples": [{**row, "label": names[number]}]})
        scores = scorer.log_probabilities(alone, ROWS, labels)
        means.append(scores[range(12), [labels.index(name) for name in names]].mean())
    assert best == int(np.argmax(means))


def test_calibration_takes_the_prior_off(masked: Path, recipe: dict[str, Any], data_folder: Path) -> None:
    task = {"name": "prompt-classification", "calibration": "batch"}
    run = tunesmith.train({**asked(recipe, masked, method="none"), "task": task})
    texts = [line.rsplit(",", 1)[0] for line in (data_folder / "train.csv").read_text().splitlines()[1:]]
    scorer = PromptScorer.open(str(masked))
    plain = scorer.log_probabilities(Prompt(**PROMPT), [{"text": text} for text in texts], sorted(WORDS))  # type: ignore[arg-type]
    got = np.log(run.predict_proba(texts))
    shift = got - plain
    shift -= shift[:, :1]
    assert np.allclose(shift, shift[0], atol=1e-4) and np.abs(shift[0]).max() > 1e-3, "one prior for all rows"


def test_a_prompt_file_is_taken_over_and_kept(recipe: dict[str, Any], masked: Path, tmp_path: Path) -> None:
    Prompt(**PROMPT).write(tmp_path / "mine.yaml")  # type: ignore[arg-type]
    given = asked(recipe, masked, method="none", prompt={"file": str(tmp_path / "mine.yaml"), "description": "Say it."})
    run = tunesmith.train(given)
    (tmp_path / "mine.yaml").unlink()
    assert run.recipe.recipe.prompt.file is None
    assert run.recipe.recipe.prompt.label_words == WORDS
    assert Prompt.read(run.folder / "prompt.yaml").description == "Say it."
    with pytest.raises(RecipeError, match=r"there is no prompt file .*mine.yaml"):
        tunesmith.train({**given, "output": str(tmp_path / "again")})


def test_what_is_cut_is_counted_and_said(recipe: dict[str, Any], masked: Path) -> None:
    prompt = {**PROMPT, "demonstrations": {"count": 8}}
    found = tunesmith.show_prompts(asked(recipe, masked, prompt=prompt), ["data.max_tokens=40"], 1)
    assert found["limit"] == 37, "the longest word takes three more masks"
    assert any("demonstrations of" in said and "did not fit into 37 tokens" in said for said in found["warnings"])
    for row in found["rows"]:
        assert row["kept"] <= 37 < row["tokens"] and row["dropped"] > 0 and row["demonstrations"] > 0
        assert row["text"].endswith("this is {label}")


def test_labels_without_rows(recipe: dict[str, Any], masked: Path) -> None:
    prompt = {**PROMPT, "label_words": {**WORDS, "asking": "how are you"}}
    given = asked(recipe, masked, prompt=prompt, method="none")
    run = tunesmith.train(given)
    assert run.labels == ["asking", "greeting", "parting", "thanks"]
    assert any("have no training row: asking" in said for said in run.summary["warnings"])
    task = {"name": "prompt-classification", "verbalizer": "prototypical"}
    with pytest.raises(DataError, match="the label 'asking'"):
        tunesmith.train({**given, "task": task}, overwrite=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": {"template": "What is it?"}}, "has no input field"),
        ({"prompt": {**PROMPT, "template": "{text} [MASK]"}}, "it spells out"),
        ({"prompt": {**PROMPT, "label_words": {"greeting": "hello"}}}, "unknown label 'parting'"),
        ({"prompt": {**PROMPT, "label_words": {**WORDS, "thanks": "Ω"}}}, "does not know 'Ω'"),
        ({"prompt": {**PROMPT, "chat": "plain"}}, "prompt.chat: the task"),
        ({"task": {"name": "prompt-classification", "verbalizer": "word"}}, "did you mean 'words'"),
        ({"task": {"name": "prompt-classification", "verbalizer": "descriptions"}}, r"'greeting' has none \(3 of 3"),
        (
            {
                "task": {"name": "prompt-classification", "verbalizer": "descriptions"},
                "prompt": {**PROMPT, "label_descriptions": dict.fromkeys(WORDS, "hello there")},
            },
            r"prompt\.label_descriptions: 'hello there' and 'hello there' stand for different labels",
        ),
        (
            {"task": {"name": "prompt-classification", "reject": {}}},
            "task.reject: the task 'prompt-classification' rej",
        ),
        ({"task": {"name": "prompt-classification", "head_kind": "linear"}}, "task.head_kind: .* has no such head"),
        ({"task": {"name": "prompt-classification", "losses": ["proxy-nca"]}}, "proxy-nca compares with class vectors"),
        ({"prompt": {**PROMPT, "demonstrations": {"count": 1000}}}, "there are 48 training rows"),
        ({"evaluation": {"baselines": ["zero-shot"]}}, "zero-shot by itself"),
        ({"data": {"max_tokens": 8}}, "nothing is left for the row"),
    ],
)
def test_mistakes(recipe: dict[str, Any], masked: Path, changes: dict[str, Any], message: str) -> None:
    changes = {key: {**recipe.get(key, {}), **value} if key == "data" else value for key, value in changes.items()}
    with pytest.raises((RecipeError, DataError), match=message):
        tunesmith.train({**asked(recipe, masked), **changes})


def test_a_model_that_writes_answers_at_the_end(recipe: dict[str, Any], tmp_path: Path) -> None:
    writer = save_tiny_writer(tmp_path / "writer")
    with pytest.raises(RecipeError, match="Move {label} to the end"):
        tunesmith.train(asked(recipe, writer, prompt={**PROMPT, "template": "It is {label}: {text}"}))


def test_nothing_to_train_is_refused(recipe: dict[str, Any], masked: Path) -> None:
    with pytest.raises(CompatibilityError, match="or none to take it as it is"):
        tunesmith.train(asked(recipe, masked, method="head-only"))
    with pytest.raises(CompatibilityError, match="would answer by chance"):
        tunesmith.train({**recipe, "method": "none", "task": {"name": "text-classification", "head_start": "random"}})
    with pytest.raises(RecipeError, match=r"candidates\[1\]: method none trains nothing"):
        tunesmith.train({**recipe, "candidates": [{"seed": 1}, {"method": "none"}]})


def test_class_means_alone(recipe: dict[str, Any]) -> None:
    run = tunesmith.train({**recipe, "method": "none"})
    assert run.summary["trainable_parameters"] == 0
    own = next(line for line in run.summary["table"] if line["name"] == "none")
    assert own["peak_bytes"] > 0 and own["seconds"] > 0  # of answering
    assert run.metrics["test"]["accuracy"]["value"] > 1 / 3


def test_several_candidates_train_one_prompt(recipe: dict[str, Any], data_folder: Path, tmp_path: Path) -> None:
    writer = save_tiny_writer(tmp_path / "writer")
    given = asked(recipe, writer, candidates=[{"seed": 0}, {"seed": 1}])
    given["training"] = {**given["training"], "epochs": 1, "dropout": 0.0}
    together = tunesmith.train(given)
    chosen = next(one for one in together.summary["candidates"] if one["chosen"])
    alone = {key: value for key, value in given.items() if key != "candidates"}
    alone = tunesmith.train({**alone, "seed": chosen["seed"], "data": {**given["data"], "seed": 0},
                             "output": str(tmp_path / "alone")})  # fmt: skip
    assert alone.metrics["test"]["log-loss"]["value"] == pytest.approx(
        together.metrics["test"]["log-loss"]["value"], abs=1e-5
    )
    write_csv(tmp_path / "more.csv", [("hello you", "greeting"), ("many thanks", "thanks")])
    assert set(together.evaluate(tmp_path / "more.csv"))


def test_a_run_goes_on_with_a_new_label(recipe: dict[str, Any], masked: Path, tmp_path: Path) -> None:
    prompt = {"template": "{text} this is {label}"}
    names = {"greeting": "hello", "parting": "goodbye", "thanks": "thanks"}
    rows = [(f"{text} {extra}", names[label]) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    write_csv(tmp_path / "first.csv", [row for row in rows if row[1] != "goodbye"])
    write_csv(tmp_path / "second.csv", rows)
    data = {"train": str(tmp_path / "first.csv"), "validation": 0.3}
    first = tunesmith.train(asked(recipe, masked, prompt=prompt, data=data))
    more = {"data": {**data, "train": str(tmp_path / "second.csv")}, "start_from": str(first.folder)}
    common = {key: recipe[key] for key in ("training", "evaluation")}
    second = tunesmith.train({**more, **common, "output": str(tmp_path / "second")})
    assert second.labels == ["goodbye", "hello", "thanks"]
    before = second.summary["forgetting"]["before"]["accuracy"]
    assert before["value"] == pytest.approx(first.metrics["validation"]["accuracy"]["value"])


def test_a_run_that_was_split_by_folds_is_read_again(recipe: dict[str, Any], masked: Path) -> None:
    given = asked(recipe, masked, method="none")
    given["data"] = {**given["data"], "folds": 4}
    run = tunesmith.Run.load(tunesmith.train(given).folder)
    assert run.recipe.recipe.data.folds == 4
    with pytest.raises(RecipeError, match=r"data.augmentation: it is for tasks with a head for labels"):
        load_recipe({**given, "data": {**given["data"], "augmentation": ["swap"]}})
