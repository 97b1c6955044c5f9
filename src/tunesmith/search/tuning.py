"""Search settings: draw candidates, train them together, tell the strategy how they did, again and again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import derived
from tunesmith.recipe.loading import Checked
from tunesmith.search.bookkeeping import optuna, quiet
from tunesmith.search.budget import Budget
from tunesmith.search.crew import Crew
from tunesmith.search.database import Database
from tunesmith.search.first_trial import TooShort, Watch
from tunesmith.search.passes import Passes, kept_in
from tunesmith.search.pools.base import Pool
from tunesmith.search.space import Space, written
from tunesmith.search.strategies.sampling import Sampling
from tunesmith.search.trials import Outcome, StudyTrial, best_of
from tunesmith.search.wanted import Wanted

_HOPELESS = 20  # trials that may fail before any succeeds
RUNS = "runs"  # folder of the study with what trials trained that others go on from
_IDLE = 200  # trials in a row that were there before: the space has no more


def begin(
    strategy: Sampling,
    space: Space,
    seed: int,
    higher_is_better: bool,
    epochs: int,
    first: Sequence[Mapping[str, Any]] = (),
) -> tuple[Any, int | None]:
    """Make the study in memory that draws candidates.

    Args:
        strategy: that searches.
        space: that is searched.
        seed: of everything random.
        higher_is_better: direction of the score.
        epochs: most of any trial. [count]
        first: values by parameter of the first trials; the strategy draws what they leave open.
    Returns:
        A study of optuna, and how many points there are where they are known from the beginning.
    """
    points = strategy.points(space, derived(seed, "points"))
    if points is not None:
        points = [*map(dict, first), *(point for point in points if point not in first)]
    with quiet():
        live = optuna().create_study(
            study_name="search",
            sampler=strategy.sampler(space, derived(seed, "search")),
            pruner=strategy.stopper(epochs),
            direction="maximize" if higher_is_better else "minimize",
        )
        for point in first if points is None else points:
            live.enqueue_trial(point)
    return live, None if points is None else len(points)


@dataclass
class Search:
    """A search that is under way.

    Args:
        wanted: what is searched.
        budget: that is left.
        width: most candidates that train together. [count]
        database: with the trials that ended.
        progress: for the user.
        hands: the pool and the number of workers that train; None where this process does.
        trials: that ended, in order.
        slowest: seconds that a trial took in its batch, at most.
    """

    wanted: Wanted
    budget: Budget
    width: int
    database: Database
    progress: Progress
    hands: tuple[Pool, int] | None = None
    trials: list[StudyTrial] = field(default_factory=list)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        wanted, self.watch = self.wanted, Watch(self.budget)
        runs = wanted.output / RUNS if wanted.strategy.continues else None
        self.passes = Passes(wanted.metric, self.progress, self._tick, every_fold=wanted.every_fold, runs=runs)
        self.crew: Crew | None = None
        if self.hands is not None:
            pool, count = self.hands
            order = {
                "recipe": dict(wanted.recipe) if isinstance(wanted.recipe, Mapping) else str(wanted.recipe),
                "overrides": list(wanted.overrides),
                "metric": wanted.metric,
                "runs": None if runs is None else str(runs),
                "every_fold": wanted.every_fold,
                "sharers": count,
            }
            self.crew = Crew(pool, count, max(1, torch.get_num_threads() // count), order, self.progress, self._tick)
        self._asked = 0
        self.live, self.points = begin(
            wanted.strategy, wanted.space, wanted.seed, wanted.higher_is_better, wanted.epochs, wanted.warm.points
        )

    def run(self) -> None:
        """Try until the budget is spent, or the space.

        Raises:
            RecipeError: the budget is shorter than a trial.
            TunesmithError: trial after trial fails.
        """
        try:
            self._run(self.database.trials())
        finally:
            if self.crew is not None:
                self.crew.close()

    def _run(self, kept: list[StudyTrial]) -> None:
        live = self.live
        self.budget.begin()
        while True:
            number = len(self.trials)
            again = kept[number : number + kept[number].size] if number < len(kept) else []
            if number == self.points:
                self._list_more()
            size = again[0].size if again else self._size(None if self.points is None else self.points - number)
            if not size:
                return
            with quiet():
                drawn, overrides = self._drawn(size)
                try:
                    self._batch(live, drawn, overrides, again)
                except TooShort as short:
                    raise short.worded(self.budget) from None
            self._tell()

    def _list_more(self) -> None:
        """Ask the strategy for trials after those that it listed."""
        wanted, seed = self.wanted, derived(self.wanted.seed, "points")
        found = wanted.strategy.more(self.trials, wanted.space, wanted.higher_is_better, self._asked, seed)
        self._asked += 1
        self.points = len(self.trials) + len(found)
        with quiet():
            for point in found:
                self.live.enqueue_trial(point)

    def _drawn(self, size: int) -> tuple[list[Any], list[list[str]]]:
        """Draw trials, and write what makes each one's recipe of the common one."""
        wanted, drawn, overrides = self.wanted, list[Any](), list[list[str]]()
        for number in range(len(self.trials), len(self.trials) + size):
            descent = wanted.strategy.descend(
                number, self.trials, wanted.space, wanted.higher_is_better, derived(wanted.seed, "search")
            )
            if descent is not None:
                self.live.enqueue_trial(descent.parameters)
            drawn.append(self.live.ask())
            words = wanted.space.overrides(drawn[-1])
            if descent is not None:
                words.append(written("start_from", str(kept_in(wanted.output / RUNS, descent.parent))))
                words.append(written("seed", wanted.seed + descent.generation))
            overrides.append(words)
        return drawn, overrides

    def _size(self, left: int | None) -> int:
        """Decide how many candidates come next; none when budget or space are spent."""
        done, budget = len(self.trials), self.budget
        self._check_hope()
        idle = self.trials[-_IDLE:]
        if len(idle) == _IDLE and all(one.same_as is not None for one in idle):
            self.progress.say("the strategy finds nothing new: the space is searched")
            return 0
        most = self.width * (1 if self.crew is None else self.crew.count)
        size = min(most, self.wanted.strategy.ahead(done) or most)
        if left is not None:
            size = min(size, left)
        if budget.evaluations is not None:
            size = min(size, int(budget.evaluations) - done)
        if budget.seconds is not None:
            if not done:
                return 1  # alone, to know how long one takes
            room = budget.seconds - budget.elapsed - self._alone
            size = min(size, int(room / self.slowest) if self.slowest else size)
        return max(size, 0)

    @property
    def _alone(self) -> float:
        """Seconds that the best run will take by itself: as the first trial, which trained alone."""
        return self.trials[0].ended

    def _check_hope(self) -> None:
        failed = [one.outcome for one in self.trials]
        if len(failed) >= _HOPELESS and all(one.state == "failed" for one in failed):
            raise TunesmithError(
                f"all of the first {len(failed)} trials failed, so the space seems to hold no point that can be "
                f"carried out. The last reason: {failed[-1].reason}"
            )

    def _batch(
        self, live: Any, drawn: Sequence[Any], overrides: Sequence[list[str]], again: Sequence[StudyTrial]
    ) -> None:
        """Train a batch, or take it from the database, and tell the study."""
        first = len(self.trials)
        whole = len(again) == len(drawn)
        if whole:
            found = list(again)
            self._replay(drawn, overrides, again)
        else:
            found = self._trained(first, drawn, overrides)
        states = optuna().trial.TrialState
        for one, trial in zip(found, drawn, strict=True):
            state, value = one.outcome.state, one.outcome.value
            told = {"complete": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL}[state]
            live.tell(trial, None if told != states.COMPLETE else value, state=told)
        if not whole:
            self.database.add(found[len(again) :], drawn[len(again) :])
        self.trials.extend(found)
        self.budget.spent = len(self.trials)
        if whole:
            self.budget.resume_at(found[-1].ended)
        before = self.trials[first - 1].ended if first else 0.0
        new = sum(one.same_as is None for one in found)
        self.slowest = max(self.slowest, (found[-1].ended - before) / new) if new else self.slowest

    def _replay(self, drawn: Sequence[Any], overrides: Sequence[list[str]], again: Sequence[StudyTrial]) -> None:
        for one, own in zip(again, overrides, strict=True):
            if one.overrides != own:
                raise TunesmithError(
                    f"{self.database.path}: trial {one.number} is {' '.join(one.overrides)}, and the strategy draws "
                    f"{' '.join(own)} in its place: another version of a package wrote the study. Choose another "
                    "output."
                )
        order = [(at, place, epoch, score) for place, one in enumerate(again) if one.same_as is None
                 for at, epoch, score in one.reports]  # fmt: skip
        for _, place, epoch, score in sorted(order):
            drawn[place].report(score, epoch)
            drawn[place].should_prune()

    def _trained(self, first: int, drawn: Sequence[Any], overrides: Sequence[list[str]]) -> list[StudyTrial]:
        """Train what is new in a batch."""
        known = {tuple(one.overrides): one for one in self.trials if one.same_as is None}
        outcomes, same = dict[int, Outcome](), dict[int, int]()
        recipes = dict[int, Checked]()
        reports: dict[int, list[tuple[int, int, float]]] = {first + place: [] for place in range(len(drawn))}
        for number, own in enumerate(overrides, first):
            earlier = next((one for one in range(first, number) if overrides[one - first] == own), None)
            if tuple(own) in known:
                same[number], outcomes[number] = known[tuple(own)].number, known[tuple(own)].outcome
            elif earlier is not None:
                same[number] = earlier
            else:
                try:
                    recipes[number] = self.wanted.load(own)
                except TunesmithError as error:
                    outcomes[number] = Outcome("failed", str(error))

        def listen(number: int, epoch: int, score: float) -> bool:
            trial, heard = drawn[number - first], reports[number]
            if math.isfinite(score) and all(epoch != one for _, one, _ in heard):
                heard.append((sum(map(len, reports.values())), epoch, score))
                trial.report(score, epoch)
            return bool(trial.should_prune())

        if self.crew is None:
            outcomes |= self.passes.carry_out(recipes, listen)
        else:
            words = {number: overrides[number - first] for number in recipes}
            outcomes |= self.crew.carry_out(recipes, words, listen)
        outcomes |= {number: outcomes[earlier] for number, earlier in same.items() if number not in outcomes}
        batch = self.trials[-1].batch + 1 if self.trials else 0
        ended = self.budget.elapsed
        return [
            StudyTrial(
                number=number, batch=batch, size=len(drawn), parameters=dict(trial.params), overrides=own,
                reports=reports[number], ended=ended, same_as=same.get(number), outcome=outcomes[number],
            )
            for number, (trial, own) in enumerate(zip(drawn, overrides, strict=True), first)
        ]  # fmt: skip

    def _tick(self, share: float) -> None:
        if not self.trials:
            self.watch.tick(share)

    def _tell(self) -> None:
        best = best_of(self.trials, self.wanted.higher_is_better)
        failed = sum(one.outcome.state == "failed" for one in self.trials)
        shown = "none yet" if best is None else f"{best.outcome.value:.4f} (trial {best.number})"
        self.progress.say(
            f"{len(self.trials)} trials, {failed} failed, {self.budget.elapsed:.0f} s; best {self.wanted.metric} on "
            f"validation {shown}"
        )


def read_budget(budget: str | int | None, trials: int | None) -> Budget:
    """Read how much may be tried.

    Args:
        budget: a time ("10m"), or a number of trials.
        trials: most trials; as many as the time allows when None. [count]
    Returns:
        The budget; where both are given, what ends first counts.
    Raises:
        RecipeError: neither is given, or one allows nothing.
    """
    if budget is None and trials is None:
        raise RecipeError(
            "a search needs an end. Give a time (--budget 10m), a number of trials (--trials 50), or both."
        )
    if trials is not None and trials < 1:
        raise RecipeError(f"trials: {trials} allows nothing to be tried. Give at least 1.")
    found = Budget.read(budget if budget is not None else f"{trials}")
    if budget is not None and trials is not None:
        more = Budget.read(f"{trials}").evaluations
        found.evaluations = more if found.evaluations is None else min(found.evaluations, more or math.inf)
    return found
