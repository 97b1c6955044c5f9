"""Heads beside soft prompts, and PEFT's prompts of encoder-decoders."""

from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

import tunesmith
from tunesmith.core.errors import CheckpointError, TargetError

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
IDS = torch.randint(5, 90, (3, 9), generator=torch.Generator().manual_seed(1))
CONFIGS = {
    "prefix": peft.PrefixTuningConfig,
    "prompt-tuning": peft.PromptTuningConfig,
    "p-tuning": peft.PromptEncoderConfig,
    "multitask-prompt": peft.MultitaskPromptTuningConfig,
}
HEADS = {"ForSequenceClassification": ("classifier", "SEQ_CLS"), "ForTokenClassification": ("classifier", "TOKEN_CLS")}


def bert(head: str = "ForSequenceClassification") -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=96, max_position_embeddings=64, num_labels=3, **SMALL)
    return getattr(transformers, f"Bert{head}")(config).eval().double()


def t5() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                   decoder_start_token_id=0)  # fmt: skip
    return transformers.T5ForConditionalGeneration(config).eval().double()


def answer(model: nn.Module, **extra: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **extra).logits
    return logits[:, -IDS.shape[1] :] if logits.dim() == 3 else logits  # PEFT gives virtual tokens back too


def shake(model: nn.Module) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


def far(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def in_doubles(base: nn.Module, folder: Path) -> nn.Module:
    """Load by PEFT, which reads a prompt into the default type."""
    torch.set_default_dtype(torch.float64)
    try:
        return peft.PeftModel.from_pretrained(base, folder).eval()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", CONFIGS)
def test_a_head_travels_beside_a_soft_prompt(method: str, head: str, tmp_path: Path) -> None:
    """PEFT saves a classifier's head with the prompt; here it is read, written for PEFT, and leaves on detach."""
    module, task = HEADS[head]
    theirs = peft.get_peft_model(bert(head), CONFIGS[method](num_virtual_tokens=4, task_type=task)).double().eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    extra = {"task_ids": torch.zeros(3, dtype=torch.int64)} if method == "multitask-prompt" else {}
    expected = answer(theirs, **extra)
    model = bert(head)
    delta = tunesmith.attach(model, tmp_path / "theirs")
    assert {name for name, _ in delta.named_parameters()} >= {f"{module}.weight", f"{module}.bias"}
    assert far(answer(model), expected) <= 1e-10 < far(answer(bert(head)), expected)
    delta.save(tmp_path / "ours")
    assert far(answer(in_doubles(bert(head), tmp_path / "ours"), **extra), expected) <= 1e-10
    again = bert(head)
    tunesmith.attach(again, tmp_path / "ours")
    assert torch.equal(answer(again), answer(model))
    if method == "multitask-prompt":  # a task brings the shared head along
        with tunesmith.route(model, ["default:0"] * 3):
            assert far(answer(model), expected) <= 1e-10
    delta.detach()
    assert torch.equal(answer(model), answer(bert(head)))


@pytest.mark.parametrize("method", ["prefix", "p-tuning"])
def test_a_made_prompt_and_its_head_train_on(method: str, tmp_path: Path) -> None:
    model = bert()
    settings = {"reparameterised": True} if method == "prefix" else {}
    delta = tunesmith.attach(model, method, length=4, modules_to_save=["classifier"], **settings)
    shake(model)
    model(input_ids=IDS, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(parameter.grad is not None for parameter in delta.parameters())
    delta.save(tmp_path)
    again = bert()
    copy = tunesmith.attach(again, tmp_path)
    pairs = zip(delta.named_parameters(), copy.named_parameters(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    if method == "prefix":  # PEFT has no virtual tokens after an encoder's first
        assert far(answer(in_doubles(bert(), tmp_path)), answer(model)) <= 1e-10
    with pytest.raises(TargetError, match=r"has no module 'clasifier'.*Did you mean 'classifier'\?"):
        tunesmith.attach(bert(), method, modules_to_save=["clasifier"])


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
def test_pefts_prompt_for_encoder_and_decoder(method: str, tmp_path: Path) -> None:
    """By default PEFT makes twice the tokens for such a model and reads the first half."""
    config = CONFIGS[method](num_virtual_tokens=4, task_type="SEQ_2_SEQ_LM")
    theirs = peft.get_peft_model(t5(), config).double().eval()
    assert config.num_transformer_submodules == 2
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    model = t5()
    tunesmith.attach(model, tmp_path)
    assert far(answer(model, decoder_input_ids=IDS[:, :4]), answer(theirs, decoder_input_ids=IDS[:, :4])) <= 1e-6


def test_tokens_before_the_decoder_are_refused(tmp_path: Path) -> None:
    config = peft.MultitaskPromptTuningConfig(num_virtual_tokens=4, task_type="SEQ_2_SEQ_LM")
    peft.get_peft_model(t5(), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="num_transformer_submodules = 2 puts virtual tokens before the decoder"):
        tunesmith.attach(t5(), tmp_path)
