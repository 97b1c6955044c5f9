"""Several methods on one model: what they compute together, their gates, merging, and what does not go together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tunesmith
from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.methods.fusion import Fusion
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.layout import ragged
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models

IDS = torch.randint(5, 90, (2, 6), generator=torch.Generator().manual_seed(0))
LORA = {"name": "lora", "rank": 2, "layers": "query"}
OTHERS = {
    "lora": {"name": "lora", "rank": 3, "layers": "query"},
    "loha": {"name": "loha", "rank": 2, "layers": "query"},
    "lokr": {"name": "lokr", "rank": 2, "layers": "query"},
    "vera": {"name": "vera", "rank": 4, "layers": "query"},
    "adapter": {"name": "adapter", "layers": "query", "reduction_factor": 8},
    "ia3": {"name": "ia3", "layers": "query", "feed_forward_layers": ()},
}


def bert() -> nn.Module:
    return tiny_models()["encoder"].build().double()


def filled(delta: Delta) -> None:
    torch.manual_seed(1)
    for name, parameter in delta.named_parameters():
        if "gates" not in name:
            nn.init.normal_(parameter, std=0.3)


def hidden(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).last_hidden_state


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_two_patches_at_one_map_follow_each_other(other: str, gate: bool) -> None:
    model = bert()
    delta = tunesmith.attach(model, Fusion(members=(LORA, OTHERS[other]), gate=gate))
    filled(delta)
    seam = open_seams(model).linear["encoder.layer.0.attention.self.query"]
    stack: Any = seam.patches["default"]
    first, second = stack.members["0"], stack.members["1"]
    gates = [0.7, 1.3] if gate else [1.0, 1.0]
    for number, value in enumerate(gates):
        if gate:
            nn.init.constant_(stack.gates[str(number)], value)
    x = torch.randn(5, 32, dtype=torch.float64)
    low = first.weight_change(seam)
    between = seam.base(x) + gates[0] * x @ low.t()
    ours = stack(x, seam)
    if other == "adapter":
        plain = nn.Linear(32, 32).double()
        with torch.no_grad():
            plain.weight.copy_(seam.weight + gates[0] * low)
            plain.bias.copy_(seam.bias)
        alone = open_seams(nn.Sequential(plain)).linear["0"]
        wanted = between + gates[1] * (second(x, alone) - between)
        assert torch.allclose(ours, wanted, atol=1e-12)
        return
    merged = seam.weight + gates[0] * low
    bias = seam.bias
    if other == "ia3":
        after = between * second.ia3_l.flatten()
        wanted = between + gates[1] * (after - between)
    else:
        wanted = between + gates[1] * x @ second.weight_change(seam).t()
    assert torch.allclose(ours, wanted, atol=1e-12)
    shift = stack.bias_change(seam)
    changed = nn.functional.linear(x, seam.weight + stack.weight_change(seam), bias if shift is None else bias + shift)
    assert torch.allclose(changed, ours, atol=1e-12)
    assert not torch.allclose(merged, seam.weight)


def test_a_fusion_of_linear_changes_merges() -> None:
    model = bert()
    delta = tunesmith.attach(model, Fusion(members=({"name": "lora"}, {"name": "bitfit"}, {"name": "ia3"}), gate=True))
    for parameter in delta.parameters():
        nn.init.normal_(parameter, mean=1.0, std=0.1)
    tuned = hidden(model)
    delta.merge()
    assert torch.allclose(hidden(model), tuned, atol=1e-9)
    delta.unmerge()
    assert torch.allclose(hidden(model), tuned, atol=1e-12)


@pytest.mark.parametrize("whole", [{"name": "bitfit"}, {"name": "last-layers", "count": 1}])
@pytest.mark.parametrize("patches", ["lora", "ia3"])
def test_patches_on_trained_copies_merge(whole: dict[str, Any], patches: str) -> None:
    model = bert()
    base = hidden(model)
    delta = tunesmith.attach(model, Fusion(members=({"name": patches}, whole)))
    torch.manual_seed(1)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, mean=0.3, std=0.3)
    tuned = hidden(model)
    for _ in range(2):
        delta.merge()
        assert torch.allclose(hidden(model), tuned, rtol=0, atol=1e-12)
        delta.unmerge()
        assert torch.equal(hidden(model), tuned)
    delta.detach()
    assert torch.equal(hidden(model), base)


def test_members_see_what_they_start_from() -> None:
    """A map's patches need not be called one by one: low-rank ones are computed together."""
    core = Backbone(bert())
    method = Fusion(members=({"name": "prefix", "length": 2}, {"name": "lora", "init": "activations"}))
    delta = method.attach(core.seams)
    before = delta.state()
    with torch.no_grad():
        method.initialise(delta, lambda: (core.hidden(ragged([[5, 6, 7], [8, 9]])), None)[1])
    same = [name for name, now in delta.state().items() if "lora_A" in name and torch.equal(now, before[name])]
    assert all("pooler" in name for name in same), same


class Spelling:
    """A tokenizer of one text."""

    unk_token_id, all_special_ids = 0, ()

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [5, 6, 7]}


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_a_fusion_is_loaded_without_what_it_started_from(init: str, tmp_path: Path) -> None:
    model, fresh = bert(), bert()
    tokens = {"name": "prompt-tuning", "start": "text", "start_text": "one", "length": 3}
    members = (tokens, {**LORA, "init": init})
    delta = tunesmith.attach(model, Fusion(members=members), tokenizer=Spelling())
    filled(delta)
    delta.save(tmp_path)
    tunesmith.attach(fresh, tmp_path)
    assert torch.allclose(hidden(fresh), hidden(model), rtol=0, atol=1e-12)


def test_every_part_trains_and_gates_move() -> None:
    core = Backbone(bert())
    method = Fusion(members=({"name": "prefix", "length": 3}, {"name": "lora"}, {"name": "bitfit"}), gate=True)
    delta = method.attach(core.seams)
    filled(delta)
    core.hidden(ragged([[5, 6, 7], [8, 9]])).square().sum().backward()
    named = dict(delta.named_parameters())
    idle = [name for name, p in named.items() if p.grad is None or not p.grad.any()]
    assert all("pooler" in name or "key.bias" in name for name in idle), idle  # a key's bias cancels in the softmax
    gates = [name for name in named if "gates" in name]
    assert len(gates) == 3 + 2  # two layers and what is outside them for lora, two layers for the prefix
    assert len({id(parameter) for parameter in named.values()}) == len(named)


def test_fused_rows_share_a_pass_with_others() -> None:
    model = bert()
    fused = tunesmith.attach(model, Fusion(), "fused")
    lora = tunesmith.attach(model, "lora", "plain")
    filled(fused)
    filled(lora)
    with tunesmith.route(model, ["fused", "plain"]):
        mixed = hidden(model)
    for row, name in enumerate(["fused", "plain"]):
        with tunesmith.route(model, [name]):
            assert torch.allclose(hidden(model)[row], mixed[row], atol=1e-12)


def test_what_does_not_go_together_is_named() -> None:
    with pytest.raises(CompatibilityError, match="prefix and prompt-tuning both bring a soft prompt"):
        tunesmith.attach(bert(), Fusion(members=("prefix", "prompt-tuning")))
    with pytest.raises(CompatibilityError, match="virtual tokens come before all of them"):
        tunesmith.attach(bert(), Fusion(members=("lora", "prompt-tuning"), gate=True))
    dora = {"name": "lora", "dora": True}
    with pytest.raises(CompatibilityError, match="DoraPatch computes with the frozen weight itself"):
        tunesmith.attach(bert(), Fusion(members=("lora", dora)))
    tunesmith.attach(bert(), Fusion(members=(dora, "lora")))
    with pytest.raises(RecipeError, match="unknown method 'lorra'; did you mean 'lora'"):
        tunesmith.attach(bert(), "fusion", members=("lorra", "lora"))
    with pytest.raises(RecipeError, match="a fusion cannot be a member"):
        tunesmith.attach(bert(), "fusion", members=("fusion", "lora"))
    for members in (("lora", 1), "lora", ("lora", None)):
        with pytest.raises(RecipeError, match="give a list of methods, each by name or as a mapping"):
            tunesmith.attach(bert(), "fusion", members=members)


def test_a_gate_at_a_table_of_embeddings() -> None:
    model = bert()
    rows = {"name": "trainable-tokens", "token_indices": (5, 6)}
    delta = tunesmith.attach(model, Fusion(members=(LORA, rows), gate=True))
    filled(delta)
    ids = torch.tensor([[5, 7, 6]])
    table = open_seams(model).linear["embeddings.word_embeddings"]
    stack: Any = table.patches["default"]
    nn.init.constant_(next(iter(stack.gates.values())), 0.5)
    trained = torch.stack([stack.members["1"].rows[0], table.stored[7], stack.members["1"].rows[1]])
    assert torch.allclose(stack(ids, table)[0], 0.5 * (trained + table.stored[ids[0]]), atol=1e-12)
    model(ids).last_hidden_state.sum().backward()
    assert next(iter(stack.gates.values())).grad is not None
