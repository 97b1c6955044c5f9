"""A recipe that keeps what frozen blocks give."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tunesmith.core.errors import RecipeError
from tunesmith.models.depth import Depth
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.labelling import Labelling

Recipe = dict[str, Any]


def deep(recipe: Recipe, **training: Any) -> Recipe:
    method = {"name": "lora", "layers": "top-half"}
    return recipe | {"method": method, "training": {**recipe.get("training", {}), "dropout": 0.0, **training}}


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many rows run through the frozen blocks."""
    rows: list[int] = []
    run = Depth._run

    def counted(own: Depth, batch: Any) -> torch.Tensor:
        rows.append(batch.layout.rows)
        return run(own, batch)

    monkeypatch.setattr(Depth, "_run", counted)
    return rows


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.1, "frozen_dropout": False}], ids=["no dropout", "above only"])
def test_frozen_blocks_run_once_per_row(
    changes: Recipe, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    rows = counting(monkeypatch)
    kept = tunesmith.train(deep(recipe, epochs=3, **changes))
    once = sum(rows)
    assert once > 0
    plain = tunesmith.train(deep(recipe, epochs=3, cache="off", **changes) | {"output": str(tmp_path / "plain")})
    assert sum(rows) == once, "off means off"
    ours, theirs = (load_file(run.folder / "delta" / "adapter_model.safetensors") for run in (kept, plain))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("key", ["method.rank", "seed"], ids=["rows in one order", "rows in orders of their own"])
def test_candidates_run_the_frozen_blocks_once_for_all(
    key: str, epochs: int, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = counting(monkeypatch)
    tunesmith.train(deep(recipe, epochs=2))
    once = sum(rows)
    rows.clear()
    tunesmith.train(deep(recipe, epochs=epochs) | {"candidates": [{key: 2}, {key: 4}, {key: 8}]}, overwrite=True)
    assert sum(rows) == once


def test_a_later_run_begins_with_the_file(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    rows = counting(monkeypatch)
    tunesmith.train(deep(recipe, epochs=2, cache="disk"))
    first = sum(rows)
    rows.clear()
    tunesmith.train(deep(recipe, epochs=2, cache="disk", learning_rate=3e-3) | {"output": str(tmp_path / "again")})
    assert sum(rows) == 1 < first, "only the row that looks what a block's output is like"


def test_a_base_that_is_stored_otherwise_has_files_of_its_own(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    for name, changes in [("plain", {}), ("half", {"dtype": "float16"}), ("quantised", {"quantization": "int8"})]:
        wanted = deep(recipe, epochs=1, cache="disk") | {"output": str(tmp_path / name)}
        tunesmith.train(wanted | {"model": {"name": recipe["model"], **changes}})
    assert len(list((tmp_path / "cache" / "frozen").iterdir())) == 3


def test_a_base_of_the_same_weights_that_is_set_otherwise_has_a_file_of_its_own(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    for name, changes in [("one", {}), ("moved", {}), ("other", {"layer_norm_eps": 1e-2})]:
        model = Path(shutil.copytree(recipe["model"], tmp_path / name / "model"))
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **changes}))
        wanted = {**recipe, "model": str(model), "output": str(tmp_path / name / "run")}
        tunesmith.train(deep(wanted, epochs=1, cache="disk"))
        assert len(list((tmp_path / "cache" / "frozen").iterdir())) == 1 + ("layer_norm_eps" in changes)


def test_off_may_be_written_without_quotes(recipe: Recipe) -> None:
    assert load_recipe(recipe, ["training.cache=off"]).recipe.training.cache == "off"


def test_candidates_share_the_memory(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="memory_limit: candidates share it"):
        load_recipe(recipe | {"candidates": [{"seed": 1}, {"training": {"memory_limit": 4000}}]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 1}, "no row comes again"),
        ({"dropout": 0.1}, "training.dropout"),
    ],
    ids=["one epoch", "dropout"],
)
def test_asked_for_and_not_to_be_had(recipe: Recipe, changes: Recipe, words: str) -> None:
    wanted = deep(recipe, **{"epochs": 2, "cache": "memory", **changes})
    with pytest.raises(RecipeError, match=words):
        tunesmith.train(wanted)


def test_a_delta_at_the_first_block(recipe: Recipe) -> None:
    wanted = deep(recipe, epochs=2, cache="memory") | {"method": "lora"}
    with pytest.raises(RecipeError, match="top-half"):
        tunesmith.train(wanted)


@pytest.mark.parametrize(("head", "settled"), [("proxies-and-matching", 1), ("matching", 3)])
def test_rows_are_kept_once_where_nothing_reads_them_earlier(
    head: str, settled: int, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    below: list[bool] = []
    settle = Labelling.settle

    def watched(own: Labelling, tuned: Any) -> None:
        below.append(tuned.backbone.below is not None)
        settle(own, tuned)

    monkeypatch.setattr(Labelling, "settle", watched)
    given = deep(recipe, epochs=2, best="last")
    given |= {"task": {"name": "text-classification", "head_kind": head}, "data": recipe["data"] | {"validation": None}}
    tunesmith.train(given)
    assert below == [True] * settled, "each time from what the frozen blocks gave"
