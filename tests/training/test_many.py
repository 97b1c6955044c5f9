"""Many deltas in one pass: each ends where a run of its own ends."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from tunesmith.core.seeds import derived, seed_everything
from tunesmith.data.tokens import Seen
from tunesmith.methods.base import Method
from tunesmith.methods.bitfit import BitFit
from tunesmith.methods.full import Full
from tunesmith.methods.head_only import HeadOnly
from tunesmith.methods.lora import Lora
from tunesmith.methods.prefix import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.models.backbone import Backbone
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.loop import Loop
from tunesmith.training.trial import Trial


class Rows:
    """Token rows of random words whose label is the word they repeat."""

    def __init__(self, count: int) -> None:
        draw = np.random.default_rng(0)
        self.lengths = draw.integers(3, 15, count)
        self.rows = [draw.integers(5, 90, length) for length in self.lengths]
        self.labels = np.array([int(row[0]) % 3 for row in self.rows])

    def first(self, count: int) -> "Rows":
        few = Rows(0)
        few.rows, few.lengths, few.labels = self.rows[:count], self.lengths[:count], self.labels[:count]
        return few

    @property
    def wordings(self) -> list["Rows"]:
        return [self]

    def length(self, number: int) -> int:
        return int(self.lengths[number])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]

    def seen(self, number: int, draw: int) -> Seen:
        return Seen(self.rows[number], None)

    def items(self, number: int) -> int:
        return 1


def backbone(dropout: float, blocks: int = 1) -> Backbone:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=16, num_hidden_layers=blocks, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    return Backbone(transformers.BertModel(config).double().eval())


def trial(core: Backbone, method: Method, name: str, seed: int, **settings: Any) -> Trial:
    task = TextClassification(head_start="random").prepare(core.model, {})
    rows = Rows(64)
    places = SimpleNamespace(where=[f"line {n}" for n in range(len(rows))], path="rows")
    split: Any = SimpleNamespace(
        tokens=rows,
        labels=rows.labels,
        examples=places,
        index=np.arange(len(rows)),
        place=lambda number: f"line {number}",
    )
    split.taught = lambda number, shares=(): int(rows.labels[number])
    seed_everything(derived(seed, "weights"))
    delta = method.attach(core.seams, name)
    tuned = Tuned(core, task, task.head(16, 3).double(), delta)

    def validate() -> dict[str, float]:
        few = rows.first(8)
        found = tuned.probabilities(few)  # type: ignore[arg-type]
        loss = -found[torch.arange(8), torch.from_numpy(few.labels)].log().mean()
        return {"validation loss": float(loss)}

    training = TrainingSettings(**{"epochs": 25, "batch_size": 8, "learning_rate": 2e-3, **settings})
    return Trial(tuned, split, training, seed, validate, ("validation loss", False), method)


CANDIDATES: dict[str, tuple[Method, int, dict[str, Any]]] = {
    "a": (Lora(rank=2), 0, {}),
    "b": (Lora(rank=4, dropout=0.2), 1, {"learning_rate": 5e-3, "batch_size": 5, "epochs": 7}),
    "c": (PrefixTuning(length=4), 2, {"schedule": "linear", "clip_norm": None, "epochs": 10}),
    "d": (PromptTuning(length=3), 3, {"learning_rate": 1e-2, "epochs": 12}),
    "e": (BitFit(), 4, {"weight_decay": 0.0, "epochs": 8}),
    "f": (HeadOnly(), 5, {"epochs": 8}),
    "g": (Full(), 6, {"learning_rate": 3e-4, "patience": 2}),
    "h": (Lora(rank=2, layers=("query", "value")), 0, {"epochs": 3}),
}


def fitted(dropout: float, names: list[str]) -> dict[str, Trial]:
    core = backbone(dropout)
    trials = {
        name: trial(core, CANDIDATES[name][0], name, CANDIDATES[name][1], **CANDIDATES[name][2]) for name in names
    }
    Loop(list(trials.values())).fit(lambda *_: None)
    return trials


def test_every_delta_equals_its_solo_run() -> None:
    dropout = 0.1
    together = fitted(dropout, list(CANDIDATES))
    assert max(found.trained.steps for found in together.values()) == 200
    for name, found in together.items():
        alone = fitted(dropout, [name])[name]
        assert alone.trained.steps == found.trained.steps
        assert alone.trained.best_epoch == found.trained.best_epoch
        both = zip(alone.tuned.delta.named_parameters(), found.tuned.delta.named_parameters(), strict=True)
        for (path, first), (_, second) in both:
            if not path.endswith("key.bias"):  # it cancels in the softmax: its gradient is rounding that Adam enlarges
                assert (first - second).abs().max() <= 1e-8 * first.abs().max(), (name, path)
        heads = zip(alone.tuned.head.parameters(), found.tuned.head.parameters(), strict=True)
        assert all((first - second).abs().max() <= 1e-8 * first.abs().max() for first, second in heads)
        losses = zip(alone.trained.losses, found.trained.losses, strict=True)
        assert all(first == pytest.approx(second, rel=1e-8) for first, second in losses)


def test_a_trial_that_stops_frees_its_rows() -> None:
    seen: list[int] = []
    core = backbone(0.0)
    trials = [trial(core, Lora(rank=2), "a", 0, epochs=1), trial(core, Lora(rank=2), "b", 1, epochs=3)]
    Loop(trials).fit(lambda rows, text="": seen.append(rows))
    assert seen == [16] * 8 + [8] * 16


def test_a_trial_that_diverges_stops_alone() -> None:
    core = backbone(0.0)
    wild = trial(core, Lora(rank=2), "a", 0, epochs=2)
    calm = trial(core, Lora(rank=2), "b", 1, epochs=2)
    with torch.no_grad():
        next(iter(wild.tuned.delta.parameters())).fill_(float("nan"))
    Loop([wild, calm]).fit(lambda *_: None)
    assert wild.trained.diverged == 1 and wild.trained.steps == 0
    assert calm.trained.diverged == 0 and calm.trained.steps == 16
    assert calm.key < wild.key
    assert all(torch.isfinite(parameter).all() for parameter in calm.tuned.parameters())


def test_one_base_product_serves_all_low_rank_deltas() -> None:
    """The grouped product against one product per delta, with every gradient."""
    from tunesmith.models.low_rank import grouped_low_rank, one_low_rank

    draw = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)  # noqa: E731
    x, weight, bias = random(12, 5), random(7, 5).detach(), random(7).detach()
    first, second = (random(2, 5), random(7, 2), 0.5), (random(3, 5), random(7, 3), 2.0)
    ours = grouped_low_rank(x, weight, bias, [4, 3, 5], [first, (), second])
    parts = [one_low_rank(x[:4], weight, bias, *first), nn.functional.linear(x[4:7], weight, bias)]
    theirs = torch.cat([*parts, one_low_rank(x[7:], weight, bias, *second)])
    assert torch.allclose(ours, theirs, atol=1e-13)
    inputs = (x, *first[:2], *second[:2])
    wanted = torch.randn(12, 7, dtype=torch.float64, generator=draw)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, wanted), torch.autograd.grad(theirs, inputs, wanted), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-13)
