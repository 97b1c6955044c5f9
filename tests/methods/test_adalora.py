"""AdaLoRA against PEFT: the same budgets, the same kept ranks, the same logits, in both directions."""

import json
from pathlib import Path

import peft
import pytest
import torch
from peft.tuners.adalora.layer import RankAllocator
from safetensors.torch import load_file
from torch import nn

import tunesmith
from tests.methods.test_peft import BOUND, FAMILIES, run
from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError
from tunesmith.methods.adalora import AdaLora, AdaLoraPatch
from tunesmith.methods.store import load_delta, save_delta
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models

TARGETS = {"transposed-decoder": ["c_attn", "c_proj"], "encoder": ["query", "value"], "decoder": ["q_proj", "k_proj"]}
TOTAL = 20
# PEFT 0.21 says so of its own folders as well, and then does use them.
pytestmark = pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning")


def targets(family: str) -> list[str]:
    return TARGETS.get(family, ["q_proj", "v_proj"])


def config(family: str = "encoder", **settings: object) -> peft.AdaLoraConfig:
    given = {"init_r": 6, "target_r": 3, "lora_alpha": 5, "tinit": 2, "tfinal": 6, "total_step": TOTAL, **settings}
    return peft.AdaLoraConfig(target_modules=targets(family), fan_in_fan_out=family == "transposed-decoder", **given)


def method(family: str = "encoder", **settings: object) -> AdaLora:
    given = {"initial_rank": 6, "target_rank": 3, "alpha": 5.0, "initial_fraction": 0.1, "final_fraction": 0.3}
    return AdaLora(**{**given, "layers": tuple(targets(family)), **settings})


def shaken(delta: Delta) -> Delta:
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.3)
    return delta


def pruned(delta: Delta, ours: AdaLora, total: int = TOTAL) -> Delta:
    """Go through a run with random gradients."""
    draw = torch.Generator().manual_seed(3)
    for step in range(1, total + 1):
        for parameter in delta.parameters():
            parameter.grad = torch.randn(parameter.shape, dtype=parameter.dtype, generator=draw)
            parameter.data -= 0.01 * parameter.grad
        ours.adjust(delta, step, total)
        for parameter in delta.parameters():
            parameter.grad = None
    return delta


@pytest.mark.parametrize("first, final", [(0, 0), (2, 6), (5, 1)])
def test_budgets_are_pefts(first: int, final: int) -> None:
    theirs = RankAllocator.__new__(RankAllocator)
    theirs.peft_config = config(tinit=first, tfinal=final)
    theirs.init_bgt, theirs.target_bgt = 7 * 6, 7 * 3
    ours = method(initial_fraction=first / TOTAL, final_fraction=final / TOTAL)
    budgets = [ours.budget(step, TOTAL, maps=7) for step in range(1, TOTAL + 1)]
    assert budgets == [theirs.budget_schedule(step)[0] for step in range(1, TOTAL + 1)]
    assert budgets[0] > budgets[-1] == 21 and sorted(budgets, reverse=True) == budgets


@pytest.mark.parametrize("interval", [1, 3])
def test_the_same_gradients_keep_the_same_ranks_as_in_peft(interval: int) -> None:
    torch.manual_seed(1)
    theirs = peft.get_peft_model(tiny_models()["encoder"].build(), config(deltaT=interval)).double()
    ours = method(interval=interval)
    delta = shaken(ours.attach(open_seams(tiny_models()["encoder"].build().double())))
    pairs = {}
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            key = name.removeprefix("base_model.model.").removesuffix(".default")
            pairs[key] = (dict(delta.named_parameters())[key], parameter)
    draw, seen = torch.Generator().manual_seed(2), set()
    for mine, their in pairs.values():
        their.data.copy_(mine.data)
    for step in range(1, TOTAL + 1):
        for mine, their in pairs.values():
            mine.grad = torch.randn(mine.shape, dtype=torch.float64, generator=draw)
            their.grad = mine.grad.clone()
            mine.data -= 0.05 * mine.grad
            their.data -= 0.05 * their.grad
        ours.adjust(delta, step, TOTAL)
        theirs.base_model.update_and_allocate(step)
        for key, (mine, their) in pairs.items():
            assert torch.equal(mine, their), (step, key)
        zeros = [int((mine == 0).sum()) for key, (mine, _) in pairs.items() if key.endswith("lora_E")]
        seen.add(tuple(zeros))
    assert sum(zeros) == 4 * (6 - 3)  # the budget of 4 maps
    assert len(seen) > 3 and len(set(zeros)) > 1, "ranks must go step by step, and not evenly"


def test_ranks_stay_away_in_the_last_phase() -> None:
    ours = method()
    delta = pruned(shaken(ours.attach(open_seams(tiny_models()["encoder"].build().double()))), ours)
    ranks = [int((patch.lora_E != 0).sum()) for patch in delta.patches.values()]
    assert sum(ranks) == 4 * 3 and len(set(ranks)) > 1


def test_the_least_important_ranks_go_also_among_equals() -> None:
    """A map without gradients has no importance: it gives up its ranks, and never more than the budget asks."""
    ours = method(initial_fraction=0.0, final_fraction=0.0, target_rank=2)
    delta = shaken(ours.attach(open_seams(tiny_models()["encoder"].build().double())))
    dead, *alive = delta.patches.values()
    for step in range(1, 4):
        for patch in alive:
            for parameter in patch.parameters():
                parameter.grad = torch.ones_like(parameter)
        ours.adjust(delta, step, 3)
    assert not dead.lora_E.any()
    assert sum(int((patch.lora_E != 0).sum()) for patch in alive) == 4 * 2


def test_penalty_is_pefts() -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(5, 7, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = type("Output", (), {})()
            output.loss = self.query(x).sum()
            return output

    theirs = peft.get_peft_model(Scored(), peft.AdaLoraConfig(target_modules=["query"], total_step=9)).double()
    model = Scored()
    ours = AdaLora(layers="query", orthogonal_weight=0.5)
    delta = shaken(ours.attach(open_seams(model)))
    for name, parameter in theirs.base_model.model.query.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(dict(delta.named_parameters())[f"query.{name.removesuffix('.default')}"])
    x = torch.ones(2, 5, dtype=torch.float64)
    plain = theirs(x).loss.item()  # without a task type PEFT leaves the penalty out here
    penalty = ours.penalty(delta)
    assert penalty is not None
    assert penalty.item() == pytest.approx(theirs.base_model(x).loss.item() - plain, rel=1e-12)
    penalty.backward()
    assert all(p.grad.any() for name, p in delta.named_parameters() if not name.endswith("lora_E"))
    assert AdaLora(orthogonal_weight=0).penalty(delta) is None


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ours_loads_in_peft(family: str, cut: bool, tmp_path: Path) -> None:
    model = tiny_models()[family].build().double()
    ours = method(family)
    delta = shaken(ours.attach(open_seams(model)))
    if cut:
        pruned(delta, ours)
    save_delta(tmp_path, ours, delta, "tiny")
    expected = run(model, family)
    theirs = peft.PeftModel.from_pretrained(tiny_models()[family].build().double(), tmp_path).double()
    difference = (run(theirs, family) - expected).abs().max()
    assert difference <= BOUND[family] * expected.abs().max()
    assert (run(model, family) - run(tiny_models()[family].build().double(), family)).abs().max() > 1e-3

    again = tiny_models()[family].build().double()
    loaded, kept = load_delta(tmp_path, open_seams(again))
    assert loaded == ours
    assert (run(again, family) - expected).abs().max() <= 1e-12 * expected.abs().max()
    ranks = [len(patch.lora_E) for patch in kept.patches.values()]
    assert sum(ranks) == len(ranks) * (3 if cut else 6)
    save_delta(tmp_path / "again", loaded, kept, "tiny")  # ranks that are gone stay gone
    theirs = peft.PeftModel.from_pretrained(tiny_models()[family].build().double(), tmp_path / "again").double()
    assert (run(theirs, family) - expected).abs().max() <= BOUND[family] * expected.abs().max()


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_here(family: str, cut: bool, tmp_path: Path) -> None:
    torch.manual_seed(4)
    theirs = peft.get_peft_model(tiny_models()[family].build(), config(family)).double().eval()
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    for step in range(1, TOTAL + 1 if cut else 1):
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.grad = torch.randn_like(parameter)
        theirs.base_model.update_and_allocate(step)
    theirs.save_pretrained(tmp_path)
    model = tiny_models()[family].build().double()
    delta = tunesmith.attach(model, tmp_path)
    expected = run(theirs, family)
    assert (run(model, family) - expected).abs().max() <= BOUND[family] * expected.abs().max()
    ranks = [len(patch.lora_E) for patch in delta.patches.values()]
    assert sum(ranks) == len(ranks) * (3 if cut else 6)


def test_a_convolution_is_pefts(tmp_path: Path) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 2, stride=2)).double()

    model, x = net(), torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = AdaLora(initial_rank=4, target_rank=2, layers=("0", "2"))
    delta = pruned(shaken(ours.attach(open_seams(model))), ours)
    save_delta(tmp_path, ours, delta, "tiny")
    theirs = peft.PeftModel.from_pretrained(net(), tmp_path).double()
    assert (theirs.base_model(x) - model(x)).abs().max() <= 1e-10 * model(x).abs().max()
    tuned = model(x)
    assert (delta.merge()(x) - tuned).abs().max() <= 1e-12 * tuned.abs().max()


def test_grouped_convolutions_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="method adalora: '0' is a convolution in 4 groups"):
        AdaLora(layers="0").attach(open_seams(nn.Sequential(nn.Conv2d(8, 8, 3, groups=4))))


def test_the_file_holds_only_kept_ranks(tmp_path: Path) -> None:
    model = tiny_models()["encoder"].build().double()
    ours = method()
    delta = shaken(ours.attach(open_seams(model)))
    first = next(iter(delta.patches.values()))
    assert isinstance(first, AdaLoraPatch)
    first.lora_E.data.zero_()  # a map may lose all its ranks
    second = list(delta.patches.values())[1]
    second.lora_E.data[1:3] = 0.0
    save_delta(tmp_path, ours, delta, "tiny")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    shapes = sorted({tuple(tensor.shape) for name, tensor in tensors.items() if name.endswith("lora_A")})
    assert shapes == [(0, 32), (4, 32), (6, 32)] and not any("ranknum" in name for name in tensors)
    pattern = json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    assert list(map(sum, pattern.values())) == [0, 4, 6, 6]
    expected = run(model, "encoder")
    loaded = tiny_models()["encoder"].build().double()
    tunesmith.attach(loaded, tmp_path)
    assert (run(loaded, "encoder") - expected).abs().max() <= 1e-12
    theirs = peft.PeftModel.from_pretrained(tiny_models()["encoder"].build().double(), tmp_path).double()
    assert (run(theirs, "encoder") - expected).abs().max() <= 1e-10


def test_a_loaded_delta_trains_on_with_its_ranks(tmp_path: Path) -> None:
    ours = method()
    delta = pruned(shaken(ours.attach(open_seams(tiny_models()["encoder"].build().double()))), ours)
    save_delta(tmp_path, ours, delta, "tiny")
    loaded, again = load_delta(tmp_path, open_seams(tiny_models()["encoder"].build().double()))
    assert isinstance(loaded, AdaLora)
    before = [len(patch.lora_E) for patch in again.patches.values()]
    pruned(again, loaded)
    assert [int((patch.lora_E != 0).sum()) for patch in again.patches.values()] == before


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("final", [0.0, 0.3, 0.8])
def test_the_shortest_runs_reach_the_target(total: int, final: float) -> None:
    ours = method(final_fraction=final)
    delta = pruned(shaken(ours.attach(open_seams(tiny_models()["encoder"].build().double()))), ours, total)
    assert sum(int((patch.lora_E != 0).sum()) for patch in delta.patches.values()) == 4 * 3


def test_settings_that_leave_nothing_to_prune_are_refused(tmp_path: Path) -> None:
    model = tiny_models()["encoder"].build()
    with pytest.raises(RecipeError, match=r"target_rank: 8 is not allowed.*at most initial_rank \(4\)"):
        tunesmith.attach(model, "adalora", initial_rank=4)
    with pytest.raises(RecipeError, match=r"final_fraction: 0.3 is not allowed.*initial_fraction \(0.7\).*below 1"):
        tunesmith.attach(model, "adalora", initial_fraction=0.7)
    peft.get_peft_model(tiny_models()["encoder"].build(), config(lora_alpha=0)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json.*alpha"):
        tunesmith.attach(model, tmp_path)
