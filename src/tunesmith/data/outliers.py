"""Rows that lie far from all others, by the distance to a neighbour some places away.

The distance of a row to its k-th nearest other row is compared with what is usual: the median over all rows, or over
the rows of its label where that is farther, so that a label which lies apart as a whole has no outliers. The unit is
the spread of all rows' distances: 1.4826 times their median deviation, the standard deviation of a normal one.

Source: Ramaswamy, Rastogi, Shim 2000, SIGMOD, "Efficient algorithms for mining outliers from large data sets": the
distance to the k-th neighbour. Differs: k is at most the number of other rows of the label, so that a rare label need
not find more, and half of all rows, as the farthest row of the others is the outlier itself; and a threshold in spreads
(Iglewicz, Hoaglin 1993) in place of a number of rows. The local outlier factor finds no odd rows that resemble each
other: docs/decisions/0022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.data.label_errors import Table, directions
from tunesmith.data.splitting import Index, stratified_order

_SPREAD = 1.4826  # of a normal distribution over its median deviation


@dataclass(frozen=True)
class Distances:
    """How far rows lie from their neighbours.

    Args:
        places: (rows,), which neighbour counts, 0 where a row has none to be compared with.
        own: (rows,), distance to it, between features of length 1.
        usual: (rows,), what is usual for this place and label.
        scores: (rows,), how far `own` lies above `usual`. [spreads]
    """

    places: Index
    own: Table
    usual: Table
    scores: Table


def neighbour_distances(
    features: np.ndarray[Any, Any], labels: Index, neighbours: int, seed: int, most: int = 20_000
) -> Distances:
    """Compare every row's distance to one of its neighbours with the usual one.

    Args:
        features: (rows, D), of a frozen model.
        labels: (rows,), codes.
        neighbours: which neighbour counts, at most as many as its label has other rows, and half of all rows. [count]
        seed: of the draw of rows to compare with.
        most: rows to compare with; of more a stratified draw. [count]
    Returns:
        The distances; where more than half of the rows are copies, so that nothing is usual, all scores are 0.
    """
    from sklearn.neighbors import NearestNeighbors

    inputs, rows = directions(features), np.arange(len(labels))
    drawn = stratified_order(labels, seed)[:most]
    inside = np.isin(rows, drawn)
    search = NearestNeighbors(n_neighbors=min(neighbours, len(drawn) // 2) + 1).fit(inputs[drawn])
    table = search.kneighbors(inputs)[0]  # (rows, neighbours + 1), a drawn row itself at place 0
    table[~inside] = np.pad(table[~inside, :-1], ((0, 0), (1, 0)))
    others = np.bincount(labels[drawn], minlength=int(labels.max()) + 1)[labels] - inside
    places = np.minimum(table.shape[1] - 1, others)
    middle = np.median(table, 0)
    spread = _SPREAD * np.median(np.abs(table - middle), 0)[places]
    own, usual = table[rows, places], middle[places]
    for code in np.unique(labels):
        some = labels == code
        usual[some] = np.maximum(usual[some], np.median(own[some]))
    scores = (own - usual) / np.where(spread > 0, spread, np.inf)
    return Distances(places, own, usual, scores)
