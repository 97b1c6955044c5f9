"""Rows that resemble no others."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Filter, Rows, Verdict
from tunesmith.data.outliers import neighbour_distances


@register("cleaning")
class Outliers(Filter):
    """Drop training rows that lie far from all others, and from those of their label: of no label more than half."""

    name: ClassVar[str] = "outliers"
    where: ClassVar[str] = "drops training rows; reads the frozen model's features"
    paper: ClassVar[str] = "Ramaswamy et al. 2000"
    needs_features: ClassVar[bool] = True
    of: ClassVar[str] = "rows"
    do: Literal["drop", "list"] = setting("drop", "Drop the rows, or list them only.")
    neighbours: int = setting(
        20,
        "Which nearest other row the distance is taken to, at most as many as its label has others, or half of all.",
        unit="count",
        ge=1,
    )
    threshold: float = setting(
        3.5, "How far a row's distance lies above the usual one, in spreads of all distances (robust z).", gt=0
    )
    most: float = setting(
        0.02, "Share of the rows that is dropped at most, the farthest first; others are listed.", unit="fraction",
        gt=0, le=0.5,
    )  # fmt: skip

    def judge(self, rows: Rows) -> dict[int, Verdict]:
        """Compare distances to neighbours."""
        assert rows.features is not None
        found = neighbour_distances(rows.features(), rows.labels, self.neighbours, rows.seed)
        far = np.flatnonzero(found.scores >= self.threshold)
        far = far[np.argsort(-found.scores[far], kind="stable")]
        limit = int(self.most * len(rows.labels))
        verdicts = {}
        for turn, row in enumerate(far.tolist()):
            why = (
                f"neighbour {found.places[row]} lies {found.own[row]:.2g} away, usually {found.usual[row]:.2g}: "
                f"{found.scores[row]:.1f} spreads more"
            )
            if self.do == "drop" and turn < limit:
                verdicts[row] = Verdict(why)
            else:
                kept = f"; kept, as {limit:,} of {len(rows.labels):,} rows may be dropped (most)"
                verdicts[row] = Verdict(why + (kept if self.do == "drop" else ""), "listed")
        return verdicts
