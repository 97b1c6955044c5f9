"""What the backward pass needs is kept once, and what can be had again is not kept."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.models.test_ragged import FAMILIES, LENGTHS, batch_of, loss_of
from tunesmith.methods.lora import Lora
from tunesmith.models import keeping, ragged_attention
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.gated import GatedSeam

RANK = 2


def tuned(
    config: transformers.PretrainedConfig, dtype: torch.dtype, layers: Any = "all-linear"
) -> tuple[Backbone, Delta]:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).to(dtype).eval()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    backbone = Backbone(model)
    delta = Lora(rank=RANK, layers=layers).attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    return backbone, delta


def gradients(backbone: Backbone, delta: Delta) -> list[Tensor]:
    loss = loss_of(backbone.hidden(batch_of()), batch_of().layout)
    return [loss, *torch.autograd.grad(loss, delta.parameters())]


@pytest.fixture
def plain_heights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of exactly the batch's tokens: the rows of zeros below them are counted in test_products."""
    monkeypatch.setattr("tunesmith.models.products._few_heights", lambda x: x)


def kept_bytes(count: int, family: str, dtype: torch.dtype = torch.float32, layers: Any = "all-linear") -> int:
    config = FAMILIES[family]()
    config.num_hidden_layers = count
    backbone, delta = tuned(config, dtype, layers)
    with keeping.counted([*backbone.model.parameters(), *backbone.model.buffers(), *delta.parameters()]) as found:
        hidden = backbone.hidden(batch_of())
    assert hidden.requires_grad
    return found.bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_stay_the_same_to_the_bit(family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, delta = tuned(FAMILIES[family](), dtype)
    ours = gradients(backbone, delta)
    monkeypatch.setattr("tunesmith.models.backbone.spared_memory", nullcontext)
    for one, other in zip(ours, gradients(backbone, delta), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(params=["kernel", "few products", "many products"])
def per_cell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What attention keeps for each head: a sum per query, or weights that are few; past a row's end too."""
    monkeypatch.setattr(ragged_attention, "_SHORT", 0 if request.param == "kernel" else 64)
    monkeypatch.setattr(ragged_attention, "_KEPT", 0 if request.param == "many products" else 1 << 20)
    monkeypatch.setitem(ragged_attention._QUERIES, "cpu", 1 << 20)  # a row in one piece: the closed form of a square
    per_query = {"kernel": lambda length: 1, "many products": lambda length: 0, "few products": lambda length: length}
    return sum(one.rows * one.length * per_query[request.param](one.length) for one in batch_of().layout.buckets)


@pytest.mark.usefixtures("plain_heights")
def test_a_llama_layer_keeps_the_closed_form(per_cell: int) -> None:
    """Per token: the residual stream at two norms, q, k, v, what attention gives, gate and up, and r per map.

    Besides, of maps that run as one node, their A one below the other.
    """
    hidden, key, ffn, heads, maps, norms, joint = 32, 16, 48, 4, 7, 2, 5
    per_token = 2 * hidden + hidden + 2 * key + hidden + 2 * ffn + maps * RANK + norms
    layer = kept_bytes(3, "llama") - kept_bytes(2, "llama")
    assert layer == 4 * (sum(LENGTHS) * per_token + heads * per_cell + joint * RANK * hidden)


@pytest.mark.usefixtures("plain_heights")
def test_a_bert_layer_keeps_the_closed_form(per_cell: int) -> None:
    """Per token: what goes into two norms, q, k, v, what attention gives and what goes into the activation.

    Besides, of q, k and v, which run as one node, their A one below the other.
    """
    hidden, ffn, heads, maps, norms, joint = 32, 48, 4, 6, 2, 3
    per_token = 2 * hidden + 4 * hidden + ffn + maps * RANK + 2 * norms
    layer = kept_bytes(3, "bert") - kept_bytes(2, "bert")
    assert layer == 4 * (sum(LENGTHS) * per_token + heads * per_cell + joint * RANK * hidden)


QUERY = {"llama": "layers.{}.self_attn.q_proj", "bert": "encoder.layer.{}.attention.self.query"}


@pytest.mark.usefixtures("plain_heights")
def test_a_llama_layer_in_16_bits_keeps_half_of_it() -> None:
    """No copy in float32 but a number per row of a norm and per query; factors of the delta as they are rounded."""
    hidden, key, ffn, heads, maps, norms = 32, 16, 48, 4, 7, 2
    per_token = 2 * hidden + hidden + 2 * key + hidden + 2 * ffn + maps * RANK
    wide = sum(LENGTHS) * norms + heads * sum(one.rows * one.length for one in batch_of().layout.buckets)
    factors = RANK * (2 * (hidden + hidden) + 2 * (hidden + key) + 3 * (hidden + ffn))
    layer = kept_bytes(3, "llama", torch.bfloat16) - kept_bytes(2, "llama", torch.bfloat16)
    assert layer == 2 * (sum(LENGTHS) * per_token + factors) + 4 * wide


@pytest.mark.usefixtures("plain_heights")
@pytest.mark.parametrize("small", [True, False], ids=["torch's own node", "ours"])
def test_a_llama_layer_without_a_delta_keeps_no_input_of_its_maps(
    small: bool, per_cell: int, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the first delta: what norms, attention and the gate need for their own gradients.

    What attention gives is kept by its kernel alone, not for the map behind it.
    """
    hidden, key, ffn, heads, norms = 32, 16, 48, 4, 2
    monkeypatch.setattr("tunesmith.models.low_rank.is_small", lambda weight: small)
    kernel = request.node.callspec.params["per_cell"] == "kernel"
    per_token = 2 * hidden + hidden + 2 * key + kernel * hidden + 2 * ffn + norms
    found = [kept_bytes(count, "llama", layers=(QUERY["llama"].format(0),)) for count in (2, 3)]
    assert found[1] - found[0] == 4 * (sum(LENGTHS) * per_token + heads * per_cell)


def test_a_gate_in_one_pass_as_on_a_gpu_keeps_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = kept_bytes(3, "llama") - kept_bytes(2, "llama")
    monkeypatch.setattr(GatedSeam, "__call__", GatedSeam.quickly)
    assert kept_bytes(3, "llama") - kept_bytes(2, "llama") == plain


@pytest.mark.parametrize("family", QUERY)
def test_layers_below_the_first_delta_keep_nothing(family: str) -> None:
    few, many = (kept_bytes(count, family, layers=(QUERY[family].format(count - 1),)) for count in (1, 3))
    assert few == many


def test_maps_that_share_their_input_have_it_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, delta = tuned(FAMILIES["llama"](), torch.float32)
    made = []
    again = keeping._Keeping._again

    def counted(own: Any, node: Any, remake: Any) -> Tensor:
        before = own._last
        found = again(own, node, remake)
        made.append(own._last is not before)
        return found

    monkeypatch.setattr(keeping._Keeping, "_again", counted)
    gradients(backbone, delta)
    # per layer of two: what the norm gives to q, k, v and to gate, up, and both steps of the activation
    assert sum(made) == len(made) <= 2 * 4 + 1


def test_a_kept_tensor_that_is_changed_is_an_error() -> None:
    x = torch.randn(3, requires_grad=True)
    with keeping.spared_memory():
        y = x.exp()
        loss = (y * x.sin()).sum()
    y.detach().mul_(2.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_nothing_is_done_without_gradients() -> None:
    with torch.no_grad():
        assert isinstance(keeping.spared_memory(), nullcontext)
