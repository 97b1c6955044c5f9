"""A merged model answers as the tuned one, or nothing is written; the way back is exact."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError, CompatibilityError, DataError, RecipeError
from tunesmith.methods.lora import Lora
from tunesmith.methods.store import save_delta
from tunesmith.models.loading import load_model, load_tokenizer, locate
from tunesmith.models.quantized import quantise
from tunesmith.models.seams import open_seams
from tunesmith.runs.agreement import agreement
from tunesmith.testing import tiny_models

Recipe = dict[str, Any]


def features(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state


@pytest.mark.parametrize("method", [{"name": "lora", "rank": 4}, {"name": "bitfit"}, {"name": "full"}, {"name": "ia3"}])
def test_a_run_becomes_a_model_folder(method: Recipe, recipe: Recipe, tiny_folder: Path, tmp_path: Path) -> None:
    run = tunesmith.train({**recipe, "method": method})
    facts = tunesmith.merge(run, tmp_path / "merged")
    assert facts["rows"] == 12 and facts["rows_from"].endswith("test.csv") and facts["tolerance"] == 1e-3
    assert facts["relative_difference"] <= 1e-5 and facts["mean_kl"] <= 1e-8 and facts["argmax_agreement"] == 1.0
    assert facts["relative_difference"] >= facts["largest_logit_difference"] / facts["largest_logit"]
    _, tuned = run._opened
    ids = torch.randint(5, 60, (3, 9))
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "merged").eval()
    wanted = features(tuned.backbone.model, ids)
    assert (features(loaded, ids) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    fresh = transformers.AutoModel.from_pretrained(tiny_folder).eval()
    assert (features(fresh, ids) - wanted).abs().max() > 1e-4 * wanted.abs().max(), "the delta does something"
    record = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert record["base_hash"] == run.fingerprint["base_model_hash"] and record["method"]["name"] == method["name"]
    rules = [
        load_tokenizer(locate(str(place))).backend_tokenizer.to_str() for place in (tiny_folder, tmp_path / "merged")
    ]
    assert rules[0] == rules[1]
    head = load_file(tmp_path / "merged" / "head.safetensors")
    assert head.keys() == load_file(run.folder / "head.safetensors").keys()
    # As the base of another run it is an ordinary model folder.
    load_model(locate(str(tmp_path / "merged")), torch.device("cpu"))


def test_the_way_back_is_exact(recipe: Recipe, tiny_folder: Path, tmp_path: Path) -> None:
    run = tunesmith.train(recipe)
    tunesmith.merge(run.folder, tmp_path / "merged")
    facts = tunesmith.unmerge(tmp_path / "merged", tmp_path / "base")
    base, back = (load_file(place / "model.safetensors") for place in (tiny_folder, tmp_path / "base"))
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert base.keys() == back.keys() and all(torch.equal(base[key], back[key]) for key in base)
    assert facts["restored_tensors"] == sum(not torch.equal(base[key], merged[key]) for key in base) > 0
    assert not (tmp_path / "base" / "head.safetensors").exists()
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.unmerge(tmp_path / "merged", tmp_path / "base")
    merged["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(merged, tmp_path / "merged" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or was changed"):
        tunesmith.unmerge(tmp_path / "merged", tmp_path / "other")
    tunesmith.merge(run, tmp_path / "bare", keep=False)
    assert not (tmp_path / "bare" / "original.safetensors").exists()
    with pytest.raises(CheckpointError, match="without keeping the untouched tensors"):
        tunesmith.unmerge(tmp_path / "bare", tmp_path / "other")


def test_above_the_tolerance_nothing_is_written(recipe: Recipe, tmp_path: Path) -> None:
    run = tunesmith.train(recipe)
    before = run.predict_proba(["hello friend"])
    with pytest.raises(
        CompatibilityError, match=r"largest difference of logits is .*argmax agreement 100.00%.*1\.00e-12"
    ):
        tunesmith.merge(run, tmp_path / "merged", tolerance=1e-12)
    assert [path.name for path in tmp_path.iterdir() if "merged" in path.name] == []
    assert (run.predict_proba(["hello friend"]) == before).all(), "the run stays as it was"
    tunesmith.merge(run, tmp_path / "merged")
    assert (run.predict_proba(["hello friend"]) == before).all()
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.merge(run, tmp_path / "merged")
    with pytest.raises(RecipeError, match="tolerance above 0"):
        tunesmith.merge(run, tmp_path / "other", tolerance=0.0)


def test_a_merge_that_goes_wrong_is_caught(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch whose weight change is not what its forward pass does."""
    run = tunesmith.train(recipe)
    patch = next(iter(run._opened[1].delta.patches.values()))
    right = type(patch).weight_change
    monkeypatch.setattr(type(patch), "weight_change", lambda self, seam: 3 * right(self, seam))
    with pytest.raises(CompatibilityError, match="does not answer as the tuned one"):
        tunesmith.merge(run, tmp_path / "merged")
    # A merge that loses the delta is caught even where the delta does less than the tolerance.
    monkeypatch.setattr(type(patch), "weight_change", lambda self, seam: 0 * right(self, seam))
    for parameter in run._opened[1].delta.parameters():
        parameter.data *= 0.15
    with pytest.raises(CompatibilityError, match=r"the delta itself changes .*relative 1\.0.*of that"):
        tunesmith.merge(run, tmp_path / "merged", tolerance=0.5)


@pytest.mark.parametrize("name", ["prefix", "adapter"])
def test_methods_that_cannot_be_merged(name: str, recipe: Recipe, tmp_path: Path) -> None:
    run = tunesmith.train({**recipe, "method": {"name": name}})
    with pytest.raises(CompatibilityError, match=f"'{name}' cannot be merged: .* no change of the model's weights"):
        tunesmith.merge(run, tmp_path / "merged")


def test_held_out_rows(recipe: Recipe, data_folder: Path, tmp_path: Path) -> None:
    data = {key: value for key, value in recipe["data"].items() if key != "test"}
    run = tunesmith.train({**recipe, "data": data})
    facts = tunesmith.merge(run, tmp_path / "a", rows=5)
    assert facts["rows"] == 5 and "held out for validation" in facts["rows_from"]
    (tmp_path / "texts.txt").write_text("hello there\ngood night\n")
    facts = tunesmith.merge(run, tmp_path / "b", str(tmp_path / "texts.txt"))
    assert facts["rows"] == 2
    train = Path(run.recipe.recipe.data.train)
    train.write_text("\n".join(train.read_text().rstrip().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match="is not as it was when the run trained on it"):
        tunesmith.merge(run, tmp_path / "c")
    assert tunesmith.merge(run, tmp_path / "d", str(tmp_path / "texts.txt"))["rows"] == 2


def test_a_delta_folder_and_an_attached_delta(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_model(locate(str(tiny_folder)), torch.device("cpu"))
    method = Lora(rank=3)
    delta = method.attach(open_seams(model))
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_delta(tmp_path / "delta", method, delta, str(tiny_folder))
    ids = torch.randint(5, 60, (3, 9))
    wanted = features(model, ids)
    (tmp_path / "texts.txt").write_text("hello there\ngood night my friend\n")
    for number, (source, data) in enumerate(
        [(tmp_path / "delta", None), (tmp_path / "delta", str(tmp_path / "texts.txt")), (delta, None)]
    ):
        facts = tunesmith.merge(source, tmp_path / str(number), data)
        assert facts["mean_kl"] is None and facts["relative_difference"] <= 1e-5
        assert facts["rows"] == (64 if data is None else 2)
        loaded = transformers.AutoModel.from_pretrained(tmp_path / str(number)).eval()
        assert (features(loaded, ids) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(features(model, ids), wanted), "the attached delta stays as it was"


def test_a_model_with_its_own_head_and_tied_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=64)
    model = transformers.GPT2LMHeadModel(config).eval()
    delta = tunesmith.attach(model, "lora", rank=2, layers=("c_attn", "c_fc"))
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    facts = tunesmith.merge(delta, tmp_path / "merged")
    assert facts["argmax_agreement"] == 1.0 and facts["mean_kl"] < 1e-8
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.randint(0, 64, (2, 8))
    with torch.no_grad():
        wanted = model(ids).logits
        assert (loaded(ids).logits - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    delta.detach()
    delta = tunesmith.attach(model, "lora", rank=2, layers="lm_head")
    nn.init.normal_(delta.patches["lm_head"].lora_B.weight, std=0.3)  # type: ignore[union-attr,arg-type]
    tunesmith.merge(delta, tmp_path / "untied")  # one of two tied tensors changes: both are stored
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "untied").eval()
    with torch.no_grad():
        wanted = model(ids).logits
        assert (loaded(ids).logits - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_tensor_that_comes_back_otherwise_is_caught(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tunesmith.train(recipe)
    model = run._opened[1].backbone.model
    right = type(model).save_pretrained
    fresh = type(model)(model.config)
    monkeypatch.setattr(type(model), "save_pretrained", lambda self, folder, **_: right(fresh, folder))
    with pytest.raises(CompatibilityError, match=r"cannot be stored as BertModel: .* comes back otherwise"):
        tunesmith.merge(run, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("family", ["encoder", "transposed-decoder"])
def test_a_quantised_base(family: str, bits: str, tmp_path: Path) -> None:
    """Its layers are read back, so the merged model is plain, and nothing is lost beyond what quantising had lost."""
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config: Any = transformers.BertConfig(vocab_size=96, **sizes)
    if family == "transposed-decoder":
        config = transformers.GPT2Config(vocab_size=96, n_embd=64, n_layer=1, n_head=4, n_positions=64)
    model = transformers.AutoModel.from_config(config).eval()
    quantise(model, bits)
    delta = tunesmith.attach(model, "lora", rank=2)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(5, 90, (2, 8))
    wanted = features(model, ids)
    facts = tunesmith.merge(delta, tmp_path / "merged")
    assert facts["quantised_layers"] == facts["quantised_layers_merged"] == len(delta.patches)
    assert "full precision" in facts["quantised_note"] and facts["relative_difference"] <= 1e-4
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "merged").eval()
    assert (features(loaded, ids) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert torch.equal(features(model, ids), wanted)
    tunesmith.unmerge(tmp_path / "merged", tmp_path / "base")
    delta.detach()
    base = transformers.AutoModel.from_pretrained(tmp_path / "base").eval()
    assert (features(base, ids) - features(model, ids)).abs().max() <= 1e-4 * wanted.abs().max()


def test_the_figures() -> None:
    """Largest difference, KL and agreement by hand; a near-tie may flip, a clear answer may not."""
    before = torch.tensor([[2.0, 0.0], [0.0, 1e-4], [0.0, 4.0]])
    after = before + torch.tensor([[0.0, 0.0], [2e-4, 0.0], [0.0, 0.0]])
    found = agreement((None, before), (None, after), 1e-3)
    assert found.largest_difference == pytest.approx(2e-4, rel=1e-3) and found.scale == 4.0
    assert found.argmax_agreement == pytest.approx(2 / 3) and found.flips == 0 and found.within(1e-3, 1e-5)
    p, q = before.double().softmax(-1), after.double().softmax(-1)
    assert found.mean_kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-6)
    flipped = before.flip(1)
    found = agreement((None, before), (None, flipped), 1e-3)
    assert found.flips == 2 and not found.within(10.0, 1e-5)
    assert not agreement((None, before), (None, before * float("nan")), 1e-3).within(1e9, 1e-5)
    assert not agreement((before, None), (before * float("nan"), None), 1e-3).within(1e9, 1e-5)


def test_tiny_models_without_tokens_are_refused(tmp_path: Path) -> None:
    delta = tunesmith.attach(tiny_models()["vision"].build(), "lora", rank=2)
    with pytest.raises(CompatibilityError, match="reads no tokens"):
        tunesmith.merge(delta, tmp_path / "merged")
