"""How much of the spread of several runs' scores each of their settings tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ENOUGH = 8  # runs below which nothing is said
_TREES = 200
_LACKING = -1.0  # place of a run that has no such setting; others lie from 0 to 1


def importances(settings: Sequence[Mapping[str, Any]], values: Sequence[float]) -> dict[str, float]:
    """Share the variance that a random forest explains out among settings.

    Args:
        settings: of each run, all with the same keys; None where a run has no such setting.
        values: score of each run; runs without one are left out.
    Returns:
        Share by setting, sum 1; none where fewer than `ENOUGH` runs have a score, or all the same one.
    Source: Breiman 2001, Machine Learning 45, 5-32; mean decrease in impurity.
    """
    known = [at for at, value in enumerate(values) if np.isfinite(value)]
    scores = np.array([values[at] for at in known])
    if len(known) < ENOUGH or np.ptp(scores) == 0 or not settings[0]:
        return {}
    from sklearn.ensemble import RandomForestRegressor

    places = [axis([settings[at][key] for at in known])[0] for key in settings[0]]
    table = np.nan_to_num(np.array(places).T, nan=_LACKING)
    forest = RandomForestRegressor(_TREES, random_state=0).fit(table, scores)
    return {key: float(share) for key, share in zip(settings[0], forest.feature_importances_, strict=True)}


def axis(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Lay the values of one setting out on an axis, each step as long as the next.

    Args:
        values: of each run; None where a run has no such setting.
    Returns:
        Each run's place from 0 to 1 (not a number where it has none), and the ticks: place and text.
    """
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    steps = sorted(set(known)) if numbers else sorted({str(value) for value in known})
    at = {step: place / max(1, len(steps) - 1) for place, step in enumerate(steps)}
    places = [float("nan") if value is None else at[value if numbers else str(value)] for value in values]
    return places, [(place, f"{step:g}" if numbers else str(step)) for step, place in at.items()]
