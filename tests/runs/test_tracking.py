"""Trackers are told the run's own numbers; a missing package is said before any work, a failing one ends nothing."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

import tunesmith
from tunesmith.core.errors import MissingDependency, RecipeError
from tunesmith.core.registry import components
from tunesmith.recipe.loading import load_recipe


def short(recipe: dict[str, Any], *trackers: Any) -> dict[str, Any]:
    training = {**recipe["training"], "trackers": list(trackers)}
    return {**recipe, "training": training, "evaluation": {"resamples": 100, "baselines": False}}


class Writer:
    """Stands in for torch.utils.tensorboard.SummaryWriter."""

    made: ClassVar[list["Writer"]] = []

    def __init__(self, log_dir: str) -> None:
        self.folder, self.scalars, self.texts, self.closed = log_dir, list[tuple[str, float, int]](), [], False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def add_text(self, name: str, text: str) -> None:
        self.texts.append((name, text))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_what_the_history_says(
    recipe: dict[str, Any], data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake: Any = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter, Writer.made = Writer, []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    run = tunesmith.train(short(recipe, "tensorboard"))
    (written,) = Writer.made
    assert written.closed and written.folder == str(data_folder / "tensorboard" / "run" / "default")
    assert '"training.epochs": 2' in written.texts[0][1]
    history = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    losses = [(value, step) for name, value, step in written.scalars if name == "validation loss"]
    assert losses == [(row["validation loss"], 6 * row["epoch"]) for row in history]
    steps = [step for name, _, step in written.scalars if name == "training loss"]
    assert steps == list(range(1, 13))
    mean = sum(value for name, value, step in written.scalars if name == "training loss" and step > 6) / 6
    assert mean == pytest.approx(history[1]["train loss"])


def test_mlflow_gets_a_run(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, Any]] = []

    class Client:
        def __init__(self, tracking_uri: str | None) -> None:
            said.append(("uri", tracking_uri))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            said.append(("experiment", name))
            return "7"

        def create_run(self, experiment: str, run_name: str) -> Any:
            said.append(("run", (experiment, run_name)))
            return SimpleNamespace(info=SimpleNamespace(run_id="r"))

        def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
            assert run == "r" and len(params) <= 100
            said.extend([("metric", one) for one in metrics] + [("param", one) for one in params])

        def set_terminated(self, run: str, status: str) -> None:
            said.append(("end", status))

    package: Any = ModuleType("mlflow")
    entities: Any = ModuleType("mlflow.entities")
    entities.Metric = lambda key, value, now, step: (key, value, step)
    entities.Param = lambda key, value: (key, value)
    package.MlflowClient = Client
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    run = tunesmith.train(short(recipe, {"name": "mlflow", "uri": "file:x", "experiment": "mine"}))
    assert said[:3] == [("uri", "file:x"), ("experiment", "mine"), ("run", ("7", "run default"))]
    assert ("param", ("method.rank", "4")) in said and said[-1] == ("end", "FINISHED")
    last = json.loads((run.folder / "history.jsonl").read_text().splitlines()[-1])
    assert ("metric", ("validation loss", last["validation loss"], 12)) in said


def test_a_tracker_that_fails_is_said_and_ends_nothing(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Writer):
        def add_scalar(self, name: str, value: float, step: int) -> None:
            raise OSError("the disk is gone")

    fake: Any = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Failing
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    run = tunesmith.train(short(recipe, "tensorboard"))
    assert run.summary["steps"] == 12
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("tracker tensorboard failed and is told nothing more") == 1


def test_what_is_refused(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependency, match=rf"'{name}', which is not installed.*tunesmith\[{name}\]"):
            tunesmith.train(short(recipe, name))
        assert not Path(recipe["output"]).exists()
    with pytest.raises(RecipeError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        load_recipe({"data": {"train": "x.csv"}, "training": {"trackers": ["tensorbord"]}})
    assert set(components("trackers")) == {"tensorboard", "mlflow"}
