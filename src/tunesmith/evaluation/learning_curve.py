"""Scores against the number of training rows: the power law, how it is fitted, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.evaluation.statistics import Bootstrap, Estimate

_RATES = np.geomspace(0.05, 3.0, 60)  # exponents that are tried
_TINY = 1e-12
_FEWEST = 3  # points that a law of three numbers goes through


def power_law(rows: Any, limit: Any, scale: Any, exponent: Any) -> Any:
    """Compute score = limit - scale rows^-exponent; scale is below 0 where the score falls with more rows.

    Args:
        rows: to learn from.
        limit: score with endless rows.
        scale: what one row alone falls short of it.
        exponent: how fast that shrinks.
    Returns:
        The score, of the broadcast shape.
    Source:
        Cortes et al. 1994, Learning curves: asymptotic values and rate of convergence.
    Example:
        >>> power_law(100.0, 0.9, 2.0, 0.5)
        0.7
    """
    return limit - scale * rows**-exponent


@dataclass(frozen=True)
class Law:
    """Power laws through scores, one per resample, the first through the scores as they are.

    Args:
        limit: (B,), as in `power_law`.
        scale: (B,).
        exponent: (B,).
    """

    limit: Array
    scale: Array
    exponent: Array

    @classmethod
    def fit(cls, rows: Array, scores: Array, bounds: tuple[float, float]) -> Law:
        """Fit by least squares: for each exponent of a grid the other two have a closed form.

        Args:
            rows: (S,), different numbers. [count]
            scores: (B, S), finite.
            bounds: lowest and highest limit.
        Returns:
            The laws.
        Source: Golub and Pereyra 1973, SIAM Journal on Numerical Analysis 10, for the closed form within a search.
        """
        shares, found = rows / rows.max(), np.full((4, len(scores)), np.inf)
        mean = scores.mean(1)
        for exponent in _RATES:
            x = shares**-exponent
            away = x - x.mean()
            scale = -((scores - mean[:, None]) @ away) / (away @ away)
            limit = np.clip(mean + scale * x.mean(), *bounds)
            scale = ((limit[:, None] - scores) @ x) / (x @ x)  # the same again where no bound was met
            wrong = ((limit[:, None] - scale[:, None] * x - scores) ** 2).sum(1)
            latest = np.stack([wrong, limit, scale * rows.max() ** exponent, np.full(len(scores), exponent)])
            found = np.where(wrong < found[0] - _TINY, latest, found)
        return cls(*found[1:])

    def at(self, rows: float) -> Array:
        """Compute the score with so many rows, (B,).

        Args:
            rows: to learn from. [count]
        """
        found: Array = power_law(rows, self.limit, self.scale, self.exponent)
        return found


@dataclass(frozen=True)
class Growth:
    """What a learning curve says.

    Args:
        rows: (S,), of each size.
        points: mean score of each size, with its interval.
        law: through the means, the first as they are, the others resampled.
        more: rows that are looked ahead to.
        ahead: score to expect there.
        gain: over all rows, positive when better, whatever the metric's direction.
        check: the law through all points but the last, asked for the last; None where there are too few.
    """

    rows: Array
    points: list[Estimate]
    law: Law
    more: float
    ahead: Estimate
    gain: Estimate
    check: Estimate | None

    @property
    def clear(self) -> bool:
        """Whether the band of the gain lies on one side of zero."""
        return self.gain.low > 0 or self.gain.high < 0

    @property
    def holds(self) -> bool | None:
        """Whether the last point lies where the law through the others has it; None where that is not known."""
        if self.check is None:
            return None
        last = self.points[-1]
        return self.check.low <= last.high and last.low <= self.check.high

    def band(self, rows: Sequence[float], confidence: float) -> Array:
        """Compute the law with its band, for a picture.

        Args:
            rows: to learn from.
            confidence: of the band. [fraction]
        Returns:
            (3, rows): value, low and high.
        """
        bootstrap, values = Bootstrap(confidence=confidence), [self.law.at(one) for one in rows]
        return np.array([[one[0], *bootstrap.interval(one[1:])] for one in values]).T


@dataclass(frozen=True)
class Scores:
    """Scores of several trainings on each of several numbers of rows.

    Args:
        rows: (S,), rising. [count]
        values: (S, R), of each repeat, on the rows that are scored as they are.
        tables: (S, R, B), on resamples of those rows, the same ones for all.
        bounds: lowest and highest score there can be.
        higher_is_better: direction of the score.
    """

    rows: Array
    values: Array
    tables: Array
    bounds: tuple[float, float]
    higher_is_better: bool

    def means(self, seed: int) -> Array:
        """Average over repeats, on resamples of repeats and scored rows together.

        The few repeats scatter less around their own mean than around the true one; the spread is widened by
        sqrt(R / (R - 1)) for that.

        Args:
            seed: of the draw of repeats.
        Returns:
            (1 + B, S), the first as measured.
        Source: Davison and Hinkley 1997, Bootstrap methods and their application, section 3.2.
        """
        repeats = self.tables.shape[1]
        picks = np.random.default_rng(seed).integers(repeats, size=self.tables.shape)
        drawn = np.take_along_axis(self.tables, picks, 1).mean(1)
        mean = self.tables.mean(1)
        wide = mean + math.sqrt(repeats / (repeats - 1)) * (drawn - mean)
        known = wide[:, np.isfinite(wide).all(0)]
        return np.concatenate([self.values.mean(1)[:, None], known], 1).T

    def growth(self, times: float, bootstrap: Bootstrap) -> Growth:
        """Fit the law, and look ahead.

        Args:
            times: so many times all rows.
            bootstrap: its confidence and seed.
        Returns:
            What the curve says.
        """
        means, more = self.means(bootstrap.seed), times * self.rows[-1]
        law = Law.fit(self.rows, means, self.bounds)
        sign = 1 if self.higher_is_better else -1
        part = Law.fit(self.rows[:-1], means[:, :-1], self.bounds) if len(self.rows) > _FEWEST else None

        def estimated(values: Array) -> Estimate:
            return Estimate(float(values[0]), *bootstrap.interval(values[1:]))

        return Growth(
            rows=self.rows,
            points=[estimated(np.clip(column, *self.bounds)) for column in means.T],
            law=law,
            more=more,
            ahead=estimated(np.clip(law.at(more), *self.bounds)),
            gain=estimated(sign * (law.at(more) - law.at(self.rows[-1]))),
            check=None if part is None else estimated(np.clip(part.at(self.rows[-1]), *self.bounds)),
        )
