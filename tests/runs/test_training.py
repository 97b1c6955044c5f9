"""A recipe carried out: what it leaves, that it repeats bit for bit, and what it refuses."""

import gc
import json
import os
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from torch import nn

import tunesmith
from tests.conftest import save_tiny_bert, write_csv, write_jsonl
from tunesmith.core.errors import CheckpointError, DataError, RecipeError, SecurityError, TargetError
from tunesmith.core.registry import components
from tunesmith.runs import comparing, labelling
from tunesmith.runs.session import open_session
from tunesmith.training.loop import Loop

FILES = {
    "recipe.yaml", "fingerprint.json", "delta", "head.safetensors", "labels.json", "prompt.yaml", "metrics.json",
    "predictions.parquet", "history.jsonl", "openings.jsonl", "report.html", "splits.json",
}  # fmt: skip
Recipe = dict[str, Any]


@pytest.mark.usefixtures("pictures")
def test_a_run_leaves_everything(recipe: Recipe) -> None:
    run = tunesmith.train({**recipe, "evaluation": {"resamples": 100}})
    assert {item.name for item in run.folder.iterdir()} == FILES
    assert not [item for item in run.folder.parent.iterdir() if item.name.startswith(".")]
    assert set(run.metrics) == {"validation", "test"}
    for metric in components("tasks")["text-classification"].metrics:
        value = run.metrics["test"][metric]
        assert value["low"] <= value["value"] <= value["high"], metric
    assert set(run.summary["baselines"]) == {"majority", "zero-shot", "linear-probe"}
    assert run.summary["fast_path"]["fast"]
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [1, 2]
    report = run.report().read_text()
    assert "<script" not in report and "http" not in report.replace("http://www.w3.org", "")


def test_it_learns(recipe: Recipe) -> None:
    run = tunesmith.train(recipe, ["training.epochs=8", "evaluation.baselines=[majority]"])
    assert run.metrics["test"]["accuracy"]["value"] > run.summary["baselines"]["majority"]["test"]["accuracy"]["value"]


@pytest.mark.parametrize("method", components("methods"))
def test_every_method_trains_and_answers_alike_after_loading(recipe: Recipe, method: str) -> None:
    run = tunesmith.train({**recipe, "method": {"name": method, **components("methods")[method].example}})
    scores = tunesmith.Run.load(run.folder).evaluate(recipe["data"]["test"])
    assert scores["log-loss"].value == pytest.approx(run.metrics["test"]["log-loss"]["value"], rel=1e-6)


def test_the_same_recipe_and_seed_give_the_same_bits(recipe: Recipe) -> None:
    first = tunesmith.train(recipe).folder
    second = tunesmith.train({**recipe, "output": recipe["output"] + "-again"}).folder
    for name in ("delta/adapter_model.safetensors", "head.safetensors", "history.jsonl", "predictions.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    other = tunesmith.train({**recipe, "output": recipe["output"] + "-other", "seed": 1}).folder
    assert (first / "head.safetensors").read_bytes() != (other / "head.safetensors").read_bytes()


def test_peft_reads_the_delta_with_the_same_answers(recipe: Recipe, tiny_folder: Path) -> None:
    run = tunesmith.train(recipe)
    model = peft.PeftModel.from_pretrained(
        transformers.AutoModel.from_pretrained(tiny_folder), run.folder / "delta"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    texts = ["hello friend", "thanks a lot for everything my friend"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    mask = inputs["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        hidden = model(**{key: inputs[key] for key in ("input_ids", "attention_mask")}).last_hidden_state
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        weight = load_file(run.folder / "head.safetensors")["weight"]
        cosines = torch.nn.functional.normalize(pooled) @ torch.nn.functional.normalize(weight).t()
        expected = (20.0 * cosines).softmax(-1).double().numpy()
    assert abs(run.predict_proba(texts) - expected).max() < 1e-5


def test_interrupt_leaves_a_loadable_run(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Loop.step

    def interrupted(self: Loop, batch: Any) -> Any:
        if self.trials[0].trained.steps == 8:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Loop, "step", interrupted)
    run = tunesmith.train({**recipe, "training": {**recipe["training"], "epochs": 5}})
    assert run.summary["interrupted"] and run.summary["best_epoch"] == 1 and run.summary["steps"] == 8
    assert tunesmith.Run.load(run.folder).predict("hello friend")[0].label in run.labels


@pytest.mark.usefixtures("pictures")
def test_interrupt_in_the_first_epoch(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Loop.step

    def interrupted(self: Loop, batch: Any) -> Any:
        if self.trials[0].trained.steps == 2:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Loop, "step", interrupted)
    run = tunesmith.train(recipe)
    assert run.summary["examples_per_second"] > 0 and run.summary["steps"] == 2
    assert any("the state after step 2 was kept" in warning for warning in run.summary["warnings"])
    assert "stopped before the end of the first epoch" in run.report().read_text()
    assert run.predict("hello")[0].label in run.labels


@pytest.mark.usefixtures("pictures")
def test_a_metric_where_lower_is_better(recipe: Recipe) -> None:
    run = tunesmith.train(
        {**recipe, "evaluation": {"resamples": 100, "metrics": ["log-loss", "accuracy"]}}, ["training.epochs=6"]
    )
    losses = [scores["test"]["log-loss"]["value"] for scores in run.summary["baselines"].values()]
    gain = run.summary["gain"][0]
    assert gain["value"] == pytest.approx(min(losses) - run.metrics["test"]["log-loss"]["value"])
    assert "log-loss" in run.report().read_text()


def test_copies_of_a_text_never_train_and_validate(recipe: Recipe, data_folder: Path) -> None:
    rows = [
        (f"{text}", label)
        for text, label in (("hello", "a"), ("bye", "b"), ("well", "a"), ("so", "b"))
        for _ in range(10)
    ]
    rows += [(f"single {number}", "ab"[number % 2]) for number in range(20)]
    train = write_csv(data_folder / "copies.csv", rows)
    run = tunesmith.train({**recipe, "data": {"train": str(train), "validation": 0.3, "leakage": "error"}})
    data = run.summary["data"]
    assert data["validation"]["in_train"] == 0 and data["train"]["rows"] + data["validation"]["rows"] == 60


def test_a_run_means_the_same_from_another_folder(
    recipe: Recipe, data_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shutil.copytree(recipe["model"], data_folder / "model")
    (data_folder / "recipe.yaml").write_text(
        "model: model\ndata: {train: train.csv, test: test.csv}\ntraining: {epochs: 1}\noutput: out\n"
    )
    monkeypatch.chdir(data_folder)
    run = tunesmith.train("recipe.yaml")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert tunesmith.Run.load(run.folder).predict("hello")[0].label in run.labels
    again = tunesmith.train(run.folder / "recipe.yaml", ["output=again"])
    assert (again.folder / "head.safetensors").read_bytes() == (run.folder / "head.safetensors").read_bytes()


def test_a_template_without_a_field(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="has no field, so every row would read the same"):
        tunesmith.train({**recipe, "prompt": {"template": "Message"}})
    with pytest.raises(
        DataError, match=r"unknown column 'tetx'; did you mean 'text'.*It is a field of prompt\.template"
    ):
        tunesmith.train({**recipe, "prompt": {"template": "{tetx}"}})


def test_labels_that_look_alike_and_few_rows_are_remarked_on(recipe: Recipe, data_folder: Path) -> None:
    rows = [
        (f"{text} {extra}", label)
        for extra in "abcdef"
        for text, label in (("one", "Yes"), ("two", "yes "), ("three", "no"))
    ]
    train = write_csv(data_folder / "alike.csv", rows)
    run = tunesmith.train({**recipe, "data": {"train": str(train), "validation": 0.4}})
    warnings = " ".join(run.summary["warnings"])
    assert "the labels 'Yes' and 'yes ' differ only in letter case, spacing or how characters" in warnings
    assert "rows, so its scores and intervals say little" in warnings and "there is no test file" in warnings


def test_columns_of_several_types_are_remarked_on(recipe: Recipe, tmp_path: Path) -> None:
    labels = [3, "no", 3, "no", False, "no", "3", "no", 3.0, "no", 3, "no", 3, "no", 3, "no"]
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]
    train = write_jsonl(tmp_path / "types.jsonl", rows)
    run = tunesmith.train({**recipe, "data": {"train": str(train), "validation": 0.4}})
    warnings = run.summary["warnings"]
    assert (
        "train: column 'label' holds 9 texts, 6 numbers (the first in line 1) and 1 truth value (line 5, read as "
        "'False'). Correct the file if that is not meant." in warnings
    )
    assert "the labels '3' and '3.0' write one number in two ways; are they one?" in warnings


def test_the_label_must_not_be_in_the_template(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="the field 'label' is the label column: the model would read the answer"):
        tunesmith.train({**recipe, "prompt": {"template": "{label} {text}"}})


def test_no_layers_and_no_pattern(recipe: Recipe) -> None:
    with pytest.raises(TargetError, match="the list is empty, so nothing would train"):
        tunesmith.train(recipe, ["method.layers=[]"])
    with pytest.raises(TargetError, match=r"'re:\(' is not a regular expression"):
        tunesmith.train(recipe, ["method.layers=re:("])


def test_changed_labels_are_refused(recipe: Recipe) -> None:
    run = tunesmith.train(recipe)
    (run.folder / "labels.json").write_text('["a", "b", "c"]')
    with pytest.raises(CheckpointError, match=r"labels\.json was changed"):
        tunesmith.Run.load(run.folder)
    (run.folder / "metrics.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"metrics\.json is damaged: 'metrics' is missing"):
        tunesmith.Run.load(run.folder)


def test_early_stopping(recipe: Recipe) -> None:
    run = tunesmith.train(recipe, ["training.epochs=40", "training.patience=2", "training.learning_rate=0.01"])
    epochs = len((run.folder / "history.jsonl").read_text().splitlines())
    assert epochs == run.summary["best_epoch"] + 2 < 40


def test_early_stopping_waits_for_epochs_that_are_scored(recipe: Recipe) -> None:
    keys = {"epochs": 40, "patience": 1, "score_every": 3, "learning_rate": 0.01}
    run = tunesmith.train(recipe, [f"training.{key}={value}" for key, value in keys.items()])
    scored = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert run.summary["best_epoch"] > 0 and len(scored) == run.summary["best_epoch"] + 3 < 40


def test_validation_file_and_no_baselines(recipe: Recipe) -> None:
    data = {**recipe["data"], "validation": recipe["data"]["test"], "test": None}
    run = tunesmith.train({**recipe, "data": data, "evaluation": {"resamples": 100, "baselines": False}})
    assert set(run.metrics) == {"validation"} and run.summary["baselines"] == {} and run.summary["gain"] == []


def test_templates_change_what_the_model_reads(recipe: Recipe) -> None:
    run = tunesmith.train({**recipe, "prompt": {"template": "my friend\nsays {text}"}})
    assert yaml.safe_load((run.folder / "prompt.yaml").read_text())["template"] == "my friend\nsays {text}"
    plain = tunesmith.train({**recipe, "output": recipe["output"] + "2"})
    assert abs(run.predict_proba("hello") - plain.predict_proba("hello")).max() > 1e-6


def test_leakage(recipe: Recipe, data_folder: Path) -> None:
    rows = [("hello there friend a", "greeting"), ("a new one", "parting"), ("thanks", "thanks")]
    leaky = {**recipe["data"], "test": str(write_csv(data_folder / "leaky.csv", rows))}
    run = tunesmith.train({**recipe, "data": leaky})
    assert any("1 rows of test also stand in train" in warning for warning in run.summary["warnings"])
    dropped = tunesmith.train({**recipe, "data": {**leaky, "leakage": "drop"}, "output": recipe["output"] + "2"})
    assert dropped.summary["data"]["train"]["dropped"] == {"in another split": 1}
    assert dropped.summary["cleaning"] == {"leakage": {"dropped": 1}}
    assert json.loads((dropped.folder / "cleaning.jsonl").read_text()) == {
        "step": "leakage", "file": leaky["train"], "where": "line 2", "what": "dropped",
        "why": "also stands in test, line 2",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"1 rows of test also stand in train .*line 2"):
        tunesmith.train({**recipe, "data": {**leaky, "leakage": "error"}, "output": recipe["output"] + "3"})


def test_truncated_rows_are_counted_and_said(recipe: Recipe) -> None:
    run = tunesmith.train(recipe, ["data.max_tokens=5"])
    counted = run.summary["data"]["train"]["truncated"]
    assert counted > 0 and any(
        f"{counted} of" in warning and "were cut" in warning for warning in run.summary["warnings"]
    )
    with pytest.raises(RecipeError, match=r"data\.max_tokens=500 is more than the model can read; at most 64 tokens"):
        tunesmith.train(recipe, ["data.max_tokens=500", "output=" + recipe["output"] + "2"])


def test_one_class_and_foreign_labels(recipe: Recipe, data_folder: Path) -> None:
    one = write_csv(data_folder / "one.csv", [("a", "x"), ("b", "x")])
    with pytest.raises(DataError, match="every row has the label 'x'. A classifier needs at least two"):
        tunesmith.train({**recipe, "data": {"train": str(one)}})
    foreign = write_csv(data_folder / "foreign.csv", [("hi", "greeting"), ("hey", "greting")])
    for split in ("test", "validation"):
        with pytest.raises(
            DataError, match=rf"{split}\), line 3: the label 'greting' does not occur .*mean 'greeting'\?"
        ):
            tunesmith.train({**recipe, "data": {**recipe["data"], split: str(foreign)}})


def test_rank_above_the_width_warns(recipe: Recipe) -> None:
    run = tunesmith.train(recipe, ["method.rank=40"])
    assert any("method.rank=40 is above the width of" in warning for warning in run.summary["warnings"])


def test_a_pattern_that_matches_nothing(recipe: Recipe) -> None:
    with pytest.raises(TargetError, match="'valeu' matches no linear map.*Did you mean 'value'"):
        tunesmith.train({**recipe, "method": {"name": "lora", "layers": ["query", "valeu"]}})
    assert not Path(recipe["output"]).exists()


def test_an_existing_run_is_kept_unless_told(recipe: Recipe) -> None:
    first = tunesmith.train(recipe).folder
    before = (first / "fingerprint.json").stat().st_ino
    with pytest.raises(CheckpointError, match="exists. Choose another .* or replace it with --overwrite"):
        tunesmith.train(recipe)
    assert (first / "fingerprint.json").stat().st_ino == before
    tunesmith.train(recipe, overwrite=True)
    assert (first / "fingerprint.json").stat().st_ino != before
    foreign = first.parent / "notes"
    foreign.mkdir()
    (foreign / "thesis.txt").touch()
    with pytest.raises(CheckpointError, match="is not a run folder, so --overwrite does not replace it"):
        tunesmith.train({**recipe, "output": str(foreign)}, overwrite=True)


def test_a_folder_that_cannot_be_written(recipe: Recipe, data_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be made: .* output=FOLDER"):
        tunesmith.train({**recipe, "output": str(data_folder / "train.csv" / "run")})


def test_a_full_disk_leaves_nothing(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        tunesmith.train(recipe)
    monkeypatch.undo()
    folder = Path(recipe["output"]).parent
    assert sorted(item.name for item in folder.iterdir()) == ["test.csv", "train.csv"]


def test_model_folders_that_cannot_be_used(recipe: Recipe, tiny_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has a config\.json but no weights"):
        tunesmith.train({**recipe, "model": str(bare)})
    (bare / "pytorch_model.bin").touch()
    with pytest.raises(SecurityError, match=r"only as pytorch_model\.bin.*refused.*save_pretrained"):
        tunesmith.train({**recipe, "model": str(bare)})
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_folder, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="cannot be loaded.*damaged"):
        tunesmith.train({**recipe, "model": str(damaged)})
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        tunesmith.train({**recipe, "model": str(tmp_path)})
    with pytest.raises(RecipeError, match="the folder ./nowhere does not exist"):
        tunesmith.train({**recipe, "model": "./nowhere"})
    with pytest.raises(RecipeError, match="'minilmm' is neither an embedded model .*did you mean 'minilm'"):
        tunesmith.train({**recipe, "model": "minilmm"})
    with pytest.raises(RecipeError, match="device: 'cuda:9' is not available"):
        tunesmith.train({**recipe, "model": {"name": str(tiny_folder), "device": "cuda:9"}})


def test_a_run_refuses_another_base_model(recipe: Recipe, tmp_path: Path) -> None:
    base = save_tiny_bert(tmp_path / "base", seed=0)
    run = tunesmith.train({**recipe, "model": str(base)})
    save_tiny_bert(base, seed=1)
    with pytest.raises(
        CheckpointError, match=r"trained on another base: base_model_hash is sha256:\w+, the run recorded sha256"
    ):
        tunesmith.Run.load(run.folder).predict("hello")


def test_damaged_runs_are_named(recipe: Recipe) -> None:
    run = tunesmith.train(recipe)
    head = run.folder / "head.safetensors"
    whole = head.read_bytes()
    head.write_bytes(whole[:50])
    with pytest.raises(CheckpointError, match=r"head\.safetensors is damaged"):
        tunesmith.Run.load(run.folder).predict("hello")
    head.unlink()
    with pytest.raises(CheckpointError, match=r"head\.safetensors is missing"):
        tunesmith.Run.load(run.folder).predict("hello")
    (run.folder / "fingerprint.json").unlink()
    with pytest.raises(CheckpointError, match="is not a complete run"):
        tunesmith.Run.load(run.folder)
    with pytest.raises(CheckpointError, match="there is no run folder"):
        tunesmith.Run.load(run.folder / "nowhere")


def test_predictions(recipe: Recipe, data_folder: Path) -> None:
    run = tunesmith.train(recipe)
    table = run.predict_proba(["hello there", "bye bye"])
    assert table.shape == (2, 3) and abs(table.sum(1) - 1).max() < 1e-12
    first = run.predict("hello there")[0]
    # One text by itself: float32 rounds logits of up to 20 by 1.2e-6 (2^-24 times 20), so 1e-6 failed now and then.
    assert first.probability == max(first.probabilities.values()) == pytest.approx(table[0].max(), abs=4e-6)
    assert [answer.where for answer in run.predict_file(recipe["data"]["test"])][:2] == ["line 2", "line 3"]
    (data_folder / "texts.txt").write_text("hello\n\nthanks\n")
    assert len(run.predict_file(str(data_folder / "texts.txt"))) == 2
    assert run.predict([]) == []
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        run.predict(["hello", " "])
    with pytest.raises(DataError, match="does not occur in train"):
        run.evaluate(str(write_csv(data_folder / "other.csv", [("a", "unknown")])))


def test_a_run_compares_with_another_on_the_same_rows(recipe: Recipe) -> None:
    first = tunesmith.train(recipe)
    second = tunesmith.train({**recipe, "output": recipe["output"] + "2", "method": "head-only"})
    gain = first.compare(second, recipe["data"]["test"])[0]
    assert gain.metric == "accuracy" and gain.estimate.low <= gain.estimate.value <= gain.estimate.high


def test_predicted_memory_is_near_the_measured(recipe: Recipe) -> None:
    run = tunesmith.train(recipe)
    ratio = run.summary["predicted_peak_memory_bytes"] / run.summary["peak_memory_bytes"]
    assert 0.5 < ratio < 1.5


def test_a_read_only_run_answers(recipe: Recipe) -> None:
    run = tunesmith.train(recipe)
    for item in [run.folder, *run.folder.rglob("*")]:
        item.chmod(0o555 if item.is_dir() else 0o444)
    before = {item: item.stat().st_mtime_ns for item in run.folder.rglob("*")}
    loaded = tunesmith.Run.load(run.folder)
    loaded.predict("hello")
    loaded.evaluate(recipe["data"]["train"])  # of test rows it would record the look, wherever it may write
    assert {item: item.stat().st_mtime_ns for item in run.folder.rglob("*")} == before
    run.folder.chmod(0o755)


def test_a_parameter_that_cannot_train_is_refused(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler that nobody reads gets no gradient: its delta would be a silent no-op."""
    from tunesmith.recipe.loading import load_recipe
    from tunesmith.tasks.text_classification import TextClassification

    monkeypatch.setattr(
        TextClassification, "prepare", lambda self, model, facts: self.model_copy(update={"pooling": "mean"})
    )
    with pytest.raises(tunesmith.TunesmithError, match=r"get no gradient, for example 'pooler\.dense"):
        tunesmith.train(recipe)
    assert open_session(load_recipe(recipe)).backbone.model.pooler is not None


def test_a_run_answers_where_its_device_is_not_there(recipe: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    run = tunesmith.train(recipe)
    place = run.folder / "recipe.yaml"
    place.write_text(place.read_text().replace("device: auto", "device: cuda:77"))
    loaded = tunesmith.Run.load(run.folder)
    assert loaded.predict("hello there friend")[0] == run.predict("hello there friend")[0]
    assert "was trained on cuda:77, which this machine does not have; it answers on " in caplog.text


def test_a_run_that_nobody_holds_frees_its_model(recipe: Recipe) -> None:
    def layers() -> int:
        gc.collect()
        return sum(issubclass(type(one), nn.Linear) for one in gc.get_objects())

    before = layers()
    tunesmith.train(recipe)
    assert layers() == before


def test_of_very_many_rows_a_draw_is_read_before_training(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    extract = comparing.extract_features

    def counted(backbone: Any, task: Any, tokens: Any, *rest: Any) -> Any:
        read.append(len(tokens))
        return extract(backbone, task, tokens, *rest)

    monkeypatch.setattr(comparing, "extract_features", counted)
    monkeypatch.setattr(labelling, "_SEEN", 6)
    run = tunesmith.train(recipe)
    rows = run.summary["data"]["train"]["rows"]
    said = f"class means and baselines are computed from 6 of {rows} training rows, drawn by label"
    assert said in run.summary["warnings"] and rows > 6 in read and rows not in read
    read.clear()
    fitted = {"name": "text-classification", "head_kind": "logistic-regression"}
    tunesmith.train(recipe | {"task": fitted, "method": "none"}, overwrite=True)
    assert rows in read, "a head that is fitted to rows gets all of them"
