"""What a method may do while it trains: start from data, set rates, add to the loss, change itself between steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import tunesmith
from tunesmith.methods.bitfit import BitFit
from tunesmith.methods.trainable_tokens import TrainableTokens
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.testing import tiny_models
from tunesmith.training.optimizing import Optimizer
from tunesmith.training.preflight import _check_gradients

Recipe = dict[str, Any]
FILES = ("delta/adapter_model.safetensors", "head.safetensors")


@pytest.fixture
def recipe(recipe: Recipe) -> Recipe:
    recipe["evaluation"]["baselines"] = False
    return recipe


def train(recipe: Recipe, method: Any = "bitfit", **training: Any) -> Any:
    settings = {**recipe["training"], **training}
    return tunesmith.train({**recipe, "method": method, "training": settings}, overwrite=True)


def history(run: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]


def weights(run: Any) -> list[bytes]:
    return [(run.folder / name).read_bytes() for name in FILES]


def test_adjust_sees_every_step_with_its_gradients(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    deltas: list[Delta] = []

    def adjust(self: BitFit, delta: Delta, step: int, total: int) -> None:
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in delta.parameters())
        seen.append((step, total))
        deltas.append(delta)

    monkeypatch.setattr(BitFit, "adjust", adjust)
    run = train(recipe)
    total = run.summary["steps"]
    assert seen == [(step, total) for step in range(1, total + 1)] and total > 4
    assert all(parameter.grad is None for parameter in deltas[-1].parameters())


def test_what_adjust_changes_stays(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def adjust(self: BitFit, delta: Delta, step: int, total: int) -> None:
        for parameter in delta.parameters():
            parameter.data.fill_(step)

    monkeypatch.setattr(BitFit, "adjust", adjust)
    run = train(recipe, best="last")
    tensors = load_file(run.folder / FILES[0]).values()
    assert all((tensor == run.summary["steps"]).all() for tensor in tensors)


def test_the_penalty_trains_but_is_not_reported(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def penalty(weight: float) -> Callable[[BitFit, Delta], Tensor]:
        return lambda self, delta: 1000 + weight * sum(parameter.pow(2).sum() for parameter in delta.parameters())

    def norm(run: Any) -> float:
        return sum(tensor.pow(2).sum().item() for tensor in load_file(run.folder / FILES[0]).values())

    plain = train(recipe, best="last", clip_norm=None)
    rows, kept, size = history(plain), weights(plain), norm(plain)
    monkeypatch.setattr(BitFit, "penalty", penalty(0.0))
    constant = train(recipe, best="last", clip_norm=None)
    assert history(constant) == rows and weights(constant) == kept, "a constant neither trains nor shows"
    monkeypatch.setattr(BitFit, "penalty", penalty(100.0))
    pulled = train(recipe, best="last", clip_norm=None)
    assert weights(pulled) != kept and norm(pulled) < size
    assert all(row["train loss"] < 100 for row in history(pulled))


def test_rates_differ_by_parameter(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of (almost) zero holds a parameter where it was; the reported rate is the run's own."""
    monkeypatch.setattr(BitFit, "rate_ratio", lambda self, name: 1e-12 if "attention" in name else 1.0)
    run = train(recipe, best="last", schedule="constant", warmup_fraction=0.0)
    fresh = load_file(Path(recipe["model"]) / "model.safetensors")
    moved = {}
    for name, tensor in load_file(run.folder / FILES[0]).items():
        moved[name] = not torch.allclose(tensor, fresh[name.removeprefix("base_model.model.")], atol=1e-8)
    assert all(changed != ("attention" in name) for name, changed in moved.items() if "key" not in name)
    assert len(set(moved.values())) == 2
    assert history(run)[-1]["learning_rate"] == recipe["training"]["learning_rate"]


def test_a_part_without_parameters_still_names_the_rate() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    settings = TrainingSettings(weight_decay=0.0, warmup_fraction=0.0, schedule="linear", clip_norm=None)
    optimizer = Optimizer([([], 0.1), ([parameter], 0.4)], settings, total=4)
    parameter.sum().backward()
    assert optimizer.step()["learning_rate"] == 0.1
    assert torch.allclose(parameter, torch.full((2, 2), 0.6))
    assert parameter.grad is not None
    optimizer.clear()
    assert parameter.grad is None


def test_a_method_starts_from_training_batches(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = weights(train(recipe))
    calls: list[tuple[int, ...]] = []

    def initialise(self: BitFit, delta: Delta, run: Callable[[], None]) -> None:
        layer = dict(delta.seams.model.named_modules())["encoder.layer.0.attention.self.query"]

        def watch(module: nn.Module, given: Any, output: Tensor) -> None:
            assert not torch.is_grad_enabled() and not delta.seams.model.training
            assert delta.seams.routing.active == delta.name
            calls.append(tuple(output.shape))

        handle = layer.register_forward_hook(watch)
        run()
        handle.remove()

    monkeypatch.setattr(BitFit, "initialise", initialise)
    assert weights(train(recipe)) == plain and not calls, "methods that want no data get none"
    monkeypatch.setattr(BitFit, "data_driven", property(lambda self: True))
    assert weights(train(recipe)) == plain, "looking at data must not change what is drawn afterwards"
    assert 1 < len(calls) <= 8 and len(set(calls)) > 1


@pytest.mark.parametrize("best", ["last", "auto"])
def test_adalora_trains_to_its_target(recipe: Recipe, best: str) -> None:
    method = {"name": "adalora", "initial_rank": 6, "target_rank": 2, "layers": ["query", "value", "dense"]}
    run = train(recipe, method, epochs=4, best=best)
    config = json.loads((run.folder / "delta/adapter_config.json").read_text())
    tensors = load_file(run.folder / FILES[0])
    ranks = [len(tensor) for name, tensor in tensors.items() if name.endswith("lora_E")]
    assert sum(ranks) <= 6 * len(ranks) and all(tensor.all() for name, tensor in tensors.items() if "lora_E" in name)
    if best == "last":
        assert sum(ranks) == 2 * len(ranks) and len(set(ranks)) > 1, ranks
        assert sorted(map(sum, config["rank_pattern"].values())) == sorted(ranks)
    scores = tunesmith.Run.load(run.folder).evaluate(recipe["data"]["test"])
    assert scores["log-loss"].value == pytest.approx(run.metrics["test"]["log-loss"]["value"], rel=1e-5)


def test_a_recipe_names_tokens(recipe: Recipe) -> None:
    run = train(recipe, {"name": "trainable-tokens", "tokens": ["friend", "thanks"]})
    assert {tensor.shape for tensor in load_file(run.folder / FILES[0]).values()} == {(2, 32)}
    assert tunesmith.Run.load(run.folder).predict("hello friend")[0].label in run.labels


def test_a_map_that_follows_another_is_not_silent() -> None:
    """The decoder's table has no parameters of its own: its rows are those of the shared one."""
    tiny = tiny_models()["encoder-decoder"]
    model, ids = tiny.build(), tiny.inputs()["input_ids"]
    delta = TrainableTokens(token_indices=tuple(ids[0, :2].tolist())).attach(open_seams(model))
    assert len(delta.patches) == 3
    model(input_ids=ids).last_hidden_state.pow(2).mean().backward()
    assert _check_gradients(delta) == []
