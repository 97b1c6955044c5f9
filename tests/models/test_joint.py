"""Maps that read the same tensor run as one node and give what each gives by itself."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import tunesmith
from tunesmith.methods.lora import Lora
from tunesmith.models import joint
from tunesmith.models.backbone import Backbone
from tunesmith.models.joint import Joint, Part, joined
from tunesmith.models.layout import ragged
from tunesmith.models.seams import open_seams


def part(out: int, rank: int, bias: bool) -> Part:
    factors = (random(rank, 6), random(out, rank)) if rank else ()
    return Part(torch.randn(out, 6, dtype=torch.float64), torch.randn(out).double() if bias else None, factors, 0.7)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("unread", [(), (1,), (0, 2)], ids=["all read", "one not read", "one read"])
@pytest.mark.parametrize("ranks", [(2, 3, 2), (2, 0, 3), (0, 0, 0)], ids=["all adapted", "two adapted", "none"])
@pytest.mark.parametrize("onto", [False, True], ids=["as on a CPU", "as on a GPU"])
def test_equal_to_one_map_after_another(
    onto: bool, ranks: tuple[int, ...], unread: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "adds_onto", lambda x, narrow: onto)
    torch.manual_seed(0)
    parts = [part(out, rank, bias) for out, rank, bias in zip((4, 5, 3), ranks, (True, False, True), strict=True)]
    x = random(2, 5, 6)
    inputs = [x, *(factor for one in parts for factor in one.factors)]
    plain = []
    for one in parts:
        y = nn.functional.linear(x, one.weight, one.bias)
        plain.append(y + one.scale * (x @ one.factors[0].t()) @ one.factors[1].t() if one.factors else y)
    found = joined(parts, x)
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    losses = [sum(y.pow(2).sum() for n, y in enumerate(ys) if n not in unread) for ys in (found, plain)]
    grads = [torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True) for loss in losses]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def tuned() -> tuple[Backbone, Any]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    backbone = Backbone(transformers.AutoModel.from_config(config).double().eval())
    delta = Lora(rank=2).attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    return backbone, delta


def test_q_k_v_and_gate_and_up_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, delta = tuned()
    sizes: list[int] = []
    monkeypatch.setattr(joint, "joined", lambda parts, x: sizes.append(len(parts)) or joined(parts, x))
    batch = ragged([torch.arange(5, 12), torch.arange(20, 40)])
    together = backbone.hidden(batch)
    assert sizes == [3, 2] * 2
    grads = torch.autograd.grad(together.pow(2).sum(), delta.parameters())
    monkeypatch.setattr(Joint, "run", lambda self, seam, x: None)
    alone = backbone.hidden(batch)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    for one, other in zip(grads, torch.autograd.grad(alone.pow(2).sum(), delta.parameters()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)  # norms cast to float32


def test_what_was_computed_ahead_is_for_that_tensor_and_that_pass() -> None:
    backbone, _ = tuned()
    run = backbone.seams.routing.joint
    q, k = (backbone.seams.linear[f"layers.0.self_attn.{name}_proj"] for name in "qk")
    x = torch.randn(3, 32, dtype=torch.float64)
    alone = k.module(x + 1)
    with backbone.seams.routing.quickly(), torch.no_grad():
        q.module(x)
        assert len(run._ahead) == 2, "k and v"
        torch.testing.assert_close(k.module(x + 1), alone)
        q.module(x)
        torch.testing.assert_close(k.module(x.add_(1)), alone)
    assert not run._ahead


def test_maps_that_are_not_always_called_together_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that chooses its maps, as one with experts does, must not pay for those it leaves out."""

    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.both = nn.Linear(4, 3), nn.Linear(4, 3), True

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x)
            return y + self.b(x) if self.both else y

    torch.manual_seed(0)
    model = Choosing()
    tunesmith.attach(model, Lora(rank=2, layers=("a", "b")))
    routing, x = open_seams(model).routing, torch.randn(5, 4)
    sizes: list[int] = []
    monkeypatch.setattr(joint, "joined", lambda parts, x: sizes.append(len(parts)) or joined(parts, x))
    for both in (True, True, False, True, False, False):
        model.both = both
        wanted = model(x)  # a user's own call: map by map
        with routing.quickly():
            torch.testing.assert_close(model(x), wanted)
    assert sizes == [2, 2], "seen in the first pass, together in the second, left out in the third"


def test_what_was_computed_without_gradients_is_not_read_for_them() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                q = self.q(x)
            return q * self.k(x)

    model = Half()
    delta = tunesmith.attach(model, "lora", layers=["q", "k"])
    for _ in range(2):
        with delta.seams.routing.quickly():
            assert model(torch.randn(3, 8)).requires_grad
