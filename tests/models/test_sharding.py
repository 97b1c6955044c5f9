"""Blocks in parts: whole only while they run, and gathered in an order that all processes agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn

from tests.models.test_ragged import FAMILIES
from tunesmith.core.errors import CompatibilityError
from tunesmith.methods import BitFit, Full, Lora
from tunesmith.models.backbone import Backbone
from tunesmith.models.recomputing import recomputing
from tunesmith.models.sharding import Shards, whole_weight
from tunesmith.models.structure import stacks

NOTHING = 4  # a wish for no gathering, of a model of two blocks: 0 and 1 run forward, 2 and 3 backward


class Agreeing:
    """Stands for the others: where they wish for something, that is agreed on if it lies further behind."""

    def __init__(self) -> None:
        self.others: list[int] = []
        self.agreed: list[int] = []

    def __call__(self, wish: int) -> int:
        self.agreed.append(min(wish, self.others.pop(0)) if self.others else wish)
        return self.agreed[-1]


@pytest.fixture(scope="module", autouse=True)
def _alone() -> Iterator[None]:
    """A group of one process: its parts are whole matrices, gathered and let go as those of several."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def made(family: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = transformers.AutoModel.from_config(FAMILIES[family]())
    model.pooler = None  # trained by nothing
    return model.double().eval()


def shared(model: nn.Module) -> tuple[Shards, Agreeing]:
    agreeing = Agreeing()
    blocks = [model.get_submodule(path) for stack in stacks(model) for path in stack]
    return Shards(model, blocks, torch.device("cpu"), 1, agreeing), agreeing


def gradients(backbone: Backbone, method: Lora | BitFit, again: bool) -> list[Tensor]:
    torch.manual_seed(0)
    delta = method.attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    backbone.again = recomputing(backbone.seams, backbone.body) if again else None
    total = backbone.hidden(backbone.three_rows()).sin().sum()
    return [total, *torch.autograd.grad(total, delta.parameters())]


def in_parts(shards: Shards) -> bool:
    return not any(shards.is_whole(number) for number in range(len(shards.blocks)))


CASES = [(family, Lora(rank=2, init="pissa"), False) for family in FAMILIES]
CASES += [("bert", Lora(rank=2, dora=True), True), ("llama", Lora(rank=2), True), ("bert", BitFit(), False)]


@pytest.mark.parametrize(("family", "method", "again"), CASES)
def test_a_model_in_parts_gives_the_same_bits(family: str, method: Lora | BitFit, again: bool) -> None:
    whole = gradients(Backbone(made(family)), method, again)
    model = made(family)
    shards, _ = shared(model)
    backbone = Backbone(model)
    for ours, theirs in zip(gradients(backbone, method, again), whole, strict=True):
        assert torch.equal(ours, theirs)
    assert in_parts(shards)


def test_a_pass_gathers_blocks_one_by_one_there_and_back() -> None:
    model = made("llama")
    _, agreeing = shared(model)
    backbone = Backbone(model)
    agreeing.agreed.clear()
    gradients(backbone, Lora(rank=2), again=False)
    assert agreeing.agreed == [0, 1, 2, 3]


def test_others_gatherings_come_before_where_they_lie_behind() -> None:
    model = made("llama")
    shards, agreeing = shared(model)
    backbone = Backbone(model)
    agreeing.agreed.clear()
    agreeing.others = [0, 1, 0, 1, 1]  # their rows go through in two passes more, and the last waits for this process
    gradients(backbone, Lora(rank=2), again=False)
    assert agreeing.agreed == [0, 1, 0, 1, 1, 2, 3]
    assert in_parts(shards)


def test_one_that_waits_takes_part_until_nobody_wants_more() -> None:
    shards, agreeing = shared(made("llama"))
    agreeing.others = [0, 1, 2, 3]
    shards.rest()
    assert agreeing.agreed == [0, 1, 2, 3, NOTHING]
    assert in_parts(shards)


def test_a_block_that_is_whole_is_gathered_with_the_others_all_the_same() -> None:
    shards, agreeing = shared(made("llama"))
    with shards.whole(0):
        agreeing.others = [0]
        shards.rest()
        assert shards.is_whole(0)
    assert in_parts(shards)


def test_a_pass_that_failed_leaves_a_model_that_works() -> None:
    model = made("bert")
    shards, _ = shared(model)
    backbone = Backbone(model)
    whole = backbone.hidden(backbone.three_rows())

    def fail(*_: object) -> None:
        raise ValueError

    hook = shards.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(ValueError):
        backbone.hidden(backbone.three_rows())
    hook.remove()
    assert torch.equal(backbone.hidden(backbone.three_rows()), whole)
    assert in_parts(shards)


def test_weights_are_read_whole_outside_of_a_pass() -> None:
    model, plain = made("gpt2"), made("gpt2")
    shards, _ = shared(model)
    seam = Backbone(model).seams.linear["h.0.attn.c_attn"]
    assert torch.equal(seam.weight, plain.h[0].attn.c_attn.weight.t())
    assert (seam.width_in, seam.width_out) == plain.h[0].attn.c_attn.weight.shape
    assert whole_weight(plain.h[0].attn.c_attn) is plain.h[0].attn.c_attn.weight
    assert in_parts(shards)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda seams: Full().attach(seams), r"training.shard_base: the method trains '\S+weight' itself, a matrix"),
        (lambda seams: Lora(rank=2).attach(seams).merge(), "cannot hold a merged delta. Merge it in one process"),
    ],
)
def test_what_changes_matrices_is_refused(do: Callable[..., object], message: str) -> None:
    model = made("bert")
    shared(model)
    with pytest.raises(CompatibilityError, match=message):
        do(Backbone(model).seams)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="Linear is not made of blocks that could be shared out"):
        shared(nn.Linear(2, 2))
