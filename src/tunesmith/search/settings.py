"""Search settings from a recipe to a study folder: database, best run, report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.files import read_json, write_json
from tunesmith.core.progress import Progress
from tunesmith.runs.run import Run
from tunesmith.runs.training import train_recipe
from tunesmith.search.best_trials import compare_best
from tunesmith.search.database import Database, how_of
from tunesmith.search.nested import nested, sentence
from tunesmith.search.reading import read_without_weights
from tunesmith.search.rules import keeping, nearest
from tunesmith.search.study_report import front, importances, shown, write_report
from tunesmith.search.trials import StudyTrial, best_of, cheapest_of
from tunesmith.search.tuning import ANSWERS, Search, read_budget
from tunesmith.search.wanted import TuningSettings, Wanted, agreed_of, facts_of, hands_of, read_wanted

_BEST, _RESULT = "best", "result.json"


def search_settings(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    limits: tuple[str | int | None, int | None],
    settings: TuningSettings,
    going_on: tuple[bool, bool] = (False, False),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search the open fields of a recipe; the recipe's output is the study folder.

    Args:
        recipe: a YAML file, or a mapping with the same keys; fields are open that hold choices or a range.
        overrides: `key=value` texts that win over the recipe.
        limits: a time or number of trials, and a number of trials.
        settings: of the search.
        going_on: with a study that was stopped, and with one that another process searches; a new one otherwise.
        progress: for the user.
    Returns:
        What was found, as in result.json.
    Raises:
        TunesmithError: anything wrong with recipe, space, data, model, budget or folder.
    """
    progress, budget = progress or Progress(), read_budget(*limits)
    how = how_of(*going_on)
    wanted, hands = read_wanted(recipe, overrides, settings), hands_of(settings)
    for said in (*wanted.unable, *wanted.warm.sentences()):
        progress.say(said)
    facts, agreed = facts_of(wanted, settings), agreed_of(settings, budget)
    with closing(Database(wanted.output, facts, wanted.higher_is_better, how, agreed)) as database:
        database.read(read_without_weights(wanted.able))
        search = Search(wanted, budget, settings.width, database, progress, hands)
        with progress.keeping("the trials", wanted.output):
            search.run()
        if database.presence.others():
            progress.say("all trials have ended; one process carries the best out, the others wait for its result")
        with database.presence.last():
            if database.told:
                return dict(read_json(wanted.output / _RESULT, dict))
            found = _finished(wanted, search, settings)
            database.told = True
            return found


def _finished(wanted: Wanted, search: Search, settings: TuningSettings) -> dict[str, Any]:
    """Carry the best trial out, and write what was found."""
    database = search.database
    seconds = search.budget.elapsed
    able = keeping(search.trials, wanted.rules)
    best = best_of(able, wanted.higher_is_better)
    if best is None and (complete := keeping(search.trials, ())):
        raise TunesmithError(
            f"none of {len(complete)} complete trials keeps to search.rules ({nearest(complete, wanted.rules)}). The "
            "study is kept: go on with --resume and a larger budget, or with other rules."
        )
    if best is None:
        reasons = [one.outcome.reason for one in search.trials if one.outcome.state == "failed"]
        why = f"The first reason: {reasons[0]}" if reasons else "All were stopped early; lower the strategy's factor."
        raise TunesmithError(f"none of {len(search.trials)} trials was carried out to its end. {why}")
    taken, choice = _chosen(wanted, best, able, settings.choose)
    if wanted.rules:
        choice["rules"] = [str(rule) for rule in wanted.rules]
        choice["sentence"] = f"{_ruled(search, best, len(able))} Of these: {choice['sentence']}"
    run = _best_run(wanted, taken, database, search.progress, choice["sentence"])
    result = {
        **_told(wanted, taken, search.trials),
        "choice": choice,
        "nested": _nested(wanted, able, best) if settings.choose == "best" else None,
        "warm_start": {"studies": list(wanted.warm.studies), "sentences": wanted.warm.sentences()},
        "seconds": seconds,
        "trials_per_minute": 60 * sum(one.same_as is None for one in search.trials) / max(seconds, 1e-9),
        **_scores(run, wanted.metric),
        "run": str(run.folder),
        "database": str(database.path),
        "importance": importances(search.live, search.trials),
        "front": front(search.trials, wanted.higher_is_better),
        "report": str(wanted.output / "report.html"),
    }
    compared = compare_best(able, wanted.output / ANSWERS, (taken, run), wanted.metric, wanted.higher_is_better)
    write_report(wanted.output, result, search.trials, wanted.space, compared)
    write_json(wanted.output / _RESULT, result)
    return result


def _chosen(wanted: Wanted, best: StudyTrial, trials: list[StudyTrial], rule: str) -> tuple[StudyTrial, dict[str, Any]]:
    """Take the best trial, or by the one-standard-error rule a cheaper one; say which and why."""
    metric, taken = wanted.metric, best
    if rule == "one-standard-error":
        confidence = wanted.load(best.overrides).recipe.evaluation.confidence
        taken = cheapest_of(trials, metric, wanted.higher_is_better, confidence) or best
    ours = shown(metric, best.outcome.scores.get(metric, {"value": best.outcome.value}))
    said = f"Trial {best.number} is the best on validation: {metric} {ours}."
    if taken is not best:
        said += (
            f" Trial {taken.number} is within one standard error of it "
            f"({shown(metric, taken.outcome.scores[metric])}) and the cheapest there: it trains "
            f"{taken.outcome.trainable:,} numbers in {taken.outcome.epochs} epochs and {taken.outcome.seconds:.1f} s, "
            f"not {best.outcome.trainable:,} in {best.outcome.epochs} and {best.outcome.seconds:.1f} s. It is taken."
        )
    elif rule == "one-standard-error":
        said += " No trial within one standard error of it is cheaper."
    return taken, {"rule": rule, "best": best.number, "taken": taken.number, "sentence": said}


def _nested(wanted: Wanted, trials: list[StudyTrial], best: StudyTrial) -> dict[str, Any] | None:
    """Say what the choice of the best trial is worth on folds that did not choose it."""
    folds = wanted.load(best.overrides).recipe.data.folds or 0
    found = nested(trials, best, folds, wanted.higher_is_better)
    if found is None:
        return None
    words = (shown(wanted.metric, {"value": value}) for value in (found.value, found.flattered))
    return {**found.plain(), "sentence": sentence(found, wanted.metric, *words)}


def _ruled(search: Search, best: StudyTrial, able: int) -> str:
    """Say which rules the choice keeps to, and what they cost."""
    wanted, trials = search.wanted, search.trials
    complete = len(keeping(trials, ()))
    said = f"{able} of {complete} complete trials keep to the rules ({', '.join(map(str, wanted.rules))})."
    first = best_of(trials, wanted.higher_is_better)
    if first is not None and first is not best:
        score = shown(wanted.metric, first.outcome.scores.get(wanted.metric, {"value": first.outcome.value}))
        said += f" Without them trial {first.number} would be the best: {wanted.metric} {score}."
    if search.passed_over:
        said += (
            f" {search.passed_over} points that the strategy drew break them whatever they score, and were not tried."
        )
    return said


def _best_run(wanted: Wanted, best: StudyTrial, database: Database, progress: Progress, said: str) -> Run:
    """Carry the best trial's recipe out alone: the same training, and then baselines and, for the first time, test."""
    folder = wanted.output / _BEST
    if database.carried_out != best.overrides:  # also one that was stopped half-way: it can go on as itself only
        shutil.rmtree(folder, ignore_errors=True)
        database.carried_out = best.overrides
    progress.say(f"{said} Trial {best.number} is carried out alone, and scored.")
    words = [*wanted.overrides, *best.overrides, f"output={folder}"]
    return Run(train_recipe(wanted.recipe, words, progress=progress, resume=folder.exists()))


def _told(wanted: Wanted, best: StudyTrial, trials: Sequence[StudyTrial]) -> dict[str, Any]:
    states = [one.outcome.state for one in trials]
    return {
        "metric": wanted.metric,
        "higher_is_better": wanted.higher_is_better,
        "strategy": wanted.strategy.describe(),
        "trials": {"all": len(trials), **{state: states.count(state) for state in ("complete", "stopped", "failed")},
                   "repeated": sum(one.same_as is not None for one in trials)},
        "batches": trials[-1].batch + 1,
        "best": best.number,
        "parameters": best.parameters,
        "overrides": best.overrides,
        "chosen_by": {"split": "validation", "value": best.outcome.value,
                      **{end: best.outcome.scores.get(wanted.metric, {}).get(end) for end in ("low", "high")}},
    }  # fmt: skip


def _scores(run: Run, metric: str) -> dict[str, Any]:
    """Return what the best run scored on rows that did not choose it, and a word about the score that did."""
    metrics = run.metrics
    fresh = "test" if "test" in metrics else None
    note = (
        "The validation score chose this trial among all, so it flatters; test was scored once, after the choice."
        if fresh
        else "The validation score chose this trial among all, so it flatters, and no row is left that did not choose: "
        "give data.test for a score that can be trusted."
    )
    return {
        "measured_on": fresh,
        "score": None if fresh is None else metrics[fresh].get(metric),
        "again_on_validation": metrics.get("validation", {}).get(metric),
        "note": note,
    }
