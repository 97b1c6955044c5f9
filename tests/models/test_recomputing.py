"""Blocks that run a second time for their gradients repeat the first run to the bit, and keep only their inputs."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.models.test_keeping import tuned
from tests.models.test_ragged import FAMILIES, LENGTHS, batch_of, loss_of
from tunesmith.core.registry import components
from tunesmith.models.backbone import Backbone
from tunesmith.models.dropout import set_dropout
from tunesmith.models.layout import ragged
from tunesmith.models.recomputing import recomputing
from tunesmith.models.sequences import open_language

ROWS = [torch.randint(5, 90, (length,), generator=torch.Generator().manual_seed(length)) for length in LENGTHS]


def prepare(backbone: Backbone, again: bool) -> None:
    """Let blocks run again or not; dropout starts anew."""
    backbone.again = recomputing(backbone.seams, backbone.body) if again else None
    for number, source in enumerate(backbone.seams.streams().values()):
        source.seed(number)
    torch.manual_seed(3)


def gradients(backbone: Backbone, parameters: list[nn.Parameter], again: bool, names: list[str] | None) -> list[Tensor]:
    prepare(backbone, again)
    batch = ragged(ROWS, names=names)
    loss = loss_of(backbone.hidden(batch), batch.layout)
    return [loss, *torch.autograd.grad(loss, parameters)]


def equal(backbone: Backbone, parameters: list[nn.Parameter], names: list[str] | None = None) -> None:
    plain = gradients(backbone, parameters, False, names)
    for one, other in zip(plain, gradients(backbone, parameters, True, names), strict=True):
        assert torch.equal(one, other)
    assert any(gradient.any() for gradient in plain[1:])


def attached(backbone: Backbone, method: str, name: str, **settings: Any) -> list[nn.Parameter]:
    delta = components("methods")[method](**settings).attach(backbone.seams, name)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    backbone.seams.own_dropout(name)
    return list(delta.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_run_repeats_the_first(family: str, dropout: float) -> None:
    backbone, delta = tuned(FAMILIES[family](), torch.float32)
    backbone.model.train()
    set_dropout(backbone.model, dropout)
    equal(backbone, list(delta.parameters()))


@pytest.mark.parametrize("method", ["prefix", "prompt-tuning", "full", "norm"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_soft_prompts_and_copies(family: str, method: str) -> None:
    backbone, delta = tuned(FAMILIES[family](), torch.float32)
    delta.detach()
    equal(
        backbone,
        attached(backbone, method, "other", **({"length": 3} if method in ("prefix", "prompt-tuning") else {})),
    )


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_rows_of_several_deltas_with_dropout(family: str) -> None:
    backbone, delta = tuned(FAMILIES[family](), torch.float32)
    delta.detach()
    backbone.model.train()
    set_dropout(backbone.model, 0.2)
    own = attached(backbone, "lora", "a", rank=2, dropout=0.1) + attached(backbone, "full", "b")
    own += attached(backbone, "prefix", "c", length=2)
    equal(backbone, own, ["abc"[number % 3] for number in range(len(ROWS))])


def test_an_encoder_and_a_decoder() -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, num_layers=2, num_heads=4, d_ff=48,
                                   decoder_start_token_id=0)  # fmt: skip
    model = open_language(transformers.T5ForConditionalGeneration(config))
    model.model.train()
    parameters = attached(model, "lora", "a", rank=2)
    found = []
    for again in (False, True):
        prepare(model, again)
        batch = ragged(ROWS, learned=[torch.arange(len(row)) >= len(row) // 2 for row in ROWS])
        loss = model.before_learned(batch).square().sum()
        found.append([loss, *torch.autograd.grad(loss, parameters)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_block_keeps_its_input_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more blocks keep two more hidden states, where a plain pass keeps everything of them."""
    kept = {}
    for layers in (2, 4):
        config = FAMILIES["llama"]()
        config.num_hidden_layers = layers
        backbone, _ = tuned(config, torch.float32)
        backbone.again = recomputing(backbone.seams, backbone.body)
        seen: dict[int, Tensor] = {}
        monkeypatch.setattr(
            "tunesmith.models.recomputing.checkpoint",
            lambda run, *args, seen=seen, **rest: (
                seen.update({id(args[0]): args[0]}) or torch.utils.checkpoint.checkpoint(run, *args, **rest)
            ),
        )
        with torch.autograd.graph.saved_tensors_hooks(lambda t, seen=seen: seen.update({id(t): t}) or t, lambda t: t):
            backbone.hidden(batch_of())
        weights = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}
        kept[layers] = sum({t.untyped_storage().data_ptr(): t.numel() for t in seen.values()
                            if t.untyped_storage().data_ptr() not in weights}.values())  # fmt: skip
    assert kept[4] - kept[2] == 2 * sum(LENGTHS) * 32
