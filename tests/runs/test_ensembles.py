"""Members that answer together: ways to make them, ways to put them together, and a run's verbs know it."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tunesmith.core.errors import CheckpointError, CompatibilityError, DataError, RecipeError
from tunesmith.core.registry import components
from tunesmith.models.depth import Depth
from tunesmith.runs import members
from tunesmith.tasks.ensemble import Ensemble, answers

SEEDS = [{"seed": 1}, {"seed": 2, "method": {"name": "lora", "rank": 3}}, {"seed": 3, "method": {"name": "bitfit"}}]
TEXTS = ["where is my parcel", "i want my money back", "hello there"]


@pytest.fixture
def ensemble(recipe: dict[str, Any]) -> tunesmith.Run:
    return tunesmith.train({**recipe, "candidates": SEEDS, "combine": "average"})


def test_members_answer_as_their_own_runs_averaged(
    ensemble: tunesmith.Run, recipe: dict[str, Any], tmp_path: Path
) -> None:
    alone = []
    for number, one in enumerate(SEEDS):
        data = {**recipe["data"], "seed": recipe.get("seed", 0)}
        run = tunesmith.train({**recipe, **one, "data": data, "output": str(tmp_path / f"alone-{number}")})
        alone.append(run.predict_proba(TEXTS))
    again = tunesmith.Run.load(ensemble.folder)
    assert np.abs(again.predict_proba(TEXTS) - np.mean(alone, 0)).max() < 1e-6
    assert np.abs(alone[0] - alone[2]).max() > 1e-4  # members do differ
    assert [one["chosen"] for one in again.summary["candidates"]] == [True, True, True]
    assert {path.name for path in (ensemble.folder / "members").iterdir()} == {"001", "002"}


def test_scores_of_the_run_are_the_ensembles(ensemble: tunesmith.Run, data_folder: Path) -> None:
    scores = ensemble.evaluate(data_folder / "test.csv")
    assert scores["accuracy"].value == pytest.approx(ensemble.metrics["test"]["accuracy"]["value"], abs=1e-12)
    found = ensemble.summary["ensemble"]
    assert set(found["gain"]) == {"best member"} and set(found["gain"]["best member"]["test"]) == {
        "accuracy", "macro-f1"
    }  # fmt: skip
    best = found["members"][found["best_member"]]["scores"]["test"]["accuracy"]["value"]
    gain = found["gain"]["best member"]["test"]["accuracy"]["value"]
    assert best + gain == pytest.approx(scores["accuracy"].value)
    ones = [one["trainable_parameters"] for one in ensemble.summary["candidates"]]
    assert found["cost"]["trainable_parameters"] == sum(ones) == ensemble.summary["trainable_parameters"]
    assert "answers take" in ensemble.report().read_text()


def test_one_delta_cannot_stand_for_it(ensemble: tunesmith.Run, recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="ensemble of 3 deltas"):
        tunesmith.merge(ensemble, tmp_path / "merged")
    with pytest.raises(CompatibilityError, match="ensemble of 3 deltas"):
        tunesmith.convert(ensemble.folder, "peft", tmp_path / "converted")
    with pytest.raises(CompatibilityError, match="ensemble of 3 deltas"):
        tunesmith.train({**recipe, "start_from": str(ensemble.folder), "output": str(tmp_path / "next")})


WAYS: dict[str, dict[str, Any]] = {
    "bagging": {"ensemble": {"name": "bagging", "count": 2, "fraction": 0.8}, "combine": "vote"},
    "balanced": {"ensemble": {"name": "balanced-bagging", "count": 2}, "combine": "weighted"},
    "snapshots": {"ensemble": {"name": "snapshots", "count": 2}},
    "stacking": {"ensemble": {"name": "seeds", "count": 2}, "combine": {"name": "stacking", "folds": 2}},
    "soup": {"ensemble": {"name": "seeds", "count": 2, "same_start": True}, "combine": "soup"},
    "greedy": {"candidates": [{"training.learning_rate": 1e-3}, {"training.learning_rate": 5e-3}],
               "combine": "greedy-soup"},
    "boosting": {"ensemble": {"name": "boosting", "count": 2}, "training": {"epochs": 1, "batch_size": 8,
                 "learning_rate": 1e-4}},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_run_loads_and_answers_as_it_was_scored(way: str, recipe: dict[str, Any], data_folder: Path) -> None:
    run = tunesmith.train({**recipe, **WAYS[way]})
    again, found = tunesmith.Run.load(run.folder), run.summary["ensemble"]
    for name, score in again.evaluate(data_folder / "test.csv").items():
        assert score.value == pytest.approx(run.metrics["test"][name]["value"], abs=1e-6)
    assert np.allclose(again.predict_proba(TEXTS).sum(1), 1)
    assert len(found["members"]) == 2
    assert ("recipe alone" in found["gain"]) == (way != "greedy")
    assert ("validation" in found["gain"]["best member"]) == (way not in ("balanced", "greedy"))
    kept = len(list(run.folder.glob("**/adapter_model.safetensors")))
    assert kept == (1 if way in ("soup", "greedy") else 2)


def test_snapshots_of_an_average_stay_as_they_were(recipe: dict[str, Any]) -> None:
    training = {**recipe["training"], "regularizers": ["ema"]}
    run = tunesmith.train({**recipe, **WAYS["snapshots"], "training": training})
    _, tuned = run.opened()
    assert isinstance(tuned, Ensemble)
    first, second = (member.state() for member in tuned.members)
    assert not all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_a_soup_is_the_mean_of_its_members(recipe: dict[str, Any], tmp_path: Path) -> None:
    both = [{"training.learning_rate": 1e-3}, {"training.learning_rate": 5e-3}]
    soup = tunesmith.train({**recipe, "candidates": both, "combine": "soup"})
    alone = [
        tunesmith.train({**recipe, "training": {**recipe["training"], "learning_rate": rate},
                         "output": str(tmp_path / f"{rate}")})
        for rate in (1e-3, 5e-3)
    ]  # fmt: skip
    from safetensors.numpy import load_file

    mixed, *parts = (load_file(run.folder / "delta" / "adapter_model.safetensors") for run in (soup, *alone))
    for name, tensor in mixed.items():
        assert np.abs(tensor - (parts[0][name] + parts[1][name]) / 2).max() < 1e-5
    assert max(np.abs(parts[0][name] - parts[1][name]).max() for name in mixed) > 1e-3  # they do differ
    tunesmith.merge(soup, tmp_path / "merged")  # one delta: what one can do, it can


def test_what_members_are_put_together_with_must_be_there(recipe: dict[str, Any]) -> None:
    run = tunesmith.train({**recipe, "ensemble": {"name": "seeds", "count": 2}, "combine": "weighted"})
    (run.folder / "ensemble.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be put together"):
        tunesmith.Run.load(run.folder).predict_proba(TEXTS)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "one candidate": ({"combine": "average"}, "at least two candidates"),
    "one member": ({"ensemble": {"name": "seeds", "count": 1}}, "ensemble.count"),
    "best": ({"ensemble": "seeds", "combine": "best"}, "best would keep one member"),
    "both": ({"ensemble": "seeds", "candidates": [{"seed": 1}]}, "Leave one of the two out"),
    "unknown": ({"ensemble": "baging"}, "bagging"),
    "fraction": ({"ensemble": {"name": "bagging", "fraction": 0}}, "ensemble.fraction"),
    "all alike": ({"ensemble": {"name": "bagging", "replacement": False}}, "the same rows"),
    "epochs": ({"ensemble": {"name": "snapshots", "count": 3}}, "multiple of 3"),
    "ranks": ({"candidates": SEEDS[:2], "combine": "soup"}, "method.rank is 3 here and 4"),
    "methods": ({"candidates": [SEEDS[0], SEEDS[2]], "combine": "soup"}, "'bitfit' here and 'lora'"),
    "starts": ({"ensemble": "seeds", "combine": "soup"}, "same_start"),
    "stacked bags": ({"ensemble": "bagging", "combine": "stacking"}, "does not allow"),
    "no training": ({"ensemble": "seeds", "method": "none"}, "trains nothing"),
    "texts": ({"ensemble": "seeds", "task": "text-generation"}, "cannot be averaged"),
}


@pytest.mark.parametrize("what", WRONG)
def test_bad_recipes_are_refused(what: str, recipe: dict[str, Any]) -> None:
    keys, message = WRONG[what]
    with pytest.raises(RecipeError, match=message):
        tunesmith.train({**recipe, **keys})


def test_no_validation_rows_no_weights(recipe: dict[str, Any]) -> None:
    data = {**recipe["data"], "validation": None}
    with pytest.raises(RecipeError, match="chooses by validation rows"):
        tunesmith.train({**recipe, "data": data, "ensemble": "seeds", "combine": "weighted"})


def test_without_a_deciding_score_the_loss_says_who_is_best(recipe: dict[str, Any], data_folder: Path) -> None:
    rows = [line for line in (data_folder / "test.csv").read_text().splitlines() if line.endswith(("label", "thanks"))]
    (data_folder / "one.csv").write_text("\n".join(rows))
    both = [{"training.learning_rate": 1e-12}, {"training.learning_rate": 1e-2}]
    evaluation = {**recipe["evaluation"], "metrics": ["roc-auc", "log-loss"]}
    training = {**recipe["training"], "best": "roc-auc", "epochs": 4}
    data = {**recipe["data"], "validation": str(data_folder / "one.csv")}
    changed = {"data": data, "training": training, "evaluation": evaluation, "candidates": both, "combine": "average"}
    found = tunesmith.train({**recipe, **changed}).summary["ensemble"]
    first, second = (one["scores"]["validation"] for one in found["members"])
    assert first["roc-auc"]["value"] is None and second["log-loss"]["value"] < first["log-loss"]["value"]
    assert found["best_member"] == 1


def test_no_test_rows_no_gain_where_validation_chose(recipe: dict[str, Any]) -> None:
    data = {key: value for key, value in recipe["data"].items() if key != "test"}
    run = tunesmith.train({**recipe, "data": data, "ensemble": {"name": "seeds", "count": 2}, "combine": "weighted"})
    found = run.summary["ensemble"]
    assert found["gain"]["best member"] == {} and "flatters" in found["sentences"][0]


def test_rows_of_folds(recipe: dict[str, Any], data_folder: Path) -> None:
    file = data_folder / "train.csv"
    few = data_folder / "few.csv"
    shutil.copy(file, few)
    few.write_text(few.read_text() + "what is this,odd\n")
    data = {**recipe["data"], "train": str(few), "validation": str(data_folder / "test.csv")}
    with pytest.raises(DataError, match="'odd' has one row"):
        tunesmith.train({**recipe, "data": data, "ensemble": {"name": "seeds", "count": 2}, "combine": "stacking"})


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_text_are_held_out_together(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a member would be believed for what it has learned by heart."""
    hashes = np.array([0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 3], np.uint64)
    train = SimpleNamespace(labels=np.repeat([0, 1], 6), examples=None, index=np.arange(12))
    family: Any = SimpleNamespace(
        session=SimpleNamespace(reads=None),
        corpus=SimpleNamespace(label_names=["a", "b"], splits={"train": train}),
    )
    checked: Any = SimpleNamespace(recipe=SimpleNamespace(seed=seed), combine=None)
    monkeypatch.setattr(members, "row_hashes", lambda reads, examples, index: hashes)
    found = members._folds(checked, family, 2)
    assert all(len(set(found[hashes == one])) == 1 for one in hashes)
    assert set(found[:6]) == set(found[6:]) == {0, 1}


def test_boosting_by_hand() -> None:
    boosting = components("ensembles")["boosting"](count=2)
    right = np.array([True, True, True, False])
    vote, weights = boosting.judged(np.ones(4), right, 3)
    assert vote == pytest.approx(np.log(3) + np.log(2))
    assert weights == pytest.approx(np.array([1, 1, 1, 6]) / 9)  # exp(vote) = 6
    assert boosting.judged(np.ones(4), ~right, 3)[0] < 0  # three of four wrong: worse than chance of three
    with pytest.raises(DataError, match="all 4 training rows right"):
        boosting.check_first(np.ones(4), np.ones(4, bool), 3)
    with pytest.raises(DataError, match="3 of 4 training rows wrong .75 % of their weight., which is no better than"):
        boosting.check_first(np.ones(4), ~right, 3)
    boosting.check_first(np.ones(4), right, 3)


def test_the_first_member_is_judged_by_what_its_rows_weigh() -> None:
    boosting, right = components("ensembles")["boosting"](count=2), np.array([True, True, True, False])
    with pytest.raises(DataError, match="1 of 4 training rows wrong .80 % of their weight., which is no better than"):
        boosting.check_first(np.array([1.0, 1.0, 1.0, 12.0]), right, 3)
    with pytest.raises(DataError, match="all 3 training rows right"):
        boosting.check_first(np.array([1.0, 1.0, 1.0, 0.0]), right, 3)
    boosting.check_first(np.array([1.0, 1.0, 12.0, 1.0]), ~right, 20)  # 14 of 15 parts wrong: better than chance of 20


def test_chance_is_among_the_labels_that_train(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, asked = components("ensembles")["boosting"], list[int]()
    judged = kind.judged
    monkeypatch.setattr(kind, "judged", lambda self, weights, right, classes: (
        asked.append(classes) or judged(self, weights, right, classes)
    ))  # fmt: skip
    task = {"name": "text-classification", "reject": {}}
    tunesmith.train({**recipe, **WAYS["boosting"], "task": task})
    assert set(asked) == {3}


def test_combinations_by_hand() -> None:
    table = np.array([[[0.9, 0.1, 0.0]], [[0.4, 0.6, 0.0]], [[0.4, 0.6, 0.0]]])  # one row of three members
    ways = {name: kind() for name, kind in components("combinations").items()}
    assert ways["average"].answer(table, {})[0] == pytest.approx([1.7 / 3, 1.3 / 3, 0.0])
    assert ways["vote"].answer(table, {})[0].argmax() == 1 and ways["average"].answer(table, {})[0].argmax() == 0
    heavy = {"weights": np.array([0.6, 0.2, 0.2])}
    assert ways["vote"].answer(table, heavy)[0].argmax() == 0
    two = table[:2]
    assert ways["vote"].answer(two, {})[0].argmax() == 0  # one vote each: the likelier one
    assert ways["vote"].answer(table, {}).sum() == pytest.approx(1)
    ranked = [(0.2, 0.0), (0.1, 0.0), (0.3, 0.0)]
    scores = {(1, 0): (0.15, 0.0), (1, 2): (0.05, 0.0)}
    assert ways["greedy-soup"].choose(ranked, lambda numbers: scores[tuple(numbers)]) == [1, 2]
    assert ways["soup"].choose(ranked, lambda numbers: (0.0, 0.0)) == [0, 1, 2]


def test_stacking_learns_whom_to_believe() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=300)
    good = np.full((300, 3), 0.05) + 0.85 * np.eye(3)[labels]
    noise = draw.dirichlet(np.ones(3) * 0.1, size=300)
    way = components("combinations")["stacking"]()
    learned = way.learn(np.stack([good, noise]), labels, None)
    found = way.answer(np.stack([good, noise]), learned)
    assert (found.argmax(1) == labels).all() and np.allclose(found.sum(1), 1)
    assert (np.mean([good, noise], 0).argmax(1) != labels).mean() > 0.1  # where the average fails
    two = way.learn(np.stack([good[:, :2], noise[:, :2]]), (labels > 0).astype(int), None)
    assert two["coefficients"].shape == (2, 4)


@pytest.mark.parametrize("bare", [0, 1])
def test_stacking_leaves_a_label_without_rows_its_place(bare: int) -> None:
    labels = np.array([code for code in range(3) if code != bare]).repeat(20)
    table = (np.full((40, 3), 0.1) + 0.7 * np.eye(3)[labels])[None]
    way = components("combinations")["stacking"]()
    found = way.answer(table, way.learn(table, labels, None))
    assert found.shape == (40, 3) and (found.argmax(1) == labels).all()
    assert not found[:, bare].any() and np.allclose(found.sum(1), 1)


def test_rows_that_members_draw() -> None:
    labels, draw = np.array([0] * 6 + [1] * 2), np.random.default_rng(0)
    made = {name: kind(count=2) for name, kind in components("ensembles").items()}
    rows = made["bagging"].rows(labels, draw)
    assert np.bincount(labels[rows]).tolist() == [6, 2] and len(set(rows.tolist())) < 8
    rows = made["balanced-bagging"].rows(labels, draw)
    assert np.bincount(labels[rows]).tolist() == [2, 2]
    part = components("ensembles")["bagging"](count=2, fraction=0.5, replacement=False).rows(labels, draw)
    assert np.bincount(labels[part]).tolist() == [3, 1] and len(set(part.tolist())) == 4


@pytest.mark.parametrize("upper", [False, True])
def test_one_pass_gives_what_each_member_gives_by_itself(
    upper: bool, recipe: dict[str, Any], data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["lora", "ia3", "prefix", "prompt-tuning", "full", "norm"]
    candidates: list[dict[str, Any]] = [
        {"seed": number, "method": {"name": name}} for number, name in enumerate(methods)
    ]
    if upper:
        candidates = [{"seed": number, "method": {"name": "lora", "layers": "top-half"}} for number in range(3)]
    run = tunesmith.train(
        {**recipe, "training": {"epochs": 1, "batch_size": 16}, "candidates": candidates, "combine": "vote"}
    )
    _, tuned = run.opened()
    assert isinstance(tuned, Ensemble)
    tokens = run._tokens(run._read_texts(data_folder / "test.csv"))
    alone = np.stack([member.probabilities(tokens).numpy() for member in tuned.members])
    rows, run_blocks = [], Depth._run
    monkeypatch.setattr(Depth, "_run", lambda self, batch: rows.append(batch.layout.rows) or run_blocks(self, batch))
    assert np.abs(answers(tuned.members, tokens) - alone).max() < 1e-5
    assert sum(rows) == (len(tokens) + 1 if upper else 0)  # each row once through the shared blocks, and a probe
    assert min(np.abs(alone[0] - one).max() for one in alone[1:]) > 1e-4  # members do differ
