"""Members that train on as many rows of each label."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunesmith.core.arrays import Codes
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.ensembles.making.base import Making


@register("ensembles")
class BalancedBagging(Making):
    """Train every member on as many rows of each label, drawn with replacement: by default as the rarest one has.

    Source: Chen et al. 2004, "Using random forest to learn imbalanced data", report 666, Berkeley.
    """

    name: ClassVar[str] = "balanced-bagging"
    paper: ClassVar[str] = "Chen et al. 2004, report 666, Berkeley"
    own_rows: ClassVar[bool] = True

    rows_per_label: int | None = setting(
        None, "Rows drawn of each label; as many as the rarest one has when empty.", unit="count", ge=1
    )

    def rows(self, labels: Codes, draw: np.random.Generator) -> Codes:
        """Draw label by label."""
        codes, counts = np.unique(labels, return_counts=True)
        each = self.rows_per_label or int(counts.min())
        return np.concatenate([draw.choice(np.flatnonzero(labels == code), each) for code in codes])
