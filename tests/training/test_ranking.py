"""The best states of a run: ranked, kept, loaded, averaged where that is no worse."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.files import read_json
from tunesmith.recipe.loading import load_recipe
from tunesmith.training.ranking import Ranking, mean_state, rankable
from tunesmith.training.trained import Trained
from tunesmith.training.trial import Trial


def test_the_best_are_ranked_and_of_equal_ones_the_earlier_comes_first() -> None:
    ranking = Ranking(3)
    scores = [(0.5, 1.0), (0.2, 1.0), (0.2, 1.0), (0.9, 1.0), (0.2, 0.5)]
    first = [ranking.add(key, epoch, [torch.full((2,), float(epoch))]) for epoch, key in enumerate(scores, 1)]
    assert first == [True, True, False, False, True]
    assert [one.epoch for one in ranking.states] == [5, 2, 3]
    assert torch.equal(mean_state(ranking.states)[0], torch.full((2,), 10 / 3))
    again = Ranking(3)
    again.resume(ranking.state(), torch.device("cpu"))
    assert [one.key for one in again.states] == [one.key for one in ranking.states]


def test_what_is_no_number_comes_last() -> None:
    assert sorted([float("nan"), 0.5, -1.0], key=rankable)[:2] == [-1.0, 0.5] and rankable(0.5) == 0.5
    ranking = Ranking(2)
    assert ranking.add((float("nan"), 0.1), 1, []) and ranking.add((0.9, 1.0), 2, [])
    assert [one.epoch for one in ranking.states] == [2, 1]


def test_states_of_a_checkpoint_lie_beside_later_ones() -> None:
    before, device = Ranking(2), torch.device("meta")  # stands for a GPU: a checkpoint's tensors are on the CPU
    before.add((0.5, 1.0), 1, [torch.ones(2)])
    ranking = Ranking(2)
    ranking.resume(before.state(), device)
    ranking.add((0.2, 1.0), 2, [torch.ones(2, device=device)])
    assert mean_state(ranking.states)[0].device == device


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tunesmith.Run:
    folder = tmp_path_factory.mktemp("best")
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    return tunesmith.train(
        {
            "model": str(tiny_folder),
            "data": {"train": str(write_csv(folder / "train.csv", rows)), "validation": 0.3},
            "task": {"name": "text-classification", "head_kind": "prototypes"},
            "training": {"epochs": 4, "batch_size": 8, "keep_best": 3, "average_best": True, "best": "validation loss"},
            "evaluation": {"resamples": 100, "baselines": False},
            "output": str(folder / "run"),
        }
    )


def test_states_of_the_best_epochs_are_in_the_run_and_answer(trained: tunesmith.Run) -> None:
    epochs = trained.summary["best_epochs"]
    history = [row["validation loss"] for row in map(dict, _history(trained))]
    assert epochs == (np.argsort(history, kind="stable")[:3] + 1).tolist()
    found = {path.name for path in (trained.folder / "best").iterdir()}
    assert found == {f"epoch-{epoch:03d}" for epoch in epochs}
    table = read_json(trained.folder / "splits.json")["validation"]
    texts = (trained.folder.parent / "train.csv").read_text().splitlines()
    rows = [texts[number - 1].rsplit(",", 1) for number in table["numbers"]]
    for epoch in epochs:  # each one's own state, and what its head keeps of the rows
        run = tunesmith.Run.load(trained.folder, epoch)
        chances = run.predict_proba([text for text, _ in rows])
        right = [run.labels.index(label) for _, label in rows]
        loss = -np.log(chances[np.arange(len(right)), right]).mean()
        assert loss == pytest.approx(history[epoch - 1], abs=1e-5)


def test_the_mean_answers_where_it_is_no_worse(trained: tunesmith.Run) -> None:
    history = [row["validation loss"] for row in _history(trained)]
    loss = trained.metrics["validation"]["log-loss"]["value"]
    averaged = trained.summary["averaged_epochs"]
    assert loss <= min(history) + 1e-6
    assert averaged == (sorted(trained.summary["best_epochs"]) if averaged else [])
    texts = ["hello there", "many thanks"]
    best = tunesmith.Run.load(trained.folder, trained.summary["best_epoch"]).predict_proba(texts)
    assert bool(averaged) == (np.abs(best - trained.predict_proba(texts)).max() > 1e-7)


def test_what_is_refused(trained: tunesmith.Run) -> None:
    patient: dict[str, Any] = {"data": {"train": "x.csv"}, "training": {"patience": 2, "best": "last"}}
    with pytest.raises(RecipeError, match=r"training.patience: with training.best=last every epoch is the best so far"):
        load_recipe(patient)
    with pytest.raises(RecipeError, match=r"candidates\[0\]\.training.patience: with training.best=last"):
        load_recipe({**patient, "training": {"best": "last"}, "candidates": [{"training.patience": 2}, {"seed": 1}]})
    with pytest.raises(CheckpointError, match=r"no state of epoch 9. It holds: \d, \d, \d;"):
        tunesmith.Run.load(trained.folder, 9)
    data: dict[str, Any] = {"train": "x.csv"}
    for training, more, said in (
        ({"average_best": True}, {}, "one state has no mean"),
        ({"average_best": True, "keep_best": 2, "best": "last"}, {}, "nothing is compared there"),
        ({"average_best": True, "keep_best": 2}, {"validation": None}, "nothing is compared there"),
    ):
        with pytest.raises(RecipeError, match=said):
            load_recipe({"data": {**data, **more}, "training": training})


@pytest.mark.parametrize(
    ("training", "alone"),
    [
        ({"epochs": 1}, True),
        ({"epochs": 3, "score_every": 3}, True),
        ({"epochs": 3, "max_steps": 6}, True),
        ({"epochs": 2}, False),
    ],
)
def test_the_best_of_one_epoch_are_one_and_that_is_said(
    training: dict[str, int], alone: bool, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keeping = {**recipe["training"], "keep_best": 3, "average_best": True, **training}
    run = tunesmith.train({**recipe, "training": keeping, "evaluation": {"resamples": 100, "baselines": False}})
    said = "training.keep_best=3 keeps one state and no mean of several: only one epoch is scored."
    assert any(warning.startswith(said) for warning in run.summary["warnings"]) is alone
    assert (f"note: {said}" in capsys.readouterr().err) is alone
    assert (len(run.summary["best_epochs"]) == 1) is alone


def _history(run: tunesmith.Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]


def test_a_score_that_is_no_number_comes_last() -> None:
    """A metric may have no value in an early epoch; a later one that has is better."""
    ranking = Ranking(2)
    for epoch, score in enumerate((float("nan"), -0.5, float("nan")), 1):
        ranking.add((score, 1.0), epoch, [torch.zeros(1)])
    assert [one.epoch for one in ranking.states] == [2, 1]


def test_the_mean_of_an_earlier_stage_is_not_said_of_a_later_state() -> None:
    """As in self-training, whose rounds end one after the other."""
    ranking = Ranking(2)
    for epoch, loss in ((1, 0.5), (2, 0.6)):
        ranking.add((loss, loss), epoch, [torch.zeros(1)])
    trial: Any = SimpleNamespace(
        ranking=ranking,
        stage=(0, 0),
        settings=SimpleNamespace(average_best=True),
        tuned=SimpleNamespace(restore=lambda state: None, train=lambda on: None),
        validate=lambda: {"validation loss": 0.4},
        trained=Trained(),
        _score=lambda scores: scores["validation loss"],
    )
    trial._try_mean = partial(Trial._try_mean, trial)
    Trial.finish(trial)
    assert trial.trained.averaged == [1, 2] and trial._mean_key == (0.4, 0.4)
    ranking.add((0.1, 0.1), 3, [torch.zeros(1)])
    trial.stage = 2, 8
    Trial.finish(trial)
    assert trial.trained.averaged == [] and Trial.key.fget(trial) == (0.1, 0.1)  # type: ignore[attr-defined]
