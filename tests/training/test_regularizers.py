"""Regularizers against their formulas, in steps of the loop, among other trials, and through a checkpoint."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.models.test_ragged import FAMILIES
from tests.training.test_many import backbone, trial
from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.core.named import build_named
from tunesmith.core.registry import components
from tunesmith.methods.bitfit import BitFit
from tunesmith.methods.lora import Lora
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import ragged
from tunesmith.recipe.loading import load_recipe
from tunesmith.training.checkpoints import Checkpoint
from tunesmith.training.loop import Loop
from tunesmith.training.packing import packed, unpacked
from tunesmith.training.regularizing import Regularizing, noisy, whole_rows, zero_share
from tunesmith.training.trial import Trial


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, dtype=torch.float64, generator=draw)) for shape in shapes]


def moved(written: list[Any]) -> tuple[Regularizing, list[nn.Parameter], list[torch.Tensor]]:
    """Regularize parameters, and move them away from their start."""
    own = parameters((3, 2), (4,))
    start = [one.detach().clone() for one in own]
    found = Regularizing(written, own[:1], own[1:], 0)
    with torch.no_grad():
        for one in own:
            one.mul_(1.5).add_(0.1)
    return found, own, start


def test_penalties_are_their_formulas_and_add_up() -> None:
    for on, chosen in (("all", [0, 1]), ("delta", [0]), ("head", [1])):
        forms = {
            "l1": lambda w, u: 0.3 * sum(abs(x) for x in w),
            "l2": lambda w, u: 0.15 * sum(x**2 for x in w),
            "l2-start": lambda w, u: 0.15 * sum((x - y) ** 2 for x, y in zip(w, u, strict=True)),
        }
        total = 0.0
        for name, form in forms.items():
            found, own, start = moved([{"name": name, "strength": 0.3, "on": on}])
            expected = sum(form(own[n].flatten().tolist(), start[n].flatten().tolist()) for n in chosen)
            value = found.penalty()
            assert value is not None and value.item() == pytest.approx(expected, rel=1e-12)
            total += expected
        together, own, _ = moved([{"name": name, "strength": 0.3, "on": on} for name in forms])
        value = together.penalty()
        assert value is not None and value.item() == pytest.approx(total, rel=1e-12)
    assert Regularizing([], parameters((2, 2)), [], 0).penalty() is None


def test_mixout_keeps_the_mean_and_its_gradient_is_that_of_the_mixture() -> None:
    written = {"name": "mixout", "probability": 0.4}
    found, own, start = moved([written])
    before = [one.detach().clone() for one in own]
    means, count = [torch.zeros_like(one) for one in own], 4000
    for _ in range(count):
        found.enter()
        for mean, one in zip(means, own, strict=True):
            mean.add_(one.detach() / count)
        found.leave()
        assert all(torch.equal(a, b) for a, b in zip(own, before, strict=True))
    for mean, one, first in zip(means, before, start, strict=True):
        assert (mean - one).abs().max() < 6 * ((one - first).abs().max() * math.sqrt(0.4 / 0.6) / math.sqrt(count))
    found.enter()
    mixed = [one.detach().clone() for one in own]
    torch.stack([one.pow(3).sum() for one in own]).sum().backward()
    found.leave()
    for one, value, first, new in zip(own, before, start, mixed, strict=True):
        at_start = torch.isclose(new, first, rtol=1e-12)
        expected = torch.where(at_start, first, (value - 0.4 * first) / 0.6)
        torch.testing.assert_close(new, expected)
        slope = torch.where(at_start, 0.0, 1 / 0.6)
        torch.testing.assert_close(one.grad, 3 * new**2 * slope)


def test_averages_are_their_formulas() -> None:
    for written in ({"name": "ema", "decay": 0.8}, {"name": "weight-averaging", "start": 0.4}):
        own = parameters((3, 2))
        found, history = Regularizing([written], own, [], 0), [own[0].detach().clone()]
        for step in range(1, 11):
            with torch.no_grad():
                own[0].mul_(0.9).add_(0.05 * step)
            history.append(own[0].detach().clone())
            found.average(step, 10)
        if written["name"] == "ema":
            expected = history[0]
            for step, one in enumerate(history[1:], 1):
                decay = min(0.8, (1 + step) / (10 + step))
                expected = decay * expected + (1 - decay) * one
        else:
            expected = torch.stack(history[5:]).mean(0)
        torch.testing.assert_close(found.answers()[id(own[0])], expected, rtol=1e-12, atol=0)


def test_noise_on_embeddings_is_uniform_and_as_long_as_the_paper_says() -> None:
    lengths = torch.tensor([4.0] * 4 + [25.0] * 25)
    one = build_named("regularizers", {"name": "embedding-noise", "alpha": 5.0})
    drawn = one.noise(torch.Size((29, 64)), lengths, torch.Generator().manual_seed(0))
    for rows, length in ((drawn[:4], 4), (drawn[4:], 25)):
        bound = 5 / math.sqrt(length * 64)
        assert 0.97 * bound < rows.abs().max() <= bound
        assert rows.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_noise_goes_by_the_lengths_of_whole_rows_where_a_prompt_is_shared() -> None:
    torch.manual_seed(0)
    model = LanguageModel(transformers.AutoModelForCausalLM.from_config(FAMILIES["llama"]()).eval())
    begin, seen = torch.arange(20, 50), list[tuple[int, list[int]]]()
    batch = ragged([torch.cat([begin, torch.full((length,), 60 + length)]) for length in (3, 9, 6)])

    class Noted:
        makes_noise = True

        def noise(self, shape: torch.Size, lengths: torch.Tensor) -> torch.Tensor:
            seen.append((shape[0], lengths.unique().tolist()))
            return torch.zeros(shape)

    noted: Any = [SimpleNamespace(name="a", regularizing=Noted())]
    with whole_rows(model, noted), noisy(model, noted):
        assert model.spared(batch) == 0, "no pass begins with a prompt that has run"
        model.hidden_at(batch, torch.tensor([35, 70]))
        model.hidden_behind(batch, [[5], [6, 7]])
    assert seen[0] == (33 + 36 + 39, [33, 36, 39])
    assert seen[1] == (2 * (33 + 36 + 39) + 9, [34, 35, 37, 38, 40, 41])
    assert model.spared(batch) == 30


CASES: dict[str, list[Any]] = {
    "l1": ["l1"],
    "l2": [{"name": "l2", "on": "delta"}],
    "l2-start": ["l2-start"],
    "mixout": ["mixout"],
    "embedding-noise": ["embedding-noise"],
    "l0": ["l0", "mixout"],
    "sparse": [{"name": "sparse", "zeros": 0.3}],
    "ema": ["ema", "l2"],
    "weight-averaging": [{"name": "weight-averaging", "start": 0.3}, "mixout"],
}
SHORT = {"epochs": 3, "learning_rate": 5e-3, "schedule": "constant"}


def run(trials: list[Trial], steps: int | None = None) -> Loop:
    """Train to the end, or make some steps."""
    loop = Loop(trials)
    if steps is None:
        loop.fit(lambda *_: None)
        return loop
    for one in trials:
        one.seed_dropout()
    for _ in range(steps):
        loop._timed([(one, one.take()) for one in loop.trials], lambda *_: None)
        loop.steps += 1
        for one in trials:
            if one.epoch_ended:
                one.close_epoch()
    return loop


def same(first: Trial, second: Trial) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.tuned.parameters(), second.tuned.parameters(), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_regularizer_changes_training_and_goes_on_from_a_checkpoint_to_the_bit(case: str) -> None:
    assert not same(plain(), goes_on(regularizers=CASES[case]))


@pytest.mark.parametrize(
    "training",
    [
        *({"optimizer": name} for name in components("optimizers")),
        {"schedule": {"name": "plateau", "factor": 0.1, "threshold": 0.5}},
        {"schedule": "one-cycle"},
        {"balance": "oversample"},
        {"clip_value": 1e-3},
    ],
    ids=str,
)
def test_what_trains_goes_on_from_a_checkpoint_to_the_bit(training: dict[str, Any]) -> None:
    found = goes_on(**training)
    if training.get("schedule", {}) != "one-cycle" and "schedule" in training:
        rates = [row["learning_rate"] for row in found.trained.history]
        assert rates[-1] < rates[0]


@cache
def plain() -> Trial:
    """Without any; nothing changes it later."""
    found = fresh()
    run([found])
    return found


def fresh(**more: Any) -> Trial:
    return trial(backbone(0.1), Lora(rank=2, dropout=0.1), "a", 0, **{**SHORT, **more})


def goes_on(**training: Any) -> Trial:
    """Train at once, and in two parts with a checkpoint between them; both must be the same."""
    whole, begun, later = fresh(**training), fresh(**training), fresh(**training)
    run([whole])
    tensors: dict[str, torch.Tensor] = {}
    state = packed(run([begun], 13).state(), tensors)
    loop = Loop([later])
    loop.resume(Checkpoint(Path("x"), 13, {}, unpacked(state, {k: t.clone() for k, t in tensors.items()}), {}))
    loop.fit(lambda *_: None)
    assert same(whole, later)
    assert whole.trained.history == later.trained.history
    return whole


def test_every_regularizer_is_tried() -> None:
    assert set(CASES) == set(components("regularizers"))


def test_regularizers_of_one_trial_leave_the_others_alone() -> None:
    core = backbone(0.0)
    given = [["embedding-noise", "mixout", "l2"], [], ["ema"]]
    together = [trial(core, Lora(rank=2), f"t{n}", n, regularizers=some, **SHORT) for n, some in enumerate(given)]
    run(together)
    for number, some in enumerate(given):
        alone = trial(backbone(0.0), Lora(rank=2), f"t{number}", number, regularizers=some, **SHORT)
        run([alone])
        for a, b in zip(alone.tuned.parameters(), together[number].tuned.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_steps_are_counted_from_the_beginning_of_a_stage() -> None:
    """As of a round of self-training, which begins after the steps of the round before."""
    written = [{"name": "weight-averaging", "start": 0.75}, {"name": "sparse", "zeros": 0.5}]
    for one in written:
        own = trial(backbone(0.0), Lora(rank=2), "a", 0, epochs=2, batch_size=8, regularizers=[one])
        first = [parameter.detach().clone() for parameter in own.tuned.parameters()]
        own.trained.steps, own.stage = 100, (0, 100)
        Loop([own])._timed([(own, own.take())], lambda *_: None)
        answers = own.answers() or own.tuned.state()
        assert all(torch.equal(a, b) for a, b in zip(answers, own.tuned.parameters(), strict=True))
        zeros = [int((b == 0).sum()) for a, b in zip(first, own.tuned.parameters(), strict=True) if a.any()]
        assert max(zeros) <= 0.2 * max(one.numel() for one in first), "the share begins to rise anew"


def test_what_averages_answers_and_training_goes_on_from_the_parameters() -> None:
    for more in ({"regularizers": ["ema"]}, {"optimizer": "schedule-free"}):
        one = trial(backbone(0.0), Lora(rank=2), "a", 0, **SHORT, **more)
        loop, seen = Loop([one]), []
        validate = one.validate
        one.validate = lambda seen=seen, one=one, validate=validate: seen.append(one.tuned.state()) or validate()
        one.seed_dropout()
        while not one.epoch_ended or not one.trained.steps:
            loop._timed([(one, one.take())], lambda *_: None)
            loop.steps += 1
        training, answers = one.tuned.state(), one.answers()
        assert answers is not None
        one.close_epoch()
        assert all(torch.equal(a, b) for a, b in zip(seen[0], answers, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(one.tuned.state(), training, strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(training, answers, strict=True))
        one.finish()
        assert all(torch.equal(a, b) for a, b in zip(one.tuned.state(), answers, strict=True))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"regularizers": ["emma"]}, "unknown regularizer 'emma'; did you mean 'ema'"),
        ({"regularizers": ["ema", "weight-averaging"]}, "ema and weight-averaging would each answer with parameters"),
        ({"regularizers": ["ema"], "optimizer": "schedule-free", "schedule": "constant"}, "ema and schedule-free"),
        ({"regularizers": ["l1", "l1"]}, "l1 stands there twice"),
        ({"regularizers": ["sparse", "ema"]}, "sparse sets numbers to zero, and ema averages states"),
        (
            {"regularizers": ["sparse"], "optimizer": "schedule-free", "schedule": "constant"},
            "sparse sets numbers to zero, and schedule-free averages states",
        ),
        (
            {"regularizers": ["l0"], "keep_best": 2, "average_best": True},
            "l0 sets numbers to zero, and training.average_best averages states",
        ),
        ({"regularizers": [{"name": "mixout", "probability": 1.0}]}, "mixout.probability: 1.0 is not allowed"),
    ],
)
def test_what_is_refused(training: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({"data": {"train": "train.csv"}, "training": training})


def test_a_regularizer_without_parameters_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="l2 is on head, which has no parameters here"):
        Regularizing([{"name": "l2", "on": "head"}], parameters((2, 2)), [], 0)


def test_rates_of_parts() -> None:
    one = trial(backbone(0.0), BitFit(), "a", 0, **SHORT, part_learning_rates={"*query*": 1e-4})
    rates = {id(p): g["lr"] for g in one.optimizer._inner.param_groups for p in g["params"]}
    for name, parameter in one.tuned.delta.named_parameters():
        assert rates[id(parameter)] == (1e-4 if "query" in name else 5e-3)
    with pytest.raises(Exception, match="'nothing' fits no parameter of the delta"):
        trial(backbone(0.0), BitFit(), "b", 0, **SHORT, part_learning_rates={"nothing": 1e-4})


def test_gates_are_their_formulas() -> None:
    """Values and gradients of hard concrete gates, per number and per row, against autograd of eq. 10 to 13."""
    for per in ("number", "row"):
        own = parameters((3, 2), (4,))
        found = Regularizing([{"name": "l0", "per": per, "strength": 0.3, "open": 0.6}], own, [], 0)
        gates = found.gates
        assert gates is not None
        shapes = [(3, 2), (4,)] if per == "number" else [(3, 1), (4,)]
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for log_a in gates.logs:
                log_a.add_(torch.randn(log_a.shape, generator=draw, dtype=log_a.dtype))
        penalty = found.penalty()
        assert penalty is not None
        penalty.backward()
        uniform = torch.Generator().manual_seed(0)
        found.enter()
        values = [one.detach().clone() for one in own]
        torch.stack([one.pow(3).sum() for one in own]).sum().backward()
        found.leave()
        plain = [one.detach().clone().requires_grad_() for one in own]
        logs = [
            log_a.detach().clone().view(shape).requires_grad_() for log_a, shape in zip(gates.logs, shapes, strict=True)
        ]
        loss, expected = torch.zeros((), dtype=torch.float64), 0.0
        for one, log_a, value in zip(plain, logs, values, strict=True):
            u = torch.rand(log_a.shape, generator=uniform, dtype=torch.float64)
            s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_a) / (2 / 3))
            gated = one * torch.clamp(s * 1.2 - 0.1, 0, 1)
            torch.testing.assert_close(value, gated.detach(), rtol=1e-9, atol=1e-12)
            share = torch.sigmoid(log_a - 2 / 3 * math.log(0.1 / 1.1)).expand_as(one).sum() * 0.3 / 10
            loss, expected = loss + gated.pow(3).sum() + share, expected + share.item()
        loss.backward()
        assert penalty.item() == pytest.approx(expected, rel=1e-12)
        for one, other in zip([*own, *gates.logs], [*plain, *logs], strict=True):
            torch.testing.assert_close(one.grad.flatten(), other.grad.flatten(), rtol=1e-7, atol=1e-12)
        for answer, one, log_a in zip(gates.answers(), plain, logs, strict=True):
            settled = torch.clamp(torch.sigmoid(log_a) * 1.2 - 0.1, 0, 1)
            torch.testing.assert_close(answer, (one * settled).detach(), rtol=1e-12, atol=0)


def test_a_strong_l0_penalty_shuts_gates_and_the_share_of_zeros_is_in_the_history() -> None:
    shares = []
    for strength, rate in ((1e-3, 0.01), (20.0, 0.5)):
        written = [{"name": "l0", "strength": strength, "on": "delta", "per": "row", "rate": rate}]
        one = fresh(regularizers=written)
        run([one])
        row = one.trained.history[one.trained.best_epoch - 1]
        assert row["zero share"] == pytest.approx(zero_share(one.tuned.delta.parameters()))
        shares.append(one.trained.history[-1]["zero share"])
    assert shares[0] < 0.3 and shares[1] > 0.9


def test_sparse_training_keeps_so_many_zeros() -> None:
    for which in ("smallest", "drawn"):
        own = parameters((8, 4), (10,))
        found = Regularizing([{"name": "sparse", "zeros": 0.5, "which": which, "rising_fraction": 0.5}], own, [], 0)
        assert zero_share(own) == pytest.approx(0.0 if which == "smallest" else 21 / 42)
        first = [one.detach() == 0 for one in own]
        shares = []
        for step in range(1, 11):
            with torch.no_grad():
                for one in own:
                    one.add_(0.1 * step)
            before = [one.detach().clone() for one in own]
            found.thin(step, 10)
            shares.append(zero_share(own))
            for one, old in zip(own, before, strict=True):
                gone = (one == 0).flatten()
                if which == "smallest" and gone.any():
                    assert old.abs().flatten()[gone].max() <= old.abs().flatten()[~gone].min()
        if which == "smallest":
            wanted = [0.5 * (1 - (1 - min(1.0, step / 5)) ** 3) for step in range(1, 11)]
            assert shares == pytest.approx([(int(32 * s) + int(10 * s)) / 42 for s in wanted])
        else:
            assert all(torch.equal(one == 0, zeros) for one, zeros in zip(own, first, strict=True))
            assert set(shares) == {0.5}
