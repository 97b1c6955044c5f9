"""A quantised base: it stores less, keeps no more for the backward pass, and has the gradients of what it stores."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tunesmith
from tunesmith.core.errors import CompatibilityError, MissingDependency
from tunesmith.methods.full import Full
from tunesmith.methods.lora import Lora
from tunesmith.models import keeping
from tunesmith.models.products import Int8, narrow_products
from tunesmith.models.quantized import BITS, dense, is_quantised, quantise, requantise, stored_bytes
from tunesmith.models.seams import Seams, open_seams
from tunesmith.testing import tiny_models

FAMILIES = ["encoder", "decoder", "transposed-decoder", "encoder-decoder", "vision"]


def read_back(model: nn.Module) -> nn.Module:
    """The same quantised model with every weight written out in float32."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(dense(module.weight).clone(), requires_grad=False)
    return model


def randomly_tuned(model: nn.Module, **settings: Any) -> tuple[Seams, Any]:
    seams = open_seams(model)
    delta = Lora(rank=3, **settings).attach(seams)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    return seams, delta


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_weights_read_back(family: str, bits: str) -> None:
    found = []
    for plain in (False, True):
        model = tiny_models()[family].build()
        quantise(model, bits)
        _, delta = randomly_tuned(read_back(model) if plain else model)
        hidden = model(**tiny_models()[family].inputs()).last_hidden_state
        (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        reached = [name for name, _ in delta.named_parameters() if "pooler" not in name]
        found.append((hidden, [dict(delta.named_parameters())[name].grad for name in reached]))
    (ours, gradients), (expected, others) = found
    assert gradients and (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    largest = max(other.abs().max() for other in others)
    for gradient, other in zip(gradients, others, strict=True):
        assert (gradient - other).abs().max() <= 1e-5 * largest


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_no_full_weight_is_kept_for_the_backward_pass(bits: str, dropout: float) -> None:
    model = tiny_models()["encoder"].build()
    quantise(model, bits)
    _, delta = randomly_tuned(model, dropout=dropout)
    delta.train(True)
    weights = {(32, 32), (48, 32), (32, 48)}
    kept: list[tuple[int, ...]] = []
    own = {id(parameter) for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**tiny_models()["encoder"].inputs()).last_hidden_state.sum()
    assert kept and not weights & set(kept)


def test_torchao_alone_keeps_a_full_weight() -> None:
    """Why the seam has a forward of its own: when torchao mends this, it can go."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = nn.Sequential(nn.Linear(32, 48)).requires_grad_(False)
    quantize_(model, Int8WeightOnlyConfig(set_inductor_config=False))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tuple(tensor.shape)), lambda _: None):
        model(torch.randn(2, 32, requires_grad=True))
    assert (32, 48) in kept


@pytest.mark.parametrize(("bits", "share", "error"), [("int8", 0.27, 0.01), ("int4", 0.15, 0.11)])
def test_it_stores_less_and_stays_near(bits: str, share: float, error: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512, bias=False), nn.ReLU(), nn.Linear(512, 256, bias=False))
    for module in (model[0], model[2]):
        nn.init.normal_(module.weight, std=0.02)
    before = [model[0].weight.detach().clone(), model[2].weight.detach().clone()]
    facts = quantise(model, bits)
    assert facts.maps == 2 and not facts.kept
    assert facts.bytes_before == 4 * 2 * 256 * 512
    assert facts.bytes_after == stored_bytes(model) < share * facts.bytes_before
    for module, weight in zip((model[0], model[2]), before, strict=True):
        assert (dense(module.weight) - weight).norm() < error * weight.norm()


def test_four_bits_are_read_back_as_torchao_does() -> None:
    from torchao.quantization import to_nf4

    for dtype in (torch.float32, torch.bfloat16):
        stored = to_nf4(torch.randn(48, 64).to(dtype), 64, 8)
        assert is_quantised(stored) and torch.equal(dense(stored), stored.get_original_weight())


def test_what_stays_in_full_precision_is_counted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 48), nn.Linear(3, 5), nn.Conv1d(2, 2, 3))
    facts = quantise(model, "int4")
    assert facts.maps == 1 and facts.kept == {"maps whose size is no multiple of 128": 1, "convolutions": 1}
    assert "1 convolutions" in facts.sentence and "stored in 4 bits" in facts.sentence


def test_transposed_maps_answer_alike() -> None:
    tiny = tiny_models()["transposed-decoder"]
    model, plain = tiny.build(), tiny.build()
    assert quantise(model, "int8").maps == 8
    with torch.no_grad():
        expected = plain(**tiny.inputs()).last_hidden_state
        assert (model(**tiny.inputs()).last_hidden_state - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("bits", BITS)
def test_the_base_answers_alike_at_its_seams_and_after_a_delta(bits: str) -> None:
    tiny = tiny_models()["encoder"]
    model = tiny.build()
    quantise(model, bits)
    with torch.no_grad():
        alone = model(**tiny.inputs()).last_hidden_state
        _, delta = randomly_tuned(model)
        tuned = model(**tiny.inputs()).last_hidden_state
        with delta.seams.route([None, "default"]):
            mixed = model(**tiny.inputs()).last_hidden_state
        delta.detach()
        bare = model(**tiny.inputs()).last_hidden_state
    assert (bare - alone).abs().max() <= 1e-5 * alone.abs().max()
    assert (mixed[0] - bare[0]).abs().max() < 1e-5 < (mixed[1] - bare[1]).abs().max()
    assert (mixed[1] - tuned[1]).abs().max() < 1e-5


def test_whole_training_starts_from_what_is_stored() -> None:
    """A trained copy is in full precision, so that small steps count."""
    tiny = tiny_models()["encoder"]
    model = tiny.build()
    quantise(model, "int8")
    with torch.no_grad():
        before = model(**tiny.inputs()).last_hidden_state
        delta = Full().attach(open_seams(model))
        after = model(**tiny.inputs()).last_hidden_state
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    assert not any(is_quantised(parameter) for parameter in delta.parameters())
    model(**tiny.inputs()).last_hidden_state.sum().backward()
    assert delta.copies["encoder.layer.0.output.dense.weight"].grad is not None


@pytest.mark.parametrize(("bits", "bound"), [("int8", 0.02), ("int4", 0.12)])
def test_adding_to_a_quantised_weight_says_what_it_lost(bits: str, bound: float) -> None:
    model = tiny_models()["encoder"].build()
    quantise(model, bits)
    seam = open_seams(model).linear["encoder.layer.0.output.dense"]
    before, change = seam.weight.clone(), torch.randn(32, 48, generator=torch.Generator().manual_seed(1)) * 0.01
    with pytest.raises(CompatibilityError, match=r"output\.dense' is quantised.*Keep the delta attached"):
        seam.add_to_weight(change)
    assert torch.equal(seam.weight, before)
    assert requantise(seam.stored, change)[1] == pytest.approx(seam.requantise(change))
    lost = float((seam.weight - before - change).norm() / (before + change).norm())
    assert 0 < lost < bound and seam.quantised


def test_rounded_products_keep_nothing_of_a_weight_that_was_read_back() -> None:
    """It lies where another one lay before, and will lie after it."""
    found, how = [], Int8()
    for narrow in (None, how):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(3)))
        quantise(model, "int8")
        _, delta = randomly_tuned(model, layers="all-linear")
        x = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
        with narrow_products(narrow):
            model(x).square().sum().backward()
        found.append([parameter.grad for parameter in delta.parameters()])
    assert not how._kept
    assert all(torch.equal(ours, plain) for ours, plain in zip(*found, strict=True))


@pytest.mark.parametrize("layers", ["all-linear", ("0",)], ids=["each with a delta", "above the first alone"])
def test_no_weight_that_was_read_back_is_kept(layers: Any) -> None:
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(3)))
    quantise(model, "int8")
    _, delta = randomly_tuned(model, layers=layers)
    with keeping.counted(list(delta.parameters())) as found:
        assert model(torch.randn(16, 64)).requires_grad
    assert 0 < found.bytes < 4 * 64 * 64


def test_what_cannot_be_quantised_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CompatibilityError, match=r"int8 with model\.dtype=float64.*Choose model\.dtype=float32"):
        quantise(nn.Sequential(nn.Linear(32, 32)).double(), "int8")
    with pytest.raises(CompatibilityError, match="Sequential has no linear map"):
        quantise(nn.Sequential(nn.LayerNorm(4)), "int8")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingDependency, match=r"model\.quantization=int4 needs.*tunesmith\[quantization\]"):
        quantise(nn.Sequential(nn.Linear(32, 32)), "int4")


@pytest.mark.parametrize("bits", BITS)
def test_a_run_on_a_quantised_base(recipe: dict[str, Any], bits: str) -> None:
    words = [f"model.quantization={bits}", "evaluation.baselines=[linear-probe]"]
    run = tunesmith.train(recipe, words)
    facts = run.summary["quantization"]
    assert facts["bits"] == bits and facts["maps"] == 12 and facts["split"] == "validation"
    assert facts["bytes_after"] < facts["bytes_before"]
    assert 0 < facts["feature_error"] < (0.02 if bits == "int8" else 0.2)
    probe = run.summary["baselines"]["linear-probe"]["validation"]["accuracy"]
    assert facts["probe"][bits]["value"] == probe["value"]
    sentence = f"quantised base ({bits}): its features on validation differ by"
    assert any(sentence in warning for warning in run.summary["warnings"])
    assert sentence in run.report().read_text()
    assert f"quantization: {bits}" in (run.folder / "recipe.yaml").read_text()
    texts = ["hello friend", "see you soon"]
    first, second = run.predict_proba(texts), tunesmith.Run.load(Path(run.folder)).predict_proba(texts)
    assert np.array_equal(first, second)


def test_a_run_in_full_precision_says_nothing(recipe: dict[str, Any]) -> None:
    run = tunesmith.train(recipe)
    assert run.summary["quantization"] == {}
    assert not any("quantis" in warning for warning in run.summary["warnings"])


def test_loftq_starts_from_what_was_lost_and_lets_the_originals_go(recipe: dict[str, Any]) -> None:
    from tunesmith.models.quantized import FULL, quantise, release
    from tunesmith.models.seams import open_seams
    from tunesmith.testing import tiny_models

    full = tiny_models()["encoder"].build()
    model = tiny_models()["encoder"].build()
    quantise(model, "int4", keep=True)
    delta = tunesmith.attach(model, "lora", rank=8, init="loftq", layers="query")
    release(model)
    assert all(FULL not in module.__dict__ for module in model.modules())
    for path, patch in delta.patches.items():
        seam = open_seams(model).linear[path]
        wanted = full.get_submodule(path).weight
        lost = (seam.weight - wanted).norm()
        assert (seam.weight + patch.weight_change(seam) - wanted).norm() < 0.8 * lost
    run = tunesmith.train(
        {**recipe, "model": {"name": recipe["model"], "quantization": "int8"},
         "method": {"name": "lora", "rank": 4, "init": "loftq"}}
    )  # fmt: skip
    assert tunesmith.Run.load(run.folder).predict("hello there friend")[0].label in run.labels
