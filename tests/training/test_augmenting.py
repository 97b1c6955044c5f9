"""Labels' texts as rows, hidden tokens, epochs that are not scored, runs without validation rows."""

import json
from typing import Any

import numpy as np
import pytest
import transformers

import tunesmith
from tunesmith.core.errors import RecipeError
from tunesmith.data.tokens import tokenize
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.opening import open_family
from tunesmith.training.augmenting import DroppedRows

Recipe = dict[str, Any]
BARE: dict[str, Any] = {"label_rows": 0.5, "token_dropout": 0.3, "best": "last", "score_every": 2}


def test_hidden_tokens_are_drawn_for_every_epoch(tiny_folder: Any) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    rows = tokenize(tokenizer, ["hello there friend and good morning to you"] * 200, 64)
    dropped = DroppedRows(rows, 0.3, tokenizer.mask_token_id, tokenizer.all_special_ids)
    first, again, other = (dropped.seen(7, draw).ids for draw in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and np.array_equal(dropped[7], rows[7])
    seen = np.stack([dropped.seen(row, 5).ids for row in range(200)])
    hidden = seen == tokenizer.mask_token_id
    assert (
        not hidden[:, [0, -1]].any() and (seen[~hidden] == np.stack([rows[row] for row in range(200)])[~hidden]).all()
    )
    assert 0.25 < hidden[:, 1:-1].mean() < 0.35


def test_labels_texts_train_besides(recipe: Recipe) -> None:
    checked = load_recipe({**recipe, "training": {**recipe["training"], "label_rows": 0.25}})
    family = open_family(checked, None)
    split, plain = family.training_rows(checked), family.corpus.splits["train"]
    rows = len(plain.labels)
    assert len(split.tokens) == len(split.labels) == rows + round(0.25 * rows)
    assert split.labels[rows:].tolist()[:4] == [0, 1, 2, 0]
    names = tokenize(family.session.tokenizer, family.corpus.label_names, 64)
    assert all(np.array_equal(split.tokens[rows + number], names[number % 3]) for number in range(4))
    assert split.place(0) == plain.examples.where[int(plain.index[0])] and split.place(rows) == "the text of a label"
    assert family.training_rows(load_recipe(recipe)) is plain


def test_without_validation_rows_the_last_epoch_is_kept(recipe: Recipe) -> None:
    data = {**recipe["data"], "validation": None}
    task = {"name": "text-classification", "head_kind": "proxies-and-matching", "head_scale": 10}
    runs = [
        tunesmith.train({**recipe, "task": task, "data": data, "training": {**recipe["training"], **BARE, "epochs": 3},
                         "output": f"{recipe['output']}{turn}"}) for turn in range(2)
    ]  # fmt: skip
    assert set(runs[0].metrics) == {"test"} and runs[0].summary["best_epoch"] == 3
    assert runs[0].summary["data"]["train"]["rows"] == 60  # every row trains
    for name in ("delta/adapter_model.safetensors", "head.safetensors"):
        assert (runs[0].folder / name).read_bytes() == (runs[1].folder / name).read_bytes()
    scores = tunesmith.Run.load(runs[0].folder).evaluate(data["test"])
    assert scores["log-loss"].value == pytest.approx(runs[0].metrics["test"]["log-loss"]["value"], rel=1e-6)


def test_epochs_between_scorings(recipe: Recipe) -> None:
    run = tunesmith.train({**recipe, "training": {**recipe["training"], "epochs": 5, "score_every": 2}})
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history if "validation loss" in row] == [2, 4, 5] and len(history) == 5
    assert run.summary["best_epoch"] in (2, 4, 5)


def test_what_needs_validation_rows_is_refused(recipe: Recipe) -> None:
    data = {**recipe["data"], "validation": None}
    for changed, message in (
        ({"data": {"train": data["train"], "validation": None}}, "data.test is empty too, so nothing could be scored"),
        ({"training": {"best": "accuracy"}}, "training.best=accuracy chooses by them"),
        ({"training": {"patience": 2}}, "training.patience waits for them"),
        ({"task": {"name": "text-classification", "reject": {}}}, "task.reject chooses its threshold by them"),
        ({"candidates": [{"seed": 1}, {"seed": 2}]}, "candidates are chosen by them"),
    ):
        with pytest.raises(RecipeError, match=message):
            tunesmith.train({**recipe, "data": data, **changed})
    with pytest.raises(RecipeError, match="the head matching compares rows with those it keeps"):
        tunesmith.train(recipe, ["task.head_kind=matching", "training.label_rows=0.5"])
