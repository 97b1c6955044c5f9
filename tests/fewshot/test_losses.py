"""Every loss against its formula written out row by row, in float64, with gradients; every loss in a run."""

import json
import math
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.core.named import build_named
from tunesmith.core.registry import components
from tunesmith.tasks.loss import Learned

Recipe = dict[str, Any]
LABELS = [0, 1, 0, 2, 1, 0, 3]  # 2 and 3 have no second row


def learned(features: torch.Tensor, vectors: torch.Tensor) -> Learned:
    return Learned(features, torch.tensor(LABELS), features @ vectors.T, vectors)


def material() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    features = torch.randn(len(LABELS), 5, dtype=torch.float64, generator=draw)
    vectors = torch.randn(5, 5, dtype=torch.float64, generator=draw)  # of five classes, one without rows
    return features.requires_grad_(), vectors.requires_grad_()


def cosines(a: torch.Tensor, b: torch.Tensor) -> list[list[float]]:
    a, b = a.detach(), b.detach()
    return [[float(x @ y / x.norm() / y.norm()) for y in b] for x in a]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def cross_entropy(features: torch.Tensor, vectors: torch.Tensor) -> float:
    return mean([-(row @ vectors.T).softmax(-1)[y].log().item() for row, y in zip(features, LABELS, strict=True)])


def supervised_contrastive(features: torch.Tensor, vectors: torch.Tensor) -> float:
    s, found = cosines(features, features), []
    for i, y in enumerate(LABELS):
        alike = [p for p, other in enumerate(LABELS) if other == y and p != i]
        below = sum(math.exp(s[i][a] / 0.1) for a in range(len(LABELS)) if a != i)
        if alike:
            found.append(-mean([math.log(math.exp(s[i][p] / 0.1) / below) for p in alike]))
    return mean(found)


def contrastive(features: torch.Tensor, vectors: torch.Tensor) -> float:
    s = cosines(features, features)
    pairs = [(i, j) for i in range(len(LABELS)) for j in range(i)]
    alike = [(1 - s[i][j]) ** 2 for i, j in pairs if LABELS[i] == LABELS[j]]
    apart = [max(0, 0.5 - (1 - s[i][j])) ** 2 for i, j in pairs if LABELS[i] != LABELS[j]]
    return (mean(alike) + mean(apart)) / 2


def triplet(features: torch.Tensor, vectors: torch.Tensor) -> float:
    s, found = cosines(features, features), []
    for i, y in enumerate(LABELS):
        alike = [1 - s[i][p] for p, other in enumerate(LABELS) if other == y and p != i]
        apart = [1 - s[i][n] for n, other in enumerate(LABELS) if other != y]
        if alike:
            found.append(max(0, 0.2 + max(alike) - min(apart)))
    return mean(found)


def proxy_anchor(features: torch.Tensor, vectors: torch.Tensor) -> float:
    s, pulled, pushed = cosines(features, vectors), [], []
    for c in range(len(vectors)):
        mine = [math.exp(-32 * (s[i][c] - 0.1)) for i, y in enumerate(LABELS) if y == c]
        other = [math.exp(32 * (s[i][c] + 0.1)) for i, y in enumerate(LABELS) if y != c]
        pulled += [math.log(1 + sum(mine))] if mine else []
        pushed.append(math.log(1 + sum(other)))
    return mean(pulled) + mean(pushed)


def proxy_nca(features: torch.Tensor, vectors: torch.Tensor) -> float:
    s, found = cosines(features, vectors), []
    for i, y in enumerate(LABELS):
        d = [8 * (2 - 2 * value) for value in s[i]]
        found.append(-math.log(math.exp(-d[y]) / sum(math.exp(-d[c]) for c in range(len(d)) if c != y)))
    return mean(found)


FORMULAS = {
    "cross-entropy": cross_entropy,
    "supervised-contrastive": supervised_contrastive,
    "contrastive": contrastive,
    "triplet": triplet,
    "proxy-anchor": proxy_anchor,
    "proxy-nca": proxy_nca,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_losses_equal_their_formula(name: str) -> None:
    features, vectors = material()
    loss = build_named("losses", name)
    assert loss.compute(learned(features, vectors)).item() == pytest.approx(
        FORMULAS[name](features.detach(), vectors.detach()), rel=1e-10
    )
    assert torch.autograd.gradcheck(lambda f, v: loss.compute(learned(f, v)), [features, vectors], atol=1e-6)
    assert (loss.reads == "features") != depends(loss)


def depends(loss: Any) -> bool:
    features, vectors = material()
    (found,) = torch.autograd.grad(loss.compute(learned(features, vectors)), vectors, allow_unused=True)
    return found is not None and bool(found.any())


@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_says_whether_it_separates(name: str) -> None:
    features, vectors = material()
    loss = build_named("losses", name)
    whole = loss.compute(learned(features, vectors))
    labels = torch.tensor(LABELS)
    parts = [
        loss.compute(Learned(features[p], labels[p], features[p] @ vectors.T, vectors)) * len(features[p]) / len(LABELS)
        for p in (slice(0, 4), slice(4, None))
    ]
    assert loss.separable == bool(torch.isclose(whole, parts[0] + parts[1], rtol=1e-10))


@pytest.mark.parametrize("name", ["supervised-contrastive", "contrastive", "triplet"])
def test_nothing_to_compare_gives_zero_with_gradients(name: str) -> None:
    features = torch.randn(1, 4, requires_grad=True)
    loss = build_named("losses", name).compute(Learned(features, torch.tensor([0]), features, None))
    loss.backward()
    assert loss.item() == 0 and features.grad is not None and not features.grad.any()


@pytest.mark.parametrize("name", FORMULAS)
def test_every_loss_trains(recipe: Recipe, name: str) -> None:
    reads = components("losses")[name].reads
    task = {"name": "text-classification", "head_kind": "prototypes" if reads == "features" else "cosine",
            "losses": [{"name": name, "weight": 0.5}]}  # fmt: skip
    training = {**recipe["training"], "epochs": 24, "batch_size": 16, "learning_rate": 2e-2, "rows_per_label": 4}
    run = tunesmith.train({**recipe, "task": task, "training": training})
    losses = [json.loads(line)["train loss"] for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]


def test_losses_add_up() -> None:
    from tunesmith.tasks.text_classification import TextClassification

    task = TextClassification(losses=["cross-entropy", {"name": "supervised-contrastive", "weight": 0.3}])
    assert [loss.weight for loss in task.loss_components] == [1.0, 0.3] and not task.separable
    assert TextClassification().separable
