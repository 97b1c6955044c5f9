"""Nested cross-validation of a search over folds: every fold is scored by what the other folds choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from tunesmith.search.trials import StudyTrial


@dataclass(frozen=True)
class Choice:
    """What the other folds of a draw chose for one fold.

    Args:
        fold: its number.
        trial: of the best mean over the others.
        epoch: of that trial, likewise. [count]
        score: there, on the fold.
    """

    fold: int
    trial: int
    epoch: int
    score: float


@dataclass(frozen=True)
class Nested:
    """What the procedure gives that chose the best trial: the choice and the score come from different folds.

    Args:
        value: mean score over all folds.
        flattered: mean score of the trial that all folds choose, each fold at its own best epoch.
        choices: of every fold.
    """

    value: float
    flattered: float
    choices: list[Choice]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def nested(trials: Sequence[StudyTrial], best: StudyTrial, folds: int, higher_is_better: bool) -> Nested | None:
    """Score every fold by the trial, and its epoch, that the other folds of the same draw choose.

    Source: Varma and Simon 2006, BMC Bioinformatics 7:91. Differs: a trial is trained once per fold, not once more for
        every two, and the strategy drew the trials knowing all folds, so a little of the flattery may be left; as in
        Tsamardinos et al. 2018, Machine Learning 107, 1895-1922.

    Args:
        trials: that may be chosen.
        best: that all folds choose.
        folds: of one draw. [count]
        higher_is_better: of the score.
    Returns:
        The estimate; None where trials have no folds, or two folds with no epoch in common.
    """
    able = [one for one in trials if one.outcome.state == "complete" and one.same_as is None and one.outcome.folds]
    if folds < 2 or not able or best.outcome.value is None:
        return None
    choices = list[Choice]()
    for fold in range(len(able[0].outcome.folds)):
        found = list(_offers(able, fold, folds, 1 if higher_is_better else -1))
        if not found:
            return None
        _, trial, epoch, score = min(found)
        choices.append(Choice(fold, trial, epoch, score))
    return Nested(mean(one.score for one in choices), best.outcome.value, choices)


def _offers(trials: Sequence[StudyTrial], fold: int, folds: int, sign: int) -> Iterator[tuple[float, int, int, float]]:
    """Give what may be chosen for a fold, as (minus the mean over the others, trial, epoch, score on the fold)."""
    first = fold - fold % folds
    for trial in trials:
        scored = [dict(epochs) for epochs in trial.outcome.folds]
        others = [one for place, one in enumerate(scored[first : first + folds], first) if place != fold]
        for epoch, score in scored[fold].items():
            if all(epoch in one for one in others):
                yield -sign * mean(one[epoch] for one in others), trial.number, epoch, score


def sentence(found: Nested, metric: str, shown: str, flattered: str) -> str:
    """Word it.

    Args:
        found: it.
        metric: its name.
        shown: the value in words.
        flattered: the flattered value in words.
    Returns:
        A sentence.
    """
    trials = sorted({one.trial for one in found.choices})
    chosen = f"trial {trials[0]} each time" if len(trials) == 1 else f"one of the trials {', '.join(map(str, trials))}"
    return (
        f"Nested over the folds, {metric} is {shown} (not {flattered}): each fold is scored by what the other folds "
        f"choose, {chosen}."
    )
