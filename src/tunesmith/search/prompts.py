"""Prompts as what a strategy searches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import ValidationError

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.files import hash_of
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.budget import Budget
from tunesmith.search.edits.base import Edit
from tunesmith.search.problem import BudgetSpent, Problem, Score
from tunesmith.search.sources import Row, Scoring, Sources
from tunesmith.search.study import Study, Tried

_TRIES = 8  # draws per proposal that is wanted; edits may change nothing, and may repeat each other
_WORST = float("-inf")


@dataclass(frozen=True)
class Choosing:
    """The rows that choose, and by what.

    Args:
        rows: values by column, in the drawn order in which scores on fewer rows take them.
        truth: (rows,), their classes.
        metric: that decides; the log loss decides among equals.
    """

    rows: Sequence[Row]
    truth: Codes
    metric: Metric


class PromptProblem(Problem[Prompt]):
    """Prompts, the edits that change them, and the rows that choose.

    Args:
        start: the prompt to begin with.
        choosing: the rows that choose.
        sources: what edits read; its scoring is paid by the budget here.
        edits: at least one.
        budget: of evaluations or seconds.
        study: where every evaluation is kept, and found again.
    """

    def __init__(
        self,
        start: Prompt,
        choosing: Choosing,
        sources: Sources,
        edits: Sequence[Edit],
        budget: Budget,
        study: Study,
    ) -> None:
        super().__init__(start, len(choosing.rows))
        self.choosing, self.budget, self.study = choosing, budget, study
        self._score = sources.score
        self.sources = replace(sources, score=self._paid)
        self.edits = [edit for edit in edits if edit.able(sources)]
        self.seen: dict[tuple[str, int], tuple[Score, Prompt]] = {}
        self.refused: dict[str, str] = {}  # why a candidate could not be scored, by identity
        self.listen: Callable[[Score], None] = lambda score: None
        if not self.edits:
            raise RecipeError(
                f"edits: none of {', '.join(edit.name for edit in edits)} can propose anything here. paraphrases needs "
                "a text model (search.writer=RUN, of a task that writes), trigger-words a model with token embeddings. "
                "Choose others."
            )

    def identity(self, candidate: Prompt) -> str:
        """Hash a prompt."""
        return hash_of(candidate.model_dump(mode="json"))

    def propose(self, candidate: Prompt, count: int, draw: np.random.Generator) -> list[Prompt]:
        """Draw edits until so many different prompts are found; one that costs more than is left is given up."""
        found, own = dict[str, Prompt](), self.identity(candidate)
        for _ in range(_TRIES * count):
            if len(found) == count or not self.edits:
                break
            edit = self.edits[int(draw.integers(len(self.edits)))]
            try:
                new = edit.propose(candidate, self.sources, draw)
            except (RecipeError, ValidationError):  # no prompt; another draw gives one
                continue
            except BudgetSpent:  # by what the edit asks the model; others ask nothing
                self.edits = [one for one in self.edits if one is not edit]
                continue
            if new is not None:
                found.setdefault(self.identity(new), new)
                found.pop(own, None)
        return list(found.values())

    def cross(self, first: Prompt, second: Prompt, draw: np.random.Generator) -> Prompt:
        """Take template, words and demonstrations each from one of the two."""
        parts = ("template", "label_words", "demonstrations", "description", "background")
        taken = draw.random(len(parts)) < 0.5
        theirs = {name for name, from_second in zip(parts, taken, strict=True) if from_second}
        return first.changed(**second.model_dump(include=theirs))

    def score(self, candidate: Prompt, rows: int | None = None) -> Score:
        """Score a prompt on the first rows that choose; one that cannot be used at all gets the worst score."""
        count, name = rows or self.rows, self.identity(candidate)
        if (name, count) in self.seen:
            return self.seen[name, count][0]
        self.budget.spend(count / self.rows)
        kept = self.study.find(name, count)
        if kept is None:
            kept = self._tried(candidate, name, count)
            self.study.add(kept)
        else:
            self.budget.resume_at(kept.seconds)
        self.seen[name, count] = (kept.score, candidate)
        self.listen(kept.score)
        return kept.score

    def _tried(self, candidate: Prompt, name: str, count: int) -> Tried:
        value, loss, why = _WORST, float("inf"), ""
        try:
            found = answers(self._score, candidate, self.choosing.rows[:count], self.sources.labels,
                            self.choosing.truth[:count])  # fmt: skip
            value = self._value(found)
            loss = float(found.row_loss.mean())
        except (RecipeError, DataError) as error:  # too long, words that collide or tokenise to nothing
            if name == self.identity(self.start):
                raise
            why = str(error)
        plain = candidate.model_dump(mode="json")
        return Tried(name, count, value, loss, self.budget.elapsed, plain, why, self.budget.spent)

    def _value(self, found: Predictions) -> float:
        metric, rows = self.choosing.metric, found.rows
        value = metric.compute(found.sample()) * (1 if metric.higher_is_better else -1)
        if math.isnan(value):
            raise DataError(
                f"{metric.name} has no value on {rows} of the rows that choose. Take search.metric=accuracy."
            )
        return value

    def _paid(self, prompt: Prompt, rows: Sequence[Row], labels: Sequence[str]) -> Array:
        self.budget.spend(len(rows) / self.rows)
        return self._score(prompt, rows, labels)

    def best(self) -> tuple[Score, Prompt]:
        """Return the best prompt of those that were scored on all rows; the earliest among equals."""
        whole = [pair for (_, count), pair in self.seen.items() if count == self.rows]
        return max(whole, key=lambda pair: pair[0].key)


def answers(score: Scoring, prompt: Prompt, rows: Sequence[Row], labels: Sequence[str], truth: Codes) -> Predictions:
    """Let a model answer rows with a prompt.

    Args:
        score: the model.
        prompt: any.
        rows: values by column.
        labels: of the task.
        truth: (rows,), classes.
    Returns:
        Probabilities over the labels, and the truth.
    """
    table = np.asarray(score(prompt, rows, labels), dtype=np.float64)
    table = np.exp(table - table.max(1, keepdims=True))
    return Predictions(table / table.sum(1, keepdims=True), truth)
