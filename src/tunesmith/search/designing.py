"""How a closed loop designs a prompt: the search of prompts, on training rows, aimed at labels that are confused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.core.files import hash_of
from tunesmith.core.progress import Progress
from tunesmith.core.registry import components
from tunesmith.core.seeds import derived
from tunesmith.data.splitting import every_label_early
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import Checked, build_component
from tunesmith.runs.family import Family
from tunesmith.runs.labelling import Labelling
from tunesmith.runs.prompting import PromptScorer
from tunesmith.search.answering import compared_by
from tunesmith.search.attempts import Attempt, Record
from tunesmith.search.budget import Budget
from tunesmith.search.designs import Design
from tunesmith.search.opening import FEW, Opened, Table, apart, check_scorable
from tunesmith.search.passes import Passes
from tunesmith.search.prompts import Choosing, PromptProblem
from tunesmith.search.searching import SearchSettings, run_search, sources_of
from tunesmith.search.sources import Glossary
from tunesmith.search.strategies.base import build_strategy
from tunesmith.search.study import Study

_ROWS, _CHOOSE, _ASIDE = 1024, 256, 0.5  # training rows that are read, those that choose, and the share of these
_TRAINING = 3  # passes that a row costs where it trains: forward, and backward for twice as much
_LEAST = 8  # prompts; fewer find nothing


@dataclass
class Designer:
    """Searches prompts for a closed loop, and keeps what came out in its record.

    A row that proposes is a training row, and one that chooses is another training row: the validation rows, on which
    the found prompt is tested once it has trained, choose nothing.

    Args:
        share: of the loop's budget that all searches may take. [fraction]
        metric: that decides in the loop.
        record: of the loop.
        passes: that have the model and the rows open.
        budget: of the loop; its clock counts the searches.
        progress: for the user.
    """

    share: float
    metric: str
    record: Record
    passes: Passes
    budget: Budget
    progress: Progress

    @property
    def trials(self) -> float:
        """What all searches so far took of the budget. [trials]"""
        return sum(one.trials for one in self.record.designs)

    @property
    def _place(self) -> str:
        """Folder of the next search, in the loop's."""
        return f"prompts/{len(self.record.designs):02d}"

    def design(self, checked: Checked, best: Attempt, aimed: Sequence[str], room: Budget) -> Design:
        """Search a prompt, unless that was done for the same one and the same labels; keep what came out.

        Args:
            checked: the best recipe; the search begins with its prompt.
            best: its attempt.
            aimed: labels that edits change first.
            room: trials and seconds that other things leave.
        Returns:
            What was found, or why nothing was searched.
        Raises:
            CheckpointError: the disk is full, or what an earlier search left is damaged.
        """
        try:
            return self._searched(checked, best, aimed, room)
        except (RecipeError, DataError, CompatibilityError) as error:
            why = str(error)
        kept = next((one for one in self.record.designs if one.refused == why), None)
        return kept or self._keep(Design(len(self.record.rounds), refused=why))

    def _searched(self, checked: Checked, best: Attempt, aimed: Sequence[str], room: Budget) -> Design:
        check_scorable(checked)
        if checked.recipe.start_from is not None:
            raise RecipeError("start_from: the run that training goes on from has a prompt, which stays.")
        if not aimed:
            raise RecipeError("no label is taken for another on validation, so that nothing says where to aim.")
        began = hash_of(Prompt.of(checked.recipe.prompt).model_dump(mode="json"))
        for one in self.record.designs:
            if one.began == began and set(one.aimed) == set(aimed):
                return one
        since = self.budget.elapsed
        opened = self._opened(checked)
        trial = _rows_of(best, opened.corpus.splits["train"].labels.size) / len(opened.validation.rows)
        allowed = self._allowed(room, trial, best.outcome.seconds)
        problem = self._problem(opened, aimed, allowed)
        opening = self.budget.elapsed - since
        strategy = build_strategy(SearchSettings().strategy, {}, "prompts")
        run_search(problem, strategy, checked.recipe.seed, self.progress)
        seconds = opening + problem.budget.elapsed
        self.budget.resume_at(since + seconds)
        return self._keep(self._told(problem, began, opened, seconds, problem.budget.spent / trial))

    def _opened(self, checked: Checked) -> Opened:
        """Part training rows into those that propose and those that choose; validation and test take no part."""
        family: Family = self.passes.family_of(checked)
        assert isinstance(family, Labelling)
        corpus, seed = family.corpus, checked.recipe.seed
        split, labels = corpus.splits["train"], corpus.label_names
        order = every_label_early(split.labels, derived(seed, "rows of prompts"))[: max(_ROWS, 2 * len(labels))]
        table = Table(list(split.examples.rows(split.index[order])), split.labels[order])
        choosing, proposing = apart(table, 1 - _ASIDE, max(_CHOOSE, len(labels)), seed)
        if min(len(choosing.rows), len(proposing.rows)) < FEW:
            raise DataError(
                f"train holds {len(order)} rows; at least {2 * FEW} are needed, half of which propose prompts and half "
                "of which choose."
            )
        return Opened(checked, PromptScorer(family.session, seed), labels, proposing, choosing, corpus)

    def _allowed(self, room: Budget, trial: float, seconds: float) -> Budget:
        """Settle what a search may spend; `trial` is how many evaluations cost as much as one, of so many seconds."""
        allowed, few = Budget(), False
        if self.budget.evaluations is not None and room.evaluations is not None:
            left = self.share * self.budget.evaluations - self.trials
            allowed.evaluations = min(left, room.evaluations) * trial
            few = allowed.evaluations < _LEAST
        if self.budget.seconds is not None and room.seconds is not None:
            left = self.share * self.budget.seconds - sum(one.seconds for one in self.record.designs)
            allowed.seconds = min(left, room.seconds)
            few = few or allowed.seconds <= 0 or allowed.seconds * trial < _LEAST * seconds
        if few:
            raise RecipeError(
                f"budget: what is left of the share for prompts (search.prompt_share={self.share:g}) is too short for "
                f"{_LEAST} prompts."
            )
        return allowed

    def _problem(self, opened: Opened, aimed: Sequence[str], allowed: Budget) -> PromptProblem:
        rows, task = opened.validation, opened.scorer.session.task
        metric = compared_by(self.metric, True)
        facts = {
            "start": opened.prompt.model_dump(mode="json"), "aimed": list(aimed), "metric": metric.name,
            "seed": opened.checked.recipe.seed, "model": opened.scorer.session.model_hash, "task": task.describe(),
            "proposing": hash_of(opened.train.rows), "choosing": hash_of(rows.rows),
        }  # fmt: skip
        folder = self.record.folder / self._place
        self.progress.say(
            f"a prompt is searched: {len(opened.train.rows):,} training rows propose, {len(rows.rows):,} choose, aimed "
            f"at {', '.join(aimed)}; validation and test are not read"
        )
        return PromptProblem(
            opened.prompt,
            Choosing(rows.rows, rows.truth, metric),
            sources_of(opened, Glossary(), None, aimed),
            [build_component("edits", name, {}) for name in components("edits")],
            allowed,
            Study(folder, facts, Study.begun(folder)),
        )

    def _told(self, problem: PromptProblem, began: str, opened: Opened, seconds: float, trials: float) -> Design:
        score, found = problem.best()
        first, metric = problem.score(problem.start), problem.choosing.metric
        sign = 1 if metric.higher_is_better else -1
        return Design(
            before=len(self.record.rounds),
            began=began,
            aimed=list(problem.sources.aimed),
            values=changed(problem.start, found),
            tried=sum(rows == problem.rows for _, rows in problem.seen),
            proposing=len(opened.train.rows),
            choosing=problem.rows,
            metric=metric.name,
            start=sign * first.value,
            found=sign * score.value,
            evaluations=problem.budget.spent,
            trials=trials,
            seconds=seconds,
            folder=self._place,
        )

    def _keep(self, ended: Design) -> Design:
        self.record.add_design(ended)
        self.budget.spent += ended.trials
        self.progress.say(ended.said())
        return ended


def _rows_of(best: Attempt, train: int) -> int:
    """Count the rows that a trial reads: those that train in every epoch, and validation after it."""
    assert best.errors is not None
    return best.outcome.epochs * (_TRAINING * train + best.errors.rows) or best.errors.rows


def changed(first: Prompt, second: Prompt) -> Mapping[str, Any]:
    """Say what a prompt changes of another one.

    Args:
        first: one.
        second: the other.
    Returns:
        Keys of a recipe with the second's values, plain ones.
    """
    old, new = first.model_dump(mode="json"), second.model_dump(mode="json")
    return {f"prompt.{key}": value for key, value in new.items() if value != old[key]}
