"""Unlabelled rows in a recipe: what is read, what is learned from, what is written, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import tunesmith
from tests.conftest import TEXTS, write_csv
from tests.runs.test_resuming import assert_same, killed
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import components
from tunesmith.fewshot.semi_supervised.self_training import SelfTrainingTrial
from tunesmith.training.trial import Trial

Recipe = dict[str, Any]
KINDS = list(components("semi_supervised"))
EXTRA = [f"{word} {text}" for texts in TEXTS.values() for text in texts for word in ("oh", "please", "dear", "so")]


@pytest.fixture
def semi(recipe: Recipe, tmp_path: Path) -> Recipe:
    """The tiny recipe with 48 unlabelled rows; the threshold is what a tiny model reaches."""
    labels = [label for label, texts in TEXTS.items() for _ in texts for _ in range(4)]
    write_csv(tmp_path / "more.csv", list(zip(EXTRA, labels, strict=True)))
    data = {**recipe["data"], "unlabelled": str(tmp_path / "more.csv")}
    return {**lean(recipe), "data": data, "semi_supervised": {"name": "self-training", "threshold": 0.4}}


def lean(recipe: Recipe) -> Recipe:
    """Without baselines, and scored by two metrics."""
    return {
        **recipe,
        "evaluation": {"resamples": 100, "baselines": False, "metrics": ["accuracy", "macro-f1", "log-loss"]},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_what_it_learned_from(semi: Recipe, kind: str) -> None:
    run = tunesmith.train({**semi, "semi_supervised": {"name": kind, "threshold": 0.4, "audit": True}})
    found = run.summary["scheme"]
    assert found["name"] == kind and found["unlabelled"] == {"rows": 48, "in_use": 48, "left_out": {}}
    stages = found["rounds" if kind == "self-training" else "epochs"]
    assert len(stages) == 2
    for stage in stages:
        assert stage["threshold"] == 0.4 and stage["accepted"] > 0
        assert sum(stage["labels"].values()) == stage["accepted"] and set(stage["labels"]) <= set(TEXTS)
        assert stage["highest_confidence"] <= 1 and 0 <= stage["right_share"] <= 1
    for split in ("validation", "test"):
        gain = found["gain"][split]["accuracy"]
        assert gain["low"] <= gain["value"] <= gain["high"]
    said = [text for text in run.summary["warnings"] if text.startswith(f"{kind} ")]
    assert len(said) == 1 and "against the same run without it" in said[0]
    assert said[0] in run.report().read_text().replace("&#x27;", "'")
    assert tunesmith.Run.load(run.folder).predict("hello friend")[0].label in run.labels


@pytest.mark.parametrize("kind", KINDS)
def test_the_gain_is_over_the_same_run_without_the_file(semi: Recipe, recipe: Recipe, kind: str) -> None:
    run = tunesmith.train({**semi, "semi_supervised": {"name": kind, "threshold": 0.4}})
    plain = tunesmith.train({**recipe, "output": recipe["output"] + "-plain"})
    for split in ("validation", "test"):
        for metric, sign in (("accuracy", 1), ("macro-f1", 1)):
            difference = sign * (run.metrics[split][metric]["value"] - plain.metrics[split][metric]["value"])
            assert run.summary["scheme"]["gain"][split][metric]["value"] == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_as_an_uninterrupted_one(semi: Recipe, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {**semi["training"], "checkpoint_every_steps": 1}
    own = {**semi, "semi_supervised": {"name": kind, "threshold": 0.4}, "training": training}
    whole = tunesmith.train({**own, "output": semi["output"] + "-whole"}).folder
    killed(own, 20 if kind == "self-training" else 7, monkeypatch)  # in the second round, or the second epoch
    assert_same(whole, tunesmith.train(own, resume=True).folder)


def test_a_round_has_epochs_of_its_own(semi: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {**semi["training"], "checkpoint_every_steps": 1}
    how = {**semi["semi_supervised"], "rounds": 1, "epochs": 5}
    own = {**semi, "semi_supervised": how, "training": training}
    whole = tunesmith.train({**own, "output": semi["output"] + "-whole"})
    history = [json.loads(line) for line in (whole.folder / "history.jsonl").read_text().splitlines()]
    assert [epoch["round"] for epoch in history] == [0] * training["epochs"] + [1] * 5
    killed(own, 25, monkeypatch)  # in an epoch of the round that training.epochs does not reach
    assert_same(whole.folder, tunesmith.train(own, resume=True).folder)


def test_candidates_that_measure_no_gain_are_averaged(semi: Recipe) -> None:
    how = {**semi["semi_supervised"], "rounds": 1, "compare": False}
    own = {**semi, "semi_supervised": how, "candidates": [{"seed": 0}, {"seed": 1}], "combine": "average"}
    run = tunesmith.train(own)
    singles = [
        tunesmith.train({**semi, "semi_supervised": how, "data": {**semi["data"], "seed": 0}, "seed": seed,
                         "output": f"{semi['output']}-{seed}"})
        for seed in (0, 1)
    ]  # fmt: skip
    asked = ["hello there", "many thanks"]
    wanted = sum(single.predict_proba(asked) for single in singles) / 2
    assert tunesmith.Run.load(run.folder).predict_proba(asked) == pytest.approx(wanted, abs=1e-5)


@pytest.fixture
def together(semi: Recipe) -> Recipe:
    """Two candidates that label the rows together, in one round."""
    how = {**semi["semi_supervised"], "rounds": 1, "compare": False, "together": True}
    return {**semi, "semi_supervised": how, "candidates": [{"seed": 0}, {"seed": 1}], "combine": "average"}


def labels_of_rounds(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Train, and return the probabilities that the rows were labelled by, per candidate."""
    found, begin = dict[str, Any](), SelfTrainingTrial._begin_round

    def began(self: SelfTrainingTrial, probabilities: Any) -> None:
        found[self.name] = probabilities
        begin(self, probabilities)

    with monkeypatch.context() as patch:
        patch.setattr(SelfTrainingTrial, "_begin_round", began)
        tunesmith.train(recipe)
    return found


def test_candidates_label_together_by_the_mean_of_what_each_would_say_alone(
    together: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = labels_of_rounds(together, monkeypatch)
    own = {**together, "semi_supervised": {**together["semi_supervised"], "together": False}}
    alone = labels_of_rounds({**own, "output": own["output"] + "-alone"}, monkeypatch)
    assert list(found) == list(alone) == ["trial-000", "trial-001"]
    first, second = alone.values()
    assert abs(first - second).max() > 1e-3
    for labels in found.values():
        assert labels == pytest.approx((first + second) / 2, abs=1e-12)


def test_candidates_that_label_together_resume(together: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {**together, "training": {**together["training"], "checkpoint_every_steps": 1}}
    whole = tunesmith.train({**own, "output": own["output"] + "-whole"}).folder
    killed(own, 20, monkeypatch)
    assert_same(whole, tunesmith.train(own, resume=True).folder)


def test_a_candidate_that_diverges_labels_nothing(together: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether in a step before the round or when its last epoch is scored: the others do not wait for it."""
    close = Trial._close_epoch
    for epoch in (1, together["training"]["epochs"]):

        def closed(self: Trial, epoch: int = epoch) -> None:
            close(self)
            if self.name == "trial-001" and self.epoch == epoch:
                self.trained.diverged, self.trained.reason = self.trained.steps, "as the test wants it"

        monkeypatch.setattr(Trial, "_close_epoch", closed)
        found = labels_of_rounds({**together, "output": f"{together['output']}-{epoch}"}, monkeypatch)
        assert list(found) == ["trial-000"] and found["trial-000"].sum(1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": [], "combine": "best"}, "candidates label the rows together, and the recipe has 0"),
        ({"candidates": [{"seed": 0}], "combine": "best"}, "candidates label the rows together, and the recipe has 1"),
        ({"candidates": [{"seed": 0}, {"training.epochs": 3}]}, "have to be the same for all"),
        ({"training": {"epochs": 2, "patience": 1}}, "training.patience empty"),
    ],
)
def test_what_cannot_be_labelled_together(together: Recipe, changes: Recipe, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tunesmith.train({**together, **changes})


DUAL = {
    "dual-augmentation": {"view": "tokens"},
    "dual-network": {"views": "halves"},
    "dual-classifier": {},
}


@pytest.fixture
def dual(recipe: Recipe, tmp_path: Path) -> Recipe:
    """The tiny recipe, and an attribute table of its labels."""
    (tmp_path / "table.csv").write_text("class,opens,polite\ngreeting,1,0\nparting,0,0\nthanks,0,1\n")
    return {**lean(recipe), "dual_learning": {"name": "dual-network"}}


@pytest.mark.parametrize("kind", list(components("dual_learning")))
@pytest.mark.parametrize("unlabelled", [False, True])
def test_dual_learning_in_a_recipe(dual: Recipe, semi: Recipe, tmp_path: Path, kind: str, unlabelled: bool) -> None:
    own = {"name": kind, **DUAL[kind], **({"table": str(tmp_path / "table.csv")} if kind == "dual-classifier" else {})}
    run = tunesmith.train({**dual, "dual_learning": own, "data": semi["data"] if unlabelled else dual["data"]})
    found = run.summary["scheme"]
    assert found["name"] == kind and [epoch["epoch"] for epoch in found["epochs"]] == [1, 2]
    assert all(0 <= epoch["agreement"] <= 1 and epoch["divergence"] >= 0 for epoch in found["epochs"])
    assert ("unlabelled" in found) == unlabelled and "accuracy" in found["gain"]["test"]
    assert len(load_file(run.folder / "delta" / "adapter_model.safetensors")) == 2 * 12  # of one delta, no peer's
    scores = tunesmith.Run.load(run.folder).evaluate(dual["data"]["test"])
    assert scores["log-loss"].value == pytest.approx(run.metrics["test"]["log-loss"]["value"], rel=1e-6)


@pytest.mark.parametrize("kind", ["dual-network", "dual-classifier"])
def test_dual_learning_resumes(dual: Recipe, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"name": kind, **({"table": str(tmp_path / "table.csv")} if kind == "dual-classifier" else {})}
    recipe = {**dual, "dual_learning": own, "training": {**dual["training"], "checkpoint_every_steps": 1}}
    whole = tunesmith.train({**recipe, "output": recipe["output"] + "-whole"}).folder
    killed(recipe, 7, monkeypatch)
    assert_same(whole, tunesmith.train(recipe, resume=True).folder)


@pytest.mark.parametrize(
    "method", ["lora", "adalora", "prefix", "prompt-tuning", "bitfit", "full", "head-only", "fusion"]
)
def test_self_training_with_methods_of_every_kind(semi: Recipe, method: str) -> None:
    example = components("methods")[method].example
    run = tunesmith.train({**semi, "method": {"name": method, **example}}, ["training.epochs=1"])
    assert run.summary["scheme"]["rounds"][0]["accepted"] > 0
    assert tunesmith.Run.load(run.folder).predict("hello friend")[0].label in run.labels


@pytest.mark.parametrize("head", list(components("heads")))
def test_every_head(semi: Recipe, head: str) -> None:
    task = {"name": "text-classification", "head_kind": head}
    for kind in KINDS:
        own = {"name": kind, "threshold": 0.34, "compare": False}
        run = tunesmith.train({**semi, "task": task, "semi_supervised": own}, ["training.epochs=1"], overwrite=True)
        assert run.summary["scheme"]["name"] == kind and run.predict("hello")[0].label in run.labels


def test_candidates_each_have_the_scheme(semi: Recipe) -> None:
    run = tunesmith.train({**semi, "candidates": [{"seed": 1}, {"method.rank": 2}]})
    assert len(run.summary["candidates"]) == 2 and "gain" in run.summary["scheme"]


def test_a_threshold_that_accepts_nothing_is_said(semi: Recipe) -> None:
    for kind in KINDS:
        run = tunesmith.train(
            {**semi, "semi_supervised": {"name": kind, "threshold": 1.0, "compare": False}}, overwrite=True
        )
        said = " ".join(run.summary["warnings"])
        assert "the highest confidence seen is 0." in said and "Lower semi_supervised.threshold" in said, kind
        assert "gain" not in run.summary["scheme"]


def test_rows_that_are_scored_or_labelled_are_left_out(semi: Recipe, tmp_path: Path) -> None:
    test, train = (Path(semi["data"][name]).read_text().splitlines() for name in ("test", "train"))
    more = [*EXTRA[:5], EXTRA[0].upper(), test[1].split(",")[0], train[1].split(",")[0]]
    write_csv(tmp_path / "more.csv", [(text, "?") for text in more])
    run = tunesmith.train(semi)
    assert run.summary["scheme"]["unlabelled"]["in_use"] == 5
    left_out = run.summary["scheme"]["unlabelled"]["left_out"]
    assert left_out["repeated"] == 1 and sum(left_out.values()) == 3 and left_out["in validation or test"] >= 1
    assert any("of 8 rows" in text and "left out" in text for text in run.summary["warnings"])
    with pytest.raises(DataError, match="also stand in validation or test.*data.leakage=drop"):
        tunesmith.train({**semi, "data": {**semi["data"], "leakage": "error"}}, overwrite=True)
    write_csv(tmp_path / "more.csv", [(test[1].split(",")[0], "?")])
    with pytest.raises(DataError, match="none of its 1 rows is left: 1 also stand in validation or test"):
        tunesmith.train(semi, overwrite=True)


def test_files_that_cannot_be_used(semi: Recipe, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="holds no examples"):
        tunesmith.train(semi)
    (tmp_path / "more.csv").write_text("sentence\nhello\n")
    with pytest.raises(DataError, match="unknown column 'text'.*Set data.text"):
        tunesmith.train(semi)
    with pytest.raises(DataError, match="there is no data file"):
        tunesmith.train({**semi, "data": {**semi["data"], "unlabelled": str(tmp_path / "none.csv")}})


def test_plain_text_needs_no_column(semi: Recipe, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n".join(EXTRA))
    run = tunesmith.train({**semi, "data": {**semi["data"], "unlabelled": str(tmp_path / "more.txt")}})
    assert run.summary["scheme"]["unlabelled"]["in_use"] == 48
    assert json.loads((run.folder / "metrics.json").read_text())["scheme"]["rounds"][0]["right_share"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"semi_supervised": None}, "data.unlabelled: nothing reads it"),
        ({"semi_supervised": {"name": "self-trainin"}}, "did you mean 'self-training'"),
        ({"semi_supervised": {"name": "self-training", "treshold": 0.5}}, "did you mean 'threshold'"),
        (
            {"semi_supervised": {"name": "consistency", "threshold": 1.5}},
            "semi_supervised.threshold: 1.5 is not allowed",
        ),
        ({"dual_learning": "dual-network"}, "a recipe has one scheme"),
        ({"task": "prompt-classification"}, "prompts learn from rows without labels by `tunesmith pet`"),
        ({"task": "instruction-tuning"}, "is for tasks with a label per row"),
        ({"data": None}, "data.unlabelled: semi_supervised 'self-training' learns from rows without labels"),
    ],
)
def test_recipes_that_contradict_themselves(
    semi: Recipe, recipe: Recipe, changes: dict[str, Any], message: str
) -> None:
    given = {**semi, **changes}
    given = {**given, "data": recipe["data"]} if "data" in changes else given
    with pytest.raises(RecipeError, match=message):
        tunesmith.train(given)


def test_a_dual_classifier_needs_a_table_that_fits(dual: Recipe, tmp_path: Path) -> None:
    own = {**dual, "dual_learning": {"name": "dual-classifier"}}
    with pytest.raises(RecipeError, match="dual_learning.table: required"):
        tunesmith.train(own)
    (tmp_path / "table.csv").write_text("class,opens\ngreeting,1\nparting,0\nthank,0\n")
    with pytest.raises(DataError, match="the data has the class 'thanks', which the table lacks.*Did you mean 'thank'"):
        tunesmith.train({**dual, "dual_learning": {"name": "dual-classifier", "table": str(tmp_path / "table.csv")}})
