"""A batch of trials that processes share out: each takes some, trains them, and writes what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.progress import Progress
from tunesmith.recipe.loading import Checked
from tunesmith.search.announced import Announced
from tunesmith.search.budget import Budget
from tunesmith.search.database import Database
from tunesmith.search.passes import OTHER_ROWS, Listen, shared_by
from tunesmith.search.trials import Outcome, StudyTrial
from tunesmith.search.wanted import Wanted

_DEATHS = 2  # of a process with the same trial, after which the trial has failed
_SUSPECT, _KILLED = 4, 6  # ends of a whole search with the same trial: it trains alone; it has failed
_WAIT = 0.3  # between looks at what others train [seconds]

# Trains recipes by number, told the overrides of each; gives an outcome for each.
Carry = Callable[[Mapping[int, Checked], Mapping[int, Sequence[str]], Listen], dict[int, Outcome]]


@dataclass
class Batch:
    """Trials that were announced, until the last of them has ended.

    Args:
        database: of the study.
        wanted: what is searched.
        earlier: trials of the batches before.
        drawn: optuna's trials in memory, which hear scores and end early.
        overrides: `key=value` texts of each.
        carry_out: trains.
        rows: gives what tells the rows that choose from others, and takes what other processes found.
        budget: whose clock is read.
        alone: seconds that the best run will take by itself when all is tried.
        progress: for the user.
        reports: (order, epoch, score) heard of each trial.
        late: trials that were ended because the time is up.
    """

    database: Database
    wanted: Wanted
    earlier: Sequence[StudyTrial]
    drawn: Sequence[Any]
    overrides: Sequence[list[str]]
    carry_out: Carry
    rows: Callable[[str], str]
    budget: Budget
    alone: float
    progress: Progress
    reports: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict)
    late: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._began = self.budget.elapsed
        self.first = len(self.earlier)
        self._recipes, self._known, self._heads = dict[int, Checked](), dict[int, Outcome](), dict[int, int]()
        trained = {tuple(one.overrides): one for one in self.earlier if one.same_as is None}
        own = dict[tuple[str, ...], int]()
        for number, words in enumerate(self.overrides, self.first):
            if (before := trained.get(tuple(words))) is not None:
                self._heads[number], self._known[number] = before.number, before.outcome
            elif tuple(words) in own:
                self._heads[number] = own[tuple(words)]
            else:
                own[tuple(words)] = number

    def settle(self) -> list[StudyTrial]:
        """Train what nobody else trains, and wait for the others.

        Returns:
            All trials of the batch, in order.
        Raises:
            CheckpointError: the study cannot be written.
        """
        while True:
            with self.database.presence.alone():
                found = self.database.announced(self.first)
                mine = self._taken(found)
                self.database.take(mine)
            if mine:
                self._train(mine, found)
                continue
            ended = [one.trial for one in found if one.trial is not None]
            if len(ended) == len(found):
                self._hear(ended)
                return ended
            time.sleep(_WAIT)

    def _taken(self, found: Sequence[Announced]) -> list[Announced]:
        """Choose what this process trains next: its share of what is new; else one that ended its process."""
        presence = self.database.presence
        free = [one for one in found if one.trial is None and not (one.owner and presence.lives(one.owner))]
        able = [one for one in free if self._is_able(one.number, found)]
        fresh = [one for one in able if not (one.owner or one.deaths or one.killed >= _SUSPECT)]
        if not fresh:
            for one in able[:1]:
                if one.owner:
                    what = f"a process ended that searched here too; its trial {one.number} is taken up"
                    self.progress.say(f"note: {what}")
                elif one.killed:
                    what = f"{one.killed} searches ended while trial {one.number} was trained; it is trained alone now"
                    self.progress.say(f"note: {what}")
            return able[:1]
        fresh.sort(key=lambda one: (self._shared(one.number), one.number))
        return fresh[: math.ceil(len(found) / (1 + len(presence.others())))]

    def _is_able(self, number: int, found: Sequence[Announced]) -> bool:
        """Say whether a trial can be taken: one that repeats another of the batch waits until that has ended."""
        head = self._heads.get(number, number)
        return head < self.first or head == number or found[head - self.first].trial is not None

    def _shared(self, number: int) -> str:
        checked = self._loaded(number)
        return "" if checked is None else shared_by(checked)

    def _loaded(self, number: int) -> Checked | None:
        """Load a trial's recipe; None where its outcome is known without."""
        if number in self._heads or number in self._known:
            return None
        if number not in self._recipes:
            try:
                self._recipes[number] = self.wanted.load(self.overrides[number - self.first])
            except TunesmithError as error:
                self._known[number] = Outcome("failed", str(error))
                return None
        return self._recipes[number]

    def _train(self, mine: Sequence[Announced], found: Sequence[Announced]) -> None:
        """Train, and write what came out; what could not be trained to its end can be taken again."""
        try:
            outcomes = self._outcomes(mine, found)
        except BaseException:
            with self.database.presence.alone():
                self.database.give_back(mine)
            raise
        with self.database.presence.alone():
            first = self.database.validation
            if first not in ("", self.rows(first)):  # two processes began at once, each with rows of its own
                outcomes |= {number: Outcome("failed", OTHER_ROWS) for number in outcomes if number in self._recipes}
            self.database.finish([self._ended(one, outcomes[one.number]) for one in mine], self.rows(""))

    def _ended(self, one: Announced, outcome: Outcome) -> StudyTrial:
        return StudyTrial(
            number=one.number, batch=one.batch, size=one.size,
            parameters=dict(self.drawn[one.number - self.first].params), overrides=one.overrides,
            reports=self.reports.get(one.number, []), ended=self.budget.elapsed, same_as=self._heads.get(one.number),
            outcome=outcome,
        )  # fmt: skip

    def _outcomes(self, mine: Sequence[Announced], found: Sequence[Announced]) -> dict[int, Outcome]:
        recipes = dict[int, Checked]()
        outcomes = dict[int, Outcome]()
        for one in mine:
            checked, number = self._loaded(one.number), one.number
            if number in self._known:
                outcomes[number] = self._known[number]
            elif checked is None:
                head = found[self._heads[number] - self.first].trial
                assert head is not None
                outcomes[number] = head.outcome
            elif one.deaths + bool(one.owner) >= _DEATHS:
                outcomes[number] = Outcome("failed", "its process ended twice, perhaps for want of memory")
            elif one.killed >= _KILLED:
                outcomes[number] = Outcome("failed", f"{one.killed} searches ended with it, perhaps for want of memory")
            else:
                recipes[number] = checked
        if recipes:
            self.rows(self.database.validation)
            words = {number: self.overrides[number - self.first] for number in recipes}
            outcomes |= self.carry_out(recipes, words, self._listen)
        for number in self.late:
            if outcomes[number].state == "stopped":
                outcomes[number] = replace(outcomes[number], reason="the time was up")
        return outcomes

    def _listen(self, number: int, epoch: int, score: float) -> bool:
        trial, heard = self.drawn[number - self.first], self.reports.setdefault(number, [])
        if math.isfinite(score) and all(epoch != one for _, one, _ in heard):
            heard.append((sum(map(len, self.reports.values())), epoch, score))
            trial.report(score, epoch)
        if self._is_late():
            self.late.add(number)
            return True
        return bool(trial.should_prune())

    def _is_late(self) -> bool:
        """Say whether the best run would end behind the budget; were it one of these trials, it would train that long.

        The first trial is watched instead, as nothing could be chosen without it.
        """
        if self.budget.seconds is None or not self.earlier:
            return False
        elapsed = self.budget.elapsed
        own = (elapsed - self._began) / len(self.overrides)
        return elapsed + max(self.alone, own) > self.budget.seconds

    def _hear(self, ended: Iterable[StudyTrial]) -> None:
        """Tell the study in memory the scores of what others trained, in the order in which they came."""
        order = [
            (at, one.number, epoch, score)
            for one in ended
            if one.same_as is None and one.number not in self.reports
            for at, epoch, score in one.reports
        ]
        for _, number, epoch, score in sorted(order):
            self.drawn[number - self.first].report(score, epoch)
            self.drawn[number - self.first].should_prune()
