"""Incremental tuning of runs that write: where they start, what they forgot, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import tunesmith
from tests.conftest import save_tiny_bert, save_tiny_pair, save_tiny_writer, write_csv, write_jsonl
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.progress import Progress
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.comparing import Meter
from tunesmith.runs.continuing import inherit
from tunesmith.runs.opening import open_family
from tunesmith.runs.preparing import prepare

OLD = ["red", "blue", "green", "black", "white", "gold"]
NEW = ["seven", "eight", "nine", "ten"]


def asked(folder: Path, name: str, words: list[str], rows: int = 40) -> Path:
    pairs = [(words[n % len(words)], n) for n in range(rows)]
    found = [{"question": f"what follows {word} {n}?", "answer": word} for word, n in pairs]
    return write_jsonl(folder / name, found)


def prose(folder: Path, name: str, words: list[str], count: int = 600) -> Path:
    lines = [f"the {words[n % len(words)]} bird sings to the {words[n % 3]} moon\n" for n in range(count)]
    (folder / name).write_text("".join(lines))
    return folder / name


def answering(model: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "task": {"name": "question-answering-generative", "answered_rows": 2, "samples": 1,
                 "decoding": {"max_new_tokens": 4}},
        "model": str(model),
        "data": {"train": str(asked(folder, "old.jsonl", OLD)), "validation": 0.2},
        "method": {"name": "lora", "rank": 4, "layers": ["q_proj", "v_proj", "down_proj"]},
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 5e-2},
        "evaluation": {"resamples": 100},
        "output": str(folder / "first"),
        **changes,
    }  # fmt: skip


def more(first: tunesmith.Run, folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "start_from": str(first.folder),
        "data": {"train": str(asked(folder, "new.jsonl", NEW)), "validation": str(asked(folder, "more.jsonl", NEW, 9))},
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 5e-2},
        "evaluation": {"resamples": 100},
        "output": str(folder / "second"),
        **changes,
    }


@pytest.fixture(scope="module")
def first(tiny_writer: Path, tmp_path_factory: pytest.TempPathFactory) -> tunesmith.Run:
    return tunesmith.train(answering(tiny_writer, tmp_path_factory.mktemp("first")))


def test_training_begins_where_the_run_ended(first: tunesmith.Run, tmp_path: Path) -> None:
    checked, earlier = inherit(load_recipe(more(first, tmp_path)))
    family = open_family(checked, earlier)
    trial = prepare(checked, family, earlier)[0].trial
    begins = family.validate(trial.tuned)
    ends = first.evaluate(str(tmp_path / "more.jsonl"))
    assert begins["perplexity"] == pytest.approx(ends["perplexity"].value, rel=1e-5)
    family.session.backbone.seams.use(None)
    (untuned,) = family.baselines(["untuned"], Meter(torch.device("cpu")), Progress(), 0)
    assert begins["perplexity"] != pytest.approx(untuned.scores["validation"]["perplexity"].value, rel=0.1)


def test_what_was_forgotten_is_measured_on_the_rows_held_out(first: tunesmith.Run, tmp_path: Path) -> None:
    run = tunesmith.train(more(first, tmp_path))
    found, change = run.summary["forgetting"], run.summary["forgetting"]["change"]
    assert found["data"] == str(first.folder.parent / "old.jsonl") and found["held_out"] and found["also_in_train"] == 0
    assert found["rows"] == first.summary["data"]["validation"]["rows"]
    then = first.metrics["validation"]["perplexity"]
    assert found["before"]["perplexity"]["value"] == pytest.approx(then["value"], rel=1e-5)
    assert set(found["before"]) == set(found["after"]) == {"perplexity", "nats-per-token"}
    assert found["after"]["perplexity"]["value"] > then["value"]
    assert change["metric"] == "perplexity" and not change["higher_is_better"]
    assert change["value"] == pytest.approx(
        found["after"]["perplexity"]["value"] - found["before"]["perplexity"]["value"]
    )
    assert 0 < change["low"] < change["value"] < change["high"]
    (sentence,) = (one for one in run.summary["warnings"] if "earlier run's data" in one)
    assert "held out of its training) perplexity went from" in sentence and "lower is better" in sentence
    assert "held out of its training" in run.report().read_text()
    assert run.recipe.task == first.recipe.task and not (run.folder / "head.safetensors").exists()
    assert tunesmith.Run.load(run.folder).generate("what follows nine 2?")


def test_a_test_file_comes_first_and_is_cut_as_the_run_cut_it(tiny_writer: Path, tmp_path: Path) -> None:
    held = asked(tmp_path, "held.jsonl", OLD, 12)
    data = {"train": str(asked(tmp_path, "old.jsonl", OLD)), "test": str(held), "max_tokens": 41}
    given = answering(tiny_writer, tmp_path, data={**data, "validation": 0.2})
    first = tunesmith.train({**given, "task": {**given["task"], "cut": "start"}})
    assert first.summary["data"]["test"]["truncated"]
    run = tunesmith.train(more(first, tmp_path, evaluation={"resamples": 100, "metrics": ["token-f1"]}))
    found = run.summary["forgetting"]
    assert found["data"] == str(held) and not found["held_out"] and found["rows"] == 12
    assert list(found["before"]) == ["nats-per-token"] == [found["change"]["metric"]]
    loss = first.scored(str(held)).loss  # type: ignore[union-attr]
    assert found["before"]["nats-per-token"]["value"] == pytest.approx(loss, rel=1e-5)


def test_rows_that_train_now_are_counted(first: tunesmith.Run, tmp_path: Path) -> None:
    both = tmp_path / "both.jsonl"
    both.write_text((first.folder.parent / "old.jsonl").read_text() + asked(tmp_path, "new.jsonl", NEW).read_text())
    run = tunesmith.train(more(first, tmp_path, data={"train": str(both), "validation": 0.2}))
    found = run.summary["forgetting"]
    assert 0 < found["also_in_train"] <= found["rows"]
    assert any("also stand in the new training rows" in warning for warning in run.summary["warnings"])


def test_a_changed_training_file_tells_nothing(tiny_writer: Path, tmp_path: Path) -> None:
    first = tunesmith.train(answering(tiny_writer, tmp_path))
    asked(tmp_path, "old.jsonl", OLD, 41)
    run = tunesmith.train(more(first, tmp_path))
    assert run.summary["forgetting"] == {}
    assert any("what was forgotten is not known" in warning for warning in run.summary["warnings"])


def test_a_run_whose_model_was_made_for_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = {"size": "tiny", "vocabulary": 300, "config": {"hidden_size": 32, "num_hidden_layers": 1}}
    first = tunesmith.train({
        "task": {"name": "text-generation", "samples": 1, "decoding": {"max_new_tokens": 4}},
        "model": {"new": new},
        "data": {"train": str(prose(tmp_path, "old.txt", OLD)), "max_tokens": 64, "validation": 0.1},
        "method": "full",
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3},
        "evaluation": {"resamples": 100},
        "output": str(tmp_path / "first"),
    })  # fmt: skip
    monkeypatch.chdir(tmp_path)
    data = {"train": str(prose(tmp_path, "new.txt", NEW)), "max_tokens": 64}
    evaluation = {"resamples": 100, "metrics": ["bits-per-character", "perplexity"]}
    run = tunesmith.train(more(first, tmp_path, start_from="first", data=data, evaluation=evaluation))
    assert run.recipe.recipe.model.name == str(first.folder / "base")
    assert run.recipe.recipe.start_from == str(first.folder)
    found = run.summary["forgetting"]
    for name, value in first.metrics["validation"].items():
        assert found["before"][name]["value"] == pytest.approx(value["value"], rel=1e-5)
    assert found["change"]["metric"] == "bits-per-character" and found["change"]["low"] > 0
    third = tunesmith.train(more(run, tmp_path, data=data, output=str(tmp_path / "third")))
    assert third.recipe.recipe.model == run.recipe.recipe.model
    assert third.summary["forgetting"]["data"] == str(tmp_path / "new.txt")


@pytest.mark.parametrize("kind", ["pair", "masked"])
def test_models_of_two_parts_and_models_that_fill_in_go_on(tmp_path: Path, kind: str) -> None:
    if kind == "pair":
        first = tunesmith.train(answering(save_tiny_pair(tmp_path / "bart", "bart"), tmp_path, method="bitfit"))
        data = {"train": str(asked(tmp_path, "new.jsonl", NEW)), "validation": 0.2}
    else:
        folder = save_tiny_bert(tmp_path / "bert", seed=0)
        transformers.BertForMaskedLM(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder)
        task = {"name": "text-generation", "objective": "masked"}
        old = {"train": str(prose(tmp_path, "old.txt", OLD, 150)), "max_tokens": 64}
        first = tunesmith.train(answering(folder, tmp_path, task=task, data=old, method="lora"))
        data = {"train": str(prose(tmp_path, "new.txt", NEW, 150)), "max_tokens": 32}
    found = tunesmith.train(more(first, tmp_path, data=data)).summary["forgetting"]
    then = first.metrics["validation"]["perplexity"]["value"]
    assert found["held_out"] and found["before"]["perplexity"]["value"] == pytest.approx(then, rel=1e-5)
    assert found["change"]["value"] != 0


def test_nothing_moves_without_a_step(first: tunesmith.Run, tmp_path: Path) -> None:
    still = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-12}
    run = tunesmith.train(more(first, tmp_path, training=still))
    before, after = (load_file(found.folder / "delta" / "adapter_model.safetensors") for found in (first, run))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-9) for name in before)
    assert run.summary["forgetting"]["change"]["value"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"method": "bitfit"}, r"made with method .*'lora'.*Leave method out"),
        ({"task": "question-answering-generative", "prompt": {"system": "Be short."}}, r"prompt.system=.*'Be short.'"),
        (
            {"task": {"name": "question-answering-generative", "answered_rows": 5}},
            r"made with task .*'answered_rows': 2.*Leave task out",
        ),
        ({"task": "summarization"}, "run of the task question-answering-generative, the recipe's task is summari"),
        ({"task": "text-classification"}, "the recipe's task is text-classification: a run goes on with its own"),
        ({"candidates": [{"seed": 1}]}, "candidates start from different deltas"),
    ],
)
def test_what_contradicts_the_run_is_refused(
    first: tunesmith.Run, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(RecipeError, match=match):
        tunesmith.train(more(first, tmp_path, **changes))


def test_another_base_is_refused(first: tunesmith.Run, tmp_path: Path) -> None:
    other = save_tiny_writer(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="trained on another base: base_model_hash is sha256"):
        tunesmith.train(more(first, tmp_path, model=str(other)))


def test_a_run_that_writes_does_not_go_on_from_one_with_labels(
    recipe: dict[str, Any], tiny_writer: Path, tmp_path: Path
) -> None:
    labels = tunesmith.train({**recipe, "output": str(tmp_path / "labels")})
    with pytest.raises(RecipeError, match="is a run of the task text-classification, the recipe's task is text-gen"):
        tunesmith.train({"start_from": str(labels.folder), "task": "text-generation", "model": str(tiny_writer),
                         "data": {"train": str(prose(tmp_path, "old.txt", OLD))}})  # fmt: skip
    rows = write_csv(tmp_path / "rows.csv", [("a text", "one")])
    with pytest.raises(RecipeError, match="prompt.system: the task 'text-classification' does not read it"):
        tunesmith.train({"start_from": str(labels.folder), "prompt": {"system": "x"}, "data": {"train": str(rows)}})
