"""LoRA with its options: equal to PEFT both ways, neutral at the start, mergeable, and true to the plain formulas."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

import tunesmith
from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError, TargetError
from tunesmith.methods.lora import Lora
from tunesmith.methods.store import load_delta, save_delta
from tunesmith.models.approximating import approximate
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.layout import ragged
from tunesmith.models.seams import open_seams
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.testing import tiny_models
from tunesmith.training.optimizing import Optimizer

# PEFT's notes on its own saving and merging
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(lora_bias|invalid shape):peft.utils.warning.PeftWarning"),
    pytest.mark.filterwarnings("ignore:PiSSA changes the base weights"),
]


def t5() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    return transformers.T5EncoderModel(config).eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return transformers.ResNetModel(config).eval()


def embedded() -> nn.Module:
    return tiny_models()["encoder"].build()


BUILD: dict[str, Callable[[], nn.Module]] = {
    **{name: tiny.build for name, tiny in tiny_models().items()}, "t5": t5, "resnet": resnet, "embedding": embedded,
}  # fmt: skip
LAYERS = {
    "encoder": ("query", "value", "output.dense"),
    "decoder": ("q_proj", "down_proj"),
    "transposed-decoder": ("c_attn", "c_proj"),
    "encoder-decoder": ("q_proj", "fc1"),
    "vision": ("q_proj", "fc1"),
    "t5": ("q", "wi"),
    "resnet": ("convolution",),
    "embedding": ("word_embeddings", "query"),
}
BOUND = dict.fromkeys(BUILD, 1e-10) | {"decoder": 1e-6}  # Llama's norms cast to float32 whatever the model's type
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank_stabilised": {"rank_stabilised": True},
    "dora": {"dora": True},
    "dora_stabilised": {"dora": True, "rank_stabilised": True, "alpha": 3.0},
    "orthogonal": {"init": "orthogonal"},
    "pissa": {"init": "pissa"},
    "pissa_stabilised": {"init": "pissa", "rank_stabilised": True, "alpha": 5.0},
    "dora_pissa": {"dora": True, "init": "pissa"},
    "bias_all": {"bias": "all"},
    "bias_adapted": {"bias": "adapted"},
    "b_bias": {"b_bias": True},
    "b_bias_adapted": {"b_bias": True, "bias": "adapted"},
}
CASES = [(family, option) for family in BUILD for option in OPTIONS if (family, option[:6]) != ("embedding", "b_bias")]


def inputs(family: str) -> dict[str, Tensor]:
    like = {"t5": "encoder", "embedding": "encoder", "resnet": "vision"}.get(family, family)
    found = tiny_models()[like].inputs()
    return {key: value.double() if value.is_floating_point() else value for key, value in found.items()}


def run(model: nn.Module, family: str) -> Tensor:
    with torch.no_grad():
        return model(**inputs(family)).last_hidden_state


def far(ours: Tensor, expected: Tensor) -> float:
    return float((ours - expected).abs().max() / expected.abs().max())


def shaken(delta: Delta) -> Delta:
    """Move every parameter away from its start."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return delta


def patterned(family: str) -> dict[str, Any]:
    first, *rest = LAYERS[family]
    return {"rank_pattern": {first: 2}, "alpha_pattern": {(rest or [first])[0]: 7.0}}


@pytest.mark.parametrize(("family", "option"), [*CASES, *((family, "patterns") for family in BUILD)])
def test_ours_loads_in_peft_and_here(family: str, option: str, tmp_path: Path) -> None:
    settings = patterned(family) if option == "patterns" else OPTIONS[option]
    method = Lora(rank=4, layers=LAYERS[family], **settings)
    model = BUILD[family]().double()
    save_delta(tmp_path, method, shaken(method.attach(open_seams(model))), "tiny")
    ours, base = run(model, family), run(BUILD[family]().double(), family)
    assert far(ours, base) > 1e-3
    again = BUILD[family]().double()
    assert load_delta(tmp_path, open_seams(again))[0] == method
    assert torch.equal(run(again, family), ours)
    theirs = peft.PeftModel.from_pretrained(BUILD[family]().double(), tmp_path).eval()
    assert far(ours, run(theirs, family)) <= BOUND[family]


PEFT_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "use_rslora": {"use_rslora": True},
    "use_dora": {"use_dora": True},
    "dora_rslora": {"use_dora": True, "use_rslora": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "bias_all": {"bias": "all"},
    "lora_only": {"bias": "lora_only"},
    "lora_bias": {"lora_bias": True},
    "lora_bias_all": {"lora_bias": True, "bias": "all"},
    "patterns": {},
}
PEFT_CASES = [(f, o) for f in BUILD for o in PEFT_OPTIONS if (f, o[:9]) != ("embedding", "lora_bias")]


@pytest.mark.parametrize(("family", "option"), PEFT_CASES)
def test_peft_loads_here(family: str, option: str, tmp_path: Path) -> None:
    more = dict(PEFT_OPTIONS[option])
    if option == "patterns":
        first, *rest = LAYERS[family]
        more = {"rank_pattern": {f".*{first[-4:]}": 2}, "alpha_pattern": {(rest or [first])[0]: 9}}
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=list(LAYERS[family]),
                             fan_in_fan_out=family == "transposed-decoder", **more)  # fmt: skip
    theirs = peft.get_peft_model(BUILD[family]().double(), config).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    theirs.save_pretrained(tmp_path)
    model = BUILD[family]().double()
    delta = tunesmith.attach(model, tmp_path)
    assert far(run(model, family), run(theirs, family)) <= BOUND[family]
    delta.detach()
    assert torch.equal(run(model, family), run(BUILD[family]().double(), family))


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
@pytest.mark.parametrize("dora", [False, True])
def test_convolutions_are_as_in_peft(kind: Any, dora: bool, tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(kind(3, 6, 3, stride=2, padding=1), nn.ReLU(), kind(6, 5, 1)).double()

    x = torch.randn(2, 3, *([9] * (2 if kind is nn.Conv2d else 1)), dtype=torch.float64)
    model, method = build(), Lora(rank=2, layers=("0", "2"), dora=dora, b_bias=not dora)
    save_delta(tmp_path, method, shaken(method.attach(open_seams(model))), "tiny")
    theirs = peft.PeftModel.from_pretrained(build(), tmp_path).eval()
    with torch.no_grad():
        assert far(model(x), theirs.base_model(x)) <= 1e-10


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_pissa_of_peft(rslora: bool, transposed: bool, tmp_path: Path) -> None:
    """PEFT takes the leading part out of the base weights; read here, the base stays as it is."""
    family = "transposed-decoder" if transposed else "encoder"
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=list(LAYERS[family]), init_lora_weights="pissa",
                             use_rslora=rslora, fan_in_fan_out=transposed)  # fmt: skip
    theirs = peft.get_peft_model(BUILD[family](), config).eval()
    start = tmp_path / "start"
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(start)  # the initial pair
    theirs.peft_config["default"].init_lora_weights = "pissa"
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    theirs.save_pretrained(tmp_path / "plain")
    expected = run(theirs, family)
    theirs.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(start))
    for folder in ("plain", "converted"):
        model = BUILD[family]()
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        tunesmith.attach(model, tmp_path / folder)
        assert far(run(model, family), expected) <= 1e-5
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("family", "option"), CASES)
def test_a_fresh_delta_is_neutral(family: str, option: str) -> None:
    model = BUILD[family]().double()
    base = run(model, family)
    delta = Lora(rank=3, layers=LAYERS[family], **OPTIONS[option]).attach(open_seams(model))
    assert far(run(model, family), base) <= (1e-6 if family == "decoder" else 1e-12)
    down, up = next(iter(delta.patches.values())).pair
    if OPTIONS[option].get("init") in ("pissa", "orthogonal"):
        assert down.abs().max() > 0 and up.abs().max() > 0, "both factors learn from the first step"


def test_pissa_starts_from_the_leading_part() -> None:
    model = BUILD["encoder"]().double()
    delta = Lora(rank=5, layers="query", init="pissa", alpha=3.0).attach(open_seams(model))
    for path, patch in delta.patches.items():
        left, size, right = torch.linalg.svd(delta.seams.linear[path].weight)
        down, up = patch.pair
        leading = left[:, :5] * size[:5] @ right[:5]
        assert torch.allclose(0.6 * up @ down, leading, atol=1e-12)
        assert patch.factors(delta.seams.linear[path])[0].shape == (10, 32), "the fused path serves it"


def test_a_wide_matrix_is_split_by_chance_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.models import starts

    torch.manual_seed(0)
    matrix = (torch.randn(90, 6) @ torch.randn(6, 80) + 0.01 * torch.randn(90, 80)).double()
    exact = starts.leading_factors(matrix, 6)
    monkeypatch.setattr(starts, "_EXACT", 10)
    found = starts.leading_factors(matrix, 6)
    assert [factor.shape for factor in found] == [(6, 80), (90, 6)]
    assert torch.allclose(found[1] @ found[0], exact[1] @ exact[0], atol=1e-8)


@pytest.mark.parametrize(("family", "option"), [case for case in CASES if case[0] not in ("decoder", "vision")])
def test_merging_changes_nothing(family: str, option: str) -> None:
    model = BUILD[family]().double()
    delta = shaken(Lora(rank=4, layers=LAYERS[family], **OPTIONS[option]).attach(open_seams(model)))
    tuned = run(model, family)
    assert far(run(delta.merge(), family), tuned) <= 1e-12


# DoRA ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["default", "pissa"])
@pytest.mark.parametrize("bias", [True, False])
def test_dora_gradients_are_those_of_the_plain_formula(bias: bool, init: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5, bias=bias)).double()
    delta = shaken(Lora(rank=2, layers="0", dora=True, init=init).attach(open_seams(model)))
    patch, seam = delta.patches["0"], delta.seams.linear["0"]
    x = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    wanted = (x, *delta.parameters())
    found = torch.autograd.grad(model(x).pow(2).sum(), wanted)

    down, up, scale = patch.product(seam)
    whole = seam.weight + scale * up @ down
    gain = patch.lora_magnitude_vector / whole.norm(dim=1).detach()
    y = x @ (gain[:, None] * whole).t() + (seam.bias if bias else 0.0)
    for ours, plain in zip(found, torch.autograd.grad(y.pow(2).sum(), wanted), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-11, atol=1e-12)


def test_dora_drops_as_peft_does(tmp_path: Path) -> None:
    """y = W x + (m / norm - 1) W d(x) + m / norm s B A d(x) + b, with one mask d."""
    model = nn.Sequential(nn.Linear(6, 5)).double()
    delta = shaken(Lora(rank=2, layers="0", dora=True, dropout=0.5).attach(open_seams(model)))
    delta.train(True)
    patch, seam = delta.patches["0"], delta.seams.linear["0"]
    x, kept = torch.randn(8, 6, dtype=torch.float64), []
    drop = seam.drop
    seam.drop = lambda x, rate: kept.append(drop(x, rate)) or kept[-1]  # type: ignore[method-assign]
    y = model(x)
    down, up, scale = patch.product(seam)
    gain = patch.lora_magnitude_vector / (seam.weight + scale * up @ down).norm(dim=1)
    plain = seam.base(x) + (gain - 1) * (kept[0] @ seam.weight.t()) + gain * scale * (kept[0] @ down.t() @ up.t())
    assert torch.allclose(y, plain, rtol=1e-12) and (kept[0] == 0).any()


def test_dora_norm_follows_every_change() -> None:
    """The norm is kept between passes; an optimizer's step, a load or a merge must renew it."""
    model = nn.Sequential(nn.Linear(6, 5)).double()
    seams = open_seams(model)
    other = shaken(Lora(rank=2, layers="0").attach(seams, "other"))
    delta = shaken(Lora(rank=2, layers="0", dora=True).attach(seams))
    patch, seam = delta.patches["0"], seams.linear["0"]

    def right() -> bool:
        down, up, scale = patch.product(seam)
        with torch.no_grad():
            return torch.allclose(patch.norm(seam), (seam.weight + scale * up @ down).norm(dim=1), rtol=1e-12)

    settings = TrainingSettings(weight_decay=0.0, warmup_fraction=0.0, schedule="constant", clip_norm=None)
    optimizer = Optimizer([(delta.parameters(), 0.1)], settings, total=9)
    state = delta.state()
    for _ in range(3):
        with torch.no_grad():
            before = patch.norm(seam).clone()
            assert patch.norm(seam) is patch.norm(seam), "kept while nothing changes"
        model(torch.randn(4, 6, dtype=torch.float64)).pow(2).sum().backward()
        optimizer.step()
        assert right() and not torch.equal(patch.norm(seam), before)
    delta.load(state)
    assert right()
    other.merge()
    assert right()


@pytest.mark.parametrize("small", [0, 2**18], ids=["narrow products", "formed"])
def test_dora_leaves_rows_of_zeros_alone(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their length is zero, and nothing may be divided by it."""
    monkeypatch.setattr("tunesmith.models.lora_patches._SMALL", small)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4))
    with torch.no_grad():
        model[0].weight[1] = 0
    x = torch.randn(3, 8)
    before = model(x)
    delta = tunesmith.attach(model, "lora", layers="0", dora=True, rank=2)
    assert torch.allclose(model(x), before, atol=1e-6)
    model(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in delta.parameters())
    delta.merge()
    assert torch.allclose(model(x), before, atol=1e-6)


@pytest.mark.parametrize("small", [0, 2**18], ids=["narrow products", "formed"])
def test_dora_norm_survives_cancelling_rows(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.models.lora_patches._SMALL", small)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12))
    delta = Lora(rank=12, layers="0", dora=True, alpha=12.0).attach(open_seams(model))
    patch, seam = delta.patches["0"], delta.seams.linear["0"]
    down, up = patch.pair
    left, size, right = torch.linalg.svd(seam.weight, full_matrices=False)
    with torch.no_grad():
        down.copy_(right)
        up.copy_(-(left * size) * 0.999)
        exact = (seam.weight.double() + up.double() @ down.double()).norm(dim=1)
    assert torch.allclose(patch.norm(seam).double(), exact, rtol=1e-3)


def test_dora_norm_is_the_same_from_narrow_products(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(16, 12)).double()
    delta = Lora(rank=3, layers="0", dora=True).attach(open_seams(model))
    shaken(delta)
    patch, seam = delta.patches["0"], delta.seams.linear["0"]
    formed = patch.norm(seam)
    monkeypatch.setattr("tunesmith.models.lora_patches._SMALL", 0)
    with torch.enable_grad():  # without gradients the norm is kept
        assert torch.allclose(patch.norm(seam), formed, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_dora_on_a_quantised_base(bits: str) -> None:
    pytest.importorskip("torchao")
    from tunesmith.models.quantized import quantise

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64))
    quantise(model, bits)
    x = torch.randn(5, 64)
    with torch.no_grad():
        base = model(x)
    delta = Lora(rank=4, layers="0", dora=True).attach(open_seams(model))
    patch, seam = delta.patches["0"], delta.seams.linear["0"]
    assert seam.quantised and far(model(x).detach(), base) <= 1e-6
    shaken(delta)
    down, up, scale = patch.product(seam)
    whole = seam.weight + scale * up @ down
    plain = (x @ whole.t()) * (patch.lora_magnitude_vector / whole.norm(dim=1)) + seam.bias
    assert far(model(x).detach(), plain.detach()) <= 1e-5


# Starting values from data ------------------------------------------------------------------------------------


def test_activations_catch_more_of_the_inputs_than_chance(tmp_path: Path) -> None:
    model = BUILD["encoder"]().double()
    method = Lora(rank=3, layers=LAYERS["encoder"], init="activations", rank_pattern={"value": 2})
    delta = method.attach(open_seams(model))
    assert method.data_driven and not Lora().data_driven
    base, seen = run(model, "encoder"), {}

    def note(path: str) -> Callable[..., None]:
        return lambda _, given: seen.update({path: given[0].flatten(0, 1)})

    hooks = [patch.register_forward_pre_hook(note(path)) for path, patch in delta.patches.items()]

    def caught() -> float:
        shares = []
        for path, patch in delta.patches.items():
            x, basis = seen[path], torch.linalg.qr(patch.pair[0].detach().t())[0]
            shares.append(float((x @ basis).square().sum() / x.square().sum()))
        return sum(shares) / len(shares)

    run(model, "encoder")
    chance = caught()
    method.initialise(delta, lambda: (run(model, "encoder"), None)[1])
    assert caught() > 0.5 > 2 * chance
    assert torch.equal(run(model, "encoder"), base), "B is zero"
    for path, patch in delta.patches.items():
        directions = torch.linalg.svd(seen[path])[2][: len(patch.pair[0])]
        assert torch.allclose((patch.pair[0] @ directions.t()).abs(), torch.eye(len(directions)).double(), atol=1e-6)
    for hook in hooks:
        hook.remove()
    save_delta(tmp_path, method, shaken(delta), "tiny")
    fresh = BUILD["encoder"]().double()
    load_delta(tmp_path, open_seams(fresh))
    assert torch.equal(run(fresh, "encoder"), run(model, "encoder"))


def test_activations_are_seen_where_maps_run_together() -> None:
    core = Backbone(BUILD["encoder"]())
    core.hidden(rows := ragged([[5, 6, 7, 8], [9, 10, 11, 12, 13]]))  # by now q, k and v are known to read one tensor
    method = Lora(rank=3, layers=("query", "key", "value", "output.dense"), init="activations")
    delta = method.attach(core.seams)
    before = delta.state()
    with torch.no_grad():
        method.initialise(delta, lambda: (core.hidden(rows), None)[1])
    assert not [name for name, now in delta.state().items() if "lora_A" in name and torch.equal(now, before[name])]


def test_activations_refuse_what_they_do_not_serve() -> None:
    with pytest.raises(CompatibilityError, match=r"init 'activations' serves plain linear maps; '.*' is a Conv2d"):
        Lora(layers="convolution", init="activations").attach(open_seams(resnet()))


class Rounded(Tensor):
    """A weight held in steps of 1/8: stands in for a quantised tensor."""

    def dequantize(self) -> Tensor:
        return self.as_subclass(Tensor)


def test_loftq_gives_back_what_quantising_took(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10))
    full = model[0].weight.detach().clone()
    with pytest.raises(CompatibilityError, match="of '0' its weight is not quantised"):
        Lora(layers="0", init="loftq").attach(open_seams(model))
    open_seams(model).close()
    rounded = (full * 8).round() / 8
    model[0].weight = nn.Parameter(rounded.as_subclass(Rounded), requires_grad=False)
    with pytest.raises(CompatibilityError, match="of '0' its full-precision weight is not at hand"):
        Lora(layers="0", init="loftq").attach(open_seams(model))
    model[0].__dict__["_full_precision"] = lambda: full
    method = Lora(rank=6, layers="0", init="loftq")
    delta = method.attach(open_seams(model))
    change = delta.patches["0"].weight_change(delta.seams.linear["0"])
    left, size, right = torch.linalg.svd(full - rounded)
    assert torch.allclose(change, left[:, :6] * size[:6] @ right[:6], atol=1e-6)
    assert (rounded + change - full).norm() < 0.7 * (rounded - full).norm()
    save_delta(tmp_path, method, delta, "tiny")
    delta.detach()
    del model[0].__dict__["_full_precision"]
    loaded = load_delta(tmp_path, open_seams(model))[1]  # needs no original weight any more
    assert torch.equal(loaded.patches["0"].weight_change(delta.seams.linear["0"]), change)


# Settings -----------------------------------------------------------------------------------------------------


def test_b_learns_at_its_own_rate() -> None:
    method = Lora(rank=2, layers=("query", "word_embeddings"), dora=True, b_rate_ratio=16.0)
    delta = method.attach(open_seams(BUILD["encoder"]()))
    rates = {name: method.rate_ratio(name) for name, _ in delta.named_parameters()}
    for name, rate in rates.items():
        assert rate == (16.0 if "lora_B" in name or "embedding_B" in name else 1.0), name
    assert set(rates.values()) == {1.0, 16.0}
    assert {Lora().rate_ratio(name) for name in rates} == {1.0}


def test_patterns_choose_rank_and_alpha() -> None:
    method = Lora(rank=4, layers=LAYERS["encoder"], rank_pattern={"re:.*layer.0.*query": 1, "*.value": 2, "query": 3},
                  alpha_pattern={"value": 5.0})  # fmt: skip
    delta = method.attach(open_seams(BUILD["encoder"]()))
    first, second = "encoder.layer.0.attention.self", "encoder.layer.1.attention.self"
    ranks = {path: len(patch.pair[0]) for path, patch in delta.patches.items()}
    assert (ranks[f"{first}.query"], ranks[f"{second}.query"], ranks[f"{first}.value"]) == (1, 3, 2)
    assert ranks["encoder.layer.0.output.dense"] == 4
    assert delta.patches[f"{first}.value"].scale == 2.5
    assert delta.patches[f"{first}.query"].scale == 2.0, "alpha is twice the layer's own rank"
    stabilised = Lora(rank=4, alpha=6.0, rank_stabilised=True, layers="query")
    assert stabilised.layer_scale("query") == 6.0 / math.sqrt(4)


@pytest.mark.parametrize("setting", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize(("entry", "message"), [
    ("quary", r"{}: 'quary' matches none of the 2 adapted layers of BertModel\. They end in: query\."),
    ("value", r"{}: 'value' matches none of the 2 adapted layers"),
    ("re:(", r"{}: 're:\(' is not a regular expression"),
])  # fmt: skip
def test_bad_patterns_are_named(setting: str, entry: str, message: str) -> None:
    method = Lora(layers="query", **{setting: {entry: 3}})
    with pytest.raises(TargetError, match=message.format(setting)):
        method.attach(open_seams(BUILD["encoder"]()))


def test_bad_values_are_named() -> None:
    model = BUILD["encoder"]()
    with pytest.raises(RecipeError, match="'query' = 0 must be above 0"):
        tunesmith.attach(model, "lora", rank_pattern={"query": 0})
    with pytest.raises(RecipeError, match="set one of dora and b_bias"):
        tunesmith.attach(model, "lora", dora=True, b_bias=True)
    with pytest.raises(CompatibilityError, match=r"'embeddings.word_embeddings' is an embedding; b_bias"):
        tunesmith.attach(model, "lora", layers="word_embeddings", b_bias=True)


def test_warnings() -> None:
    seams = open_seams(BUILD["encoder"]())
    method = Lora(rank=4, layers=("query", "word_embeddings"), rank_pattern={"query": 40}, dropout=0.1)
    wide, dropout = method.warnings(seams)
    assert wide.startswith("method.rank=40 is above the width of 2 of 3 layers")
    assert dropout == "method.dropout=0.1 does not apply to embeddings ('embeddings.word_embeddings')."
    delta = method.attach(seams)
    delta.train(True)
    assert torch.isfinite(run(seams.model, "encoder")).all()


def test_grouped_convolutions_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(CompatibilityError, match="'0' is a convolution in 2 groups"):
        Lora(layers="0").attach(open_seams(model))
    delta = tunesmith.attach(model, "loha", layers="0")
    with pytest.raises(CompatibilityError, match="LoRA: '0' is a convolution in 2 groups"):
        approximate(delta.seams, delta.patches, 0.1, None)


@pytest.mark.parametrize(("option", "value"), [
    ("use_qalora", True), ("alora_invocation_tokens", [1, 2]), ("trainable_token_indices", [3]),
    ("target_parameters", ["a.b"]), ("layer_replication", [[0, 1]]), ("kasa_config", {"beta": 1}),
])  # fmt: skip
def test_what_we_lack_is_refused(option: str, value: object, tmp_path: Path) -> None:
    rewritten(tmp_path, {option: value})
    with pytest.raises(CheckpointError, match=f"option '{option}' = .* of PEFT's LORA is not supported"):
        tunesmith.attach(BUILD["encoder"](), tmp_path)


@pytest.mark.parametrize("start", ["olora", "corda", "lora_ga", "loftq", "pissa_niter_4"])
def test_starts_that_need_another_base_are_refused(start: str, tmp_path: Path) -> None:
    rewritten(tmp_path, {"init_lora_weights": start})
    with pytest.raises(CheckpointError, match=f"'{start}' changed the base weights.*path_initial_model"):
        tunesmith.attach(BUILD["encoder"](), tmp_path)


def rewritten(folder: Path, change: dict[str, object]) -> None:
    """Save a PEFT folder with other words in its config."""
    model = peft.get_peft_model(BUILD["encoder"](), peft.LoraConfig(r=4, target_modules=["query"]))
    model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


# Whole modules and tied parameters beside -----------------------------------------------------------------------


def masked() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                                     intermediate_size=48)  # fmt: skip
    return transformers.BertForMaskedLM(config).eval().double()


def classifier() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                                     intermediate_size=48, num_labels=3)  # fmt: skip
    return transformers.BertForSequenceClassification(config).eval().double()


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize(("build", "whole"), [(masked, None), (classifier, ["classifier"])])
def test_all_biases_beside_heads_and_ties(
    build: Callable[[], nn.Module], whole: list[str] | None, ours: bool, tmp_path: Path
) -> None:
    model, other = build(), build()
    if ours:
        method = Lora(rank=2, layers=("query", "value"), bias="all", modules_to_save=tuple(whole or ()))
        save_delta(tmp_path, method, shaken(method.attach(open_seams(model))), "tiny")
        theirs = peft.PeftModel.from_pretrained(other, tmp_path).eval()
    else:
        config = peft.LoraConfig(r=2, target_modules=["query", "value"], bias="all", modules_to_save=whole)
        theirs = peft.get_peft_model(other, config).eval()
        torch.manual_seed(5)
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        theirs.save_pretrained(tmp_path)
        tunesmith.attach(model, tmp_path)
    with torch.no_grad():
        ids = inputs("encoder")
        assert far(model(**ids).logits, theirs(**ids).logits) <= 1e-10


@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*")
def test_the_frozen_table_is_checked(resized: bool, tmp_path: Path) -> None:
    """PEFT writes the frozen table of a targeted embed_tokens besides; it is compared, not loaded."""
    theirs = BUILD["decoder"]().double()
    if resized:
        theirs.resize_token_embeddings(99)
    config = peft.LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False)
    theirs = peft.get_peft_model(theirs, config).eval()
    theirs.save_pretrained(tmp_path)
    model = BUILD["decoder"]().double()
    if resized:
        with pytest.raises(CheckpointError, match=r"frozen weight of 'embed_tokens', \(99, 32\).*\(96, 32\)"):
            tunesmith.attach(model, tmp_path)
    else:
        tunesmith.attach(model, tmp_path)
        assert far(run(model, "decoder"), run(theirs, "decoder")) <= 1e-6


def test_settings_are_finite() -> None:
    with pytest.raises(ValueError, match="finite number"):
        Lora(alpha=float("inf"))
