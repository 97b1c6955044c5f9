"""Train candidates: those that share base model and data in one pass, as many as fit into memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.files import hash_of, read_json
from tunesmith.core.launch import Place
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import seed_everything
from tunesmith.data.splitting import Index
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result, estimate, holding, mean_of
from tunesmith.models.quantized import release
from tunesmith.recipe.loading import Checked
from tunesmith.recipe.starting import find_run
from tunesmith.recipe.training import OF_A_PASS
from tunesmith.runs.comparing import Meter
from tunesmith.runs.continuing import Earlier, check_base, inherit
from tunesmith.runs.family import Family
from tunesmith.runs.folder import staged
from tunesmith.runs.labelling import Labelling
from tunesmith.runs.opening import open_family, open_folds
from tunesmith.runs.predicted import write_predictions
from tunesmith.runs.preparing import prepare_one
from tunesmith.runs.teaching import learn_from_teacher
from tunesmith.runs.writing import write_start
from tunesmith.search.trials import Outcome
from tunesmith.training.caching import kept_below
from tunesmith.training.loop import Loop
from tunesmith.training.planning import plan
from tunesmith.training.preflight import Preflight
from tunesmith.training.processes import Processes
from tunesmith.training.stopping import ENDED
from tunesmith.training.taking import taken
from tunesmith.training.trial import Trial, Validate

OTHER_ROWS = (
    "its validation rows are not those of the trials before, so that scores could not be compared. Give "
    "data.validation a file."
)
# What a trial can fail of; a study goes on, and its record says of what.
_FAILING = (TunesmithError, RuntimeError, ValueError, ArithmeticError, MemoryError, LookupError, TypeError,
            AttributeError, OSError)  # fmt: skip

# Told a trial's number, an epoch and the score after it; says whether the trial ends there.
Listen = Callable[[int, int, float], bool]
Tick = Callable[[float], None]  # told the share of a pass that is done
Keep = Callable[[int, Family, Trial, Result], None]  # shown a trial that ended, and what it did on validation rows


@dataclass
class _Part:
    """One training of a candidate: its only one, or that of a fold."""

    family: Family
    trial: Trial
    facts: Preflight


@dataclass
class _Ready:
    """A candidate that is ready to train."""

    number: int
    checked: Checked
    parts: list[_Part]

    @property
    def trials(self) -> list[Trial]:
        """Those of all folds."""
        return [part.trial for part in self.parts]


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
        rows: numbers of the training rows that a trial learns from; all of them when None.
        every_fold: whether each candidate is trained and scored on all folds of `data.folds`, in one pass.
        sharers: processes that share what memory is free. [count]
        runs: folder in which what each trial trained is kept, for others to go on from; None for nowhere.
        answers: folder in which the answers of each trial to the rows that chose its epoch are kept; None for nowhere.
    """

    metric: str
    progress: Progress
    tick: Tick | None = None
    keep: Keep | None = None
    opened: tuple[str, list[Family]] | None = None
    validation: str = ""
    every_fold: bool = False
    sharers: int = 1
    runs: Path | None = None
    answers: Path | None = None
    told: set[str] = field(default_factory=set)
    rows: Mapping[int, Index] | None = None

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
                families = self._families(key, next(iter(group.values())))
                for family in families:
                    self._look(group, family)
            except _FAILING as error:
                found |= {number: _failed(error) for number in group}
                continue
            left = dict(group)
            while left:
                done = self._pass(left, families, listen)
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
        return self._families(shared_by(checked), checked)[0]

    def _families(self, key: str, checked: Checked) -> list[Family]:
        """Open model and data, unless they are open: one family, or one for every fold."""
        if self.opened is not None and self.opened[0] == key:
            return self.opened[1]
        self.opened = None  # one model in memory at a time
        checked, earlier = inherit(checked)
        first = open_family(checked, earlier)
        families = open_folds(checked, earlier, first) if self.every_fold else [first]
        if "validation" not in first.corpus.splits:
            raise RecipeError("data.validation: a search chooses by validation rows, and there are none. Give a share.")
        for family in families:
            splits = {name: one for name, one in family.corpus.splits.items() if name != "test"}
            family.corpus = replace(family.corpus, splits=splits)
            family.judge = replace(family.judge, splits=["validation"])
        held = [family.corpus.splits["validation"] for family in families]
        rows = hash_of([[split.examples.content_hash, split.index.tolist()] for split in held])
        if self.validation not in ("", rows):
            raise RecipeError(OTHER_ROWS)
        self.validation = rows
        self._tell(first)
        learn_from_teacher(checked, families, self.progress)
        if len(families) > 1:
            self._say(f"every trial trains on {len(families)} folds in one pass and is scored by their mean")
        self.opened = key, families
        return families

    def _tell(self, family: Family) -> None:
        for said in (*family.told(), *(f"note: {warning}" for warning in family.corpus.warnings)):
            self._say(said)

    def _say(self, said: str) -> None:
        if said not in self.told:
            self.told.add(said)
            self.progress.say(said)

    def _pass(self, group: Mapping[int, Checked], families: list[Family], listen: Listen) -> dict[int, Outcome]:
        """Train as many of a group as fit, at least one; where they fail together, one by one."""
        with _detaching(families[0]):
            ready, found = self._prepared(group, families)
            try:
                return found | self._trained(ready, families, listen)
            except _FAILING as error:
                if len(ready) <= 1:
                    return found | {one.number: _failed(error) for one in ready}
        for one in ready:
            found |= self._pass({one.number: one.checked}, families, listen)
        return found

    def _prepared(
        self, group: Mapping[int, Checked], families: list[Family]
    ) -> tuple[list[_Ready], dict[int, Outcome]]:
        """Attach candidates until no more fit."""
        ready: list[_Ready] = []
        found: dict[int, Outcome] = {}
        seams = families[0].session.backbone.seams
        for number, checked in group.items():
            before = set(seams.deltas)
            try:
                latest = _Ready(number, checked, self._parts(number, checked, families))
                fits = self._plan([*ready, latest])
            except _FAILING as error:
                found[number] = _failed(error)
                continue
            if ready and not fits:
                for name in set(seams.deltas) - before:
                    seams.detach(name)
                break
            ready.append(latest)
        if ready:
            self._plan(ready)
        release(families[0].session.backbone.model)
        return ready, found

    def _plan(self, ready: list[_Ready]) -> bool:
        """Plan the memory of a pass; say whether it fits as it is."""
        beside = Processes(Place(local_count=self.sharers))
        try:
            planned = plan([(part.trial, part.facts) for one in ready for part in one.parts], beside)
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

    def _parts(self, number: int, checked: Checked, families: Sequence[Family]) -> list[_Part]:
        """Attach a candidate's deltas, one for every fold."""
        found = list[_Part]()
        for place, family in enumerate(families):
            seed_everything(checked.recipe.seed)
            name = f"trial-{number:05d}" + (f"-fold-{place:02d}" if len(families) > 1 else "")
            own = self._on_rows(number, _own(checked, family))
            found.append(_Part(own, *prepare_one(_alone(checked), name, own, _earlier(checked, family))))
        return found

    def _on_rows(self, number: int, family: Family) -> Family:
        """Give a trial the training rows that it learns from."""
        if self.rows is None:
            return family
        rows = self.rows[number]
        return family.on(taken(family.corpus.splits["train"], rows), rows)

    def _trained(self, ready: list[_Ready], families: list[Family], listen: Listen) -> dict[int, Outcome]:
        trials = [trial for one in ready if one.checked.method.trains for trial in one.trials]
        began = time.perf_counter()
        if trials:
            for one in ready:
                self._watch(one, listen)
            recipe, held = ready[0].checked.recipe, [family.corpus.splits["validation"] for family in families]
            splits = list({id(one): one for one in (*(s for trial in trials for s in trial.splits), *held)}.values())
            model_hash = families[0].session.model_hash
            with kept_below(trials, splits, recipe.training, model_hash, lambda said: None):
                self._fit(Loop(trials), sum(trial.all_rows for trial in trials))
        seconds = (time.perf_counter() - began) / max(sum(trial.trained.examples for trial in trials), 1)
        return {one.number: self._scored(one, seconds * sum(t.trained.examples for t in one.trials)) for one in ready}

    def _watch(self, one: _Ready, listen: Listen) -> None:
        """Let scores of a candidate be heard, of folds their mean once all have it, and end it where it is said so."""
        trials, scores = one.trials, [dict[int, float]() for _ in one.parts]

        def watch(trial: Trial, own: dict[int, float], validate: Validate) -> None:
            def heard() -> dict[str, float]:
                found, epoch = validate(), trial.epoch
                own[epoch] = found[self.metric]
                known = [
                    row.get(epoch, row.get(other.epoch) if other.over else None)  # one that is over keeps its last
                    for row, other in zip(scores, trials, strict=True)
                ]
                values = [value for value in known if value is not None and not math.isnan(value)]
                if len(values) == len(known) and listen(one.number, epoch, sum(values) / len(values)):
                    for other in trials:
                        other.stopped = not _last(other)
                return found

            trial.validate = heard

        for trial, own in zip(trials, scores, strict=True):
            watch(trial, own, trial.validate)

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
        """Score a trained candidate; one on folds by their mean.

        The interval is that of the answers to all rows; where folds were drawn repeatedly, the mean of each draw's, as
        more draws of the same rows are no more rows.
        """
        for place, part in enumerate(one.parts):
            if part.trial.trained.diverged:
                which = f"fold {place}: " if len(one.parts) > 1 else ""
                reason = f"{which}{part.trial.trained.reason}"
                return Outcome("failed", reason, epochs=part.trial.epoch, trainable=part.facts.trainable)
        found = [self._answered(one, part) for part in one.parts]
        if reason := self._undefined([float(at_best[self.metric]) for at_best, _ in found]):
            return Outcome("failed", reason, epochs=one.trials[0].epoch, trainable=one.parts[0].facts.trainable)
        first, judge = one.parts[0], one.parts[0].family.judge
        metrics = [metric for metric in first.family.recall_metrics() if metric.name in found[0][0]]
        results, folds = [result for _, result in found], one.checked.recipe.data.folds or 1
        draws = [_joined(results[at : at + folds]) for at in range(0, len(results), folds)]
        scores = mean_of([estimate(draw, metrics, judge.bootstrap) for draw in draws])
        trials, value = one.trials, mean(float(at_best[self.metric]) for at_best, _ in found)
        if len(found) > 1 and self.metric in scores:  # one score, wherever it is shown
            scores[self.metric] = holding(value, scores[self.metric].low, scores[self.metric].high)
        return Outcome(
            "stopped" if any(trial.stopped for trial in trials) else "complete",
            value=value,
            loss=mean(float(at_best["validation loss"]) for at_best, _ in found),
            scores={name: dict(score.plain()) for name, score in scores.items()},
            best_epoch=round(mean(trial.trained.best_epoch for trial in trials)),
            epochs=max(trial.epoch for trial in trials),
            trainable=first.facts.trainable,
            seconds=seconds,
            folds=[self._by_epoch(part) for part in one.parts] if len(one.parts) > 1 else [],
        )

    def _undefined(self, values: Sequence[float]) -> str:
        """Say where the deciding score is no number, as of validation rows for which it is not defined."""
        fold = next((place for place, value in enumerate(values) if math.isnan(value)), None)
        if fold is None:
            return ""
        where = f" of fold {fold}" if len(values) > 1 else ""
        return (
            f"{self.metric} has no value on the validation rows{where}: it is not defined for them. Decide by another "
            "metric, or give other validation rows."
        )

    def _by_epoch(self, part: _Part) -> list[tuple[int, float]]:
        scored = [(int(one["epoch"]), float(one[self.metric])) for one in part.trial.trained.history
                  if self.metric in one]  # fmt: skip
        return [(epoch, score) for epoch, score in scored if not math.isnan(score)]

    def _answered(self, one: _Ready, part: _Part) -> tuple[Mapping[str, float], Result]:
        """Return the scores of the kept state, and the answers to the rows that chose it."""
        family, trial, trained = part.family, part.trial, part.trial.trained
        of_an_epoch = one.checked.method.trains and not trained.averaged  # the mean of several is scored anew
        at_best = trained.history[trained.best_epoch - 1] if of_an_epoch else family.validate(trial.tuned)
        family.settle(trial.tuned)
        result = family.recall(trial.tuned, family.corpus.splits["validation"])
        if self.runs is not None:
            with staged(kept_in(self.runs, one.number)) as folder:
                write_start(folder, one.checked, family, trial.tuned)
        if self.answers is not None and len(one.parts) == 1:  # folds have rows of their own
            self.answers.mkdir(parents=True, exist_ok=True)
            write_predictions(answers_in(self.answers, one.number), {"validation": result}, family.corpus)
        if self.keep is not None:
            self.keep(one.number, family, trial, result)
        return at_best, result


def _joined(results: Sequence[Result]) -> Result:
    """Put the answers of all folds together."""
    if len(results) == 1:
        return results[0]
    tables = [result for result in results if isinstance(result, Predictions)]
    return Predictions(
        np.concatenate([table.probabilities for table in tables]),
        np.concatenate([table.references for table in tables]),
    )


def kept_in(runs: Path, number: int) -> Path:
    """Return where what a trial trained is kept.

    Args:
        runs: folder of all.
        number: of the trial.
    Returns:
        Its folder.
    """
    return runs / f"{number:05d}"


def answers_in(answers: Path, number: int) -> Path:
    """Return where the answers of a trial are kept.

    Args:
        answers: folder of all.
        number: of the trial.
    Returns:
        The file.
    """
    return answers / f"{number:05d}.parquet"


def _known(checked: Checked) -> Any:
    """Return the labels of the run that a candidate goes on from, which decide how its rows are read."""
    wanted = checked.recipe.start_from
    path = None if wanted is None else find_run(wanted, checked.folder) / "labels.json"
    return read_json(path, list) if path is not None and path.is_file() else wanted


def _earlier(checked: Checked, family: Family) -> Earlier | None:
    """Find the run that a candidate goes on from; it has to be of the same base."""
    earlier = inherit(checked)[1]
    if earlier is not None:
        check_base(earlier, family.session)
    return earlier


def _last(trial: Trial) -> bool:
    return trial.epoch >= trial.settings.epochs


def _failed(error: BaseException) -> Outcome:
    said, kind = str(error), type(error).__name__
    return Outcome("failed", said if isinstance(error, TunesmithError) else f"{kind}: {said}" if said else kind)


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

    They may differ in method, seed, the task's own settings, and training but for the keys of a pass.

    Args:
        checked: recipe of one.
    Returns:
        A hash.
    """
    values: dict[str, Any] = checked.resolved()
    training, method = values.pop("training"), values["method"]
    depth = None if training["frozen_dropout"] else [method["name"], *map(method.get, checked.method.placed_by)]
    values["task"] = {key: value for key, value in values["task"].items() if key not in checked.task.own_settings}
    for key in ("method", "output", "candidates"):
        values.pop(key, None)
    if checked.recipe.model.new is None:
        values.pop("seed")
    values["start_from"] = _known(checked)
    full = checked.method.wants_full_precision
    return hash_of([values, {key: training[key] for key in OF_A_PASS}, full, depth, str(checked.folder)])


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
