"""Train candidates: those that share base model and data in one pass, as many as fit into memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.files import hash_of
from tunesmith.core.launch import Place
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import seed_everything
from tunesmith.evaluation.statistics import Result, estimate
from tunesmith.models.quantized import release
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Meter
from tunesmith.runs.continuing import Earlier, inherit
from tunesmith.runs.family import Family
from tunesmith.runs.labelling import Labelling
from tunesmith.runs.opening import open_family
from tunesmith.runs.preparing import prepare_one
from tunesmith.runs.training import ENDED
from tunesmith.search.trials import Outcome
from tunesmith.training.caching import kept_below
from tunesmith.training.loop import Loop
from tunesmith.training.planning import plan
from tunesmith.training.preflight import Preflight
from tunesmith.training.processes import Processes
from tunesmith.training.trial import Trial

# What candidates of one pass may differ in: method, seed, the task's own settings, and training but for these keys.
_SHARED = ("dropout", "best", "precision", "memory_limit", "tokens_per_pass", "cache", "cache_type", "cache_limit")
OTHER_ROWS = (
    "its validation rows are not those of the trials before, so that scores could not be compared. Give "
    "data.validation a file."
)
_FAILING = (TunesmithError, RuntimeError, ValueError, ArithmeticError, MemoryError)  # what a trial can fail of

# Told a trial's number, an epoch and the score after it; says whether the trial ends there.
Listen = Callable[[int, int, float], bool]
Tick = Callable[[float], None]  # told the share of a pass that is done
Keep = Callable[[int, Family, Trial, Result], None]  # shown a trial that ended, and what it did on validation rows


@dataclass
class _Ready:
    """A candidate that is ready to train."""

    number: int
    checked: Checked
    family: Family
    trial: Trial
    facts: Preflight


@dataclass
class Passes:
    """Trains and scores candidates on validation rows; rows of test are taken away before anything is scored.

    Args:
        metric: that decides.
        progress: for the user.
        tick: told the share of a pass that is done.
        keep: shown every trial that ended with a score, while its delta is attached.
        opened: the model and data of the latest candidates, for the next ones.
        validation: what tells the rows that choose from others, once known.
        sharers: processes that share what memory is free. [count]
    """

    metric: str
    progress: Progress
    tick: Tick | None = None
    keep: Keep | None = None
    opened: tuple[str, Family, Earlier | None] | None = None
    validation: str = ""
    sharers: int = 1
    told: set[str] = field(default_factory=set)

    def carry_out(self, wanted: Mapping[int, Checked], listen: Listen) -> dict[int, Outcome]:
        """Train candidates.

        Args:
            wanted: recipes by number.
            listen: told about scores, and ends trials.
        Returns:
            An outcome for each number.
        Raises:
            KeyboardInterrupt: the user stopped it.
            SystemExit: the process was asked to end.
        """
        groups: dict[str, dict[int, Checked]] = {}
        for number, checked in wanted.items():
            groups.setdefault(shared_by(checked), {})[number] = checked
        found: dict[int, Outcome] = {}
        for key, group in groups.items():
            try:
                family, earlier = self._family(key, next(iter(group.values())))
                self._look(group, family)
            except _FAILING as error:
                found |= {number: _failed(error) for number in group}
                continue
            left = dict(group)
            while left:
                done = self._pass(left, family, earlier, listen)
                found |= done
                left = {number: checked for number, checked in left.items() if number not in done}
        return {number: found[number] for number in wanted}

    def family_of(self, checked: Checked) -> Family:
        """Open a candidate's model and rows, unless they are open.

        Args:
            checked: its recipe.
        Returns:
            They, without the rows of test.
        Raises:
            TunesmithError: anything wrong with the model or the data.
        """
        return self._family(shared_by(checked), checked)[0]

    def _family(self, key: str, checked: Checked) -> tuple[Family, Earlier | None]:
        """Open model and data, unless they are open."""
        if self.opened is not None and self.opened[0] == key:
            return self.opened[1], self.opened[2]
        self.opened = None  # one model in memory at a time
        checked, earlier = inherit(checked)
        family = open_family(checked, earlier)
        corpus = family.corpus
        if "validation" not in corpus.splits:
            raise RecipeError("data.validation: a search chooses by validation rows, and there are none. Give a share.")
        family.corpus = replace(corpus, splits={name: one for name, one in corpus.splits.items() if name != "test"})
        family.judge = replace(family.judge, splits=["validation"])
        split = family.corpus.splits["validation"]
        rows = hash_of([split.examples.content_hash, split.index.tolist()])
        if self.validation not in ("", rows):
            raise RecipeError(OTHER_ROWS)
        self.validation = rows
        self._tell(family)
        self.opened = key, family, earlier
        return family, earlier

    def _tell(self, family: Family) -> None:
        for said in (*family.told(), *(f"note: {warning}" for warning in family.corpus.warnings)):
            if said not in self.told:
                self.told.add(said)
                self.progress.say(said)

    def _pass(
        self, group: Mapping[int, Checked], family: Family, earlier: Earlier | None, listen: Listen
    ) -> dict[int, Outcome]:
        """Train as many of a group as fit, at least one; where they fail together, one by one."""
        with _detaching(family):
            ready, found = self._prepared(group, family, earlier)
            try:
                return found | self._trained(ready, family, listen)
            except _FAILING as error:
                if len(ready) <= 1:
                    return found | {one.number: _failed(error) for one in ready}
        for one in ready:
            found |= self._pass({one.number: one.checked}, family, earlier, listen)
        return found

    def _prepared(
        self, group: Mapping[int, Checked], family: Family, earlier: Earlier | None
    ) -> tuple[list[_Ready], dict[int, Outcome]]:
        """Attach candidates until no more fit."""
        ready: list[_Ready] = []
        found: dict[int, Outcome] = {}
        for number, checked in group.items():
            name = f"trial-{number:05d}"
            try:
                seed_everything(checked.recipe.seed)
                own = _own(checked, family)
                trial, facts = prepare_one(_alone(checked), name, own, earlier)
                latest = _Ready(number, checked, own, trial, facts)
                fits = self._plan([*ready, latest])
            except _FAILING as error:
                found[number] = _failed(error)
                continue
            if ready and not fits:
                family.session.backbone.seams.detach(name)
                break
            ready.append(latest)
        if ready:
            self._plan(ready)
        release(family.session.backbone.model)
        return ready, found

    def _plan(self, ready: list[_Ready]) -> bool:
        """Plan the memory of a pass; say whether it fits as it is."""
        beside = Processes(Place(local_count=self.sharers))
        try:
            planned = plan([(one.trial, one.facts) for one in ready], beside)
        except RecipeError:
            if len(ready) == 1:
                raise
            return False
        return planned.tokens is None and not planned.again

    def _look(self, group: Mapping[int, Checked], family: Family) -> None:
        """Compute what heads start from once, before a delta is attached."""
        for checked in group.values():
            own = _own(checked, family)
            if not isinstance(own, Labelling) or not isinstance(family, Labelling) or "train" in family.frozen.features:
                return
            if own.session.task.starts_from_features:
                own.look((), Meter(own.session.backbone.device), self.progress)
                family.frozen = own.frozen

    def _trained(self, ready: list[_Ready], family: Family, listen: Listen) -> dict[int, Outcome]:
        trials = [one.trial for one in ready if one.checked.method.trains]
        began = time.perf_counter()
        if trials:
            for one in ready:
                self._watch(one, listen)
            recipe, split = ready[0].checked.recipe, family.corpus.splits["validation"]
            splits = list({id(one): one for trial in trials for one in (*trial.splits, split)}.values())
            with kept_below(trials, splits, recipe.training, family.session.model_hash, lambda said: None):
                self._fit(Loop(trials), sum(trial.all_rows for trial in trials))
        seconds = time.perf_counter() - began
        rows = sum(trial.trained.examples for trial in trials)
        return {one.number: self._scored(one, seconds * one.trial.trained.examples / max(rows, 1)) for one in ready}

    def _watch(self, one: _Ready, listen: Listen) -> None:
        """Let scores of a trial be heard, and end it where it is said so."""
        trial, validate = one.trial, one.trial.validate

        def heard() -> dict[str, float]:
            scores = validate()
            trial.stopped = listen(one.number, trial.epoch, scores[self.metric]) and not _last(trial)
            return scores

        trial.validate = heard

    def _fit(self, loop: Loop, rows: int) -> None:
        gone = 0
        with self.progress.stage(f"a pass of {len(loop.trials)} trials", rows) as bar:

            def count(done: int, note: str = "") -> None:
                nonlocal gone
                gone += done
                bar(done, note)
                if self.tick is not None:
                    self.tick(gone / rows)

            loop.fit(count, None, self.progress.say)
        if loop.ended:
            raise SystemExit(ENDED)
        if loop.interrupted:
            raise KeyboardInterrupt

    def _scored(self, one: _Ready, seconds: float) -> Outcome:
        """Score a trained candidate with intervals."""
        family, trial, trained = one.family, one.trial, one.trial.trained
        if trained.diverged:
            return Outcome("failed", trained.reason, epochs=trial.epoch, trainable=one.facts.trainable)
        trains = one.checked.method.trains
        at_best = trained.history[trained.best_epoch - 1] if trains else family.validate(trial.tuned)
        family.settle(trial.tuned)
        result = family.recall(trial.tuned, family.corpus.splits["validation"])
        if self.keep is not None:
            self.keep(one.number, family, trial, result)
        metrics = [metric for metric in family.recall_metrics() if metric.name in at_best]
        found = estimate(result, metrics, family.judge.bootstrap)
        return Outcome(
            "stopped" if trial.stopped else "complete",
            value=float(at_best[self.metric]),
            loss=float(at_best["validation loss"]),
            scores={name: dict(score.plain()) for name, score in found.items()},
            best_epoch=trained.best_epoch,
            epochs=trial.epoch,
            trainable=one.facts.trainable,
            seconds=seconds,
        )


def _last(trial: Trial) -> bool:
    return trial.epoch >= trial.settings.epochs


def _failed(error: BaseException) -> Outcome:
    return Outcome("failed", str(error) or type(error).__name__)


def _alone(checked: Checked) -> Checked:
    """Leave out the run beside it that would measure what a scheme gains: trials are compared with each other."""
    if checked.scheme is None:
        return checked
    return replace(checked, scheme=checked.scheme.model_copy(update={"compare": False}))


def _own(checked: Checked, family: Family) -> Family:
    """Give a candidate the head and the losses of its own, on the model and the rows of all."""
    session, own = family.session, {key: getattr(checked.task, key) for key in checked.task.own_settings}
    if all(getattr(session.task, key) == value for key, value in own.items()):
        return family
    return replace(family, session=replace(session, task=type(session.task)(**{**session.task.model_dump(), **own})))


def shared_by(checked: Checked) -> str:
    """Return what candidates of one pass have in common.

    Args:
        checked: recipe of one.
    Returns:
        A hash.
    """
    values: dict[str, Any] = checked.resolved()
    training = values.pop("training")
    values["task"] = {key: value for key, value in values["task"].items() if key not in checked.task.own_settings}
    for key in ("method", "output", "candidates"):
        values.pop(key, None)
    if checked.recipe.model.new is None:
        values.pop("seed")
    full = checked.method.wants_full_precision
    return hash_of([values, {key: training[key] for key in _SHARED}, full, str(checked.folder)])


@contextmanager
def _detaching(family: Family) -> Iterator[None]:
    """Take all deltas off that were attached inside of the block."""
    seams = family.session.backbone.seams
    before = set(seams.deltas)
    try:
        yield
    finally:
        for name in set(seams.deltas) - before:
            seams.detach(name)
