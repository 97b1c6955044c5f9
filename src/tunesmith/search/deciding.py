"""What a round of a closed loop decides, and in what words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.evaluation.metrics.base import scale_of
from tunesmith.search.attempts import Attempt, Round
from tunesmith.search.designs import Design
from tunesmith.search.evidence import Evidence, Known


def adopted(found: Sequence[Attempt], best: Attempt, level: float, first: bool, higher_is_better: bool) -> Attempt:
    """Choose the attempt that the next round starts from.

    Nothing speaks for the recipe as written beside the starts, so of these the best is taken, shown or not. From then
    on a change has to show its gain, because every round tries many.

    Args:
        found: attempts of the round.
        best: the best so far.
        level: of the tests. [fraction]
        first: whether the round is that of the starts.
        higher_is_better: of the deciding metric.
    Returns:
        One of them, or the best so far.
    """
    able = [one for one in found if one.test is not None and one.test.gain > 0]
    if not first:
        able = [one for one in able if one.test is not None and one.test.corrected <= level]
    return min(able, key=lambda one: (one.outcome.key(higher_is_better), one.number), default=best)


def worded_test(attempt: Attempt, metric: str) -> str:
    """Word how an attempt compares with the best before it.

    Args:
        attempt: any.
        metric: that decides.
    Returns:
        For example "+2.1 points (+0.4 to +3.9, p = 0.012, corrected 0.048)"; the reason where it left or failed.
    """
    test = attempt.test
    if test is None:
        return attempt.outcome.reason
    scale, percent = scale_of(metric)
    unit, form = (" points", "+.1f") if percent else ("", "+.3f")
    gain, low, high = (f"{scale * one:{form}}" for one in (test.gain, test.low, test.high))
    return f"{gain}{unit} ({low} to {high}, p = {test.p_value:.3f}, corrected {test.corrected:.3f})"


def decision_of(
    found: Sequence[Attempt], best: Attempt, chosen: Attempt, level: float, metric: str, first: bool
) -> str:
    """Say what was decided and why.

    Args:
        found: attempts of the round.
        best: the best before it.
        chosen: the best from then on.
        level: of the tests. [fraction]
        metric: that decides.
        first: whether the round is that of the starts.
    Returns:
        A sentence or two.
    """
    states = [one.outcome.state for one in found]
    counts = {"left early": states.count("stopped"), "failed": states.count("failed")}
    more = "".join(f"; {count} {what}" for what, count in counts.items() if count)
    if chosen.number != best.number:
        what = "is the best of the starts" if first else "is kept"
        return f"attempt {chosen.number} {what} ({chosen.change.what}): {worded_test(chosen, metric)}{more}"
    gains = [one for one in found if one.test is not None and one.test.gain > 0]
    if first:
        return f"no start is better than the recipe as written{more}"
    nearest = max(gains, key=lambda one: one.test.gain if one.test else 0.0, default=None)
    told = "" if nearest is None else f"; the nearest is attempt {nearest.number}, {worded_test(nearest, metric)}"
    return f"attempt {best.number} stays: none of {len(found)} changes shows a gain at level {level:g}{told}{more}"


def planned_from(
    known: Known,
    values: Mapping[str, Any],
    best: Attempt,
    latest: Round,
    design: Callable[[Sequence[str]], Design] | None,
) -> Evidence:
    """Gather what the next round is planned from.

    Args:
        known: of the task.
        values: the best attempt's recipe.
        best: that attempt.
        latest: the round before.
        design: searches a prompt that is aimed at some labels; None where the loop leaves that out.
    Returns:
        The evidence; changes of the round before are promising where they were better than what stayed the best.
    """
    assert best.errors is not None
    better = [
        one
        for one in latest.attempts
        if one.test is not None and one.test.gain > 0 and one.test.against == best.number and one.by != "combine"
    ]
    better.sort(key=lambda one: -one.test.gain if one.test else 0.0)
    return Evidence(known, values, best.errors, [one.change for one in better], design)
