"""Labels that are probably wrong, by confident learning on out-of-fold probabilities.

A probe that never saw a row says how probable each label is. The confidence of label j, t_j, is the mean probability of
j over the rows that are given j. A row counts for the label whose probability is highest among those with p_j >= t_j;
where that is another label than the given one, the given one is probably wrong (the off-diagonal rows of the confident
joint). Thresholds of their own keep labels that the probe is unsure of from being suspected as a whole.

Source: Northcutt, Jiang, Chuang 2021, Confident Learning, arXiv:1911.00068, section 3.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tunesmith.data.splitting import Index, stratified_folds

Table = np.ndarray[Any, np.dtype[np.float64]]


def out_of_fold(features: np.ndarray[Any, Any], labels: Index, classes: int, folds: int, seed: int) -> Table:
    """Let logistic regression predict every row from the rows of the other folds.

    Args:
        features: (rows, D), of a frozen model.
        labels: (rows,), codes.
        classes: C.
        folds: that the rows are parted into. [count]
        seed: of the parting.
    Returns:
        Probabilities, (rows, C); a label that no other fold has gets none.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    inputs = features / np.maximum(lengths, 1e-12) * np.sqrt(features.shape[1])
    parts = stratified_folds(labels, folds, seed)
    found = np.zeros((len(labels), classes))
    for part in range(folds):
        others, own = parts != part, parts == part
        known = np.unique(labels[others])
        if len(known) < 2 or not own.any():
            found[np.ix_(own, known)] = 1.0
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe = LogisticRegression(C=_REGULAR, max_iter=100, tol=1e-3).fit(inputs[others], labels[others])
        found[np.ix_(own, probe.classes_)] = probe.predict_proba(inputs[own])
    return found


_REGULAR = 0.01  # weaker weights follow wrong labels less; chosen on CLINC150


def suspicious(probabilities: Table, labels: Index) -> Index:
    """Find rows whose label is probably wrong.

    Args:
        probabilities: (rows, C), out of fold.
        labels: (rows,), as given.
    Returns:
        (rows,), the label to suggest; -1 where the given one may stay.
    Example:
        >>> sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
        >>> suspicious(sure, np.array([0, 0, 1, 1, 1])).tolist()
        [-1, -1, -1, -1, 0]
    """
    rows, classes = probabilities.shape
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    own = probabilities[np.arange(rows), labels]
    confident = probabilities >= np.bincount(labels, own, classes) / counts
    best = np.where(confident, probabilities, -1.0).argmax(1)
    found: Index = np.where(confident.any(1) & (best != labels), best, -1)
    return found
