"""Search settings: draw candidates, train them together, tell the strategy how they did, again and again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import derived
from tunesmith.recipe.loading import Checked
from tunesmith.search.announced import Announced
from tunesmith.search.batches import Batch
from tunesmith.search.bookkeeping import optuna, quiet
from tunesmith.search.budget import Budget
from tunesmith.search.crew import Crew
from tunesmith.search.database import Database
from tunesmith.search.first_trial import TooShort, Watch
from tunesmith.search.passes import Listen, Passes, kept_in
from tunesmith.search.pools.base import Pool
from tunesmith.search.rules import excluded_by
from tunesmith.search.space import Space, written
from tunesmith.search.strategies.sampling import Sampling
from tunesmith.search.trials import Outcome, StudyTrial, best_of
from tunesmith.search.wanted import Wanted

_HOPELESS = 20  # trials that may fail before any succeeds
ANSWERS = "answers"  # folder of the study with what trials answered on the rows that chose
RUNS = "runs"  # folder of the study with what trials trained that others go on from
_PASSED = 200  # points in a row that may break the rules
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
        database: with the trials, which other processes may take too.
        progress: for the user.
        hands: the pool and the number of workers that train; None where this process does.
        trials: that ended, in order.
        slowest: seconds that a trial took in its batch, at most.
        ended: seconds of searching when the latest batch had ended.
        asked: points that were drawn. [count]
        passed_over: of them, those that were not tried, as they break a rule whatever they score. [count]
        passing: of these, those after the latest trial, which count as passed over before the next one, in whichever
            batch and list of points that is. [count]
        lists: how often the strategy listed points after the first ones. [count]
        drawn_out: whether the strategy draws nothing any more that keeps to the rules.
    """

    wanted: Wanted
    budget: Budget
    width: int
    database: Database
    progress: Progress
    hands: tuple[Pool, int] | None = None
    trials: list[StudyTrial] = field(default_factory=list)
    slowest: float = 0.0
    ended: float = 0.0
    asked: int = 0
    passed_over: int = 0
    passing: int = 0
    lists: int = 0
    drawn_out: bool = False

    def __post_init__(self) -> None:
        wanted, self.watch = self.wanted, Watch(self.budget)
        runs = wanted.output / RUNS if wanted.strategy.continues else None
        answers = wanted.output / ANSWERS
        self.passes = Passes(
            wanted.metric, self.progress, self._tick, every_fold=wanted.every_fold, runs=runs, answers=answers
        )
        self.crew: Crew | None = None
        if self.hands is not None:
            pool, count = self.hands
            order = {
                "recipe": dict(wanted.recipe) if isinstance(wanted.recipe, Mapping) else str(wanted.recipe),
                "overrides": list(wanted.overrides),
                "metric": wanted.metric,
                "runs": None if runs is None else str(runs),
                "answers": None if pool.remote else str(answers),
                "every_fold": wanted.every_fold,
                "sharers": count,
            }
            self.crew = Crew(pool, count, pool.threads(count), order, self.progress, self._tick)
        self.live, self.points = begin(
            wanted.strategy, wanted.space, wanted.seed, wanted.higher_is_better, wanted.epochs, wanted.warm.points
        )

    def run(self) -> None:
        """Try until the budget is spent, or the space.

        Raises:
            RecipeError: the budget is shorter than a trial.
            CheckpointError: the study cannot be written.
            TunesmithError: trial after trial fails.
        """
        try:
            self._run()
        finally:
            if self.crew is not None:
                self.crew.close()

    def _run(self) -> None:
        self.budget.begin()
        while True:
            with quiet():
                batch = self._announced()
                if batch is None:
                    return
                try:
                    found = batch.settle()
                except TooShort as short:
                    raise short.worded(self.budget) from None
                self._hear(batch, found)
            self._tell()

    def _announced(self) -> Batch | None:
        """Draw the next batch, and announce it where no process has; None where the search has ended."""
        database, first = self.database, len(self.trials)
        with database.presence.alone():
            there = database.announced(first)
            if self.asked == self.points:
                self._list_more()
            size = there[0].size if there else self._size() if database.ended is None else 0
            if not size:
                database.ended = first
                return None
            drawn, overrides, over = self._drawn(size, there)
            self._check_drawn(there, overrides)
            if not (drawn or self.trials):
                rules = ", ".join(map(str, self.wanted.rules))
                raise TunesmithError(
                    f"search.rules: {self.passed_over} points in a row break {rules}, so that nothing was tried. "
                    "Change the rules, or the range of training.epochs."
                )
            if not drawn:
                database.ended = first
                return None
            number, new = self.trials[-1].batch + 1 if self.trials else 0, len(there)
            database.announce(number, drawn[new:], overrides[new:], over[new:], len(drawn))
        earlier, alone = list(self.trials), self._alone if self.trials else 0.0
        return Batch(
            database, self.wanted, earlier, drawn, overrides, self._carry_out, self._rows, self.budget, alone,
            self.progress,
        )  # fmt: skip

    def _list_more(self) -> bool:
        """Ask the strategy for points after those that it listed; say whether there are any."""
        wanted, seed = self.wanted, derived(self.wanted.seed, "points")
        found = wanted.strategy.more(self.trials, wanted.space, wanted.higher_is_better, self.lists, seed)
        self.lists += 1
        self.points = self.asked + len(found)
        for point in found:
            self.live.enqueue_trial(point)
        return bool(found)

    def _drawn(self, size: int, there: Sequence[Announced]) -> tuple[list[Any], list[list[str]], list[int]]:
        """Draw trials, write what makes each one's recipe of the common one, and count points passed over before it."""
        drawn, overrides, over = list[Any](), list[list[str]](), list[int]()
        for place in range(size):
            while True:
                if place >= len(there) and self._draws_end(place):
                    return drawn, overrides, over
                trial, words = self._one(len(self.trials) + place)
                if self.passing == there[place].passed_over if place < len(there) else not self._excluded(words):
                    break
                self.live.tell(trial, state=optuna().trial.TrialState.FAIL)
                self.passing += 1
                self.passed_over += 1
            drawn.append(trial)
            overrides.append(words)
            over.append(self.passing)
            self.passing = 0
        return drawn, overrides, over

    def _one(self, number: int) -> tuple[Any, list[str]]:
        wanted = self.wanted
        if self.asked == self.points:  # here where a study is read again, else before
            self._list_more()
        descent = wanted.strategy.descend(
            number, self.trials, wanted.space, wanted.higher_is_better, derived(wanted.seed, "search")
        )
        if descent is not None:
            self.live.enqueue_trial(descent.parameters)
        trial = self.live.ask()
        self.asked += 1
        words = wanted.space.overrides(trial)
        if descent is not None:
            words.append(written("start_from", str(kept_in(wanted.output / RUNS, descent.parent))))
            words.append(written("seed", wanted.seed + descent.generation))
        return trial, words

    def _excluded(self, words: Sequence[str]) -> bool:
        """Say whether a point breaks a rule whatever it scores; one that makes no recipe fails by itself."""
        if not self.wanted.rules:
            return False
        try:
            return excluded_by(self.wanted.rules, self.wanted.load(words)) is not None
        except TunesmithError:
            return False

    def _draws_end(self, drawn: int) -> bool:
        """Say whether no more is drawn: all listed points are, or so many in a row were passed over."""
        if self.points is not None:
            return self.asked >= self.points and (drawn > 0 or not self._list_more())
        if self.passing == _PASSED:
            rules = ", ".join(map(str, self.wanted.rules))
            self.progress.say(f"{_PASSED} points in a row break the rules ({rules}): no more are drawn")
            self.drawn_out = True
        return self.drawn_out

    def _size(self) -> int:
        """Decide how many candidates come next; none when budget or space are spent."""
        done, budget = len(self.trials), self.budget
        self._check_hope()
        idle = self.trials[-_IDLE:]
        if len(idle) == _IDLE and all(one.same_as is not None for one in idle):
            self.progress.say("the strategy finds nothing new: the space is searched")
            return 0
        most = self.width * (1 if self.crew is None else self.crew.count) * (1 + len(self.database.presence.others()))
        size = min(most, self.wanted.strategy.ahead(done) or most)
        if self.drawn_out:
            return 0
        if self.points is not None:
            size = min(size, self.points - self.asked)
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
        """Seconds that the best run will take by itself: as the first trial, which trained alone, or longer by as much
        as the best one so far trained longer."""
        first, best = self.trials[0], best_of(self.trials, self.wanted.higher_is_better)
        return first.ended + max(0.0, best.outcome.seconds - first.outcome.seconds if best else 0.0)

    def _check_hope(self) -> None:
        failed = [one.outcome for one in self.trials]
        if len(failed) >= _HOPELESS and all(one.state == "failed" for one in failed):
            raise TunesmithError(
                f"all of the first {len(failed)} trials failed, so the space seems to hold no point that can be "
                f"carried out. The last reason: {failed[-1].reason}"
            )

    def _check_drawn(self, there: Sequence[Announced], overrides: Sequence[list[str]]) -> None:
        for one, own in zip(there, overrides, strict=False):
            if one.overrides != own:
                raise TunesmithError(
                    f"{self.database.path}: trial {one.number} is {' '.join(one.overrides)}, and the strategy draws "
                    f"{' '.join(own)} in its place: another version of a package wrote the study. Choose another "
                    "output."
                )

    def _carry_out(
        self, recipes: Mapping[int, Checked], words: Mapping[int, Sequence[str]], listen: Listen
    ) -> dict[int, Outcome]:
        """Train here, or by the workers of this process."""
        if self.crew is None:
            return self.passes.carry_out(recipes, listen)
        return self.crew.carry_out(recipes, words, listen)

    def _rows(self, known: str) -> str:
        """Take what tells the rows that choose from others, where this process has not opened them yet; give it."""
        holder = self.passes if self.crew is None else self.crew
        holder.validation = holder.validation or known
        return holder.validation

    def _hear(self, batch: Batch, found: Sequence[StudyTrial]) -> None:
        """Tell the study in memory what came out of a batch, and set the clock."""
        states, before = optuna().trial.TrialState, self.ended
        for one, trial in zip(found, batch.drawn, strict=True):
            state, value = one.outcome.state, one.outcome.value
            told = {"complete": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL}[state]
            self.live.tell(trial, None if told != states.COMPLETE else value, state=told)
        self.trials.extend(found)
        self.budget.spent = len(self.trials)
        self.ended = max(one.ended for one in found)
        self.budget.resume_at(max(self.ended, self.budget.elapsed))
        new = sum(one.same_as is None for one in found)
        self.slowest = max(self.slowest, (self.ended - before) / new) if new else self.slowest

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
