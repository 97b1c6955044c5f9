"""Gradient checkpointing: the second run of a layer must repeat the first, or be refused."""

import pytest
import torch
import transformers

import tunesmith
from tunesmith.core.errors import CompatibilityError
from tunesmith.models.routing import Routing

IDS = torch.randint(5, 90, (2, 6), generator=torch.Generator().manual_seed(0))


def bert() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=48, attn_implementation="sdpa")  # fmt: skip
    return transformers.BertModel(config).double()


def gradients(checkpointing: bool) -> list[torch.Tensor]:
    model = bert().train()
    torch.manual_seed(1)
    delta = tunesmith.attach(model, "lora", rank=2, dropout=0.3, layers="query")
    for patch in delta.patches.values():
        torch.nn.init.normal_(patch.lora_B.weight)
    if checkpointing:
        model.activation_checkpointing_enable()
    torch.manual_seed(2)
    model(IDS).last_hidden_state.square().sum().backward()
    return [parameter.grad for parameter in delta.parameters()]


def test_dropout_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = gradients(checkpointing=True)
    monkeypatch.setattr(Routing, "recomputes", True)  # the same source of masks, but nothing runs twice
    for first, second in zip(ours, gradients(checkpointing=False), strict=True):
        assert (first - second).abs().max() <= 1e-10 * second.abs().max()


@pytest.mark.parametrize("method", ["prefix", "prompt-tuning"])
def test_soft_prompts_refuse_it(method: str) -> None:
    model = bert().train()
    tunesmith.attach(model, method, length=3)
    model.activation_checkpointing_enable()
    with pytest.raises(CompatibilityError, match="gradient checkpointing runs layers again"):
        model(IDS)
    model.activation_checkpointing_disable()
    model(IDS)


def test_rows_of_several_deltas_refuse_it() -> None:
    model = bert().train()
    tunesmith.attach(model, "lora", "a")
    model.activation_checkpointing_enable()
    with pytest.raises(CompatibilityError, match="rows of several deltas"), tunesmith.route(model, ["a", None]):
        model(IDS)
