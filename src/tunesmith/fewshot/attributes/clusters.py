"""Attributes found by clustering parts of seen classes' rows."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.cluster import KMeans

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.attributes.base import AttributeWay, Fitted


@register("attributes")
class Clusters(AttributeWay):
    """K-means on parts of rows finds attributes; the given table says how a class that has no rows looks in them.

    A row's found attributes are, for every cluster, how near its nearest part lies: max over parts of
    exp(-d^2 / (2 w^2)), w the root mean square distance of seen parts to their centre. A seen class looks like the mean
    of its rows. How an unseen class looks is predicted by ridge regression from the table's attributes to the found
    ones, fitted on the seen classes alone: no row and no label of an unseen class is used. A row belongs to the class
    with the nearest look, distances over the spread of the seen classes' rows.

    Source: parts in clusters: Csurka et al. 2004, ECCV workshop; looks predicted from attributes: Elhoseiny et al.
    2013, ICCV. Differs: nearest part instead of a histogram; ridge regression instead of domain transfer.
    """

    name: ClassVar[str] = "clusters"
    paper: ClassVar[str] = "Csurka et al. 2004, ECCV workshop; Elhoseiny et al. 2013, ICCV"
    reads: ClassVar[Any] = "parts"
    compares: ClassVar[bool] = True

    clusters: int = setting(64, "Attributes to find.", unit="count", ge=2)
    ridge: float = setting(1.0, "Weight of the squared weights of the regression.", gt=0)
    parts: int = setting(20_000, "Parts that the clusters are found on at most.", unit="count", ge=2)

    def check_rows(self, rows: int, parts: int) -> None:
        """Refuse fewer parts than clusters."""
        found = min(self.parts, rows * parts)
        if found < self.clusters:
            raise DataError(f"clusters={self.clusters}: the rows to learn from have {found} parts. Lower it, or give "
                            "more rows.")  # fmt: skip

    def fit(self, rows: Array, codes: Codes, signatures: Array, seed: int = 0) -> FittedClusters:
        """Find clusters, and how the table's attributes look in them.

        Raises:
            DataError: rows without parts, or fewer parts than clusters.
        """
        parts = np.asarray(rows, np.float64)
        if parts.ndim != 3:
            raise DataError(f"parts of shape {parts.shape}; (rows, parts, D) is needed.")
        flat = parts.reshape(-1, parts.shape[-1])
        self.check_rows(*parts.shape[:2])
        drawn = np.random.default_rng(seed).permutation(len(flat))[: self.parts]
        found = KMeans(self.clusters, n_init=1, random_state=seed).fit(flat[drawn])
        width = max(float(found.inertia_) / len(drawn), 1e-12)
        looks = found_attributes(parts, found.cluster_centers_, width)
        seen = np.unique(codes)
        means = np.stack([looks[codes == code].mean(0) for code in seen])
        spread = np.sqrt(np.mean([looks[codes == code].var(0) for code in seen], axis=0)) + 1e-6
        return FittedClusters(found.cluster_centers_, width, spread, _Regression(signatures[seen], means, self.ridge))


def found_attributes(parts: Array, centres: Array, width: float) -> Array:
    """Say how near each cluster a row's nearest part lies.

    Args:
        parts: (rows, P, D).
        centres: (K, D).
        width: w^2, mean squared distance of parts to their centres.
    Returns:
        (rows, K), from 0 to 1.
    """
    squares = (centres**2).sum(1)
    found = np.empty((len(parts), len(centres)))
    for start in range(0, len(parts), 512):
        some = parts[start : start + 512]
        distances = (some**2).sum(-1, keepdims=True) - 2 * some @ centres.T + squares
        found[start : start + 512] = np.exp(-distances.min(1).clip(0) / (2 * width))
    return found


class _Regression:
    """Ridge regression from a class's attributes to how it looks, in its dual form: classes are few."""

    def __init__(self, signatures: Array, looks: Array, ridge: float) -> None:
        self.middle, self.mean = signatures.mean(0), looks.mean(0)
        self.signatures = signatures - self.middle
        kernel = self.signatures @ self.signatures.T + ridge * np.eye(len(signatures))
        self.weights = np.linalg.solve(kernel, looks - self.mean)

    def __call__(self, signatures: Array) -> Array:
        predicted: Array = (signatures - self.middle) @ self.signatures.T @ self.weights + self.mean
        return predicted


class FittedClusters(Fitted):
    """Clusters and what classes look like in them.

    Args:
        centres: (K, D).
        width: w^2.
        spread: (K,), of rows around their class.
        look: from attributes, (C, A), to found attributes, (C, K).
    """

    def __init__(self, centres: Array, width: float, spread: Array, look: _Regression) -> None:
        self.centres, self.width, self.spread, self.look = centres, width, spread, look

    def scores(self, rows: Array, signatures: Array) -> Array:
        """Minus the squared distances to the classes' predicted looks."""
        found = found_attributes(np.asarray(rows, np.float64), self.centres, self.width)
        gaps = (found[:, None, :] - self.look(signatures)[None]) / self.spread
        scored: Array = -(gaps**2).sum(-1)
        return scored
