"""Unlabelled rows in a recipe: what is read, what is learned from, what is written, what is refused."""

from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv
from tests.runs.test_resuming import assert_same, killed
from tunesmith.core.registry import components

Recipe = dict[str, Any]
KINDS = list(components("semi_supervised"))
EXTRA = [f"{word} {text}" for texts in TEXTS.values() for text in texts for word in ("oh", "please", "dear", "so")]


@pytest.fixture
def semi(recipe: Recipe, tmp_path: Path) -> Recipe:
    """The tiny recipe with 48 unlabelled rows; the threshold is what a tiny model reaches."""
    labels = [label for label, texts in TEXTS.items() for _ in texts for _ in range(4)]
    write_csv(tmp_path / "more.csv", list(zip(EXTRA, labels, strict=True)))
    data = {**recipe["data"], "unlabelled": str(tmp_path / "more.csv")}
    return {**recipe, "data": data, "semi_supervised": {"name": "self-training", "threshold": 0.4}}


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
