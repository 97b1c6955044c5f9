"""Combined deltas have PEFT's numbers and say what they lost; a merge is undone bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

import tunesmith
from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.core.registry import components
from tunesmith.methods.merging import combine, read_lora
from tunesmith.methods.store import save_delta, write_folder
from tunesmith.models.quantized import quantise
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models
from tunesmith.testing.tiny import TinyModel

WEIGHTS = [0.7, -0.4]
# Ours, PEFT's name when A and B are combined apart, and when weight changes are.
WAYS = {
    "linear": ("linear", None),
    "magnitude": ("magnitude_prune", "magnitude_prune_svd"),
    "ties": ("ties", "ties_svd"),
    "dare": ("dare_linear", "dare_linear_svd"),
}


@pytest.fixture(params=["encoder", "transposed-decoder"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, list[Path]]]:
    """A PEFT model with two adapters in float64, and the folders it saved them to."""
    transposed = request.param == "transposed-decoder"
    targets = ["c_attn", "c_proj"] if transposed else ["query", "value"]
    shared = {"target_modules": targets, "init_lora_weights": False, "fan_in_fan_out": transposed}
    torch.manual_seed(3)
    model = peft.get_peft_model(
        tiny_models()[request.param].build(), peft.LoraConfig(r=4, lora_alpha=6, **shared), "first"
    )
    model.add_adapter("second", peft.LoraConfig(r=4, lora_alpha=3, use_rslora=True, **shared))
    model.double().save_pretrained(tmp_path)
    torch.set_default_dtype(torch.float64)  # PEFT makes its weights in the default type
    yield model, [tmp_path / "first", tmp_path / "second"]
    torch.set_default_dtype(torch.float32)


def factors(model: Any, name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    found = {}
    for path, module in model.named_modules():
        if hasattr(module, "lora_A") and name in module.lora_A:
            assert module.scaling[name] == 1.0
            found[path] = (module.lora_A[name].weight.data, module.lora_B[name].weight.data)
    return found


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed torch between PEFT's making of a new adapter, which draws, and its masks."""
    monkeypatch.setattr("peft.tuners.lora.model._freeze_adapter", lambda *_: torch.manual_seed(5))


def near(one: torch.Tensor, two: torch.Tensor) -> bool:
    return bool((one - two).abs().max() <= 1e-10 * two.abs().max())


@pytest.mark.parametrize("how", list(WAYS))
def test_factors_are_combined_as_in_peft(how: str, theirs: tuple[Any, list[Path]], seeded: None) -> None:
    model, folders = theirs
    density = None if how == "linear" else 0.4
    model.add_weighted_adapter(["first", "second"], WEIGHTS, "sum", WAYS[how][0], density=density)
    found = combine(folders, WEIGHTS, how, density=density, seed=5)
    assert len(factors(model, "sum")) * 2 == len(found.tensors)
    for path, (down, up) in factors(model, "sum").items():
        assert near(found.tensors[f"{path}.lora_A.weight"], down)
        assert near(found.tensors[f"{path}.lora_B.weight"], up)


@pytest.mark.parametrize("how", ["svd", "magnitude", "ties", "dare"])
def test_weight_changes_are_combined_as_in_peft(how: str, theirs: tuple[Any, list[Path]], seeded: None) -> None:
    model, folders = theirs
    density = None if how == "svd" else 0.4
    name = "svd" if how == "svd" else WAYS[how][1]
    model.add_weighted_adapter(["first", "second"], WEIGHTS, "sum", name, svd_rank=5, density=density)
    transposed = model.peft_config["first"].fan_in_fan_out
    if how == "dare" and transposed:
        pytest.skip("PEFT draws the mask over the transposed change")
    found = combine(folders, WEIGHTS, how, density=density, rank=5, seed=5)
    for path, (down, up) in factors(model, "sum").items():
        ours = found.tensors[f"{path}.lora_B.weight"] @ found.tensors[f"{path}.lora_A.weight"]
        assert near(ours, up @ down)


def test_the_losses_are_those_of_dense_matrices(theirs: tuple[Any, list[Path]]) -> None:
    folders = theirs[1]
    deltas = [read_lora(folder) for folder in folders]
    for how, rank in (("svd", 3), ("linear", None), ("ties", None), ("ties", 6)):
        found = combine(folders, WEIGHTS, how, rank=rank)
        errors, kept = {}, {}
        for path in deltas[0].pairs:
            wanted = sum(weight * delta.pairs[path].change for weight, delta in zip(WEIGHTS, deltas, strict=True))
            up, down = (found.tensors[f"base_model.model.{path}.lora_{side}.weight"] for side in "BA")
            errors[path] = float((up @ down - wanted).norm() / wanted.norm())
            kept[path] = 1 - errors[path] ** 2  # of the best approximation
        assert found.facts["largest_relative_error"] == pytest.approx(max(errors.values()), rel=1e-9)
        assert found.facts["mean_relative_error"] == pytest.approx(sum(errors.values()) / len(errors), rel=1e-9)
        assert errors[found.facts["worst_layer"]] == max(errors.values())
        if how == "svd":
            assert found.facts["smallest_kept_energy"] == pytest.approx(min(kept.values()), rel=1e-9)


def test_svd_of_full_rank_loses_nothing(theirs: tuple[Any, list[Path]]) -> None:
    found = combine(theirs[1], WEIGHTS, "svd", rank=8).facts
    assert found["largest_relative_error"] < 1e-12 and found["smallest_kept_energy"] == pytest.approx(1.0)


def test_dare_is_right_on_average_and_repeats_itself(theirs: tuple[Any, list[Path]]) -> None:
    folders = theirs[1]
    name = next(iter(combine(folders, WEIGHTS, "linear").tensors))
    wanted = combine(folders, WEIGHTS, "linear").tensors[name]
    draws = torch.stack([combine(folders, WEIGHTS, "dare", 0.5, None, seed).tensors[name] for seed in range(200)])
    assert (draws.mean(0) - wanted).abs().max() < 5 * draws.std(0).max() / 200**0.5
    assert torch.equal(draws[7], combine(folders, WEIGHTS, "dare", 0.5, None, 7).tensors[name])


@pytest.mark.parametrize("family", ["encoder", "decoder", "transposed-decoder", "vision"])
def test_the_folder_answers_as_the_sum(family: str, tmp_path: Path) -> None:
    """Two deltas of different ranks, one on convolutions or embeddings too, as one folder here and in PEFT."""
    tiny = tiny_models()[family]
    table = {"vision": "projection", "transposed-decoder": "wte"}.get(family, "embed_tokens" if family == "decoder" else
                                                                     "word_embeddings")  # fmt: skip
    model = tiny.build().double()
    torch.manual_seed(0)
    first = tunesmith.attach(model, "lora", "first", rank=2)
    layers = [next(iter(first.patches)), table]
    second = tunesmith.attach(model, "lora", "second", rank=3, layers=layers)
    for parameter in [*first.parameters(), *second.parameters()]:
        nn.init.normal_(parameter, std=0.2)
    facts = tunesmith.merge_deltas([first, second], [1.0, 0.5], rank=5, output=tmp_path / "out")
    assert facts["rank"] == 5 and facts["largest_relative_error"] < 1e-12
    summed = tiny.build().double()
    for delta, weight in ((first, 1.0), (second, 0.5)):
        for path, pair in read_lora(delta).pairs.items():
            open_seams(summed).linear[path].add_to_weight(weight * pair.change)
    fresh = tiny.build().double()
    tunesmith.attach(fresh, tmp_path / "out")
    peft_model = peft.PeftModel.from_pretrained(tiny.build().double(), tmp_path / "out").double().eval()
    wanted = run(summed, tiny)
    bound = 1e-6 if family == "decoder" else 1e-10  # Llama's norms cast to float32
    for other in (fresh, peft_model):
        assert (run(other, tiny) - wanted).abs().max() <= bound * wanted.abs().max()


def run(model: nn.Module, tiny: TinyModel) -> torch.Tensor:
    kind = next(model.parameters()).dtype
    inputs = {key: value.to(kind) if value.is_floating_point() else value for key, value in tiny.inputs().items()}
    with torch.no_grad():
        return model(**inputs).last_hidden_state


@pytest.mark.parametrize("beside", [{"modules_to_save": ("pooler",)}, {"bias": "adapted"}, {"bias": "all"}])
def test_what_an_attached_delta_trains_beside_comes_along(beside: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_models()["encoder"].build().double().eval()
    ids = torch.randint(5, 90, (2, 7), generator=torch.Generator().manual_seed(0))
    deltas = [
        tunesmith.attach(model, "lora", name, rank=2, layers=("query",), **more)
        for name, more in (("one", beside), ("two", {}))
    ]
    torch.manual_seed(3)
    for delta in deltas:
        for parameter in delta.parameters():
            nn.init.normal_(parameter, std=0.1)
    found = combine(deltas, [1.0, 0.5], "svd", rank=4)
    write_folder(tmp_path, found.config, found.tensors)
    apart = [{name: one.clone() for name, one in delta.named_parameters()} for delta in deltas]
    for delta in deltas:
        delta.detach()
    both = tunesmith.attach(model, tmp_path)
    answers = model(ids).pooler_output
    for name, one in both.copies.items():
        assert torch.equal(one, apart[0][name])
    theirs = peft.PeftModel.from_pretrained(tiny_models()["encoder"].build().double(), tmp_path).double().eval()
    assert near(theirs(input_ids=ids).pooler_output, answers), "nothing is left out there either"


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    def saved(name: str, **settings: Any) -> Path:
        model = tiny_models()["encoder"].build()
        config = peft.LoraConfig(target_modules=["query"], **settings)
        peft.get_peft_model(model, config).save_pretrained(tmp_path / name)
        return tmp_path / name

    two, three = saved("two", r=2), saved("three", r=3)
    with pytest.raises(CompatibilityError, match=r"has ranks 2, 3 in different deltas.*Give a rank"):
        tunesmith.merge_deltas([two, three], [1, 1], "ties")
    assert tunesmith.merge_deltas([two, three], [1, 1])["rank"] == 3
    with pytest.raises(CompatibilityError, match=r"has 'use_dora'.*convert FOLDER --to peft-lora"):
        tunesmith.merge_deltas([two, saved("dora", r=2, use_dora=True)], [1, 1])
    both = [saved(name, r=2, modules_to_save=["pooler"]) for name in ("m", "n")]
    with pytest.raises(CompatibilityError, match="both train modules or biases whole"):
        tunesmith.merge_deltas(both, [1, 1])
    tunesmith.merge_deltas([two, both[0]], [1, 1], output=tmp_path / "one-head")
    assert "pooler" in (tmp_path / "one-head" / "adapter_config.json").read_text()
    tunesmith.attach(tiny_models()["encoder"].build(), tmp_path / "one-head")
    for words, settings in (
        ("unknown way to merge deltas 'tie'; did you mean 'ties'", {"how": "tie"}),
        ("density=0", {"how": "ties", "density": 0.0}),
        ("does nothing under 'svd'", {"how": "svd", "density": 0.5}),
        ("rank=0", {"rank": 0}),
    ):
        with pytest.raises(RecipeError, match=words):
            tunesmith.merge_deltas([two, two], [1, 1], **settings)
    with pytest.raises(RecipeError, match="all are 0, so nothing would be left"):
        tunesmith.merge_deltas(["a", "b"], [0.0, 0.0])
    with pytest.raises(RecipeError, match="2 deltas and 1 weights"):
        tunesmith.merge_deltas([two, two], [1])
    whole = saved("whole", r=2, modules_to_save=["value"])
    model = tiny_models()["encoder"].build()
    value = tunesmith.attach(model, "lora", layers="value", rank=2)
    with pytest.raises(CompatibilityError, match=r"one delta trains 'encoder\.layer\.0\..*value' whole, which another"):
        tunesmith.merge_deltas([value, whole], [1, 1])
    delta = tunesmith.attach(tiny_models()["encoder"].build(), "bitfit")
    with pytest.raises(CompatibilityError, match=r"has no lora_A.*cannot become one; `tunesmith mix`"):
        tunesmith.merge_deltas([delta], [1])
    model = tiny_models()["encoder"].build()
    method = components("methods")["prefix"](parts=("encoder",))
    save_delta(tmp_path / "prefix", method, method.attach(open_seams(model)), "")
    with pytest.raises(CompatibilityError, match=r"holds 'prefix'.*cannot become one; `tunesmith mix`"):
        tunesmith.merge_deltas([two, tmp_path / "prefix"], [1, 1])


# Merging into the model ---------------------------------------------------------------------------------------

MERGEABLE = sorted(name for name, kind in components("methods").items() if kind.mergeable)


@pytest.mark.parametrize("family", ["encoder", "transposed-decoder", "encoder-decoder"])
@pytest.mark.parametrize("name", MERGEABLE)
def test_a_merge_is_undone_bit_for_bit(name: str, family: str) -> None:
    tiny = tiny_models()[family]
    kind = components("methods")[name]
    if not kind.needs <= tiny.has:
        pytest.skip(f"{name} does not serve {family}")
    model = tiny.build()
    before = {path: (parameter, parameter.clone()) for path, parameter in model.named_parameters()}
    base = run(model, tiny)
    delta = kind(**kind.example).attach(open_seams(model))
    torch.manual_seed(1)
    for parameter in delta.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    tuned = run(model, tiny)
    for _ in range(2):
        delta.merge()
        assert torch.allclose(run(model, tiny), tuned, atol=2e-4) and not open_seams(model).deltas
        delta.unmerge()
        assert torch.equal(run(model, tiny), tuned)
    delta.merge()
    delta.unmerge()
    delta.detach()
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for path, (parameter, value) in before.items():
        assert after[path] is parameter and torch.equal(parameter, value), path
    assert torch.equal(run(model, tiny), base)


@pytest.mark.parametrize("bits", [None, "int8"])
def test_a_bias_that_was_not_there_goes_again(bits: str | None) -> None:
    """LoRA with a bias of B gives maps without one a bias; Llama has none."""
    tiny = tiny_models()["decoder"]
    model = tiny.build()
    if bits is not None:
        quantise(model, bits)
    names = set(model.state_dict())
    delta = tunesmith.attach(model, "lora", b_bias=True)
    for parameter in delta.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    tuned = run(model, tiny)
    delta.merge()
    assert torch.allclose(run(model, tiny), tuned, atol=2e-4)
    assert any(name.endswith("q_proj.bias") for name in set(model.state_dict()) - names)
    delta.unmerge()
    assert torch.equal(run(model, tiny), tuned) and set(model.state_dict()) == names


def test_the_simple_way_back_is_not_exact() -> None:
    """W + d - d differs from W in floats, which is why the tensors are put aside."""
    weight, change = torch.randn(64, 64), torch.randn(64, 64)
    assert not torch.equal(weight + change - change, weight)


def test_a_tied_layer_merges_alone() -> None:
    """A delta on the output map leaves the embeddings it is tied to as they are, and so does its merge."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, 64, (2, 7))
    delta = tunesmith.attach(model, "lora", rank=2, layers="lm_head")
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        tuned = model(ids).logits
        delta.merge()
        assert torch.allclose(model(ids).logits, tuned, atol=1e-4)
        delta.unmerge()
        assert model.lm_head.weight is model.transformer.wte.weight


def test_what_cannot_be_undone_says_so() -> None:
    model = tiny_models()["encoder"].build()
    delta = tunesmith.attach(model, "lora", rank=2)
    with pytest.raises(CompatibilityError, match="is not merged"):
        delta.unmerge()
    delta.merge(keep=False)
    with pytest.raises(CompatibilityError, match="keep=False"):
        delta.unmerge()
    delta = tunesmith.attach(model, "lora", rank=2)
    delta.merge()
    tunesmith.attach(model, "lora", rank=2)
    with pytest.raises(CompatibilityError, match="attached meanwhile"):
        delta.unmerge()


def test_closing_after_a_merge_unfreezes_the_new_tensors() -> None:
    model = tiny_models()["encoder"].build()
    tunesmith.attach(model, "lora", rank=2).merge()
    open_seams(model).close()
    assert all(parameter.requires_grad for parameter in model.parameters())
