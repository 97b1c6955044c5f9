"""Every learner of episodes: beats chance on new classes, does not mind the order of the support, repeats itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.registry import components, find
from tunesmith.fewshot.adapting import Descent, blank_head
from tunesmith.fewshot.episodes import Episodes, EpisodeSampler, EpisodeShape
from tunesmith.fewshot.learners.base import Learned, Learner
from tunesmith.fewshot.learners.dual import ridge_answers
from tunesmith.fewshot.learners.reptile import add_way
from tunesmith.fewshot.meta_training import MetaTraining
from tunesmith.fewshot.rows import ImageRows
from tunesmith.fewshot.scoring import answers, score
from tunesmith.methods.base import Method
from tunesmith.methods.full import Full
from tunesmith.models.convolution import ConvSettings, conv_encoder
from tunesmith.models.seams import open_seams
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.training.optimizing import Optimizer

SMALL = ConvSettings(size=8, blocks=2, channels=8, groups=2)
NAMES = sorted(components("learners"))


def drawings(classes: int, each: int, seed: int) -> tuple[Tensor, list[int]]:
    """Noisy copies of random patterns: (rows, 1, 8, 8) and their classes."""
    draw = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 1, 8, 8, generator=draw)
    rows = patterns.repeat_interleave(each, 0) + torch.randn(classes * each, 1, 8, 8, generator=draw)
    return rows / 2, [number // each for number in range(classes * each)]


def learned_by(learner: Learner, method: Method | None = None, kind: torch.dtype = torch.float32) -> Learned:
    model = conv_encoder(SMALL).to(kind)
    seams = open_seams(model)
    torch.manual_seed(0)
    return Learned((method or Full()).attach(seams), learner.head(model.width).to(kind))


def trained(name: str, steps: int = 25) -> tuple[Learner, Learned, list[float]]:
    learner = find("learners", name)()
    learned = learned_by(learner)
    rows, labels = drawings(100, 6, seed=1)
    settings = TrainingSettings(weight_decay=0.0, warmup_fraction=0.0, schedule="constant", clip_norm=None)
    optimizer = Optimizer([(learned.parameters(), 0.01)], settings, steps)
    sampler = EpisodeSampler(labels, [str(n) for n in range(100)], EpisodeShape(5, 2, 3), 0)
    run = MetaTraining(learner, optimizer, sampler, 2).run(
        learned, ImageRows(learned.delta.seams.model, rows), steps, lambda *_: None
    )
    return learner, learned, run.losses


@pytest.mark.parametrize("name", NAMES)
def test_new_classes_above_chance_and_better_than_untrained(name: str) -> None:
    rows, labels = drawings(12, 6, seed=2)
    sampler = EpisodeSampler(labels, [str(n) for n in range(12)], EpisodeShape(5, 2, 3), 1)

    def estimate(learner: Learner, learned: Learned) -> tuple[float, float]:
        found = score(learner, learned, ImageRows(learned.delta.seams.model, rows), sampler, 40, lambda *_: None)
        return found.estimate().low, found.estimate().high

    learner, learned, losses = trained(name)
    fresh = estimate(learner, learned_by(learner))
    low, high = estimate(learner, learned)
    assert low > 0.3 and high > fresh[0], (low, high, fresh)  # chance is 0.2
    assert sum(losses[-10:]) < sum(losses[:10])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    _, first, losses = trained(name, steps=3)
    _, second, again = trained(name, steps=3)
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_neither_order_nor_other_queries_matter(name: str) -> None:
    learner = find("learners", name)()
    learned = learned_by(learner, kind=torch.float64)
    rows, labels = drawings(6, 6, seed=3)
    data = ImageRows(learned.delta.seams.model, rows.double())
    one = EpisodeSampler(labels, list("abcdef"), EpisodeShape(4, 3, 2), 0).draw(0, 2)
    given = answers(learner, learned, data, one).softmax(-1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    turned = Episodes(one.support[:, order], one.support_ways[:, order], one.query, one.query_ways, 4)
    assert torch.allclose(answers(learner, learned, data, turned).softmax(-1), given, atol=1e-9)
    fewer = Episodes(one.support, one.support_ways, one.query[:, :3], one.query_ways[:, :3], 4)
    assert torch.allclose(answers(learner, learned, data, fewer).softmax(-1), given[:, :3], atol=1e-9)
    renamed = torch.tensor([2, 0, 3, 1])
    other = Episodes(one.support, renamed[one.support_ways], one.query, renamed[one.query_ways], 4)
    assert torch.allclose(answers(learner, learned, data, other).softmax(-1)[..., renamed], given, atol=1e-9)


def outer_gradient_is_right(learner: Learner, learned: Learned, rows: object, episodes: Episodes) -> None:
    """Compare the gradient of the outer loss with central differences along random directions."""
    own = learned.parameters()
    learner.accumulate(learned, rows, episodes)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        way = [torch.randn(one.shape, generator=draw, dtype=one.dtype) for one in own]
        ours = sum((one.grad * to).sum() for one, to in zip(own, way, strict=True) if one.grad is not None)
        losses = []
        for sign in (1e-7, -2e-7):  # small: ReLU and pooling have kinks
            with torch.no_grad():
                for one, to in zip(own, way, strict=True):
                    one += sign * to
            losses.append(learner.loss(learned, rows, episodes).item())  # type: ignore[arg-type]
        with torch.no_grad():
            for one, to in zip(own, way, strict=True):
                one += 1e-7 * to
        theirs = (losses[0] - losses[1]) / 2e-7
        assert abs(float(ours) - theirs) <= 1e-6 * max(1e-1, abs(theirs)), (float(ours), theirs)


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_second_order_is_the_gradient_of_the_outer_loss(name: str) -> None:
    settings = {"order": "second", "inner_steps": 3, "head_rate": 2.0}
    learner = find("learners", name)(**settings, **({"inner_rate": 0.2} if name == "maml" else {}))
    learned = learned_by(learner, kind=torch.float64)
    rows, labels = drawings(6, 6, seed=3)
    episodes = EpisodeSampler(labels, list("abcdef"), EpisodeShape(3, 2, 2), 0).draw(0, 2)
    outer_gradient_is_right(learner, learned, ImageRows(learned.delta.seams.model, rows.double()), episodes)


@pytest.mark.parametrize("name", ["prototypical", "matching", "conditional"])
def test_learners_of_one_pass_have_right_gradients(name: str) -> None:
    learner = find("learners", name)()
    learned = learned_by(learner, kind=torch.float64)
    rows, labels = drawings(6, 6, seed=3)
    episodes = EpisodeSampler(labels, list("abcdef"), EpisodeShape(3, 2, 2), 0).draw(0, 2)
    outer_gradient_is_right(learner, learned, ImageRows(learned.delta.seams.model, rows.double()), episodes)


def test_first_order_is_the_gradient_at_the_end_of_the_steps() -> None:
    """On a quadratic, L(theta) = a (theta - c)^2 / 2: first order gives L'(theta'), second order L'(theta') theta''."""
    curvature, rate, steps = 0.7, 0.3, 4
    for through in (False, True):
        theta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        start = [*blank_head(1, 1, theta), theta]
        descent = Descent(steps, rate, 1.0, through)
        end = descent.run(start, lambda own: 0.5 * curvature * (own[2] - 1) ** 2 + 0 * own[0].sum() + 0 * own[1].sum())
        (0.5 * curvature * (end[2] - 5) ** 2).backward()
        shrink = (1 - rate * curvature) ** steps
        reached = 1 + shrink * (2 - 1)
        assert math.isclose(end[2].item(), reached, rel_tol=1e-12)
        wanted = curvature * (reached - 5) * (shrink if through else 1.0)
        assert theta.grad is not None and math.isclose(theta.grad.item(), wanted, rel_tol=1e-12)


def test_reptile_has_its_closed_form_on_a_quadratic() -> None:
    """After k steps on a (theta - c)^2 / 2 the way is (1 - (1 - rate a)^k) (theta - c)."""
    curvature, rate, steps = torch.tensor([0.5, 2.0], dtype=torch.float64), 0.2, 3
    theta = nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))
    centre = torch.tensor([1.0, 4.0], dtype=torch.float64)
    start = [*blank_head(1, 1, theta), theta]
    end = Descent(steps, rate, 1.0).run(start, lambda own: 0.5 * (curvature * (own[2] - centre) ** 2).sum())
    add_way([theta], end[2:], 1 / (rate * steps))
    wanted = (1 - (1 - rate * curvature) ** steps) * (theta.detach() - centre) / (rate * steps)
    assert theta.grad is not None and torch.allclose(theta.grad, wanted, rtol=1e-12)


def test_matching_is_a_mixture_of_labels() -> None:
    learner = find("learners", "matching")(scale=3.0)
    draw = torch.Generator().manual_seed(0)
    support, query = (torch.randn(1, n, 4, generator=draw, dtype=torch.float64) for n in (5, 2))
    ways = nn.functional.one_hot(torch.tensor([[0, 1, 1, 2, 2]]), 3).double()
    found = learner.answer(learner.head(4).double(), support, ways, query)
    attention = (3 * nn.functional.cosine_similarity(query[0][:, None], support[0][None], dim=-1)).softmax(-1)
    assert torch.allclose(found[0].exp(), attention @ ways[0], rtol=1e-6)


def test_prototypes_are_the_nearest_mean() -> None:
    learner = find("learners", "prototypical")(scale=2.0)
    draw = torch.Generator().manual_seed(0)
    support, query = (torch.randn(1, n, 4, generator=draw, dtype=torch.float64) for n in (5, 2))
    ways = nn.functional.one_hot(torch.tensor([[0, 1, 1, 2, 2]]), 3).double()
    means = torch.stack([support[0, :1].mean(0), support[0, 1:3].mean(0), support[0, 3:].mean(0)])
    wanted = -2 * torch.cdist(query[0], means).square()
    assert torch.allclose(learner.answer(learner.head(4).double(), support, ways, query)[0], wanted, rtol=1e-6)


def test_ridge_regression_is_the_one_of_the_normal_equations() -> None:
    draw = torch.Generator().manual_seed(0)
    support, query = (torch.randn(2, n, 4, generator=draw, dtype=torch.float64) for n in (6, 3))
    ways = nn.functional.one_hot(torch.tensor([[0, 1, 1, 2, 2, 0]] * 2), 3).double()
    found = ridge_answers(support, ways, query, torch.tensor(0.3, dtype=torch.float64))
    for own, target, asked, given in zip(support, ways, query, found, strict=True):
        known = torch.cat([own, torch.ones(6, 1, dtype=torch.float64)], 1)
        inner = known.t() @ known + 0.3 * torch.eye(5, dtype=torch.float64)
        weights = torch.linalg.solve(inner, known.t() @ target)
        assert torch.allclose(given, torch.cat([asked, torch.ones(3, 1, dtype=torch.float64)], 1) @ weights)
