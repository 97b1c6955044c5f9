"""The closed loop: try, look at the errors, adjust, until the budget is used up or nothing more is gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise, zip_longest
from typing import Any

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.progress import Progress
from tunesmith.core.registry import components
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result, holm, paired_difference
from tunesmith.recipe.loading import Checked
from tunesmith.runs.family import Family
from tunesmith.search.answering import compared_by, errors_of, known_of
from tunesmith.search.attempts import Attempt, Record, Round, Test
from tunesmith.search.budget import Budget
from tunesmith.search.changes import Change, merged
from tunesmith.search.deciding import adopted, decision_of, planned_from
from tunesmith.search.designing import Designer
from tunesmith.search.designs import Design
from tunesmith.search.errors_seen import Errors
from tunesmith.search.evidence import Known
from tunesmith.search.first_trial import TooShort, Watch
from tunesmith.search.leaving import Leaving
from tunesmith.search.loop_wanted import LoopSettings, LoopWanted
from tunesmith.search.passes import Passes
from tunesmith.search.reading import check_read, read_by
from tunesmith.search.trials import Outcome
from tunesmith.training.trial import Trial

_ROUNDING = 1e-9  # of trials that searches of prompts are counted as
_SHARED = 1.5  # most times as long as in a shared pass that a trial takes alone


@dataclass(frozen=True)
class Proposal:
    """A change that waits to be tried.

    Args:
        by: start or adjustment that proposed it.
        change: itself.
        values: all that the recipe as written gets.
        checked: the recipe with them; None where it cannot be carried out.
        refused: why.
    """

    by: str
    change: Change
    values: Mapping[str, Any]
    checked: Checked | None
    refused: str = ""


@dataclass
class ClosedLoop:
    """A loop that is under way.

    Args:
        wanted: the recipe as written, and how it is scored.
        settings: of the loop.
        budget: that is left.
        record: with the rounds that ended.
        progress: for the user.
        attempts: by number.
        best: the present best attempt.
        pace: most seconds that an epoch of one trial took in a shared pass.
        alone: seconds of the first round, in which the recipe as written trained alone.
    """

    wanted: LoopWanted
    settings: LoopSettings
    budget: Budget
    record: Record
    progress: Progress
    attempts: list[Attempt] = field(default_factory=list)
    best: Attempt | None = None
    pace: float = 0.0
    alone: float = 0.0

    def __post_init__(self) -> None:
        self.watch = Watch(self.budget)
        self.passes = Passes(self.wanted.metric, self.progress, self._tick, self._keep)
        self.designer = Designer(
            self.settings.prompt_share, self.wanted.metric, self.record, self.passes, self.budget, self.progress
        )
        self._answers: dict[int, Result] = {}
        self._errors: dict[int, Errors] = {}
        self._known: Known | None = None
        self._seen: set[str] = set()

    def run(self) -> str:
        """Go round until something ends it.

        Returns:
            Why it ended, in a sentence.
        Raises:
            CheckpointError: the rounds that are there read other rows or another model.
            RecipeError: the budget is shorter than the recipe as written takes.
            TunesmithError: the recipe as written cannot be carried out.
        """
        kept = list(self.record.rounds)
        for one in kept:
            check_read(f"{self.record.folder} holds a loop", one.read, self._read)
        self.budget.begin()
        for one in kept:
            self._take(one)
            self.budget.resume_at(one.ended)
        self.budget.resume_at(self.budget.elapsed + self.record.designed_seconds(len(kept)))
        if not kept:
            self._first()
        while True:
            why, proposals = self._next()
            if why:
                self.progress.say(why)
                return why
            self._round(proposals)

    # Rounds ---------------------------------------------------------------------------------------------------

    def _first(self) -> None:
        """Carry the recipe as written out alone: what all else is compared with, and how long it takes."""
        as_written = Change("the recipe as written", {}, "what a user would have run")
        checked = self.wanted.load({})
        try:
            attempt = self._carried_out([Proposal("", as_written, {}, checked)])[0]
        except TooShort as short:
            raise short.worded(self.budget) from None
        if attempt.outcome.state == "failed":
            raise TunesmithError(f"the recipe as written cannot be carried out: {attempt.outcome.reason}")
        assert attempt.outcome.value is not None
        said = f"the recipe as written: {self.wanted.metric} {attempt.outcome.value:.4f} on validation"
        self._end(Round(0, self.budget.elapsed, [attempt], 0, said, self._read))

    def _round(self, proposals: Sequence[Proposal]) -> None:
        """Try changes together, test each against the best so far, and keep what the tests show."""
        assert self.best is not None
        best = self.best
        found = self._tested(self._carried_out(proposals), best)
        first = len(self.record.rounds) == 1
        chosen = adopted(found, best, self.settings.level, first, self.wanted.higher_is_better)
        said = decision_of(found, best, chosen, self.settings.level, self.wanted.metric, first)
        self._end(Round(len(self.record.rounds), self.budget.elapsed, found, chosen.number, said, self._read))

    def _end(self, ended: Round) -> None:
        self.record.add(ended)
        self._take(ended)
        self.progress.say(f"round {ended.number}, {ended.ended:.0f} s: {ended.decision}")

    def _take(self, ended: Round) -> None:
        """Bring the state up to date with a round that ended now, or before a kill."""
        before = self.record.rounds[ended.number - 1].ended if ended.number else 0.0
        before += self.record.designed_seconds(ended.number)
        self.attempts.extend(ended.attempts)
        self.best = self.attempts[ended.best]
        self.budget.spent = len(self.attempts) + self.designer.trials
        self._seen |= {self.wanted.identity_of(one.values) for one in ended.attempts}
        if ended.number == 0:
            self.alone = ended.ended
        epochs = sum(one.outcome.epochs for one in ended.attempts)
        if ended.number and epochs:
            self.pace = max(self.pace, (ended.ended - before) / epochs)

    def _carried_out(self, proposals: Sequence[Proposal]) -> list[Attempt]:
        """Train proposals in shared passes."""
        first = len(self.attempts)
        ready = {first + place: one.checked for place, one in enumerate(proposals) if one.checked is not None}
        epochs = {number: checked.recipe.training.epochs for number, checked in ready.items()}
        leaving = Leaving(self.settings.leave, epochs, self.wanted.higher_is_better)
        outcomes = {number: Outcome("failed", one.refused) for number, one in enumerate(proposals, first)}
        outcomes |= self.passes.carry_out(ready, leaving)
        outcomes |= {
            number: replace(outcomes[number], reason=why)
            for number, why in leaving.left.items()
            if outcomes[number].state == "stopped"  # a pass that broke was made again, and the change may have failed
        }
        return [
            Attempt(number, one.by, one.change, one.values, outcomes[number], self._errors.get(number))
            for number, one in enumerate(proposals, first)
        ]

    def _keep(self, number: int, family: Family, trial: Trial, result: Result) -> None:
        """Look at a trial's answers while its delta is attached."""
        self._answers[number] = result
        self._errors[number] = errors_of(family, trial, result, self.wanted.metric)
        self.record.keep_answers(number, result)
        if self._known is None:
            self._known = known_of(family, self.wanted.metric, self.wanted.higher_is_better)

    def _tested(self, found: Sequence[Attempt], best: Attempt) -> list[Attempt]:
        """Compare what a round trained to the end with the best so far on the same rows; correct the tests together."""
        tests: dict[int, Test] = {}
        own = self._answered(best.number)
        metric = compared_by(self.wanted.metric, isinstance(own, Predictions))
        for one in found:
            if one.outcome.state == "complete":
                other = paired_difference(self._answered(one.number), own, metric, self.wanted.bootstrap)
                gain = other.estimate
                tests[one.number] = Test(best.number, gain.value, gain.low, gain.high, other.p_value)
        corrected = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
        return [
            replace(one, test=replace(tests[one.number], corrected=corrected[one.number]))
            if one.number in tests
            else one
            for one in found
        ]

    def _answered(self, number: int) -> Result:
        if number not in self._answers:
            self._answers[number] = self.record.answers(number)
        return self._answers[number]

    # What comes next ------------------------------------------------------------------------------------------

    def _next(self) -> tuple[str, list[Proposal]]:
        """Plan a round; say why there is none."""
        idle = self._idle()
        if idle >= self.settings.patience:
            return f"{idle} rounds in a row showed no gain", []
        proposals = self._proposals()
        if not proposals:
            return "no start or adjustment has anything left to try", []
        fitting = self._fitting(proposals)
        if not fitting:
            return "the budget is used up", []
        return "", fitting

    def _idle(self) -> int:
        """Count the latest rounds that kept nothing; the first two settle where the loop begins."""
        idle = 0
        for before, one in pairwise(self.record.rounds[1:]):
            idle = idle + 1 if one.best == before.best else 0
        return idle

    def _fitting(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Take the proposals that width, number of trials and time allow; as much as the best run needs is left."""
        most, budget = self.settings.width, self.budget
        if budget.evaluations is not None:
            most = min(most, int(budget.evaluations - budget.spent + _ROUNDING))
        if budget.seconds is None:
            return list(proposals[: max(0, most)])
        seeds = 1 if len(self.record.rounds) == 1 else self.settings.members  # the starts settle how long one takes
        room = budget.seconds - budget.elapsed - self._last_run(seeds)
        found = list[Proposal]()
        for one in proposals:
            seconds = self._seconds_of(one.checked)
            if seconds <= room and len(found) < most:
                room -= seconds
                found.append(one)
        return found

    def _seconds_of(self, checked: Checked | None) -> float:
        """Seconds that a trial is expected to take in a round."""
        epochs = 1 if checked is None else checked.recipe.training.epochs
        return epochs * (self.pace or self.alone / max(1, self.attempts[0].outcome.epochs))

    def _designed(self, checked: Checked, aimed: Sequence[str]) -> Design:
        """Search a prompt for the best recipe; what the last run and one more trial need is left.

        The clock of the record counts, not the present one, so that a loop that goes on allows the same.
        """
        assert self.best is not None
        budget, room = self.budget, Budget()
        if budget.evaluations is not None:
            room.evaluations = budget.evaluations - budget.spent - 1
        if budget.seconds is not None:
            kept = self._last_run(self.settings.members) + self._seconds_of(checked)
            room.seconds = budget.seconds - self.record.rounds[-1].ended - kept
        return self.designer.design(checked, self.best, aimed, room)

    def members(self) -> int:
        """Say how many seeds of the best recipe can train in what is left of the time, at least one."""
        budget = self.budget
        fitting = range(self.settings.members, 0, -1)
        if budget.seconds is None:
            return self.settings.members
        left = budget.seconds - budget.elapsed
        return next((count for count in fitting if self._last_run(count) <= left), 1)

    def _last_run(self, members: int) -> float:
        """Seconds that the best run will take: opening and scoring as in the first round, and training by its rows."""
        assert self.best is not None
        first, best, rows = self.attempts[0].outcome, self.best.outcome, 1.0
        if self.settings.use_validation and self.best.errors is not None:
            rows += self.best.errors.rows / max(1, self._knowing().rows)
        return max(0.0, self.alone - first.seconds) + best.seconds * rows * max(members, _SHARED)

    def _proposals(self) -> list[Proposal]:
        """Ask every start, and from then on every adjustment; changes that were tried already are left out."""
        assert self.best is not None
        checked = self.wanted.load(self.best.values)
        known = self._knowing()
        if len(self.record.rounds) == 1:
            offered = {name: kind().propose(known, checked.resolved()) for name, kind in _ordered("starts")}
            base: Mapping[str, Any] = {}
        else:
            design = partial(self._designed, checked) if self.settings.prompt_share else None
            evidence = planned_from(known, checked.resolved(), self.best, self.record.rounds[-1], design)
            offered = {name: kind().propose(evidence) for name, kind in _ordered("adjustments")}
            base = self.best.values
        turns = zip_longest(*([(name, one) for one in changes] for name, changes in offered.items()))
        found, seen = list[Proposal](), set(self._seen)
        for name, change in (pair for turn in turns for pair in turn if pair is not None):
            values = merged(base, change.values)
            identity = self.wanted.identity_of(values)
            if identity not in seen:
                seen.add(identity)
                found.append(self._proposal(name, change, values))
        return found

    def _proposal(self, name: str, change: Change, values: Mapping[str, Any]) -> Proposal:
        try:
            return Proposal(name, change, values, self.wanted.load(values))
        except RecipeError as error:
            return Proposal(name, change, values, None, str(error))

    def _knowing(self) -> Known:
        """Return what is known of the task; a loop that goes on opens the model and the rows again."""
        if self._known is None:
            family = self.passes.family_of(self.wanted.load({}))
            self._known = known_of(family, self.wanted.metric, self.wanted.higher_is_better)
        return self._known

    @cached_property
    def _read(self) -> dict[str, str]:
        """What the loop reads, of the recipe as written: the first round has opened it, one that goes on opens it."""
        family = self.passes.family_of(self.wanted.load({}))
        return read_by(family.corpus, family.session.model_hash)

    def _tick(self, share: float) -> None:
        if not self.attempts:
            self.watch.tick(share)


def _ordered(kind: str) -> list[tuple[str, Any]]:
    return sorted(components(kind).items(), key=lambda one: (one[1].order, one[0]))
