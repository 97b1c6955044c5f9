"""Population-based training: who copies whom, what is perturbed, and a study of it from end to end."""

from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.files import read_json
from tunesmith.search.bookkeeping import quiet
from tunesmith.search.database import Database
from tunesmith.search.space import Choices, Range, Space
from tunesmith.search.strategies.population import Population
from tunesmith.search.trials import Outcome, StudyTrial
from tunesmith.search.tuning import begin

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

RATE = Range("training.learning_rate", 1e-4, 1.0, True, None, whole=False)
SIZE = Range("training.batch_size", 4, 64, False, 4, whole=True)
KIND = Choices("training.schedule", {"linear": "linear", "cosine": "cosine"})
SPACE = Space({node.name: node for node in (RATE, SIZE, KIND)})


def trial(number: int, value: float | None, **more: Any) -> StudyTrial:
    parameters = {RATE.name: 0.01 * (number + 1), SIZE.name: 32, KIND.name: "linear"}
    outcome = Outcome("failed" if value is None else "complete", value=value, loss=0.0)
    return StudyTrial(number, 0, 8, parameters, [], [], 0.0, **{"same_as": None, "outcome": outcome, **more})


def descents(values: list[float | None], **settings: Any) -> list[Any]:
    found = Population(members=len(values), **settings)
    first = [trial(number, value) for number, value in enumerate(values)]
    return [found.descend(len(values) + member, first, SPACE, True, 0) for member in range(len(values))]


def test_the_worst_copy_the_best_and_the_others_go_on() -> None:
    values: list[float | None] = [0.1, 0.9, 0.5, 0.8, 0.6, None, 0.7, 0.4]
    found = descents(values, anew=0.0)
    assert [found[member].parent for member in (1, 2, 3, 4, 6, 7)] == [1, 2, 3, 4, 6, 7]
    assert {found[member].parent for member in (0, 5)} <= {1, 3}
    assert all(one.generation == 1 for one in found)
    for member in (0, 5):
        parent = trial(found[member].parent, 0.0).parameters
        ratio = found[member].parameters[RATE.name] / parent[RATE.name]
        assert ratio == pytest.approx(0.8) or ratio == pytest.approx(1.2)
        assert found[member].parameters[SIZE.name] in (24, 40)  # 25.6 and 38.4, on the steps
        assert found[member].parameters[KIND.name] == "linear"
    assert found[1].parameters == trial(1, 0.0).parameters


def test_some_settings_are_drawn_anew_and_all_stay_inside() -> None:
    assert descents([0.1, 0.9, 0.5, 0.6], anew=1.0)[0].parameters == {}
    strategy, high = Population(members=2, anew=0.0, replaced=0.5, factor=1.9), []
    for seed in range(20):
        first = [trial(98, 0.9), trial(1, 0.1)]
        first[0].parameters[SIZE.name] = 64
        found = strategy.descend(3, first, SPACE, True, seed)
        assert found is not None
        assert RATE.low <= found.parameters[RATE.name] <= RATE.high and found.parameters[SIZE.name] in (8, 64)
        high.append(found.parameters[RATE.name] == RATE.high)
    assert any(high) and not all(high)


def test_a_generation_without_any_score_starts_anew_and_one_of_copies_goes_on_from_their_source() -> None:
    assert descents([None, None]) == [None, None]
    first = [trial(0, 0.5), trial(1, 0.5, same_as=0), trial(2, 0.1), trial(3, 0.2)]
    found = Population(members=4).descend(5, first, SPACE, True, 0)
    assert found is not None and found.parent == 0


def test_a_population_draws_a_generation_at_a_time() -> None:
    strategy = Population(members=4)
    assert [strategy.ahead(number) for number in range(6)] == [4, 3, 2, 1, 4, 3]


def test_it_beats_chance_where_settings_have_to_change_on_the_way() -> None:
    """Progress of a generation is best near a rate that falls as the weights come nearer; a closed form."""
    wins = 0
    for seed in range(4):
        best = {name: _distance(name, seed) for name in ("population", "random")}
        wins += best["population"] < best["random"]
    assert wins == 4


def _distance(name: str, seed: int, members: int = 8, generations: int = 12) -> float:
    """Let weights x go to zero by x - rate / (0.01 + |x|) * x per generation; return the nearest x."""
    strategy, space = Population(members=members), Space({RATE.name: RATE})
    live, _ = begin(strategy, space, seed, False, 1)
    trials, at = list[StudyTrial](), dict[int, float]()
    for number in range(members * generations):
        descent = strategy.descend(number, trials, space, False, seed) if name == "population" else None
        with quiet():
            if descent is not None:
                live.enqueue_trial(descent.parameters)
            drawn = live.ask()
            rate = RATE.value(drawn)
            x = at[descent.parent] if descent is not None else 1.0
            steps = 1 if name == "population" else generations
            for _ in range(steps):
                x -= rate / (0.01 + abs(x)) * x
            at[number] = x
            live.tell(drawn, abs(x))
        outcome = Outcome("complete", value=abs(x), loss=abs(x))
        trials.append(StudyTrial(number, 0, members, dict(drawn.params), [], [], 0.0, None, outcome))
        if name == "random" and number == members - 1:  # the same steps in all
            break
    return min(abs(x) for x in at.values())


SETTINGS: dict[str, Any] = {"strategy": "population", "strategy_settings": {"members": 3}, "trials": 6}


def kept(folder: Path) -> list[Any]:
    found = read_json(folder / "trials.json", list)
    return [([word.replace(str(folder), "") for word in one["overrides"]], one["outcome"]["loss"]) for one in found]


def test_a_study_that_was_killed_ends_as_one_that_was_not(
    space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    found = tunesmith.search_settings(space, [f"output={whole}"], **SETTINGS)
    trials = kept(whole)
    assert [len(words) for words, _ in trials] == [1] * 3 + [3] * 3
    assert found["again_on_validation"]["value"] == found["chosen_by"]["value"]  # an ordinary run gives it again
    finish = Database.finish

    def ended(self: Database, trials: Any, *rest: Any) -> None:
        if trials[0].number == 3:
            raise KeyboardInterrupt
        finish(self, trials, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Database, "finish", ended)
        tunesmith.search_settings(space, [f"output={killed}"], **SETTINGS)
    tunesmith.search_settings(space, [f"output={killed}"], **SETTINGS, resume=True)
    assert kept(killed) == trials
    killed.rename(tmp_path / "moved")  # its trials name runs by the folder in which they were made
    with pytest.raises(CheckpointError, match=f"output is '{tmp_path}/moved', there it was '{tmp_path}/killed'"):
        tunesmith.search_settings(space, [f"output={tmp_path / 'moved'}"], **SETTINGS, resume=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.rank=[4, 8]"], "method.rank: members of the strategy population copy each other's weights"),
        (["training.epochs=[1, 2]"], "training.epochs: members of the strategy population"),
        (["data.folds=3"], "data.folds: trials of the strategy population go on from one"),
    ],
)
def test_what_members_cannot_copy_is_refused(
    space: dict[str, Any], tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        tunesmith.search_settings(space, [f"output={tmp_path / 's'}", *words], **SETTINGS)
