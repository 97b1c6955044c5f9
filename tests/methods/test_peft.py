"""Delta folders are PEFT's: what we write loads there with the same numbers, and the other way round."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError, TargetError
from tunesmith.methods.lora import Lora
from tunesmith.methods.store import save_delta
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models

# Llama's norms cast to float32 whatever the model's type.
BOUND = {"encoder": 1e-10, "decoder": 1e-6, "transposed-decoder": 1e-10, "encoder-decoder": 1e-10, "vision": 1e-10}
FAMILIES = ["encoder", "decoder", "transposed-decoder", "encoder-decoder", "vision"]


def run(model: nn.Module, family: str) -> torch.Tensor:
    inputs = tiny_models()[family].inputs()
    inputs = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    with torch.no_grad():
        return model(**inputs).last_hidden_state


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_loads_in_peft(family: str, tmp_path: Path) -> None:
    model = tiny_models()[family].build().double()
    method = Lora(rank=3, alpha=5.0)
    delta = method.attach(open_seams(model))
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.2)
    save_delta(tmp_path, method, delta, "tiny")
    theirs = peft.PeftModel.from_pretrained(tiny_models()[family].build().double(), tmp_path).double()
    difference = (run(theirs, family) - run(model, family)).abs().max()
    assert difference <= BOUND[family] * run(model, family).abs().max()


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_here(family: str, rslora: bool, tmp_path: Path) -> None:
    targets = {"transposed-decoder": ["c_attn", "c_proj"], "encoder": ["query", "value"]}.get(family, ["q_proj"])
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, use_rslora=rslora, init_lora_weights=False,
                             fan_in_fan_out=family == "transposed-decoder")  # fmt: skip
    theirs = peft.get_peft_model(tiny_models()[family].build(), config).eval()
    theirs.save_pretrained(tmp_path)
    model = tiny_models()[family].build().double()
    tunesmith.attach(model, tmp_path)
    expected = run(theirs.double(), family)
    assert (run(model, family) - expected).abs().max() <= BOUND[family] * expected.abs().max()


@pytest.mark.parametrize("ours", [False, True])
def test_a_classifier_with_its_head(ours: bool, tmp_path: Path) -> None:
    """PEFT keeps the head of a sequence classifier in modules_to_save; it travels both ways."""

    def classifier() -> nn.Module:
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                         intermediate_size=48, num_labels=3)  # fmt: skip
        return transformers.BertForSequenceClassification(config).eval()

    ids = tiny_models()["encoder"].inputs()["input_ids"]
    model = classifier()
    if ours:
        method = Lora(rank=2, layers=("query", "value"), modules_to_save=("classifier",))
        delta = method.attach(open_seams(model))
        for parameter in delta.parameters():
            nn.init.normal_(parameter, std=0.2)
        save_delta(tmp_path, method, delta, "tiny")
        theirs = peft.PeftModel.from_pretrained(classifier(), tmp_path).eval()
    else:
        config = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS", init_lora_weights=False)
        theirs = peft.get_peft_model(classifier(), config).eval()
        nn.init.normal_(theirs.base_model.model.classifier.modules_to_save["default"].weight)
        theirs.save_pretrained(tmp_path)
        delta = tunesmith.attach(model, tmp_path)
    with torch.no_grad():
        expected = theirs(ids).logits
        assert (model(ids).logits - expected).abs().max() <= 1e-5 * expected.abs().max()
        delta.detach()
        assert torch.equal(model(ids).logits, classifier()(ids).logits)


def tied() -> nn.Module:
    """A GPT-2 whose output map is its table of embeddings."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return transformers.GPT2LMHeadModel(config).eval().double()


@pytest.mark.filterwarnings("ignore:.*tie.*:UserWarning")  # PEFT's, of what is tested here
@pytest.mark.parametrize("kind", [peft.LoraConfig, peft.IA3Config, peft.VeraConfig])
@pytest.mark.parametrize("whole", [["lm_head"], ["wte"], ["wte", "lm_head"], "tied"])
def test_tied_modules_train_apart_unless_peft_tied_them(whole: Any, kind: Any, tmp_path: Path) -> None:
    """PEFT gives a module of modules_to_save weights of its own, even where the model ties it to another."""
    if whole == "tied" and kind is not peft.LoraConfig:
        pytest.skip("only LoRA has ensure_weight_tying")
    settings = (
        {"modules_to_save": ["lm_head"], "ensure_weight_tying": True} if whole == "tied" else {"modules_to_save": whole}
    )
    if kind is peft.IA3Config:
        settings["feedforward_modules"] = []
    theirs = (
        peft.get_peft_model(tied(), kind(target_modules=["c_attn"], fan_in_fan_out=True, **settings)).double().eval()
    )
    ids = tiny_models()["encoder"].inputs()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
        theirs.save_pretrained(tmp_path / "theirs")
        model, expected = tied(), theirs(**ids).logits
        delta = tunesmith.attach(model, tmp_path / "theirs")
        assert (model(**ids).logits - expected).abs().max() <= 1e-10 * expected.abs().max()
        delta.save(tmp_path / "ours")
        again = peft.PeftModel.from_pretrained(tied(), tmp_path / "ours").eval()
        assert (again(**ids).logits - expected).abs().max() <= 1e-10 * expected.abs().max()
        delta.merge()
        assert (model(**ids).logits - expected).abs().max() <= 1e-10 * expected.abs().max()
        delta.unmerge()
        delta.detach()
        assert model.lm_head.weight is model.transformer.wte.weight
        assert torch.equal(model(**ids).logits, tied()(**ids).logits)


def test_a_module_to_save_that_is_none_is_named() -> None:
    with pytest.raises(TargetError, match=r"GPT2LMHeadModel has no module 'lm_haed'.*Did you mean 'lm_head'\?"):
        tunesmith.attach(tied(), "lora", modules_to_save=["wte", "lm_haed"])


def test_options_we_lack_are_refused(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["query"], use_qalora=True)
    peft.get_peft_model(tiny_models()["encoder"].build(), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="option 'use_qalora' = True of PEFT's LORA is not supported"):
        tunesmith.attach(tiny_models()["encoder"].build(), tmp_path)


def test_a_delta_of_another_model_does_not_attach(tmp_path: Path) -> None:
    model = tiny_models()["encoder"].build()
    method = Lora(rank=2, layers="query")
    save_delta(tmp_path, method, method.attach(open_seams(model)), "tiny")
    with pytest.raises(tunesmith.TunesmithError):
        tunesmith.attach(tiny_models()["decoder"].build(), tmp_path)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    model = tiny_models()["encoder"].build()
    save_delta(tmp_path, Lora(), Lora().attach(open_seams(model)), "tiny")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is damaged"):
        tunesmith.attach(tiny_models()["encoder"].build(), tmp_path)
