"""Choose a method where the recipe leaves it open: cross-validate ways on the training rows and take the best."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tunesmith.core.arrays import Codes, Marks
from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import derived
from tunesmith.fewshot.choosers.auto import Auto
from tunesmith.fewshot.ways.base import Way
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.comparing import label_features
from tunesmith.runs.labelling import Labelling
from tunesmith.runs.opening import open_family
from tunesmith.runs.preparing import prepare
from tunesmith.tasks.labelling import LabelTask
from tunesmith.tasks.running import extract_features
from tunesmith.training.caching import kept_below
from tunesmith.training.corpus import Split, row_hashes
from tunesmith.training.loop import Loop
from tunesmith.training.taking import taken


def choose(checked: Checked, progress: Progress) -> tuple[Checked, dict[str, Any]]:
    """Choose the method where the recipe leaves it to `auto`.

    Args:
        checked: the recipe.
        progress: for the user.
    Returns:
        The recipe with method, head and training of the way taken, and the choice; the recipe itself and nothing where
        it names a method.
    Raises:
        RecipeError: the task has no label per row, or candidates vary what is to be chosen.
        DataError: a label has too few rows.
    """
    auto = checked.method
    if not isinstance(auto, Auto):
        return checked, {}
    headed = isinstance(checked.task, LabelTask) and checked.task.family == "labelling"
    if not headed or checked.candidates or checked.recipe.start_from is not None:
        raise RecipeError(
            "method auto: it chooses head, method and training of text-classification or image-classification, so it "
            "goes with neither other tasks, nor candidates, nor start_from. Name a method."
        )
    began = time.perf_counter()
    family = open_family(_changed(checked, {"method": {"name": "none"}}), None)
    assert isinstance(family, Labelling)
    trying = _Trying(checked, auto, family, progress)
    right, left_out = dict[str, Marks](), dict[str, str]()
    ways = auto.ways(family.session.tokenizer is not None)
    for way in ways:
        try:
            marks = trying.answered(way, began + auto.seconds)
        except (CompatibilityError, DataError, RecipeError) as error:
            if way is ways[-1] and not right:  # no way goes with the recipe
                raise
            left_out[way.name] = f"it does not go with this recipe ({_in_a_line(error)})"
            continue
        if marks is None:
            left_out[way.name] = f"it did not answer all folds within {auto.seconds:g} s (method.seconds)"
        else:
            right[way.name] = marks
            progress.say(f"method auto: {way.name} {100 * marks.mean():.1f} % of held-out training rows")
    choice = {**auto.decide(right, left_out), "seconds": time.perf_counter() - began}
    progress.say(choice["sentence"])
    changes = next(way for way in ways if way.name == choice["way"]).changes()
    choice["not_read"] = _not_read(checked, changes)
    if choice["not_read"]:
        progress.say(f"note: method auto sets {', '.join(choice['not_read'])} itself; the recipe's own is not read")
    return _changed(checked, changes), choice


def _in_a_line(error: Exception) -> str:
    """Write mistakes without the line that counts them."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(lines[1:] or lines)


def _not_read(checked: Checked, changes: dict[str, dict[str, Any]]) -> list[str]:
    """Name the keys of task and training that the recipe gives and a way sets otherwise."""
    given = {"task": checked.task, "training": checked.recipe.training}
    return [
        f"{section}.{key}"
        for section, own in given.items()
        for key, value in changes.get(section, {}).items()
        if key in own.model_fields_set and getattr(own, key) != value
    ]


def _changed(checked: Checked, changes: dict[str, dict[str, Any]]) -> Checked:
    """Write changes into a recipe; its paths mean what they meant."""
    values, task = checked.resolved(), changes.get("task", {})
    if "name" in task and checked.task.reject is not None:
        raise RecipeError("the way to classify rejects no rows, which task.reject asks for")
    values["task"] = task if "name" in task else values["task"] | task
    if "name" in task and values["evaluation"]["baselines"]:  # a prompt that did not train is zero-shot
        values["evaluation"]["baselines"] = [
            "untuned" if name == "zero-shot" else name for name in values["evaluation"]["baselines"]
        ]
    values["training"] |= changes.get("training", {})
    values["method"] = changes["method"]
    return replace(load_recipe(values), folder=checked.folder)


class _Trying:
    """Ways on the folds of one recipe's training rows; features of the frozen model are computed once."""

    def __init__(self, checked: Checked, auto: Auto, family: Labelling, progress: Progress) -> None:
        self.checked, self.family, self.progress = checked, family, progress
        session, every = family.session, family.corpus.splits["train"]
        self.rows = auto.some(every.labels, derived(checked.recipe.seed, "choosing rows"))
        self.split, self.folds = self._chosen(family), auto.folds
        split = self.split
        if len(self.rows) < len(every.labels):
            progress.say(f"method auto: chosen on {len(self.rows):,} of {len(every.labels):,} rows (method.rows)")
        copies = np.unique(row_hashes(session.reads, split.examples, split.index), return_inverse=True)[1]
        names, seed = family.corpus.label_names, derived(checked.recipe.seed, "folds")
        self.fold: Codes = auto.parts(split.labels, copies, names, seed)
        with progress.stage("features of train", len(split.labels)) as bar:
            self.features = extract_features(session.backbone, session.task, split.tokens, bar)
        self.texts = None
        if session.tokenizer is not None:
            self.texts = torch.from_numpy(label_features(session, family.corpus))

    def _chosen(self, family: Labelling) -> Split:
        """Leave a family the training rows that the choice is made on."""
        splits = family.corpus.splits
        if len(self.rows) < len(splits["train"].labels):
            splits["train"] = taken(splits["train"], self.rows)
        return splits["train"]

    def answered(self, way: Way, until: float) -> Marks | None:
        """Say which held-out rows a way answers right; None where time ran out."""
        if time.perf_counter() > until and way.trains:
            return None
        changed = _changed(self.checked, way.changes())
        family = self._family(changed, way.changes()["task"])
        family.check_label_texts(family.session.task)
        right = np.zeros(len(self.fold), dtype=bool)
        for number in range(self.folds):
            if way.trains and time.perf_counter() > until:
                return None
            kept, held = np.flatnonzero(self.fold != number), np.flatnonzero(self.fold == number)
            found = (
                self._tuned(changed, family, kept, held, until)
                if way.trains
                else self._frozen(family.session.task, kept, held)
            )
            if found is None:
                return None
            right[held] = found == self.split.labels[held]
        return right

    def _family(self, changed: Checked, settings: dict[str, Any]) -> Labelling:
        """Return model, task and rows of a way; one with a task of its own opens the model and reads the rows anew."""
        if "name" in settings:
            found = open_family(changed, None)
            assert isinstance(found, Labelling)
            assert np.array_equal(self._chosen(found).index, self.split.index), "the same rows in every way"
            return found
        session, corpus = self.family.session, self.family.corpus
        task = type(session.task)(**{**session.task.model_dump(), **settings, "reject": None})
        corpus = replace(corpus, label_names=corpus.label_names[: len(corpus.label_texts)])
        return replace(self.family, session=replace(session, task=task), corpus=corpus)

    @torch.no_grad()
    def _frozen(self, task: Any, kept: Codes, held: Codes) -> Codes:
        """Answer rows from others by their frozen features."""
        head = task.head(self.features.shape[1], len(self.family.corpus.label_texts))
        labels = torch.from_numpy(self.split.labels[kept])
        task.start(head, self.features[torch.from_numpy(kept)], labels, self.texts)
        found: Codes = head.eval()(self.features[torch.from_numpy(held)]).argmax(1).numpy()
        return found

    def _tuned(self, changed: Checked, family: Labelling, kept: Codes, held: Codes, until: float) -> Codes | None:
        """Train on rows and answer others; None where time runs out in between."""
        split, session = family.corpus.splits["train"], family.session
        part = replace(family, corpus=replace(family.corpus, splits={"train": taken(split, kept)}))
        known = {"train": self.features[torch.from_numpy(kept)]} if split is self.split else {}
        part.frozen = replace(family.frozen, features=known)
        trial = prepare(changed, part, None)[0].trial
        try:
            training = changed.recipe.training
            with kept_below([trial], trial.splits, training, session.model_hash, lambda said: None):
                with self.progress.stage("a fold", training.epochs * len(kept)) as bar:

                    def stepped(done: int, note: str = "") -> None:
                        bar(done, note)
                        trial.stopped = time.perf_counter() > until

                    Loop([trial]).fit(stepped, None, self.progress.say)
                if trial.trained.interrupted:
                    raise KeyboardInterrupt
                if trial.stopped and not trial.stage_over:
                    return None
                part.settle(trial.tuned)
            found: Codes = trial.tuned.probabilities(taken(split, held).tokens).argmax(1).numpy()
        finally:
            session.backbone.seams.detach(trial.name)
        return found
