"""How long a recipe will take and how much memory: a few of its steps on a few of its rows, carried out and scaled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.core.memory import resident_bytes
from tunesmith.core.progress import Silence
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.data.splitting import Index, every_label_early
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, estimate
from tunesmith.models.loading import load_config, sentence_settings
from tunesmith.models.products import narrow_named, narrow_products
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Meter
from tunesmith.runs.family import Family
from tunesmith.runs.labelling import Labelling, rows_seen
from tunesmith.runs.opening import open_family
from tunesmith.runs.preparing import Prepared, prepare
from tunesmith.tasks.generating import AnswerTask, LanguageTask
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.caching import kept_below
from tunesmith.training.corpus import Split
from tunesmith.training.loop import Loop
from tunesmith.training.planning import plan
from tunesmith.training.preflight import Preflight
from tunesmith.training.taking import taken
from tunesmith.training.trial import Trial

Clock = Callable[[], float]

_MIB = 2**20
_WRITING = 1.2  # seconds of a run's first and last stages (its report): as in two runs of `benchmarks/memory.py`
_STEPPING = 1.0  # seconds of steps that are measured
_MOST, _LEAST = 8, 2  # steps
_SLOW = 5.0  # seconds of a step after which no second one is made
_JUDGED = 50  # resamples that are measured
_GAIN = 1.5  # contenders that the tuned model counts for, as its gain over the best baseline is estimated too
_WRITTEN = 2  # rows that are answered, for a task that writes
_ROWS = 32  # of a split, at least
_SCORED = 1 / 8  # of what is measured on of training rows, of rows that are scored
_NUMBER = 4  # bytes of a feature, of a token's number and of a trained number


@dataclass(frozen=True)
class Cost:
    """What a recipe is predicted to take.

    Args:
        memory_bytes: at most, of the process, or of what is allocated on a GPU.
        parts: seconds by stage.
        note: what the planner of memory says, or why it does not fit.
        fits_memory: whether it stays below training.memory_limit.
        step_seconds: of a training step, the mean; 0 where nothing trains.
        trainable: numbers that train. [count]
    """

    memory_bytes: int
    parts: dict[str, float]
    note: str
    fits_memory: bool
    step_seconds: float
    trainable: int

    @property
    def seconds(self) -> float:
        """Of the whole run, from the loaded program to the written folder."""
        return sum(self.parts.values())


@dataclass
class Bench:
    """A recipe's model and data, opened as a run opens them; variants are measured on some of the rows.

    Args:
        checked: the recipe.
        tokens: of training rows that are measured on, about; of rows that are scored, an eighth. [count]
        clock: that seconds are read from.
    """

    checked: Checked
    tokens: int = 16_000
    clock: Clock = time.perf_counter
    family: Family = field(init=False)
    seconds: dict[str, float] = field(init=False, default_factory=dict)
    times: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        checked, silence = self.checked, Silence()
        seed_everything(checked.recipe.seed)
        with self._timed("opening"):
            self.family = open_family(checked, None)
        family = self.family
        self._thin(family)
        meter = Meter(family.session.backbone.device)
        names = self._baselines(checked)
        self._write_few(family)
        with self._timed("features"):
            family.look(names, meter, silence)
        judge = family.judge
        family.judge = replace(judge, bootstrap=Bootstrap(1))  # its time is told apart: it grows with the scored rows
        with self._timed("baselines"):
            family.baselines(names, meter, silence, checked.recipe.seed)
        family.judge = judge
        self.seconds["judging"] = sum(self._judging(family.corpus.splits[name]) for name in judge.splits)
        self.held = resident_bytes()
        self.peak = meter.peak_bytes

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = self.clock()
        yield
        self.seconds[name] = self.clock() - began

    def _thin(self, family: Family) -> None:
        """Draw some rows of every split, of every label and the longest one among them."""
        for name, split in family.corpus.splits.items():
            share = 1 if name == "train" else _SCORED
            rows = _drawn(split, int(self.tokens * share), derived(self.checked.recipe.seed, f"plan {name}"))
            self.times[name] = float(split.tokens.lengths.sum() / split.tokens.lengths[rows].sum())
            family.corpus.splits[name] = split if len(rows) == len(split.tokens) else taken(split, rows)

    def _judging(self, split: Split) -> float:
        """Seconds that scores of one contender on a whole split take, with their intervals; of labels alone."""
        family = self.family
        if not isinstance(family, Labelling):
            return 0.0
        draw, rows = np.random.default_rng(0), int(len(split.tokens) * self.times[split.name])
        guesses = draw.dirichlet(np.ones(len(family.corpus.label_names)), rows)
        began = self.clock()
        estimate(Predictions(guesses, draw.choice(split.labels, rows)), family.judge.metrics, Bootstrap(_JUDGED))
        return (self.clock() - began) * family.judge.bootstrap.resamples / _JUDGED

    def _baselines(self, checked: Checked) -> list[str]:
        names = checked.recipe.evaluation.baselines
        return list(self.family.session.task.baselines if names is None else names or ())

    def _write_few(self, family: Family) -> None:
        """Let few rows be answered while measuring: generation takes long, and its time is in proportion."""
        task = family.session.task
        if isinstance(task, AnswerTask):
            few = {"answered_rows": min(task.answered_rows, _WRITTEN), "samples": min(task.samples, 1)}
            family.session.task = task.model_copy(update=few)
        elif isinstance(task, LanguageTask):
            family.session.task = task.model_copy(update={"samples": min(task.samples, 1)})

    # Variants -------------------------------------------------------------------------------------------------

    def cost(self, checked: Checked) -> Cost:
        """Measure a variant of the recipe, and scale it to all rows.

        Args:
            checked: it; model and data are those of the bench.
        Returns:
            What it will take.
        Raises:
            TunesmithError: it cannot be carried out.
        """
        checked = self._kept(checked)
        family = self._family(checked)
        began = self.clock()
        prepared = prepare(checked, family, None)[0]
        parts = {"preparing": self.clock() - began}
        trial, session = prepared.trial, family.session
        try:
            peak, note, fits = self._memory(prepared)
            splits = [split for name, split in family.corpus.splits.items() if name not in ("train", "test")]
            narrow = narrow_named(checked.recipe.training.precision, session.backbone.device)
            kept = kept_below([trial], splits, checked.recipe.training, session.model_hash, lambda said: None)
            with narrow_products(narrow), kept:
                below = session.backbone.below is not None
                steps = self._steps(trial, below) if checked.method.trains else {}
                rates = self._answers(family, trial.tuned, splits, below)
        finally:
            session.backbone.seams.detach(trial.name)
        parts |= self._stages(checked, family, parts["preparing"])
        training = self._training(trial, steps)
        parts |= {"training": training, **self._scoring(checked, family, rates, bool(steps))}
        return Cost(
            memory_bytes=peak + (self._states(trial, splits) if below else 0),
            parts=parts,
            note=note,
            fits_memory=fits,
            step_seconds=training / max(1, self._total_steps(trial)) if steps else 0.0,
            trainable=prepared.facts.trainable,
        )

    def _family(self, checked: Checked) -> Family:
        """Return model and rows with the variant's task."""
        session = self.family.session
        task = checked.task.suited(load_config(session.source))
        task = task.prepare(session.backbone.model, sentence_settings(session.source))
        family = replace(self.family, session=replace(session, task=task))
        if isinstance(family, Labelling) and task.starts_from_features and "train" not in family.frozen.features:
            family.look((), Meter(session.backbone.device), Silence())
        self._write_few(family)
        return family

    def _kept(self, checked: Checked) -> Checked:
        """Switch off keeping frozen states where the whole file's would not be kept."""
        training, width = checked.recipe.training, self.family.session.backbone.width
        tokens = sum(int(one.tokens.lengths.sum()) * self._times(one) for one in self.family.corpus.splits.values())
        if training.cache != "auto" or tokens * width * _NUMBER <= training.cache_limit * _MIB:
            return checked
        recipe = checked.recipe.model_copy(update={"training": training.model_copy(update={"cache": "off"})})
        return replace(checked, recipe=recipe)

    def _times(self, split: Split) -> float:
        """How many rows of a split a row that is measured on stands for."""
        return self.times[split.name]

    # Memory ---------------------------------------------------------------------------------------------------

    def _memory(self, prepared: Prepared) -> tuple[int, str, bool]:
        """Ask the planner; what an earlier variant left in this process is not counted."""
        trial, facts = prepared.trial, prepared.facts
        held = facts.held_bytes
        if trial.tuned.backbone.device.type == "cpu":
            held = min(held, self.held + _NUMBER * facts.trainable) + self._larger()
        facts = replace(facts, held_bytes=held)
        try:
            planned = plan([(trial, facts)])
            fits, note = planned.peak_bytes <= planned.limit_bytes, planned.sentence()
        except RecipeError as error:
            fits, note = False, str(error)
            planned = self._unlimited(trial, facts)
        return max(planned.peak_bytes, self.peak + self._larger()), note, fits

    def _unlimited(self, trial: Trial, facts: Preflight) -> Any:
        settings = trial.settings
        trial.settings = settings.model_copy(update={"memory_limit": None})
        try:
            return plan([(trial, facts)])
        finally:
            trial.settings = settings

    def _larger(self) -> int:
        """What features of the rows take that are not measured on. [bytes]"""
        if not isinstance(self.family, Labelling):
            return 0
        rows = sum((self._times(split) - 1) * len(split.tokens) for split in self.family.corpus.splits.values())
        return int(rows * _NUMBER * self.family.session.backbone.width)

    def _states(self, trial: Trial, splits: list[Split]) -> int:
        """What frozen states take that are kept between epochs. [bytes]"""
        width = trial.tuned.backbone.width * next(trial.tuned.backbone.model.parameters()).element_size()
        return int(sum(self._times(one) * one.tokens.lengths.sum() * width for one in [trial.split, *splits]))

    # Time -----------------------------------------------------------------------------------------------------

    def _steps(self, trial: Trial, below: bool) -> dict[str, float]:
        """Make a few real steps; return seconds per token of the first epoch, and of later ones."""
        loop = Loop([trial])
        trial.seed_dropout()
        works = [[(trial, trial.take())] for _ in range(min(_MOST, max(_LEAST, trial.epoch_steps)))]
        trial.tuned.train(True)
        began = self.clock()
        loop.step(works[-1])  # also makes ready what the first step of a process makes ready
        slow = self.clock() - began > _SLOW
        tokens, seconds = 0, 0.0
        done = []
        for work in works[: 1 if slow else -1]:
            began = self.clock()
            loop.step(work)
            seconds += self.clock() - began
            tokens += int(trial.row_lengths[work[0][1]].sum())
            done.append(work)
            if seconds > _STEPPING and len(done) >= _LEAST:
                break
        first = again = seconds / tokens
        if below:
            began = self.clock()
            for work in done:
                loop.step(work)
            again = (self.clock() - began) / tokens
        return {"first": first, "again": again}

    def _answers(self, family: Family, tuned: Tuned, splits: list[Split], below: bool) -> dict[str, float]:
        """Settle and answer as after an epoch; return seconds per training token and per scored token."""
        began = self.clock()
        family.settle(tuned)
        settling = (self.clock() - began) / max(1, int(family.corpus.splits["train"].tokens.lengths.sum()))
        split = family.corpus.splits[family.judge.splits[-1] if family.judge.splits else "train"]
        tokens = int(split.tokens.lengths.sum())
        tuned.train(False)
        began = self.clock()
        family.recall(tuned, split)
        first = again = (self.clock() - began) / tokens
        if below and split in splits:
            began = self.clock()
            family.recall(tuned, split)
            again = (self.clock() - began) / tokens
        return {"settling": settling, "first": first, "again": again, "writing": self._writing(family, tuned, split)}

    def _writing(self, family: Family, tuned: Tuned, split: Split) -> float:
        """Seconds per generated answer; 0 for tasks with labels."""
        task = family.session.task
        count = getattr(task, "answered_rows", 0)
        if not count:
            return 0.0
        began = self.clock()
        family.recall(tuned, split)
        half = self.clock()
        family.answer(tuned, split)
        return max(0.0, (self.clock() - half) - (half - began)) / min(count, len(split.tokens))

    def _tokens(self, split: Split) -> float:
        return float(split.tokens.lengths.sum()) * self._times(split)

    def _stages(self, checked: Checked, family: Family, preparing: float) -> dict[str, float]:
        """Scale what comes before training."""
        splits, seconds = family.corpus.splits, self.seconds
        times = self._times(splits["train"])
        names = self._baselines(checked)
        looked = names or family.session.task.starts_from_features
        rows = len(splits["train"].tokens) * times
        seen = times * (rows_seen(family.session.task, int(rows)) / rows if isinstance(family, Labelling) else 1.0)
        own, all_names = len(names), len(self._baselines(self.checked))
        share = own / all_names if all_names else 0.0
        return {
            "opening": seconds["opening"] + _WRITING,
            "features": seconds["features"] * seen if looked else 0.0,
            "baselines": seconds["baselines"] * seen * share,
            "preparing": preparing * (1.0 if checked.method.trains else times),
        }

    def _total_steps(self, trial: Trial) -> int:
        settings = trial.settings
        steps = math.ceil(trial.epoch_rows * self.times["train"] / settings.batch_size) * settings.epochs
        return min(steps, settings.max_steps or steps)

    def _training(self, trial: Trial, steps: dict[str, float]) -> float:
        """Scale steps to all epochs over all rows. [seconds]"""
        if not steps:
            return 0.0
        rows, settings = trial.epoch_rows * self.times["train"], trial.settings
        epochs = min(settings.epochs, self._total_steps(trial) * settings.batch_size / rows)
        tokens = float(trial.row_lengths.mean()) * rows
        return tokens * (min(1.0, epochs) * steps["first"] + max(0.0, epochs - 1) * steps["again"])

    def _scoring(self, checked: Checked, family: Family, rates: dict[str, float], trains: bool) -> dict[str, float]:
        """Scale validation after epochs, and the last answers. [seconds]"""
        training, splits = checked.recipe.training, family.corpus.splits
        train, judged = self._tokens(splits["train"]), [splits[name] for name in family.judge.splits]
        times = math.ceil(training.epochs / training.score_every) if trains else 0
        held = self._tokens(splits["validation"]) if "validation" in splits else 0.0
        scored = held * (min(1, times) * rates["first"] + max(0, times - 1) * rates["again"])
        last = sum(self._tokens(one) * rates["first"] for one in judged)
        names = len(self._baselines(checked))
        judging = self.seconds["judging"] * (names + (_GAIN if names else 1))
        answered = [
            min(getattr(checked.task, "answered_rows", 0), len(one.tokens) * self._times(one)) for one in judged
        ]
        written = sum(answered) + (getattr(checked.task, "samples", 0) if answered else 0)
        sides = 2 if names else 1
        return {
            "validation": scored + times * train * rates["settling"],
            "evaluation": last + judging + train * rates["settling"] + sides * written * rates["writing"],
        }


def _drawn(split: Split, tokens: int, seed: int) -> Index:
    """Draw rows of about so many tokens, two of every label and the longest one among them; all where there are few."""
    lengths = split.tokens.lengths
    if split.tokens.varies or lengths.sum() <= tokens:
        return np.arange(len(lengths))
    order = every_label_early(split.labels, seed)
    count = max(_ROWS, 2 * len(np.unique(split.labels)), int((lengths[order].cumsum() <= tokens).sum()))
    return np.union1d(order[:count], [int(lengths.argmax())])
