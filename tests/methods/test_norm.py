"""Norm tuning: which parameters train, and the same folders as PEFT's LN_TUNING."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tunesmith
from tests.methods.test_peft import BOUND, FAMILIES, run
from tunesmith.core.errors import TargetError
from tunesmith.methods.norm import Norm
from tunesmith.methods.store import save_delta
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models

pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")  # of PEFT, at every layer norm
TARGETS = {
    "encoder": ["LayerNorm"],
    "decoder": ["input_layernorm", "post_attention_layernorm", "norm"],
    "transposed-decoder": ["ln_1", "ln_2", "ln_f"],
    "encoder-decoder": ["self_attn_layer_norm", "final_layer_norm"],
    "vision": ["layernorm_before", "layernorm_after", "layernorm"],
}
ALL = {"encoder": 5, "decoder": 5, "transposed-decoder": 5, "encoder-decoder": 12, "vision": 5}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_takes_every_norm_and_nothing_else(family: str) -> None:
    model = tiny_models()[family].build()
    delta = Norm().attach(open_seams(model))
    owners = {path.rpartition(".")[0] for path in delta.copies}
    assert len(owners) == ALL[family]
    assert {type(model.get_submodule(path)).__name__ for path in owners} <= {"LayerNorm", "LlamaRMSNorm"}
    assert all(copy.dim() == 1 for copy in delta.copies.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_loads_in_peft(family: str, tmp_path: Path) -> None:
    model = tiny_models()[family].build().double()
    method = Norm()
    delta = method.attach(open_seams(model))
    for parameter in delta.parameters():
        nn.init.normal_(parameter)
    save_delta(tmp_path, method, delta, "tiny")
    theirs = peft.PeftModel.from_pretrained(tiny_models()[family].build().double(), tmp_path).double()
    expected = run(model, family)
    assert (run(theirs, family) - expected).abs().max() <= BOUND[family] * expected.abs().max()
    assert (run(tiny_models()[family].build().double(), family) - expected).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_here(family: str, tmp_path: Path) -> None:
    config = peft.LNTuningConfig(target_modules=TARGETS[family])
    theirs = peft.get_peft_model(tiny_models()[family].build(), config).eval()
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path)
    model = tiny_models()[family].build().double()
    delta = tunesmith.attach(model, tmp_path)
    expected = run(theirs.double(), family)
    assert (run(model, family) - expected).abs().max() <= BOUND[family] * expected.abs().max()
    saved, again = load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "again"
    assert len(saved) == len(delta.copies)
    save_delta(again, Norm(layers=tuple(TARGETS[family])), delta, "tiny")
    assert load_file(again / "adapter_model.safetensors").keys() == saved.keys()


def test_a_head_travels_beside_the_norms(tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"body": tiny_models()["encoder"].build(), "head": nn.Linear(32, 3)})

    method = Norm(modules_to_save=("head",))
    delta = method.attach(open_seams(model()))
    names = set(method.tensors(delta))
    assert {"base_model.model.head.weight", "base_model.model.head.bias"} <= names
    assert "base_model.model.body.embeddings.LayerNorm.ln_tuning_layers.weight" in names
    save_delta(tmp_path, method, delta, "tiny")
    (tmp_path / "method.json").unlink()
    assert tunesmith.attach(model(), tmp_path).copies.keys() == delta.copies.keys()


def test_named_modules_and_models_without_norms() -> None:
    model = tiny_models()["decoder"].build()
    assert list(Norm(layers="norm").attach(open_seams(model)).copies) == ["norm.weight"]
    with pytest.raises(TargetError, match=r"'nrom' matches no module.*LlamaModel.*norms end in: input_layernorm, norm"):
        Norm(layers="nrom").attach(open_seams(tiny_models()["decoder"].build()))
    with pytest.raises(TargetError, match="Sequential has no norm with parameters"):
        Norm().attach(open_seams(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2, elementwise_affine=False))))
    kinds = nn.Sequential(nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.Linear(4, 4))
    assert list(Norm().attach(open_seams(kinds)).copies) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"]


def test_a_module_that_is_no_norm_is_pointed_out() -> None:
    seams = open_seams(tiny_models()["encoder"].build())
    (warning,) = Norm(layers=("query", "LayerNorm")).warnings(seams)
    assert "2 of the modules are no norms, for example 'encoder.layer.0.attention.self.query'" in warning
    assert Norm(layers="LayerNorm").warnings(seams) == Norm().warnings(seams) == []


def test_modules_that_hold_others_come_back(tmp_path: Path) -> None:
    model, fresh = (tiny_models()["encoder"].build() for _ in range(2))
    delta = tunesmith.attach(model, "norm", layers="attention.self")
    assert "encoder.layer.0.attention.self.query.weight" in delta.copies
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    delta.save(tmp_path)
    assert tunesmith.attach(fresh, tmp_path).copies.keys() == delta.copies.keys()
    assert torch.equal(run(fresh, "encoder"), run(model, "encoder"))
