"""VeRA, LoHa, LoKr and IA3: equal to PEFT in both directions, merged exactly, with right hand-written gradients."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft.tuners.lokr.layer import factorization
from peft.tuners.vera.model import _kaiming_init
from safetensors.torch import load_file
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError, TargetError
from tunesmith.methods.base import Method
from tunesmith.methods.ia3 import Ia3
from tunesmith.methods.loha import Loha, hadamard_linear
from tunesmith.methods.lokr import Lokr, divide, kronecker_linear, plus_kronecker
from tunesmith.methods.store import save_delta
from tunesmith.methods.vera import Vera, _Weighted, weighted_low_rank
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models


def resnet() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[12, 16], depths=[1, 2], layer_type="basic"
    )
    return transformers.ResNetModel(config).eval()


class Convolutions(nn.Module):
    """A Conv1d and grouped convolutions, which the tiny families lack."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(6, 12, 3, padding=1)
        self.grouped = nn.Conv1d(12, 12, 3, padding=1, groups=2)
        self.two = nn.Conv2d(12, 16, (3, 2), stride=2, groups=4)
        self.point = nn.Conv2d(16, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.grouped(self.one(x).tanh()).tanh()
        return self.point(self.two(y[..., None] * y[..., None, :]).tanh())


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return Convolutions().eval()


def build(family: str) -> nn.Module:
    made = {"resnet": resnet, "convolutions": convolutions}
    return made[family]() if family in made else tiny_models()[family].build()


def inputs(family: str) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    if family == "convolutions":
        return {"x": torch.randn(2, 6, 9, generator=draw)}
    if family == "resnet":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=draw)}
    return tiny_models()[family].inputs()


def run(model: nn.Module, family: str) -> torch.Tensor:
    dtype = next(model.parameters()).dtype
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs(family).items()}
    with torch.no_grad():
        y = model(**given)
    return y if isinstance(y, torch.Tensor) else y.last_hidden_state


def randomise(parameters: list[nn.Parameter]) -> None:
    """Small random values around what a fresh delta holds."""
    draw = torch.Generator().manual_seed(3)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.2
        parameter.data.add_(noise.to(parameter.dtype))


def assert_equal(found: torch.Tensor, expected: torch.Tensor, family: str, base: torch.Tensor) -> None:
    bound = 1e-6 if family == "decoder" else 1e-10  # Llama's norms cast to float32 whatever the model's type
    assert (found - expected).abs().max() <= bound * expected.abs().max()
    assert (expected - base).abs().max() > 1e-3 * base.abs().max(), "the delta must do something"


TEXT = {
    "encoder": ("query", "value", "output.dense"),
    "decoder": ("q_proj", "v_proj", "down_proj"),
    "transposed-decoder": ("c_attn", "mlp.c_proj"),
    "encoder-decoder": ("q_proj", "v_proj", "fc2"),
    "vision": ("q_proj", "v_proj", "fc2"),
}
CONV = {
    "resnet": ("convolution",),
    "convolutions": ("one", "grouped", "two", "point"),
}
LAYERS = TEXT | CONV
PLAIN = [family for family in TEXT if family != "transposed-decoder"]  # PEFT's LoHa and LoKr lack Conv1D

# method, families that PEFT has too
OURS: list[tuple[Method, list[str]]] = [
    (Vera(rank=5, d_initial=0.5), list(TEXT)),
    (Vera(rank=64, d_initial=0.5, seed=7, save_projection=False), list(TEXT)),
    (Loha(rank=4, alpha=5.0), [*PLAIN, *CONV]),
    (Loha(rank=2, effective_conv=True), ["vision", *CONV]),
    (Lokr(rank=2, alpha=5.0), [*PLAIN, *CONV]),
    (Lokr(rank=1, decompose_both=True), [*PLAIN, *CONV]),
    # PEFT fails on a Conv1d with a core of its own; test_merging_is_exact has it.
    (Lokr(rank=1, decompose_factor=2, effective_conv=True), [*PLAIN, "resnet"]),
    (Lokr(rank=64, decompose_factor=3), [*PLAIN, *CONV]),
    (Ia3(), list(TEXT)),
    (Ia3(feed_forward_layers=()), list(TEXT)),
    (Ia3(), ["resnet"]),
    (Ia3(layers=("two", "point"), feed_forward_layers=("two",)), ["convolutions"]),
]
CASES = [
    pytest.param(method, family, id=f"{method.name}-{number}-{family}")
    for number, (method, families) in enumerate(OURS)
    for family in families
]


def placed(method: Method, family: str) -> Method:
    """Name the layers where the method has not named its own."""
    return method if method.layers != "auto" else type(method)(**{**dict(method), "layers": LAYERS[family]})


@pytest.mark.filterwarnings("ignore:Specified to not:UserWarning")
@pytest.mark.parametrize(("method", "family"), CASES)
def test_ours_loads_in_peft_and_here(method: Method, family: str, tmp_path: Path) -> None:
    method = placed(method, family)
    model = build(family).double()
    base = run(model, family)
    delta = method.attach(open_seams(model))
    assert torch.equal(run(model, family), base) or method.name != "ia3"
    assert (run(model, family) - base).abs().max() <= 1e-12, "a fresh delta changes nothing"
    randomise(delta.parameters())
    save_delta(tmp_path, method, delta, "tiny")
    found = run(model, family)
    theirs = peft.PeftModel.from_pretrained(build(family).double(), tmp_path).double()
    assert_equal(found, run(theirs.base_model.model, family), family, base)

    again = build(family).double()
    tunesmith.attach(again, tmp_path)
    assert torch.equal(run(again, family), found)


MERGED = [(method, family) for method in (Loha(rank=3), Lokr(rank=2), Ia3()) for family in LAYERS]
MERGED += [(method(rank=1, effective_conv=True), family) for method in (Loha, Lokr) for family in CONV]


@pytest.mark.parametrize(("method", "family"), [*MERGED, *((Vera(rank=5), family) for family in TEXT)])
def test_merging_is_exact(method: Method, family: str) -> None:
    model = build(family).double()
    delta = placed(method, family).attach(open_seams(model))
    randomise(delta.parameters())
    found = run(model, family)
    merged = delta.merge()
    bound = 1e-6 if family == "decoder" else 1e-12
    assert (run(merged, family) - found).abs().max() <= bound * found.abs().max()


def their_configs() -> list[tuple[str, Callable[..., peft.PeftConfig], dict[str, Any], list[str]]]:
    random, lyco = {"init_weights": False}, [*PLAIN, *CONV]
    return [
        ("vera", peft.VeraConfig, {"r": 6, **random}, list(TEXT)),
        ("vera-seed", peft.VeraConfig, {"r": 6, "save_projection": False, "projection_prng_key": 5, **random},
         list(TEXT)),
        ("loha", peft.LoHaConfig, {"r": 4, "alpha": 5, "rank_dropout": 0.1, "module_dropout": 0.1, **random}, lyco),
        ("loha-conv", peft.LoHaConfig, {"r": 4, "alpha": 50, "use_effective_conv2d": True, **random}, list(CONV)),
        ("lokr", peft.LoKrConfig, {"r": 2, "alpha": 5, **random}, lyco),
        ("lokr-both", peft.LoKrConfig, {"r": 1, "decompose_both": True, "decompose_factor": 4, **random}, lyco),
        ("lokr-conv", peft.LoKrConfig, {"r": 1, "use_effective_conv2d": True, **random}, ["resnet"]),
        ("lokr-lycoris", peft.LoKrConfig, {"r": 16, "init_weights": "lycoris"}, lyco),
        ("ia3", peft.IA3Config, {"init_ia3_weights": False, "feedforward_modules": []}, list(TEXT)),
        ("ia3-ff", peft.IA3Config, {"init_ia3_weights": False, "feedforward_modules": "ends"}, list(TEXT)),
        ("ia3-conv", peft.IA3Config, {"init_ia3_weights": False, "feedforward_modules": []}, ["resnet"]),
        ("ia3-conv-ff", peft.IA3Config, {"init_ia3_weights": False, "feedforward_modules": "ends"}, ["resnet"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings", "family"),
    [
        pytest.param(kind, settings, family, id=f"{name}-{family}")
        for name, kind, settings, families in their_configs()
        for family in families
    ],
)
@pytest.mark.filterwarnings("ignore:Specified to not:UserWarning", "ignore:.*fan_in_fan_out.*:UserWarning")
def test_peft_loads_here(
    kind: Callable[..., peft.PeftConfig], settings: dict[str, Any], family: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    targets = list(LAYERS[family])
    if settings.get("feedforward_modules") == "ends":
        settings = {**settings, "feedforward_modules": targets[-1:]}
    theirs = peft.get_peft_model(build(family), kind(target_modules=targets, **settings)).eval()
    if settings.get("init_weights") == "lycoris":
        randomise([parameter for parameter in theirs.parameters() if parameter.requires_grad])
    theirs.save_pretrained(tmp_path)
    model = build(family).double()
    base = run(model, family)
    delta = tunesmith.attach(model, tmp_path)
    assert_equal(run(model, family), run(theirs.double().base_model.model, family), family, base)
    delta.detach()
    assert torch.equal(run(model, family), base)


def test_vera_draws_what_peft_draws(tmp_path: Path) -> None:
    model = build("encoder")
    method = Vera(rank=9, seed=11)
    save_delta(tmp_path, method, method.attach(open_seams(model)), "tiny")
    saved = load_file(tmp_path / "adapter_model.safetensors")
    draw = torch.Generator().manual_seed(11)
    assert torch.equal(saved["base_model.vera_A"], _kaiming_init((9, 48), draw))
    assert torch.equal(saved["base_model.vera_B"], _kaiming_init((48, 9), draw))


def test_vera_shares_one_pair_and_checks_it(tmp_path: Path) -> None:
    model = build("encoder").double()
    method = Vera(rank=4)
    delta = method.attach(open_seams(model))
    buffers = {buffer.data_ptr() for patch in delta.patches.values() for buffer in patch.buffers()}
    assert len(buffers) == 2 and len(delta.patches) > 2
    tensors = method.tensors(delta)
    larger = {**tensors, "base_model.vera_A": torch.randn(4, 60), "base_model.vera_B": torch.randn(70, 4)}
    method.load(delta, larger, "here")
    assert torch.equal(method.tensors(delta)["base_model.vera_A"], larger["base_model.vera_A"].double())
    with pytest.raises(CheckpointError, match=r"'down' matrix has shape \(3, 60\), the model needs \(4, 60\)"):
        method.load(delta, {**tensors, "base_model.vera_A": torch.randn(3, 60)}, "here")
    bare = {name: tensor for name, tensor in tensors.items() if "vera_lambda" in name}
    with pytest.raises(CheckpointError, match="set save_projection to false"):
        method.load(delta, bare, "here")


def test_widths_divide_as_in_peft() -> None:
    for width in range(1, 400):
        for most in (None, 1, 2, 3, 4, 7, 8, 16, 20, 25, 50):
            assert divide(width, most) == factorization(width, -1 if most is None else most), (width, most)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_gradients_of_the_hadamard_form(shape: tuple[int, ...], rows: bool) -> None:
    torch.manual_seed(0)
    tensors = [
        torch.randn(size, dtype=torch.float64, requires_grad=True)
        for size in ((*shape, 6), (4,), (4, 2), (2, 6), (4, 3), (3, 6))
    ]
    weight = torch.randn(4, 6, dtype=torch.float64)
    scale = torch.tensor([[2.0], [0.0], [0.5], [1.0]], dtype=torch.float64) if rows else 0.7

    def fast(x: torch.Tensor, bias: torch.Tensor, *factors: torch.Tensor) -> torch.Tensor:
        return hadamard_linear(x, weight, bias, scale, factors)

    x, bias, a1, b1, a2, b2 = tensors
    slow = x @ (weight + scale * (a1 @ b1) * (a2 @ b2)).t() + bias
    assert torch.allclose(fast(*tensors), slow, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(fast, tensors)
    assert torch.autograd.gradcheck(lambda *rest: fast(x.detach(), *rest), tensors[1:])


@pytest.mark.parametrize(("tokens", "rank", "full"), [(5, 1, False), (60, 7, True)])
def test_gradients_of_both_forms_of_vera(tokens: int, rank: int, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, bias, d, v = (
        torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((2, tokens, 6), (4,), (rank,), (4,))
    )
    weight, *shared = (torch.randn(size, dtype=torch.float64) for size in ((4, 6), (rank, 6), (4, rank)))
    used = []
    apply = _Weighted.apply
    monkeypatch.setattr(_Weighted, "apply", lambda *given: (used.append(given[3]), apply(*given))[1])

    def fast(x: torch.Tensor, bias: torch.Tensor, d: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return weighted_low_rank(x, weight, bias, (shared[0], shared[1]), (d, v))

    slow = x @ weight.t() + bias + (((x @ shared[0].t()) * d) @ shared[1].t()) * v
    assert torch.allclose(fast(x, bias, d, v), slow, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(fast, (x, bias, d, v))
    assert torch.autograd.gradcheck(lambda *rest: fast(x.detach(), *rest), (bias, d, v))
    assert set(used) == {full}


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_gradients_of_the_kronecker_form(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((*shape, 6), (4, 2), (5, 3))]
    x, first, second = tensors
    assert torch.allclose(kronecker_linear(*tensors), x @ torch.kron(first, second).t(), rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(kronecker_linear, tensors)
    assert torch.autograd.gradcheck(lambda *rest: kronecker_linear(x.detach(), *rest), tensors[1:])


def test_gradients_of_the_sum_with_a_kronecker_product() -> None:
    torch.manual_seed(0)
    shapes = ((2, 3, 6), (20,), (4, 2), (5, 3))
    x, bias, first, second = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in shapes)
    weight = torch.randn(20, 6, dtype=torch.float64)
    slow = x @ (weight + torch.kron(first, second)).t() + bias
    assert torch.allclose(plus_kronecker(x, weight, bias, first, second), slow, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(
        lambda *given: plus_kronecker(given[0], weight, *given[1:]), (x, bias, first, second)
    )
    assert torch.autograd.gradcheck(
        lambda *given: plus_kronecker(x.detach(), weight, None, *given), (first, second)
    )  # fmt: skip


def test_small_and_wide_maps_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most in (0, 2**20):
        torch.manual_seed(0)
        monkeypatch.setattr("tunesmith.methods.lokr._MERGED", most)
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 4)).double()
        delta = tunesmith.attach(model, Lokr(rank=1, layers="all-linear"))
        for parameter in delta.parameters():
            torch.nn.init.normal_(parameter)
        y = model(torch.ones(3, 6, dtype=torch.float64))
        found.append((y, *torch.autograd.grad(y.sum(), list(delta.parameters()))))
    for merged, wide in zip(*found, strict=True):
        assert torch.allclose(merged, wide, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["encoder", "resnet"])
@pytest.mark.parametrize("method", [Loha(rank=3), Lokr(rank=2)], ids=lambda method: method.name)
def test_dropped_rows(method: Method, family: str) -> None:
    """Rows of the change are dropped in training only; a module dropped whole answers as the base."""
    method = placed(method, family)
    model = build(family).double()
    base = run(model, family)
    rates = {**dict(method), "rank_dropout": 0.5, "module_dropout": 0.3}
    delta = type(method)(**rates).attach(open_seams(model))
    randomise(delta.parameters())
    delta.train(False)
    assert torch.equal(run(model, family), run(model, family))
    delta.train(True)
    assert torch.equal(run(model, family), run(model, family)), "nothing is dropped from a model in evaluation"
    for seam in open_seams(model).linear.values():
        seam.module.train()
    assert not torch.equal(run(model, family), run(model, family))
    for patch in delta.patches.values():
        patch.whole_rate = 0.99999  # type: ignore[union-attr, assignment]
    assert (run(model, family) - base).abs().max() <= 1e-12


@pytest.mark.parametrize("method", [Loha(rank=3, rank_dropout=0.5), Lokr(rank=2, rank_dropout=0.5)])
def test_a_dropped_row_gets_no_gradient(method: Method) -> None:
    """The fast form with rows dropped equals x (W + change * rows)^T, forward and backward."""
    model = nn.Sequential(nn.Linear(6, 8)).double()
    seams = open_seams(model)
    delta = type(method)(**{**dict(method), "layers": "0"}).attach(seams)
    randomise(delta.parameters())
    delta.train(True)
    model.train()
    patch, seam = delta.patches["0"], seams.linear["0"]
    x = torch.randn(5, 6, dtype=torch.float64)
    seams.routing.source().seed(4)
    rows = patch.rows(seam)  # type: ignore[operator]
    slow = x @ (seam.weight + patch.weight_change(seam) * rows).t() + seam.bias  # type: ignore[operator]
    slow.square().sum().backward()
    expected = [parameter.grad.clone() for parameter in delta.parameters()]
    for parameter in delta.parameters():
        parameter.grad = None
    seams.routing.source().seed(4)
    fast = model(x)
    fast.square().sum().backward()
    assert 0 < int((rows == 0).sum()) < 8
    assert torch.allclose(fast, slow, rtol=0, atol=1e-12)
    for parameter, wanted in zip(delta.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, wanted, rtol=0, atol=1e-11)


def test_ia3_finds_its_layers() -> None:
    expected = {
        "encoder": {"key", "value", "dense"},
        "decoder": {"k_proj", "v_proj", "down_proj"},
        "transposed-decoder": {"c_attn", "c_proj"},
        "encoder-decoder": {"k_proj", "v_proj", "fc2"},
        "vision": {"k_proj", "v_proj", "fc2"},
    }
    for family, ends in expected.items():
        delta = Ia3().attach(open_seams(build(family)))
        assert {path.rpartition(".")[2] for path in delta.patches} == ends
        inputs = [path for path, patch in delta.patches.items() if patch.on_input]
        outputs = [path for path in delta.patches if path not in inputs]
        assert inputs and not any("attention" in path or "attn" in path for path in inputs)
        assert outputs and all("attention" in path or "attn" in path for path in outputs)


def test_ia3_on_t5() -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    delta = Ia3().attach(open_seams(transformers.T5Model(config).eval()))
    assert {path.rpartition(".")[2] for path in delta.patches} == {"k", "v", "wo"}
    assert len(delta.patches) == 8  # keys and values of three attentions, two feed-forward layers


def test_ia3_says_what_to_name() -> None:
    with pytest.raises(TargetError, match=r"ResNetModel has no attention module.*Name the layers.*end in: convolution"):
        Ia3().attach(open_seams(resnet()))


@pytest.mark.parametrize(
    ("method", "layer", "family"),
    [(Vera(), "patch_embeddings.projection", "vision"), (Vera(), "word_embeddings", "encoder"),
     (Loha(), "word_embeddings", "encoder"), (Lokr(), "word_embeddings", "encoder"),
     (Ia3(), "word_embeddings", "encoder")],
)  # fmt: skip
def test_kinds_of_maps_without_a_form_are_refused(method: Method, layer: str, family: str) -> None:
    model = build(family)
    method = type(method)(layers=layer)
    with pytest.raises(TargetError, match=rf"{layer}' is an? \w+, which '{method.name}' cannot adapt"):
        method.attach(open_seams(model))
    assert not open_seams(model).deltas


@pytest.mark.parametrize("kind", [peft.LoHaConfig, peft.LoKrConfig])
def test_patterns_are_refused(kind: Callable[..., peft.PeftConfig], tmp_path: Path) -> None:
    config = kind(r=4, target_modules=["query", "value"], rank_pattern={"query": 2})
    peft.get_peft_model(build("encoder"), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="rank_pattern"):
        tunesmith.attach(build("encoder"), tmp_path)


@pytest.mark.parametrize("method", [Loha(rank=8), Lokr(rank=8), Vera(rank=16)], ids=lambda method: method.name)
def test_nothing_of_the_layers_size_is_kept(method: Method) -> None:
    """For the backward pass only the input, the frozen weight and tensors far smaller than W are kept."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 128))
    delta = type(method)(**{**dict(method), "layers": "0"}).attach(open_seams(model))
    x, kept = torch.randn(4, 96, requires_grad=True), []
    own = {id(tensor) for tensor in (*model.parameters(), *delta.parameters(), x)}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own and tensor.untyped_storage().data_ptr() not in storages:
            kept.append(tensor.numel())
        return tensor

    storages = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *delta.parameters(), x)}
    storages |= {buffer.untyped_storage().data_ptr() for patch in delta.patches.values() for buffer in patch.buffers()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    assert sum(kept) <= 96 * 128 / 2, kept
    assert copy.deepcopy(delta.state())


@pytest.mark.parametrize("method", [Loha(rank=4, layers="0"), Lokr(rank=4, layers="0")])
def test_a_small_change_is_not_rounded_away(method: Method) -> None:
    """W + change in 16 bits would be W."""
    convolves = isinstance(method, Lokr)  # which serves plain maps by small products anyway
    model = nn.Sequential(nn.Conv1d(64, 4, 1, bias=False) if convolves else nn.Linear(64, 4, bias=False)).bfloat16()
    signs = torch.tensor([1.0, -1.0]).repeat(32)
    with torch.no_grad():
        model[0].weight.copy_(signs.view(1, 64, 1) if convolves else signs)
    x = torch.ones(1, 64, 1).bfloat16() if convolves else torch.ones(1, 64).bfloat16()
    assert not model(x).any()
    delta = method.attach(open_seams(model))
    for parameter in delta.parameters():
        nn.init.constant_(parameter, 0.03)
    change = delta.patches["0"].weight_change(delta.seams.linear["0"])
    assert 0 < change.max() < 2**-9
    assert torch.allclose(model(x).float().flatten(), change.sum(1), rtol=1e-2)


def test_vera_without_a_map_of_its_own_is_saved(tmp_path: Path) -> None:
    delta = tunesmith.attach(build("encoder"), "vera", layers="query", modules_to_save=("query",))
    delta.save(tmp_path)
    assert tunesmith.attach(build("encoder"), tmp_path).copies.keys() == delta.copies.keys()
