"""The fast path equals the model's own padded path: loss and every gradient, float64."""

import pytest
import torch
import transformers
from torch import Tensor, nn

from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import Backbone, Proof, pool
from tunesmith.models.layout import Layout, RaggedBatch, ragged

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
LENGTHS = (3, 17, 9, 9, 1, 30, 12)


def bert() -> transformers.PretrainedConfig:
    return transformers.BertConfig(vocab_size=96, max_position_embeddings=64, **SMALL)


def roberta() -> transformers.PretrainedConfig:
    return transformers.RobertaConfig(vocab_size=96, max_position_embeddings=66, pad_token_id=1, **SMALL)


def llama() -> transformers.PretrainedConfig:
    return transformers.LlamaConfig(vocab_size=96, num_key_value_heads=2, pad_token_id=0, **SMALL)


def gpt2() -> transformers.PretrainedConfig:
    return transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)


def modernbert() -> transformers.PretrainedConfig:
    return transformers.ModernBertConfig(
        vocab_size=96, pad_token_id=0, cls_token_id=1, sep_token_id=2, local_attention=8,
        global_attn_every_n_layers=2, **SMALL,
    )  # fmt: skip


FAMILIES = {"bert": bert, "roberta": roberta, "llama": llama, "gpt2": gpt2, "modernbert": modernbert}
# Llama's norms cast to float32 whatever the model's type.
BOUND = {name: 1e-6 if name == "llama" else 1e-10 for name in FAMILIES}


def backbone_of(config: transformers.PretrainedConfig, device: str = "cpu") -> Backbone:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).double().eval().to(device)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return Backbone(model)


def batch_of(change_row: int | None = None) -> RaggedBatch:
    draw = torch.Generator().manual_seed(3)
    rows = [torch.randint(5, 96, (length,), generator=draw) for length in LENGTHS]
    if change_row is not None:
        rows[change_row] = (rows[change_row] - 5 + 1) % 91 + 5
    return ragged(rows)


def loss_of(hidden: Tensor, layout: Layout) -> Tensor:
    pooled = pool(hidden, layout, "mean")
    weights = torch.linspace(-1, 1, pooled.numel(), dtype=pooled.dtype, device=pooled.device).view_as(pooled)
    return (pooled * weights).sum() + pool(hidden, layout, "last").pow(2).mean()


def relative(first: Tensor, second: Tensor) -> float:
    return ((first - second).abs().max() / second.abs().max().clamp_min(1e-300)).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fast_path_proves_itself(family: str) -> None:
    proof = backbone_of(FAMILIES[family]()).proof
    assert proof.fast, proof.reason
    assert proof.position_offset == (2 if family == "roberta" else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_equals_padded(family: str) -> None:
    check_ragged_equals_padded(backbone_of(FAMILIES[family]()), BOUND[family])


def check_ragged_equals_padded(backbone: Backbone, bound: float) -> None:
    delta = Lora(rank=4).attach(backbone.seams)
    assert all(parameter.dtype == torch.float64 for parameter in delta.parameters())
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    found = {}
    for fast in (True, False):
        backbone.proof = Proof(fast, backbone.proof.position_offset, 0.0)
        loss = loss_of(backbone.hidden(batch_of()), batch_of().layout)
        found[fast] = [loss, *torch.autograd.grad(loss, delta.parameters())]
    for ours, theirs in zip(found[True], found[False], strict=True):
        assert relative(ours, theirs) <= bound


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_see_each_other(family: str) -> None:
    """Changing one row's tokens changes the other rows' gradients by exactly zero."""
    backbone = backbone_of(FAMILIES[family]())
    delta = Lora(rank=4).attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    gradients = []
    changed = 3
    for change in (None, changed):
        batch = batch_of(change)
        others = (batch.index != changed).nonzero()[:, 0]
        pooled = pool(backbone.hidden(batch), batch.layout, "mean")[others]
        gradients.append(torch.autograd.grad(pooled.pow(2).sum(), delta.parameters()))
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_a_row_alone_answers_as_in_a_batch() -> None:
    backbone = backbone_of(bert())
    batch = batch_of()
    together = pool(backbone.hidden(batch), batch.layout, "mean")
    for place, row in enumerate(batch.index.tolist()):
        start, end = batch.layout.starts[place], batch.layout.starts[place + 1]
        alone = ragged([batch.ids[start:end]], [row])
        assert relative(pool(backbone.hidden(alone), alone.layout, "mean")[0], together[place]) < 1e-12


def test_attention_meets_few_groups_of_like_length() -> None:
    """Natural lengths: a product per exact length would be 41 small ones, one for all would be half padding."""
    layout = ragged([torch.arange(length) for length in range(8, 49)]).layout
    cells = sum(bucket.rows * bucket.length for bucket in layout.buckets)
    assert len(layout.buckets) <= 5
    assert cells <= 1.25 * layout.tokens < 41 * 48


def test_a_model_without_the_interface_takes_the_padded_path() -> None:
    config = transformers.DebertaV2Config(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    model = transformers.AutoModel.from_config(config).eval()
    backbone = Backbone(model)
    assert not backbone.proof.fast and backbone.proof.reason
    assert backbone.hidden(batch_of()).shape == (sum(LENGTHS), 32)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("way", ["kernel", "few products", "many products"])
@pytest.mark.parametrize("prefixed", [False, True])
def test_attention_equals_the_plain_formula(
    prefixed: bool, way: str, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both hand-written backward passes against autograd, heads that share keys, the same masks, float64."""
    from tunesmith.models import ragged_attention
    from tunesmith.models.ragged_attention import Rule, _Attention, _in_front
    from tunesmith.models.routing import Routing

    monkeypatch.setattr(ragged_attention, "_SHORT", 0 if way == "kernel" else 64)
    monkeypatch.setattr(ragged_attention, "_KEPT", 0 if way == "many products" else 1 << 20)
    monkeypatch.setitem(ragged_attention._QUERIES, "cpu", 2)  # many pieces of rows and queries
    monkeypatch.setitem(ragged_attention._CELLS, "cpu", 40)

    layout, routing = Layout((2, 3, 5, 5)), Routing()
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)

    for causal, window in ((False, None), (True, None), (False, 3), (True, 3)):
        rule = Rule(causal, window, 0.7, rate)
        q, k, v = (random(15, heads, 4) for heads in (6, 2, 2))
        prefix = [random(2, 3, 4), random(2, 3, 4)] if prefixed else []
        routing.layout = layout
        routing.dropout.seed(7)
        held = [prefixed] * len(layout.buckets)
        ours = _Attention.apply(q, k, v, routing, rule, held, *prefix * len(layout.buckets))
        routing.dropout.seed(7)
        plain = []
        for bucket in layout.buckets:
            part = slice(bucket.start, bucket.start + bucket.tokens)
            qb, kb, vb = (bucket.spread(tensor[part]) for tensor in (q, k, v))
            if prefixed:
                kb, vb = _in_front(prefix[0], kb), _in_front(prefix[1], vb)
            kb, vb = kb.repeat_interleave(3, 1), vb.repeat_interleave(3, 1)
            scores = (qb @ kb.transpose(-1, -2)) * 0.7
            mask = rule.mask(bucket, q.device, 3 if prefixed else 0)
            scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
            weights = scores.softmax(-1)
            kept = routing.dropout.keep(weights.shape, rate) if rate else torch.ones(())
            plain.append(bucket.gather(weights * kept / (1 - rate) @ vb))
        theirs = torch.cat(plain)
        assert relative(ours, theirs) < 1e-14
        wanted = torch.randn(theirs.shape, dtype=torch.float64, generator=draw)
        inputs = (q, k, v, *prefix)
        for first, second in zip(
            torch.autograd.grad(ours, inputs, wanted), torch.autograd.grad(theirs, inputs, wanted), strict=True
        ):
            assert relative(first, second) < 1e-13


@pytest.mark.filterwarnings("ignore:.*pad_token_id")
@pytest.mark.parametrize("pad", [-1, 96])
def test_a_padding_token_that_the_vocabulary_lacks(pad: int) -> None:
    config = gpt2()
    config.pad_token_id = pad
    core = backbone_of(config)
    batch = batch_of()
    assert core.proof.fast and core._padded(batch).shape == core.hidden(batch).shape
