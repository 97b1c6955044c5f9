"""Go round the closed loop: from a recipe to a folder with the best run, every decision and its evidence."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.files import write_json
from tunesmith.core.progress import Progress
from tunesmith.runs.run import Run
from tunesmith.runs.training import train_recipe
from tunesmith.search.attempts import Attempt, Record
from tunesmith.search.best_attempts import compare_attempts, mattered
from tunesmith.search.changes import words_of
from tunesmith.search.finishing import Final, final_of
from tunesmith.search.loop import ClosedLoop
from tunesmith.search.loop_report import write_loop_report
from tunesmith.search.loop_wanted import LoopSettings, LoopWanted, facts_of, read_loop
from tunesmith.search.tuning import read_budget

_BEST, _CARRIED_OUT, _RESULT = "best", "best.json", "result.json"


def go_round(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    limits: tuple[str | int | None, int | None],
    settings: LoopSettings,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Try, look at the errors, adjust, until the budget is used up or nothing more is gained.

    Args:
        recipe: a YAML file, or a mapping with the same keys; nothing in it is open; its output is the loop's folder.
        overrides: `key=value` texts that win over the recipe.
        limits: a time or number of attempts, and a number of attempts.
        settings: of the loop.
        resume: go on with a loop that was stopped.
        progress: for the user.
    Returns:
        What was found, as in result.json.
    Raises:
        TunesmithError: anything wrong with recipe, data, model, budget or folder.
    """
    progress, budget = progress or Progress(), read_budget(*limits)
    wanted = read_loop(recipe, overrides, settings)
    record = Record(wanted.output, facts_of(wanted, settings), resume)
    if wanted.held_out:
        progress.say(
            f"the recipe names no data.test: {settings.measure:.0%} of train are held out, which choose nothing and "
            "are scored once, at the end (search.measure)"
        )
    loop = ClosedLoop(wanted, settings, budget, record, progress)
    with progress.keeping("the rounds", wanted.output):
        ended = loop.run()
        seconds = budget.elapsed
        assert loop.best is not None
        final = _final(loop, loop.best)
        run = _best_run(wanted, final, progress)
    result = {
        **_told(loop, loop.best),
        "ended": ended,
        "seconds": seconds,
        "trials_per_minute": 60 * len(loop.attempts) / max(seconds, 1e-9),
        "measured_on": "test",
        "score": run.metrics["test"].get(wanted.metric),
        "importance": mattered(loop),
        "final": {"changes": dict(final.values), "said": final.said},
        "run": str(run.folder),
        "report": str(wanted.output / "report.html"),
    }
    write_loop_report(wanted.output, result, record, wanted.higher_is_better, compare_attempts(loop))
    write_json(wanted.output / _RESULT, result)
    return result


def _final(loop: ClosedLoop, best: Attempt) -> Final:
    """Settle the last run, in a file, so that one that was stopped goes on as itself; one of another attempt ends."""
    folder, place = loop.wanted.output / _BEST, loop.wanted.output / _CARRIED_OUT
    kept = Final.kept(place, best.number)
    if kept is not None:
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    final = final_of(loop.wanted, loop.settings, best, loop.members())
    final.keep(place)
    return final


def _best_run(wanted: LoopWanted, final: Final, progress: Progress) -> Run:
    """Carry the best recipe out: training, then baselines and, for the first time, test."""
    folder = wanted.output / _BEST
    progress.say(f"attempt {final.best} is carried out, and scored on test, for the first time: {final.said}")
    overrides = [*wanted.overrides, *words_of(final.values), f"output={folder}"]
    return Run(train_recipe(wanted.recipe, overrides, progress=progress, resume=folder.exists()))


def _told(loop: ClosedLoop, best: Attempt) -> dict[str, Any]:
    start, metric = loop.attempts[0], loop.wanted.metric
    states = [one.outcome.state for one in loop.attempts]
    return {
        "metric": metric,
        "higher_is_better": loop.wanted.higher_is_better,
        "rounds": len(loop.record.rounds),
        "attempts": {"all": len(states), **{state: states.count(state) for state in ("complete", "stopped", "failed")}},
        "best": best.number,
        "changes": dict(best.values),
        "overrides": words_of(best.values),
        "designs": [{**one.plain(), "said": one.said()} for one in loop.record.designs],
        "decisions": [one.decision for one in loop.record.rounds],
        "start": _scored(start, metric),
        "chosen_by": {"split": "validation", **_scored(best, metric)},
        "note": "Validation chose among all attempts, so its score flatters; test chose nothing and was scored once, "
        "after the choice.",
    }


def _scored(attempt: Attempt, metric: str) -> dict[str, Any]:
    ends = attempt.outcome.scores.get(metric, {})
    return {"value": attempt.outcome.value, "low": ends.get("low"), "high": ends.get("high")}
