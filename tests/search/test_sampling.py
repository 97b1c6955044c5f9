"""Every strategy for settings: the same trials from the same seed, inside the space; a grid, then finer ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tunesmith.core.registry import components, find
from tunesmith.search.bookkeeping import quiet
from tunesmith.search.space import Choices, Range, Space
from tunesmith.search.trials import Outcome, StudyTrial
from tunesmith.search.tuning import begin

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

NODES = (
    Choices("kind", {"a": "a", "b": "b"}),
    Range("rate", 1e-4, 1.0, True, None, whole=False),
    Range("rank", 1, 9, False, None, whole=True),
)
NAMES = sorted(name for name, one in components("strategies").items() if one.of == "settings")


def drawn(name: str, seed: int, count: int, **settings: Any) -> list[tuple[Any, ...]]:
    live, _ = begin(find("strategies", name)(**settings), Space({node.name: node for node in NODES}), seed, False, 9)
    found = []
    for _ in range(count):
        with quiet():
            trial = live.ask()
            kind, rate, rank = (node.value(trial) for node in NODES)
            live.tell(trial, (kind == "a") + (rate - 0.1) ** 2 + (rank - 4) ** 2)
        found.append((kind, rate, rank))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_trials(name: str) -> None:
    settings = {"startup": 4} if "startup" in find("strategies", name).model_fields else {}
    count = 5 if name == "gaussian-process" else 12
    first = drawn(name, 0, count, **settings)
    assert first == drawn(name, 0, count, **settings) != drawn(name, 1, count, **settings)
    assert all(kind in "ab" and 1e-4 <= rate <= 1 and rank in range(1, 10) for kind, rate, rank in first)


def test_evolution_beats_chance_where_numbers_have_a_slope() -> None:
    """Eight seeds of 64 trials on (rate - 0.1)^2 + (rank - 4)^2, a kind aside: the last 16 trials are nearer."""

    def last(name: str) -> list[float]:
        runs = [drawn(name, seed, 64)[-16:] for seed in range(8)]
        return [float(np.median([abs(rank - 4) + (kind != "b") for kind, _, rank in run])) for run in runs]

    chance = np.array(last("random"))
    for name in ("genetic", "cma-es"):
        assert (np.array(last(name)) < chance).sum() >= 6


def test_a_grid_has_every_point_once() -> None:
    points = find("strategies", "grid")(each=2).points(Space({node.name: node for node in NODES}), 0)
    rates = (1e-3, 1e-1)  # the middles of the lower and the upper half of 1e-4 to 1, by ratios
    whole = {(kind, rate, rank) for kind in "ab" for rate in rates for rank in (3, 7)}
    found = {(point["kind"], round(point["rate"], 12), point["rank"]) for point in points}
    assert len(points) == 8 and found == whole


def ended(points: list[dict[str, Any]]) -> list[StudyTrial]:
    """Trials that ended with a score that falls with the distance from rate 0.01 and rank 6 of kind b."""
    found = []
    for number, point in enumerate(points):
        value = abs(np.log10(point["rate"]) + 2) + abs(point["rank"] - 6) / 9 + (point["kind"] != "b")
        found.append(StudyTrial(number, 0, 1, point, [], [], 0.0, None, Outcome("complete", value=float(value))))
    return found


def test_a_finer_grid_lies_around_the_best_trial_and_repeats_none() -> None:
    space, grid = Space({node.name: node for node in NODES}), find("strategies", "grid")()
    points = grid.points(space, 0)
    for asked in range(6):
        best = min(ended(points), key=lambda one: one.outcome.value or 0)
        finer = grid.more(ended(points), space, False, asked, 0)
        assert finer == grid.more(ended(points), space, False, asked, 0)
        assert {point["kind"] for point in finer} == {"b"} and not any(point in points for point in finer)
        half = 4 * 0.6 ** (asked + 1)  # of the range in powers of ten, and it may be shifted at an end
        assert all(abs(np.log10(point["rate"] / best.parameters["rate"])) < half for point in finer)
        points += finer
    best = min(ended(points), key=lambda one: one.outcome.value or 0)
    assert best.parameters["rank"] == 6 and 0.008 < best.parameters["rate"] < 0.0125


def test_a_grid_of_choices_or_without_zoom_or_success_has_no_finer_one() -> None:
    space, grid = Space({node.name: node for node in NODES}), find("strategies", "grid")
    done = ended(grid().points(space, 0))
    assert grid(zoom=None).more(done, space, False, 0, 0) == []
    assert grid().more([replace(one, outcome=Outcome("failed", "no")) for one in done], space, False, 0, 0) == []
    kinds = Space({"kind": NODES[0]})
    alone = [replace(one, parameters={"kind": one.parameters["kind"]}) for one in done]
    assert grid().more(alone, kinds, False, 0, 0) == []


@pytest.mark.parametrize("name", NAMES)
def test_first_points_come_first_and_what_they_leave_open_is_drawn(name: str) -> None:
    first = [{"kind": "b", "rate": 0.5, "rank": 3}, {"rate": 0.25}]
    space = Space({node.name: node for node in NODES})
    live, points = begin(find("strategies", name)(), space, 0, False, 9, first)
    found = []
    for _ in range(3):
        with quiet():
            trial = live.ask()
            space.overrides(trial)
            live.tell(trial, 1.0)
        found.append(trial.params)
    assert found[0] == first[0] and found[1]["rate"] == 0.25 and set(found[1]) == {"kind", "rate", "rank"}
    assert found[2]["rate"] not in (0.5, 0.25)
    if points is not None:
        assert points == 2 + len(find("strategies", name)().points(space, 0))


def test_a_grid_does_not_come_back_to_a_first_point() -> None:
    space = Space({node.name: node for node in NODES})
    points = find("strategies", "grid")(each=2).points(space, 0)
    assert begin(find("strategies", "grid")(each=2), space, 0, False, 9, points[:2])[1] == len(points)


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_a_trial_worse_than_others_is_stopped(name: str) -> None:
    live, _ = begin(find("strategies", name)(), Space({node.name: node for node in NODES}), 0, False, 9)
    trials, stopped = [live.ask() for _ in range(9)], set()
    for number, trial in enumerate(trials):
        for epoch in range(1, 9):
            trial.report(float(number), epoch)
            if trial.should_prune():
                stopped.add(number)
                break
    assert 0 not in stopped and len(stopped) >= 4
