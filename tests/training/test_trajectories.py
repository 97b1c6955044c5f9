"""Two hundred steps of the loop, float64, against a plain loop over padded rows that knows none of its shortcuts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.training.test_many import Rows, backbone
from tunesmith.data.tokens import Seen
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.depth import Depth, frozen_blocks, row_keys
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import ragged
from tunesmith.models.recomputing import recomputing
from tunesmith.models.row_store import RowStore
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.instruction_tuning import InstructionTuning
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.loop import Loop
from tunesmith.training.trial import Trial

STEPS, RATE = 200, 2e-3
SETTINGS = {
    "learning_rate": RATE, "schedule": "constant", "warmup_fraction": 0.0, "clip_norm": None, "weight_decay": 0.0,
    "best": "last",
}  # fmt: skip


class Added(nn.Module):
    """A map and a product of low rank beside it, as they are written in the paper."""

    def __init__(self, base: nn.Module, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.down, self.up = (nn.Parameter(one.detach().clone()) for one in (down, up))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.down.t()) @ self.up.t()  # type: ignore[no-any-return]


def with_products(model: nn.Module, delta: Delta) -> list[nn.Parameter]:
    """Put a delta's products beside the maps of a model that nobody opened; return them in the delta's order."""
    model.requires_grad_(False)
    own: dict[int, nn.Parameter] = {}
    for path, patch in delta.patches.items():
        down, up, scale = patch.factors(delta.seams.linear[path])
        added = Added(model.get_submodule(path), down, up, scale)
        model.set_submodule(path, added)
        own |= {id(down): added.down, id(up): added.up}
    return [own[id(parameter)] for parameter in delta.parameters()]


def padded(rows: list[Any]) -> dict[str, Tensor]:
    ids = nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def compared(found: Trial, parameters: list[nn.Parameter], loss: Callable[[list[int]], Tensor]) -> None:
    """Train by the loop and plainly on the rows that it took; losses and what was trained must be the same."""
    optimizer, steps, take = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0), list[list[int]](), found.take
    found.take = lambda: (steps.append(take()), steps[-1])[1]  # type: ignore[method-assign]
    Loop([found]).fit(lambda *_: None)
    losses = []
    for numbers in steps:
        now = loss(numbers)
        losses.append(now.item())
        optimizer.zero_grad()
        now.backward()
        optimizer.step()
    assert len(losses) == STEPS and np.mean(losses[-8:]) < np.mean(losses[:8])
    assert found.trained.losses == pytest.approx(losses, rel=1e-8)
    for ours, theirs in zip(found.tuned.parameters(), parameters, strict=True):
        assert (ours - theirs).abs().max() <= 1e-7 * theirs.abs().max()


def begun(core: Backbone, task: Any, head: nn.Module, rows: Rows, layers: str, **settings: Any) -> Trial:
    """Attach LoRA whose products give something from the first step on."""
    split: Any = SimpleNamespace(tokens=rows, labels=rows.labels, place=str)
    split.taught = lambda number, shares=(): int(rows.labels[number])
    method = Lora(rank=4, layers=layers)
    torch.manual_seed(1)
    delta = method.attach(core.seams, "a")
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    epochs = STEPS * 8 // len(rows)
    training = TrainingSettings(**{**SETTINGS, "epochs": epochs, "batch_size": 8, **settings})
    tuned = Tuned(core, task, head, delta)
    return Trial(tuned, split, training, 0, lambda: {"validation loss": 0.0}, ("last", False), method)


# Rows with labels --------------------------------------------------------------------------------------------------


def backbone_as_it_came() -> nn.Module:
    """The same model as `backbone` gives, that nobody opened."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64,
    )  # fmt: skip
    return transformers.BertModel(config).double().eval()


@contextmanager
def kept_below(core: Backbone, found: Trial) -> Iterator[None]:
    """Keep what the frozen blocks give."""
    blocks, why = frozen_blocks(core, [found.tuned.delta])
    assert blocks, why
    tokens: Any = found.split.tokens
    rows = [(row_keys(ragged([row]))[0], len(row)) for row in tokens.rows]
    core.below = Depth(core, blocks, [found.name], RowStore(rows, core.width, torch.float64))
    yield
    assert not core.below.store.missing, "every row was kept"


@contextmanager
def run_again(core: Backbone, found: Trial) -> Iterator[None]:
    """Let blocks run a second time for their gradients."""
    core.again = recomputing(core.seams, core.body)
    assert core.again is not None
    yield


@contextmanager
def as_it_comes(core: Backbone, found: Trial) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("pooling", "layers", "how", "settings"),
    [
        ("mean", "all-linear", as_it_comes, {}),
        ("cls", "all-linear", as_it_comes, {}),
        ("mean", "top-half", kept_below, {}),
        ("cls", "top-half", kept_below, {"tokens_per_pass": 40}),
        ("mean", "all-linear", run_again, {"tokens_per_pass": 40}),
    ],
    ids=["flat rows", "last block", "kept below", "kept below, passes", "blocks again"],
)
def test_an_encoder(pooling: str, layers: str, how: Any, settings: dict[str, Any]) -> None:
    core, plain, rows = backbone(0.0, blocks=2), backbone_as_it_came(), Rows(64)
    task = TextClassification(head_kind="linear", head_start="random", head_dropout=0.0, pooling=pooling)
    task = task.prepare(core.model, {})
    found = begun(core, task, task.head(16, 3).double(), rows, layers, **settings)
    parameters, head = with_products(plain, found.tuned.delta), copy.deepcopy(found.tuned.head)

    def loss(numbers: list[int]) -> Tensor:
        given = padded([rows[number] for number in numbers])
        states, mask = plain(**given).last_hidden_state, given["attention_mask"][..., None]
        features = states[:, 0] if pooling == "cls" else (states * mask).sum(1) / mask.sum(1)
        return nn.functional.cross_entropy(head(features), torch.as_tensor(rows.labels[numbers]))

    with how(core, found):
        compared(found, [*parameters, *head.parameters()], loss)


# Rows that are answered --------------------------------------------------------------------------------------------


class Answered(Rows):
    """Rows with a beginning in common whose last tokens are learned."""

    def __init__(self, count: int, begin: int) -> None:
        super().__init__(count)
        same = np.arange(60, 60 + begin)
        self.rows = [np.concatenate([same, row]) for row in self.rows]
        self.lengths = self.lengths + begin

    def marks(self, number: int) -> Any:
        return np.arange(len(self.rows[number])) >= len(self.rows[number]) - self.items(number)

    def seen(self, number: int, draw: int) -> Seen:
        return Seen(self.rows[number], self.marks(number))

    def items(self, number: int) -> int:
        return 1 + number % 2


def writer() -> nn.Module:
    """A model whose parts all compute in float64."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=96, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).double().eval()


@pytest.mark.parametrize(
    ("begin", "settings"),
    [(0, {}), (20, {}), (20, {"tokens_per_pass": 40})],
    ids=["nothing in common", "a shared prompt", "a shared prompt, passes"],
)
def test_a_language_model(begin: int, settings: dict[str, Any]) -> None:
    core, plain, rows = LanguageModel(writer()), writer(), Answered(64, begin)
    found = begun(core, InstructionTuning(), nn.Module(), rows, "all-linear", **settings)
    parameters = with_products(plain, found.tuned.delta)

    def loss(numbers: list[int]) -> Tensor:
        given = padded([rows[number] for number in numbers])
        learned = nn.utils.rnn.pad_sequence([torch.as_tensor(rows.marks(number)) for number in numbers], True)
        logits, targets = plain(**given).logits[:, :-1], given["input_ids"][:, 1:]
        return nn.functional.cross_entropy(logits[learned[:, 1:]], targets[learned[:, 1:]])

    compared(found, parameters, loss)
