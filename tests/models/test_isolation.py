"""Changing the tokens of one row changes the gradients of the other rows' loss by exactly zero, on every fast path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.models.test_language import model_of
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import Backbone
from tunesmith.models.depth import Depth, frozen_blocks, row_keys
from tunesmith.models.ending import row_ends
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.row_store import RowStore

CHANGED, LENGTHS, ANSWERS = 1, (5, 9, 9, 12), (1, 3, 2, 4)  # the row that changes; tokens of its own, and learned ones
Run = Callable[[RaggedBatch], Tensor]


def rows(change: bool, begin: int = 0, names: tuple[str, ...] | None = None) -> RaggedBatch:
    draw = torch.Generator().manual_seed(0)
    same = torch.randint(10, 96, (begin,), generator=draw)
    own = [torch.randint(10, 96, (length,), generator=draw) for length in LENGTHS]
    if change:
        own[CHANGED] = (own[CHANGED] - 10 + 1) % 86 + 10
    whole = [torch.cat([same, row]) for row in own]
    learned = [torch.arange(len(row)) >= len(row) - count for row, count in zip(whole, ANSWERS, strict=True)]
    return ragged(whole, names=names, learned=learned)


def attached(core: Backbone, name: str, layers: str = "all-linear") -> list[nn.Parameter]:
    delta = Lora(rank=3, layers=layers).attach(core.seams, name)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.3)
    return list(delta.parameters())


def bert() -> Backbone:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return Backbone(transformers.BertModel(config, add_pooling_layer=False).eval().double())


def check(core: Backbone, parameters: list[nn.Parameter], pair: tuple[RaggedBatch, RaggedBatch], run: Run,
          around: Any = lambda batch: nullcontext()) -> None:  # fmt: skip
    """Take the gradients of the other rows' states with and without the change."""
    found = []
    for batch in pair:
        for parameter in parameters:
            parameter.grad = None
        places = batch.index.repeat_interleave(torch.tensor([ANSWERS[row] for row in batch.index]))
        with around(batch):
            states = run(batch)
            owners = places if len(states) == len(places) else batch.index
            states[owners != CHANGED].square().sum().backward()
        found.append([parameter.grad for parameter in parameters])
        assert all(gradient is not None and gradient.any() for gradient in found[-1])
        found[-1].append(states.detach())
    assert not torch.equal(found[0].pop(), found[1].pop()), "the row did change"
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("begin", [0, 12], ids=["no prompt", "a shared prompt"])
@pytest.mark.parametrize("led", [False, True], ids=["in one pass", "ahead"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_answers(name: str, begin: int, led: bool) -> None:
    core = model_of(name)
    parameters = attached(core, "a")
    core.seams.use("a")
    around = (lambda batch: core.ahead(batch, "a")) if led else (lambda batch: nullcontext())
    check(core, parameters, (rows(False, begin), rows(True, begin)), core.before_learned, around)


def test_answers_of_two_deltas() -> None:
    core, names = model_of("llama"), ("a", "b", "a", "b")
    parameters = [*attached(core, "a"), *attached(core, "b")]
    check(core, parameters, (rows(False, 12, names), rows(True, 12, names)), core.before_learned)


def first_tokens(core: Backbone) -> Run:
    def run(batch: RaggedBatch) -> Tensor:
        places = row_ends(batch.layout, "cls")
        assert places is not None and core._ending is not None
        return core.hidden_at(batch, places)

    return run


def test_the_last_block_that_ends_with_one_token_per_row() -> None:
    core = bert()
    parameters = attached(core, "default")
    check(core, parameters, (rows(False), rows(True)), first_tokens(core))


def test_rows_above_kept_states() -> None:
    core = bert()
    parameters = attached(core, "default", "top-half")
    (delta,) = core.seams.deltas.values()
    pair = rows(False), rows(True)
    known = [(key, length) for batch in pair
             for key, length in zip(row_keys(batch), batch.layout.lengths, strict=True)]  # fmt: skip
    core.below = Depth(core, frozen_blocks(core, [delta])[0], ["default"], RowStore(known, core.width, torch.float64))
    check(core, parameters, pair, first_tokens(core))
    assert not core.below.store.missing
