"""Every strategy on problems whose best candidate is known."""

import contextlib
from typing import Any

import numpy as np
import pytest

from tunesmith.core.registry import components, find
from tunesmith.search.budget import Budget
from tunesmith.search.problem import BudgetSpent, Problem, Score
from tunesmith.search.strategies.base import Strategy

Word = tuple[int, ...]
BEST: Word = (3, 1, 4, 1, 2)
OF_PROMPTS = sorted(name for name, one in components("strategies").items() if one.of == "prompts")
LEARNING = [name for name in OF_PROMPTS if name != "chance"]


class Lock(Problem[Word]):
    """A word of five digits below five; the score is how many stand where they should. Rows add noise that fades."""

    def __init__(self, budget: float, noise: float = 0.0) -> None:
        super().__init__((0,) * len(BEST), 64)
        self.budget, self.noise = Budget(budget), noise
        self.known: dict[tuple[Word, int], Score] = {}
        self.order: list[tuple[Word, int]] = []

    def identity(self, candidate: Word) -> str:
        return str(candidate)

    def propose(self, candidate: Word, count: int, draw: np.random.Generator) -> list[Word]:
        found: dict[Word, None] = {}
        for _ in range(count):
            place, digit = int(draw.integers(len(BEST))), int(draw.integers(5))
            new = (*candidate[:place], digit, *candidate[place + 1 :])
            if new != candidate:
                found[new] = None
        return list(found)

    def cross(self, first: Word, second: Word, draw: np.random.Generator) -> Word:
        taken = draw.random(len(BEST)) < 0.5
        return tuple(a if left else b for a, b, left in zip(first, second, taken, strict=True))

    def score(self, candidate: Word, rows: int | None = None) -> Score:
        rows = rows or self.rows
        if (candidate, rows) not in self.known:
            self.budget.spend(rows / self.rows)
            draw = np.random.default_rng([*candidate, rows])
            hits = sum(a == b for a, b in zip(candidate, BEST, strict=True))
            self.known[candidate, rows] = Score(hits + self.noise * draw.normal() / rows**0.5, 1.0, rows)
            self.order.append((candidate, rows))
        return self.known[candidate, rows]

    def best(self) -> tuple[Word, float]:
        whole = {word: score.value for (word, rows), score in self.known.items() if rows == self.rows}
        return max(whole.items(), key=lambda item: item[1])


def run(name: str, problem: Lock, seed: int, **settings: Any) -> Lock:
    strategy: Strategy = find("strategies", name)(**settings)
    with contextlib.suppress(BudgetSpent):
        strategy.search(problem, np.random.default_rng(seed))
    return problem


@pytest.mark.parametrize("name", LEARNING)
def test_finds_the_best(name: str) -> None:
    patient = {"patience": 30}
    found = [run(name, Lock(600), seed, **patient).best() for seed in range(5)]
    assert found == [(BEST, 5.0)] * 5


@pytest.mark.parametrize("name", LEARNING)
def test_beats_chance(name: str) -> None:
    ours = [run(name, Lock(60, noise=2.0), seed, patience=20).best()[1] for seed in range(12)]
    chance = [run("chance", Lock(60, noise=2.0), seed).best()[1] for seed in range(12)]
    assert np.mean(ours) > np.mean(chance) + 0.5
    assert sum(a > b for a, b in zip(ours, chance, strict=True)) >= 9  # a sign test's 7 % against even chances


@pytest.mark.parametrize("name", OF_PROMPTS)
def test_keeps_the_budget_and_repeats_itself(name: str) -> None:
    first, second, other = (run(name, Lock(25), seed) for seed in (1, 1, 2))
    assert first.order == second.order != other.order
    assert first.budget.spent <= 25
    assert (first.start, first.rows) in first.order  # the start is scored on all rows
    assert run(name, Lock(1), 1).order == [(first.start, first.rows)]


@pytest.mark.parametrize("name", LEARNING)
def test_ends_where_nothing_is_proposed(name: str) -> None:
    class Alone(Lock):
        def propose(self, candidate: Word, count: int, draw: np.random.Generator) -> list[Word]:
            return []

    assert {word for word, _ in run(name, Alone(100), 0).order} <= {Alone(1).start}


def test_halving_reads_few_rows_of_most_candidates() -> None:
    problem = run("halving", Lock(40), 0)
    counts = np.bincount([rows for _, rows in problem.order])
    assert counts[16] > counts[48] > counts[64] - 1 > 0
