"""Knowledge distillation from a run: what rows learn, what is refused, and that it resumes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests.conftest import write_csv
from tests.runs.test_resuming import assert_same, killed
from tunesmith.core.errors import CheckpointError, RecipeError, TunesmithError
from tunesmith.core.progress import Silence
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.opening import open_family
from tunesmith.runs.teaching import learn_from_teacher

Recipe = dict[str, Any]


@pytest.fixture
def pupil(recipe: Recipe) -> Recipe:
    """The tiny recipe, whose teacher is a run of the same."""
    lean = {**recipe, "evaluation": {"resamples": 100, "baselines": False}}
    teacher = tunesmith.train({**lean, "output": recipe["output"] + "-teacher", "seed": 7})
    return {**lean, "data": {**recipe["data"], "teacher": str(teacher.folder)}}


def test_rows_learn_the_mix_of_label_and_answer(pupil: Recipe) -> None:
    own = {**pupil, "data": {**pupil["data"], "teacher_weight": 0.25, "teacher_temperature": 2.0}}
    checked = load_recipe(own)
    family = open_family(checked, None)
    learn_from_teacher(checked, [family], Silence())
    split, teacher = family.corpus.splits["train"], tunesmith.Run.load(pupil["data"]["teacher"])
    texts = [row["text"] for row in split.examples.rows(split.index)]
    roots = np.sqrt(teacher.predict_proba(texts))
    wanted = 0.25 * roots / roots.sum(1, keepdims=True) + 0.75 * np.eye(3)[split.labels]
    assert family.corpus.label_names == teacher.labels and split.soft is not None
    assert np.allclose(split.soft, wanted, atol=1e-5)
    held = family.corpus.splits["validation"]
    assert held.soft is None


def test_a_run_with_a_teacher_trains_on_its_answers(pupil: Recipe, tmp_path: Path) -> None:
    run = tunesmith.train(pupil)
    plain = tunesmith.train({**pupil, "data": {**pupil["data"], "teacher": None}, "output": str(tmp_path / "plain")})
    texts = ["hello there", "see you"]
    assert not np.allclose(run.predict_proba(texts), plain.predict_proba(texts))
    assert tunesmith.Run.load(run.folder).recipe.recipe.data.teacher == pupil["data"]["teacher"]


def test_a_killed_pupil_ends_as_an_uninterrupted_one(pupil: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {**pupil, "training": {**pupil["training"], "checkpoint_every_steps": 1}}
    whole = tunesmith.train({**own, "output": own["output"] + "-whole"}).folder
    killed(own, 7, monkeypatch)
    assert_same(whole, tunesmith.train(own, resume=True).folder)


def test_another_teacher_since_the_checkpoint_is_named(pupil: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {**pupil, "training": {**pupil["training"], "checkpoint_every_steps": 1}}
    killed(own, 7, monkeypatch)
    again = {**pupil, "output": pupil["data"]["teacher"], "data": {**pupil["data"], "teacher": None}, "seed": 8}
    tunesmith.train(again, overwrite=True)
    with pytest.raises(CheckpointError, match=r"data\.teacher"):
        tunesmith.train(own, resume=True)


def test_trials_of_a_search_learn_from_the_teacher(pupil: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra 'search' is not installed")
    rates = {"training": {**pupil["training"], "learning_rate": [1e-3, 1e-2]}}
    found = tunesmith.search_settings({**pupil, **rates}, [f"output={tmp_path / 's'}"], trials=2, strategy="grid")
    assert found["again_on_validation"]["value"] == found["chosen_by"]["value"], "the best run is as its trial was"


def test_the_teacher_of_all_folds_is_loaded_once(
    pupil: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="the extra 'search' is not installed")
    loaded, load = list[Path](), tunesmith.Run.load
    monkeypatch.setattr("tunesmith.runs.teaching.Run.load", lambda folder: loaded.append(folder) or load(folder))
    data = {"train": pupil["data"]["train"], "folds": 2, "teacher": pupil["data"]["teacher"]}
    rates = {"training": {**pupil["training"], "learning_rate": [1e-3, 1e-2]}}
    tunesmith.search_settings({**pupil, **rates, "data": data}, [f"output={tmp_path / 's'}"], trials=2, strategy="grid")
    assert loaded == [Path(data["teacher"])] * 2, "for all trials, and for the best one alone"


def test_the_range_test_learns_what_the_run_would(pupil: Recipe) -> None:
    plain = {**pupil, "data": {**pupil["data"], "teacher": None}}
    found, other = (tunesmith.lr_range(own, low=1e-4, high=1e-2, steps=10) for own in (pupil, plain))
    assert found["losses"] != other["losses"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"teacher": "nowhere"}}, "data.teacher: "),
        ({"data": {"teacher": None, "teacher_weight": 0.3}}, "data.teacher_weight: there is no data.teacher"),
        ({"data": {"soft_labels": "chances"}}, "data.soft_labels says already what rows learn"),
        ({"data": {"teacher_weight": 0}}, "data.teacher_weight"),
        ({"task": {"name": "text-classification", "losses": ["focal"]}}, "data.teacher: focal cannot learn"),
        ({"task": "text-generation"}, "data.teacher: it answers with labels"),
        ({"data": {"unlabelled": "more.csv"}, "semi_supervised": "self-training"}, "data.teacher: semi_supervised"),
    ],
)
def test_what_nothing_would_learn_from_is_refused(pupil: Recipe, changes: Recipe, said: str) -> None:
    own = {**pupil, **changes, "data": {**pupil["data"], **changes.get("data", {})}}
    with pytest.raises(TunesmithError, match=said.replace(".", r"\.")):
        tunesmith.train(own)
    assert not Path(own["output"]).exists()


def test_a_teacher_of_other_labels_is_refused(pupil: Recipe, tmp_path: Path) -> None:
    rows = [(f"good {word}", "greeting") for word in "abcdefgh"] + [(f"bad {word}", "other") for word in "abcdefgh"]
    write_csv(tmp_path / "two.csv", rows)
    with pytest.raises(TunesmithError, match="teacher alone: parting, thanks"):
        tunesmith.train(
            {**pupil, "data": {**pupil["data"], "train": str(tmp_path / "two.csv"), "validation": 0.2, "test": 0.2}}
        )


def test_an_unfinished_teacher_is_refused(pupil: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {**pupil, "data": {**pupil["data"], "teacher": None}, "output": pupil["output"] + "-begun"}
    killed({**begun, "training": {**begun["training"], "checkpoint_every_steps": 1}}, 4, monkeypatch)
    with pytest.raises(TunesmithError, match=r"data\.teacher"):
        tunesmith.train({**pupil, "data": {**pupil["data"], "teacher": begun["output"]}})


def test_the_recipe_error_names_the_key(pupil: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"data\.teacher_temperature"):
        load_recipe({**pupil, "data": {**pupil["data"], "teacher_temperature": 0}})
