"""The optimizer: each update rule against torch's or the paper's formula, clipping, scaling, and going on."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.test_many import backbone, trial
from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.core.registry import components
from tunesmith.methods.base import Method
from tunesmith.methods.fusion import Fusion
from tunesmith.methods.ia3 import Ia3
from tunesmith.methods.lora import Lora
from tunesmith.methods.norm import Norm
from tunesmith.recipe.loading import load_recipe
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.training.loop import Loop
from tunesmith.training.optimizing import Optimizer
from tunesmith.training.packing import packed, unpacked

STEPS, RATE, DECAY = 7, 0.05, 0.1


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, dtype=dtype, generator=draw)) for shape in ((3, 2), (4,), (2, 5))]


def pull(group: list[nn.Parameter], step: int) -> None:
    """Give gradients that change from step to step, in size and in sign."""
    for one in group:
        one.grad = torch.cos((3.0 + step) * one.detach()) + 0.1 * one.detach() ** 3


def settings(optimizer: Any, **changed: Any) -> TrainingSettings:
    plain = {"weight_decay": DECAY, "warmup_fraction": 0.0, "schedule": "constant", "clip_norm": None}
    return TrainingSettings(**{"optimizer": optimizer, **plain, **changed})


def trained(optimizer: Any, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    ours = parameters(dtype)
    found = Optimizer([(ours[:2], RATE), (ours[2:], RATE / 2)], settings(optimizer), STEPS, head=ours[2:])
    for step in range(STEPS):
        pull(ours, step)
        found.step()
    return ours


Groups = list[dict[str, Any]]
TORCH: dict[str, tuple[dict[str, Any], Callable[[Groups], torch.optim.Optimizer]]] = {
    "descent": ({"name": "sgd", "momentum": 0.0}, torch.optim.SGD),
    "momentum": ({"name": "sgd"}, lambda groups: torch.optim.SGD(groups, momentum=0.9)),
    "nesterov": (
        {"name": "sgd", "momentum": 0.8, "nesterov": True},
        lambda groups: torch.optim.SGD(groups, momentum=0.8, nesterov=True),
    ),
    "adagrad": ({"name": "adagrad"}, torch.optim.Adagrad),
    "rmsprop": (
        {"name": "rmsprop", "momentum": 0.5, "centered": True},
        lambda groups: torch.optim.RMSprop(groups, momentum=0.5, centered=True),
    ),
    "adam": ({"name": "adam", "amsgrad": True}, lambda groups: torch.optim.Adam(groups, amsgrad=True)),
    "adamw": ({"name": "adamw"}, torch.optim.AdamW),
    "adafactor": ({"name": "adafactor"}, torch.optim.Adafactor),
}


@pytest.mark.parametrize("case", TORCH)
def test_an_optimizer_equals_torchs(case: str) -> None:
    named, build = TORCH[case]
    theirs = parameters()
    reference = build(
        [
            {"params": theirs[:1], "weight_decay": DECAY, "lr": RATE},
            {"params": theirs[1:2], "weight_decay": 0.0, "lr": RATE},
            {"params": theirs[2:], "weight_decay": DECAY, "lr": RATE / 2},
        ]
    )
    for step in range(STEPS):
        pull(theirs, step)
        reference.step()
    for ours, one in zip(trained(named), theirs, strict=True):
        torch.testing.assert_close(ours, one, rtol=1e-12, atol=0)


def written_out(update: Callable[[Tensor, Tensor, dict[str, Any], float, float], Tensor]) -> list[Tensor]:
    """Carry out a formula: (w, g, state, rate, decay) -> w."""
    found = []
    for number, start in enumerate(parameters()):
        one, state = nn.Parameter(start.detach().clone()), dict[str, Any]()
        for step in range(STEPS):
            pull([one], step)
            assert one.grad is not None
            rate, decay = (RATE / 2 if number == 2 else RATE), (0.0 if number == 1 else DECAY)
            one.data = update(one.data, one.grad, state, rate, decay)
        found.append(one.data)
    return found


def test_lion_is_the_papers_formula() -> None:
    def update(w: Tensor, g: Tensor, state: dict[str, Any], rate: float, decay: float) -> Tensor:
        m = state.get("m", torch.zeros_like(w))
        state["m"] = 0.99 * m + 0.01 * g
        return w - rate * (torch.sign(0.9 * m + 0.1 * g) + decay * w)

    for ours, theirs in zip(trained("lion"), written_out(update), strict=True):
        torch.testing.assert_close(ours.data, theirs, rtol=1e-12, atol=0)


def test_adam_and_descent_are_the_papers_formulas() -> None:
    def adam(w: Tensor, g: Tensor, state: dict[str, Any], rate: float, decay: float) -> Tensor:
        g, t = g + decay * w, state.get("t", 0) + 1
        m = 0.9 * state.get("m", 0) + 0.1 * g
        v = 0.999 * state.get("v", 0) + 0.001 * g**2
        state.update(t=t, m=m, v=v)
        return w - rate * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)

    def descent(w: Tensor, g: Tensor, state: dict[str, Any], rate: float, decay: float) -> Tensor:
        return w - rate * (g + decay * w)

    for named, formula in (("adam", adam), ({"name": "sgd", "momentum": 0.0}, descent)):
        for ours, theirs in zip(trained(named), written_out(formula), strict=True):
            torch.testing.assert_close(ours.data, theirs, rtol=1e-10, atol=1e-14)


def test_schedule_free_is_the_papers_formula_and_answers_with_the_average() -> None:
    averages = []

    def update(y: Tensor, g: Tensor, state: dict[str, Any], rate: float, decay: float) -> Tensor:
        t, z, x = state.get("t", 0) + 1, state.get("z", y), state.get("x", y)
        v = 0.999 * state.get("v", 0) + 0.001 * g**2
        gamma = rate * math.sqrt(1 - 0.999**t)
        z = z - gamma * (g / (torch.sqrt(v) + 1e-8) + decay * y)
        total = state.get("total", 0.0) + gamma**2
        c = gamma**2 / total
        x = (1 - c) * x + c * z
        state.update(t=t, z=z, x=x, v=v, total=total)
        if t == STEPS:
            averages.append(x)
        return 0.1 * z + 0.9 * x

    expected, ours = written_out(update), parameters()
    found = Optimizer([(ours[:2], RATE), (ours[2:], RATE / 2)], settings("schedule-free"), STEPS)
    before = found.answering()
    assert before is not None and all(torch.equal(a, b) for a, b in zip(before, found.parameters, strict=True))
    for step in range(STEPS):
        pull(ours, step)
        found.step()
    answers = found.answering()
    assert answers is not None
    by_parameter = dict(zip(map(id, found.parameters), answers, strict=True))
    for one, y, x in zip(ours, expected, averages, strict=True):
        torch.testing.assert_close(one.data, y, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(by_parameter[id(one)], x, rtol=1e-12, atol=1e-15)


def test_muon_is_torchs_for_matrices_and_adamw_for_vectors_and_the_head() -> None:
    theirs = parameters()
    muon = torch.optim.Muon(theirs[:1], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": theirs[1:2], "weight_decay": 0.0}, {"params": theirs[2:], "weight_decay": DECAY, "lr": RATE / 2}],
        lr=RATE,
    )
    for step in range(STEPS):
        pull(theirs, step)
        muon.step()
        adamw.step()
    for ours, one in zip(trained("muon"), theirs, strict=True):
        torch.testing.assert_close(ours, one, rtol=1e-12, atol=0)
    with pytest.raises(CompatibilityError, match="muon is for matrices, and the method trains none"):
        Optimizer([([theirs[1]], RATE)], settings("muon"), STEPS)
    with pytest.raises(CompatibilityError, match="muon is for matrices, and the method trains none"):
        Optimizer([([theirs[0]], RATE)], settings("muon"), STEPS, still=[theirs[0]])


def test_kernels_beside_matrices_leave_those_to_muon() -> None:
    def moved(*more: nn.Parameter) -> torch.Tensor:
        weight = parameters()[0]
        found = Optimizer([([weight, *more], RATE)], settings("muon"), STEPS)
        pull([weight, *more], 0)
        found.step()
        return weight.detach()

    kernel = nn.Parameter(torch.ones(2, 3, 3, 3, dtype=torch.float64))
    assert torch.equal(moved(kernel), moved()) and bool((kernel != 1).all())


def test_adamw_in_8_bits_is_torchaos() -> None:
    from torchao.optim.adam import single_param_adam
    from torchao.optim.subclass_8bit import OptimState8bit

    draw = torch.Generator().manual_seed(0)
    start = torch.randn(20, 256, generator=draw)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    found = Optimizer([([ours], RATE)], settings("adamw-8bit"), STEPS)
    mean, square = (OptimState8bit.zeros(theirs.shape, signed, 256) for signed in (True, False))
    for step in range(STEPS):
        ours.grad = torch.randn(20, 256, generator=draw)
        gradient = ours.grad.clone()
        found.step()
        count, rate = torch.tensor(step + 1.0), torch.tensor(RATE)
        given = (theirs.detach(), gradient, count, mean, square, None, rate, 0.9, 0.999, DECAY, 1e-8, True, False)
        single_param_adam(*given)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # float32, steps of 0.05
    (state,) = found.state()["optimizer"].values()
    kept = sum(state[key].nbytes for key in ("mean", "mean_scale", "square", "square_scale"))
    assert kept == 2 * (start.numel() + 4 * start.numel() // 256)


def test_adamw_in_8_bits_goes_on_to_the_bit_and_stays_near_adamw() -> None:
    def fresh(start: Tensor) -> tuple[nn.Parameter, Optimizer]:
        one = nn.Parameter(start.clone())
        return one, Optimizer([([one], RATE)], settings({"name": "adamw-8bit", "smallest": 0}), STEPS)

    start = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))  # no whole number of blocks
    (whole, straight), exact = fresh(start), nn.Parameter(start.clone())
    reference = torch.optim.AdamW([exact], lr=RATE, weight_decay=DECAY)
    later = None
    for step in range(STEPS):
        pull([whole, exact], step)
        straight.step()
        reference.step()
        if later is not None:
            pull([later[0]], step)
            later[1].step()
        if step == 2:
            tensors: dict[str, Tensor] = {}
            plain = packed(straight.state(), tensors)
            later = fresh(whole.detach())
            later[1].resume(unpacked(plain, {key: one.clone() for key, one in tensors.items()}))
    assert later is not None and torch.equal(later[0], whole)
    moved = (exact - start).abs().mean()
    assert 0 < (whole - exact).abs().mean() < 0.1 * moved


@pytest.mark.parametrize("name", components("optimizers"))
def test_an_optimizer_that_goes_on_from_its_state_makes_the_same_steps_to_the_bit(name: str) -> None:
    def fresh(start: list[nn.Parameter]) -> Optimizer:
        changed = {} if name == "schedule-free" else {"schedule": "cosine"}
        return Optimizer([(start[:2], RATE), (start[2:], RATE / 2)], settings(name, **changed), STEPS, head=start[2:])

    for dtype in (torch.float32, torch.float64):
        whole = parameters(dtype)
        straight = fresh(whole)
        for step in range(STEPS):
            pull(whole, step)
            straight.step()
            if step == 2:
                tensors: dict[str, Tensor] = {}
                plain = packed(straight.state(), tensors)
                kept = {key: tensor.clone() for key, tensor in tensors.items()}
                copies = [nn.Parameter(one.detach().clone()) for one in whole]
        later = fresh(copies)
        later.resume(unpacked(plain, kept))
        for step in range(3, STEPS):
            pull(copies, step)
            later.step()
        assert all(torch.equal(a, b) for a, b in zip(whole, copies, strict=True))
        first, second = straight.answering(), later.answering()
        assert (first is None) == (second is None)
        assert first is None or all(torch.equal(a, b) for a, b in zip(first, second or [], strict=True))


def test_equal_to_torch_adamw_with_clipping() -> None:
    ours, theirs = parameters()[:2], parameters()[:2]
    optimizer = Optimizer([(ours, 0.1)], settings("adamw", weight_decay=0.05, schedule="linear", clip_norm=0.5), 5)
    groups = [{"params": theirs[:1], "weight_decay": 0.05}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.1)
    for step in range(5):
        for group in (ours, theirs):
            sum((p**2 * (step + 1)).sum() for p in group).backward()
        for group in reference.param_groups:
            group["lr"] = 0.1 * (1 - step / 5)
        norm = nn.utils.clip_grad_norm_(theirs, 0.5)
        reference.step()
        reference.zero_grad()
        facts = optimizer.step()
        optimizer.clear()
        assert facts["gradient_norm"] == pytest.approx(norm.item())
        assert facts["learning_rate"] == pytest.approx(0.1 * (1 - step / 5))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "method", [Ia3(), Lora(rank=2, dora=True), Fusion(members=({"name": "lora", "rank": 2}, {"name": "ia3"}))],
    ids=["ia3", "dora", "fusion"],
)  # fmt: skip
def test_factors_and_lengths_do_not_decay_whatever_their_shape(method: Method) -> None:
    own = trial(backbone(0.0), method, "a", 0, learning_rate=0.1, weight_decay=0.5)
    before = {name: one.detach().clone() for name, one in own.tuned.delta.named_parameters()}
    for one in own.optimizer.parameters:
        one.grad = torch.zeros_like(one)
    own.optimizer.step()
    moved = {name for name, one in own.tuned.delta.named_parameters() if not torch.equal(one, before[name])}
    still = {name for name in before if name.endswith((".ia3_l", ".lora_magnitude_vector"))}
    zeros = {name for name, one in before.items() if not one.any()}
    assert still and moved == before.keys() - still - zeros


def test_dora_of_kernels_does_not_decay() -> None:
    assert not Lora(dora=True).decays("stem.lora_magnitude_vector") and Lora(dora=True).decays("stem.lora_A.weight")


def test_values_are_clipped_before_the_norm() -> None:
    one = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    plain = settings({"name": "sgd", "momentum": 0.0}, clip_value=2.0, clip_norm=1.5, weight_decay=0.0)
    optimizer = Optimizer([([one], 1.0)], plain, 1)
    one.grad = torch.tensor([5.0, -3.0, 1.0], dtype=torch.float64)
    assert optimizer.step()["gradient_norm"] == pytest.approx(35**0.5)  # before anything is clipped
    torch.testing.assert_close(one.data, torch.tensor([-1.0, 1.0, -0.5], dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_scaled_loss_takes_the_same_steps_and_leaves_out_those_that_overflow() -> None:
    for name in ("adamw", "muon", "lion"):

        def start(scaled: bool, name: str = name) -> tuple[nn.Parameter, Optimizer]:
            weight = nn.Parameter(torch.ones(3, 2))
            return weight, Optimizer([([weight], 1e-2)], settings(name, clip_norm=0.5), 10, scaled)

        (plain, ours), (other, scaled) = start(False), start(True)
        for step in range(3):
            facts = []
            for weight, optimizer in ((plain, ours), (other, scaled)):
                loss = (weight * (step + 1.0)).pow(2).sum()
                optimizer.scale(loss).backward()
                facts.append(optimizer.step())
                optimizer.clear()
            assert facts[0] == pytest.approx(facts[1], rel=1e-6)
        torch.testing.assert_close(plain, other)
        before = other.detach().clone()
        scaled.scale(other.sum() * float("inf")).backward()
        scaled.step()
        assert torch.equal(other, before) and scaled.left_out == 1
        assert other.grad is None, "what overflowed is nothing that a method may go by"


def test_states_come_back_in_the_layout_of_their_parameters() -> None:
    """Kernels of a convolution whose channels lie innermost; fused steps round otherwise where layouts differ."""

    def fresh(start: Tensor) -> tuple[nn.Parameter, Optimizer]:
        one = nn.Parameter(start.detach().clone())
        return one, Optimizer([([one], RATE)], settings("adamw"), STEPS)

    def kernels(seed: int) -> Tensor:
        drawn = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(seed))
        return drawn.to(memory_format=torch.channels_last)

    def step(one: nn.Parameter, optimizer: Optimizer, number: int) -> None:
        one.grad = kernels(number)
        optimizer.step()

    whole, straight = fresh(kernels(100))
    for number in range(2):
        step(whole, straight, number)
    tensors: dict[str, Tensor] = {}
    plain = packed(straight.state(), tensors)
    state = unpacked(plain, {key: one.clone() for key, one in tensors.items()})
    other, later = fresh(whole)
    later.resume(state)
    moments = [value for value in later.state()["optimizer"][0].values() if value.dim() == 4]
    assert len(moments) == 2 and all(one.stride() == whole.stride() != (72, 9, 3, 1) for one in moments)
    for number in range(2, 6):
        step(whole, straight, number)
        step(other, later, number)
    assert torch.equal(whole, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_16_bits_take_steps_below_their_last_digit(dtype: torch.dtype) -> None:
    """As copies of a 16-bit base's norms or biases; their numbers are float32's, rounded, through a checkpoint too."""

    def start(one: nn.Parameter, scaled: bool) -> Optimizer:
        return Optimizer([([one], 1e-4)], settings("adamw", weight_decay=0.0, clip_norm=0.5), 100, scaled)

    def step(one: nn.Parameter, optimizer: Optimizer) -> None:
        optimizer.scale((one.float() * torch.tensor([1.0, -2.0, 3.0])).sum()).backward()
        optimizer.step()
        optimizer.clear()
        assert one.grad is None

    wide, narrow = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, dtype=dtype))
    theirs, ours = start(wide, False), start(narrow, dtype == torch.float16)
    for _ in range(60):
        step(wide, theirs)
        step(narrow, ours)
    assert torch.equal(narrow, wide.to(dtype)) and not (narrow == 1).any()
    tensors: dict[str, Tensor] = {}
    state = unpacked(packed(ours.state(), tensors), tensors)
    other = nn.Parameter(narrow.detach().clone())
    again = start(other, dtype == torch.float16)
    again.resume(state)
    for _ in range(60):
        step(narrow, ours)
        step(other, again)
    assert torch.equal(other, narrow)
    with torch.no_grad():
        narrow.zero_()  # as something that thins a delta out does between steps
    step(narrow, ours)
    assert narrow.abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_copies_of_a_base_in_16_bits_train(dtype: torch.dtype) -> None:
    core = backbone(0.0)
    core.model.to(dtype)
    own = trial(core, Norm(), "a", 0, epochs=1, batch_size=16, learning_rate=1e-3)
    own.tuned.head.float()
    own.optimizer = own.new_optimizer()
    before = own.tuned.state()
    Loop([own]).fit(lambda *_: None)
    scales = [n for n, (name, _) in enumerate(own.tuned.delta.named_parameters()) if name.endswith("weight")]
    assert all(not torch.equal(own.tuned.state()[n], before[n]) for n in scales)


def test_a_recipe_names_an_optimizer_and_a_schedule() -> None:
    recipe = {"data": {"train": "train.csv"}, "training": {"optimizer": "sgd", "schedule": {"name": "step"}}}
    checked = load_recipe(recipe, ["training.schedule=exponential"])
    written = checked.resolved()["training"]
    assert written["optimizer"] == {"name": "sgd", "momentum": 0.9, "nesterov": False}
    assert written["schedule"] == {"name": "exponential", "end": 0.01}
    assert load_recipe(checked.resolved()).resolved() == checked.resolved()
    plain = load_recipe({"data": {"train": "train.csv"}}).resolved()["training"]
    assert (plain["optimizer"]["name"], plain["schedule"]) == ("adamw", {"name": "cosine", "end": 0.0})


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"optimizer": "adamww"}, "training.optimizer: .*unknown optimizer 'adamww'; did you mean 'adamw'"),
        ({"optimizer": {"name": "sgd", "momentun": 0.5}}, "sgd: unknown key 'momentun'; did you mean 'momentum'"),
        ({"optimizer": {"name": "sgd", "momentum": 1.5}}, "sgd.momentum: 1.5 is not allowed"),
        ({"optimizer": {"name": "sgd", "momentum": 0.0, "nesterov": True}}, "raise momentum"),
        ({"optimizer": 3}, "an optimizer is its name, or a mapping"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"schedule": {"name": "step", "places": [0.9, 0.1]}}, "the places must rise"),
        ({"optimizer": "schedule-free"}, "Set training.schedule=constant"),
        ({"schedule": "one-cycle", "warmup_fraction": 0.1}, "one-cycle rises by itself"),
        ({"part_learning_rates": {"*": 0.0}}, "part_learning_rates"),
    ],
)  # fmt: skip
def test_what_is_refused(training: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({"data": {"train": "train.csv"}, "training": training})
