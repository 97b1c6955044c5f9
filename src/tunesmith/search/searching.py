"""Search a prompt: proposals from training rows, the choice on one part of validation, the gain on the other."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.files import hash_of, write_json, write_text
from tunesmith.core.progress import Progress
from tunesmith.core.registry import components, find
from tunesmith.core.seeds import derived
from tunesmith.core.settings import Settings, setting
from tunesmith.evaluation.predictions import Predictions
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.lines import value_of
from tunesmith.recipe.loading import build_component, build_settings
from tunesmith.runs.run import Run
from tunesmith.search.budget import Budget
from tunesmith.search.gradients import substituting, told_apart, whole_words
from tunesmith.search.opening import Opened, apart, open_prompts
from tunesmith.search.phrases import bare
from tunesmith.search.problem import BudgetSpent, Score
from tunesmith.search.prompts import Choosing, PromptProblem, answers
from tunesmith.search.ranking import Ranked, Ranking, rank, write_ranking
from tunesmith.search.sources import Glossary, Sources, Writing
from tunesmith.search.strategies.base import Strategy, build_strategy
from tunesmith.search.study import Study

Found = TypeVar("Found", bound=Settings)

_FOUND, _START = "found", "start"
_OWN, _STRATEGY = "search.", "strategy."


class SearchSettings(Settings):
    """How a prompt is searched."""

    strategy: str = setting("beam", "Registered strategy.")
    strategy_settings: dict[str, Any] = setting({}, "Its settings.")
    edits: tuple[str, ...] = setting((), "Registered edits; all that can propose something when empty.")
    metric: str | None = setting(None, "What decides; the task's first metric when empty.")
    measure: float = setting(
        0.5, "Share of validation that measures the gain and does not choose.", unit="fraction", gt=0, lt=1
    )
    rows: int | None = setting(None, "Most rows that choose; all the others when empty.", unit="count", ge=4)
    glossary: str | None = setting(None, "Glossary file: terms with their meaning, or with words for them.")
    writer: str | None = setting(None, "Run of a task that writes, whose model paraphrases.")


def search_prompts(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    budget: str | int,
    output: Path,
    settings: SearchSettings,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search a prompt and write the study folder.

    Args:
        recipe: of the task prompt-classification; its prompt is the start.
        overrides: `key=value` texts that win over the recipe.
        budget: evaluations, or a time: "60s".
        output: the study folder.
        settings: of the search.
        resume: go on with a search that was stopped, or that shall have more budget.
        progress: for the user.
    Returns:
        What was found: scores, gain with its interval, files.
    Raises:
        TunesmithError: anything wrong with recipe, data, model, budget or folder.
    """
    progress, allowed = progress or Progress(), Budget.read(budget)
    strategy = build_strategy(settings.strategy, settings.strategy_settings, "prompts")
    names = settings.edits or tuple(components("edits"))
    edits = [build_component("edits", name, {}) for name in names]
    glossary = Glossary() if settings.glossary is None else Glossary.read(settings.glossary)
    opened = open_prompts(recipe, overrides)
    seed = opened.checked.recipe.seed
    choosing, measuring = apart(opened.validation, settings.measure, settings.rows, seed)
    if not measuring.rows:
        raise DataError(
            f"validation: none of its {len(opened.validation.rows)} rows is left to measure the gain, as the only row "
            "of a label chooses. Raise data.validation or search.measure, or give a file of more rows."
        )
    judged = opened.judged(settings.metric)
    facts = {
        **settings.model_dump(mode="json"), "strategy": strategy.describe(), "edits": list(names), "seed": seed,
        "budget": allowed.plain(), "metric": judged.metric.name, "start": opened.prompt.model_dump(mode="json"),
        "glossary": hash_of([glossary.words, glossary.meanings]), "data": opened.corpus.content_hash,
        "task": opened.scorer.session.task.describe(),
        "model": opened.scorer.session.model_hash, "rows_that_choose": len(choosing.rows),
    }  # fmt: skip
    study = Study(output, facts, resume)
    study.check_budget(allowed)
    problem = PromptProblem(
        opened.prompt,
        Choosing(choosing.rows, choosing.truth, judged.metric),
        sources_of(opened, glossary, settings.writer),
        edits,
        allowed,
        study,
    )
    _tell(opened, len(choosing.rows), len(measuring.rows), progress)
    with progress.keeping("the evaluations", output):
        run_search(problem, strategy, seed, progress)
    score, found = problem.best()
    measured, notes = dict[str, Predictions](), dict[str, str]()
    for name, prompt in ((_START, opened.prompt), (_FOUND, found)):
        measured[name] = answers(opened.score, prompt, measuring.rows, opened.labels, measuring.truth)
        notes[name] = f"{opened.scorer.tokens(prompt, measuring.rows[0])} tokens on the first row"
    ranking = rank(measured, judged, notes, opened.corpus.warnings, ensembles=False)
    return _written(output, problem, score, found, ranking)


def sources_of(opened: Opened, glossary: Glossary, writer: str | None, aimed: Sequence[str] = ()) -> Sources:
    """Gather what edits read of a recipe.

    Args:
        opened: the recipe; proposals read its training rows.
        glossary: of the user.
        writer: run of a task that writes; None for none.
        aimed: labels that edits change first.
    Returns:
        It.
    Raises:
        TunesmithError: the run cannot be loaded, or cannot write.
    """
    words = whole_words(opened.scorer.session.tokenizer)
    able = opened.scorer.session.task.opens in ("masked", "causal")
    return Sources(
        opened.labels,
        opened.train.rows,
        opened.train.truth,
        opened.score,
        glossary,
        list(words),
        substituting(opened.scorer, opened.labels, words) if able else None,
        None if writer is None else _writing(Run.load(writer)),
        partial(told_apart, opened.scorer.session.tokenizer) if able else list,
        aimed,
    )


def _writing(run: Run) -> Writing:
    def write(request: str, count: int, seed: int) -> list[str]:
        return run.generate([request], samples=count, seed=seed, temperature=1.0, max_new_tokens=48)[0]

    write("Hello.", 1, 0)  # a run that cannot write is refused before the search
    return write


def run_search(problem: PromptProblem, strategy: Strategy, seed: int, progress: Progress) -> None:
    """Search until the strategy or the budget ends; the clock of the budget starts here.

    Args:
        problem: the prompts; it remembers what was tried.
        strategy: that searches.
        seed: of everything drawn.
        progress: for the user.
    Raises:
        RecipeError: the prompt to begin with cannot be scored.
    """
    budget, draw = problem.budget, np.random.default_rng(derived(seed, "search"))
    total = budget.evaluations or budget.seconds or 0
    unit = "evaluations" if budget.evaluations is not None else "seconds"
    with progress.stage("searching", int(total), unit) as bar:
        done, best = 0, float("-inf")

        def listen(score: Score) -> None:
            nonlocal done, best
            now = int(budget.spent if budget.evaluations is not None else min(budget.elapsed, total))
            best = max(best, score.value if score.rows == problem.rows else best)
            bar(now - done, f"best {best:.3f}")
            done = now

        problem.listen = listen
        budget.begin()
        with contextlib.suppress(BudgetSpent):
            strategy.search(problem, draw)


def _tell(opened: Opened, choosing: int, measuring: int, progress: Progress) -> None:
    progress.say(
        f"train: {len(opened.train.rows):,} rows that proposals read; validation: {choosing:,} rows that choose, "
        f"{measuring:,} that measure the gain; test is not read"
    )
    for warning in opened.corpus.warnings:
        progress.say(f"note: {warning}")


def _written(output: Path, problem: PromptProblem, score: Score, found: Prompt, ranking: Ranking) -> dict[str, Any]:
    """Write the prompt, the result and the report."""
    lines: dict[str, Ranked] = {line.name: line for line in ranking.lines}
    gain = lines[_FOUND].to_first
    assert gain is not None
    same = found == problem.start
    plain = {**gain.estimate.plain(), "p_value": gain.p_value}
    result = {
        "prompt": str(output / "prompt.yaml"),
        "metric": ranking.metric,
        "found": lines[_FOUND].score.plain(),
        "start": lines[_START].score.plain(),
        "gain": plain,
        "measured_on": ranking.rows,
        "chosen_on": problem.rows,
        "chosen_by": {"value": score.value, "loss": score.loss},
        "evaluations": problem.budget.spent,
        "candidates": len(problem.seen),
        "refused": sum(score.value == float("-inf") for score, _ in problem.seen.values()),
        "seconds": problem.budget.elapsed,
        "is_start": same,
        "start_text": bare(found, problem.sources.labels),
    }
    value, low, high = (f"{end:+.4f}" for end in (gain.estimate.value, gain.estimate.low, gain.estimate.high))
    said = f"# {ranking.metric} {value} ({low} to {high}) over the start on {ranking.rows} rows that did not choose.\n"
    said = "# No better prompt than the start was found.\n" if same else said
    write_text(output / "prompt.yaml", said + found.to_yaml())
    write_json(output / "result.json", result)
    write_ranking(ranking, output)
    return result


def read_options(options: Sequence[str], values: Mapping[str, Any], kind: type[Found]) -> tuple[list[str], Found]:
    """Part words into overrides of the recipe and settings of the search.

    Args:
        options: "key=value" of the recipe; "search.key=value" of the search, "search.strategy.key=value" of its
            strategy.
        values: settings that are given already, by name.
        kind: of the settings.
    Returns:
        Overrides, and the checked settings.
    Raises:
        RecipeError: unknown settings, or values out of bounds.
    """
    own, rest = dict(values), [option for option in options if not option.startswith(_OWN)]
    strategy = dict[str, Any]()
    for option in options:
        key, sign, text = option.removeprefix(_OWN).partition("=")
        if option.startswith(_OWN):
            if not sign:
                raise RecipeError(f"'{option}' is no setting; write search.key=value, for example search.rows=200.")
            inner = key.startswith(_STRATEGY) and "strategy_settings" in kind.model_fields
            into, name = (strategy, key.removeprefix(_STRATEGY)) if inner else (own, key)
            into[name] = value_of(text)
    whole = own.get("strategy_settings", {})
    if strategy and isinstance(whole, Mapping):
        own["strategy_settings"] = {**whole, **strategy}
    found: Found = build_settings(kind, own, "search")
    for name in getattr(found, "edits", ()):
        find("edits", name)  # refused before anything is loaded
    return rest, found
