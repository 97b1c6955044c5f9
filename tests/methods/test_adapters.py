"""Bottleneck adapters against the formulas of their papers."""

import pytest
import torch
from torch import Tensor, nn

import tunesmith
from tunesmith.core.errors import CompatibilityError, RecipeError, TargetError
from tunesmith.methods.adapter import _ACTIVATIONS, Adapter, AdapterPatch
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models

PLACES = {
    "encoder": ("attention.output.dense", "output.dense"),
    "decoder": ("self_attn.o_proj", "mlp.down_proj"),
    "transposed-decoder": ("attn.c_proj", "mlp.c_proj"),
}


def attached(model: nn.Module, **settings: object) -> Delta:
    delta = Adapter(**settings).attach(open_seams(model))  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    return delta


def by_hand(patch: AdapterPatch, x: Tensor, y: Tensor, settings: Adapter) -> Tensor:
    read = x if settings.variant == "parallel" else y
    down, up = patch.adapter_down, patch.adapter_up
    narrow = _ACTIVATIONS[settings.activation](read @ down.weight.t() + down.bias)
    added = patch.scale * (narrow @ up.weight.t() + up.bias)
    return y + added if settings.residual else added


@pytest.mark.parametrize("family", PLACES)
def test_the_variants_stand_where_their_papers_say(family: str) -> None:
    attention, feed_forward = PLACES[family]
    for variant, count in (("houlsby", 4), ("pfeiffer", 2), ("parallel", 2)):
        model = tiny_models()[family].build()
        paths = list(Adapter(variant=variant).attach(open_seams(model)).patches)
        assert len(paths) == count
        assert sum(path.endswith(feed_forward) and not path.endswith("attention.output.dense") for path in paths) == 2
        assert sum(path.endswith(attention) for path in paths) == count - 2


@pytest.mark.parametrize("activation", _ACTIVATIONS)
@pytest.mark.parametrize(("variant", "residual"), [("pfeiffer", True), ("pfeiffer", False), ("parallel", True)])
def test_outputs_and_gradients_are_those_of_the_formula(variant: str, residual: bool, activation: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8)).double()
    settings = Adapter(layers="0", variant=variant, residual=residual, activation=activation, width=3, scale=0.7)  # type: ignore[arg-type]
    delta = attached(model, **dict(settings))
    seam = delta.seams.linear["0"]
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(2, 4, 8, dtype=torch.float64)
    tensors = [x, *delta.parameters()]
    ours = model(x)
    expected = by_hand(delta.patches["0"], x, seam.base(x), settings)  # type: ignore[arg-type]
    assert torch.allclose(ours, expected, rtol=1e-12, atol=1e-14)
    found = torch.autograd.grad((ours * wanted).sum(), tensors)
    others = torch.autograd.grad((expected * wanted).sum(), tensors)
    for gradient, other in zip(found, others, strict=True):
        assert (gradient - other).abs().max() <= 1e-10 * other.abs().max()


@pytest.mark.parametrize("variant", ["pfeiffer", "parallel"])
def test_dropped_inputs_leave_the_skip_connection_whole(variant: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6))
    delta = attached(model, layers="0", variant=variant, width=2, dropout=0.9)
    x = torch.randn(50, 6, requires_grad=True)
    delta.train(True)
    base, training = delta.seams.linear["0"].base(x), model(x)
    delta.train(False)
    assert not torch.allclose(training, model(x))
    constant = by_hand(delta.patches["0"], torch.zeros(1, 6), torch.zeros(1, 6), Adapter(variant=variant))  # type: ignore[arg-type]
    untouched = ((training - base - constant).abs() < 1e-5).all(1)  # rows whose six inputs were all dropped
    assert 10 <= int(untouched.sum()) < 45
    (gradient,) = torch.autograd.grad(training[untouched].sum(), x)
    weight = delta.seams.linear["0"].weight
    assert torch.allclose(gradient[untouched], weight.sum(0).expand_as(gradient[untouched]), atol=1e-5)


def test_a_base_in_bfloat16_has_adapters_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8)).bfloat16()
    delta = attached(model, layers="0", width=2)
    x = torch.randn(3, 8).bfloat16()
    y = delta.seams.linear["0"].base(x)
    found = model(x)
    assert found.dtype == torch.bfloat16 and delta.parameters()[0].dtype == torch.float32
    expected = by_hand(delta.patches["0"], x.float(), y.float(), Adapter())  # type: ignore[arg-type]
    assert torch.allclose(found.float(), expected, atol=0.02, rtol=0.02)


def test_an_adapter_in_memory_does_not_merge() -> None:
    model = tiny_models()["encoder"].build()
    delta = tunesmith.attach(model, "adapter")
    before = model.encoder.layer[0].output.dense.weight
    with pytest.raises(CompatibilityError, match=r"at 'encoder\.layer\.0.*' is no change of its weight"):
        delta.merge()
    assert model.encoder.layer[0].output.dense.weight is before and open_seams(model).deltas


def test_sizes_follow_the_reduction_factor() -> None:
    model = tiny_models()["encoder"].build()
    delta = Adapter(reduction_factor=4).attach(open_seams(model))
    shapes = {name: tuple(parameter.shape) for name, parameter in delta.named_parameters() if ".0.output" in name}
    place = "encoder.layer.0.output.dense"
    assert shapes == {
        f"{place}.adapter_down.weight": (8, 32), f"{place}.adapter_down.bias": (8,),
        f"{place}.adapter_up.weight": (32, 8), f"{place}.adapter_up.bias": (32,),
    }  # fmt: skip
    delta.detach()
    wide = Adapter(variant="parallel", width=5).attach(open_seams(model)).patches[place]
    assert wide.adapter_down.weight.shape == (5, 48) and wide.scale == 4.0


def test_what_is_not_meant_is_said() -> None:
    with pytest.raises(RecipeError, match=r"method\.residual=false: a parallel adapter is a sum"):
        Adapter(variant="parallel", residual=False).attach(open_seams(tiny_models()["encoder"].build()))
    seams = open_seams(tiny_models()["vision"].build())
    with pytest.raises(TargetError, match="is a Conv2d; a bottleneck adapter stands at plain linear maps"):
        Adapter(layers="projection").attach(seams)
    with pytest.raises(TargetError, match="Sequential has no stack of blocks"):
        Adapter().attach(open_seams(nn.Sequential(nn.Linear(2, 2))))
    assert "cut the sublayers' outputs off" in Adapter(residual=False).warnings(seams)[0]


def test_without_residual_a_fresh_adapter_lets_something_through() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    Adapter(layers="0", residual=False, width=4).attach(open_seams(model))
    assert model(torch.randn(3, 8)).abs().max() > 0


def test_the_largest_units_alone_stay_and_get_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8)).double()
    delta = attached(model, layers="0", width=6, activation="tanh", active=0.5)
    patch, seam, x = delta.patches["0"], delta.seams.linear["0"], torch.randn(2, 4, 5, dtype=torch.float64)
    assert isinstance(patch, AdapterPatch)
    y = seam.base(x)
    h = torch.tanh(y @ patch.adapter_down.weight.t() + patch.adapter_down.bias)
    kept = h.abs() >= h.abs().sort(-1).values[..., 3:4]
    assert bool((kept.sum(-1) == 3).all())
    expected = y + (h * kept) @ patch.adapter_up.weight.t() + patch.adapter_up.bias
    ours = model(x)
    assert torch.allclose(ours, expected, rtol=1e-12, atol=1e-14)
    for mine, theirs in zip(
        torch.autograd.grad(ours.square().sum(), list(delta.parameters())),
        torch.autograd.grad(expected.square().sum(), list(delta.parameters())),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)
