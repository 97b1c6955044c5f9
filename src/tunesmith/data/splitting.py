"""Splits: which rows train, validate and test."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

Index = np.ndarray[Any, np.dtype[np.int64]]


def stratified_share(labels: np.ndarray[Any, Any], share: float, seed: int) -> tuple[Index, Index]:
    """Hold out a share of every class.

    A class of two or more rows keeps at least one for training; the held-out total is the share of all rows,
    as nearly as whole rows allow.

    Args:
        labels: (rows,), a class code per row.
        share: to hold out. [fraction]
        seed: of the draw.
    Returns:
        Row numbers kept and held out, each in rising order.
    Example:
        >>> kept, held = stratified_share(np.array([0, 0, 1, 1]), 0.5, seed=0)
        >>> len(kept), len(held)
        (2, 2)
    """
    draw = np.random.default_rng(seed)
    held: list[Index] = []
    owed = 0.0
    for code in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == code))
        owed += share * len(rows)
        take = min(
            int(owed + 0.5), int(share * len(rows) + 1.5), len(rows) - 1
        )  # one class pays for others within reason
        owed -= take
        held.append(rows[: max(take, 0)])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), out), out


def every_label_early(labels: np.ndarray[Any, Any], seed: int) -> Index:
    """Draw an order of rows in which two rows of every label, or its only one, stand before all others.

    Args:
        labels: (rows,), a class code per row.
        seed: of the draw.
    Returns:
        (rows,), row numbers; its beginning is a sample of the rows that has every label.
    Example:
        >>> order = every_label_early(np.array([0, 0, 0, 0, 1, 1]), seed=0)
        >>> sorted(np.array([0, 0, 0, 0, 1, 1])[order[:4]].tolist())
        [0, 0, 1, 1]
    """
    order, seen = np.random.default_rng(seed).permutation(len(labels)), Counter[int]()
    turns = np.zeros(len(order), dtype=np.int64)
    for place, row in enumerate(order):
        turns[place] = seen[int(labels[row])] < 2
        seen[int(labels[row])] += 1
    return order[np.argsort(1 - turns, kind="stable")]


def stratified_order(labels: np.ndarray[Any, Any], seed: int) -> Index:
    """Draw an order of rows whose every beginning is a stratified sample of them, each inside of the next.

    One row of every label stands first; from there on labels have their shares, as nearly as whole rows allow.

    Args:
        labels: (rows,), a class code per row.
        seed: of the draw.
    Returns:
        (rows,), row numbers.
    Example:
        >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
        >>> order = stratified_order(labels, seed=0)
        >>> np.bincount(labels[order[:2]]).tolist(), np.bincount(labels[order[:6]]).tolist()
        ([1, 1], [4, 2])
    """
    draw, places = np.random.default_rng(seed), np.empty(len(labels))
    for code in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == code))
        places[rows] = (np.arange(len(rows)) + draw.random()) / len(rows)
        places[rows[0]] -= 1
    return np.argsort(places, kind="stable")


def grouped_share(labels: np.ndarray[Any, Any], groups: Index, share: float, seed: int) -> tuple[Index, Index]:
    """Hold out a share of every class in whole groups.

    Groups are drawn at random and held out where they fit into what is still wanted, so a group larger than that stays
    in training. A group counts for the class of its first row. Every class keeps at least one row for training.

    Args:
        labels: (rows,), a class code per row.
        groups: (rows,), a group number per row.
        share: to hold out. [fraction]
        seed: of the draw.
    Returns:
        Row numbers kept and held out, each in rising order.
    Example:
        >>> kept, held = grouped_share(np.zeros(6), np.array([0, 0, 1, 1, 2, 2]), 0.34, seed=0)
        >>> len(kept), len(held)
        (4, 2)
    """
    draw = np.random.default_rng(seed)
    _, numbers = np.unique(groups, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(numbers))[:-1])
    names, codes = np.unique(labels, return_inverse=True)
    left = np.bincount(codes).tolist()
    classes = codes[[rows[0] for rows in members]]
    held: list[Index] = []
    owed = 0.0
    for code in range(len(names)):
        drawn = draw.permutation(np.flatnonzero(classes == code)).tolist()
        owed += share * sum(len(members[number]) for number in drawn)
        for number in drawn:
            rows = members[number]
            if int(owed + 0.5) < 1:
                break
            if len(rows) <= int(owed + 0.5) and _leaves_some(codes[rows].tolist(), left):
                held.append(rows)
                owed -= len(rows)
    out = np.sort(np.concatenate([np.zeros(0, np.int64), *held]))
    return np.setdiff1d(np.arange(len(labels)), out), out


def latest_share(times: np.ndarray[Any, Any], share: float) -> tuple[Index, Index]:
    """Hold out the latest rows; rows of one time stay together.

    Args:
        times: (rows,), numbers that grow with time.
        share: to hold out, as nearly as whole times allow. [fraction]
    Returns:
        Row numbers kept and held out, each in rising order; every row kept is earlier than every one held out.
    Example:
        >>> kept, held = latest_share(np.array([3, 1, 2, 3]), 0.4)
        >>> kept.tolist(), held.tolist()
        ([1, 2], [0, 3])
    """
    found, counts = np.unique(times, return_counts=True)
    behind = len(times) - np.cumsum(counts)  # rows later than each time
    last = found[:-1][np.abs(behind[:-1] - share * len(times)).argmin()] if len(found) > 1 else found[0]
    return np.flatnonzero(times <= last), np.flatnonzero(times > last)


def stratified_folds(labels: np.ndarray[Any, Any], count: int, seed: int, groups: Index | None = None) -> Index:
    """Part rows into folds, every class alike; whole groups where there are some.

    Args:
        labels: (rows,), a class code per row.
        count: of the folds, at least 2.
        seed: of the draw.
        groups: (rows,), a number per group of rows that stay in one fold; None when every row is one.
    Returns:
        (rows,), the number of each row's fold, from 0.
    Example:
        >>> folds = stratified_folds(np.array([0, 0, 0, 1, 1, 1]), 3, seed=0)
        >>> sorted(folds[:3].tolist()), sorted(folds[3:].tolist())
        ([0, 1, 2], [0, 1, 2])
    """
    draw = np.random.default_rng(seed)
    _, codes = np.unique(labels, return_inverse=True)
    numbers = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(numbers, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(numbers))[:-1])
    drawn = draw.permutation(len(members))
    drawn = drawn[np.argsort([-len(members[number]) for number in drawn], kind="stable")]  # large groups first
    held = np.zeros((count, int(codes.max()) + 1), np.int64)
    folds = np.zeros(len(codes), np.int64)
    for number in drawn:
        rows = members[number]
        own = held[:, codes[rows[0]]]
        fold = int(np.lexsort((held.sum(1), own))[0])  # fewest rows of the class, then fewest rows
        folds[rows] = fold
        np.add.at(held[fold], codes[rows], 1)
    return folds


def _leaves_some(codes: list[int], left: list[int]) -> bool:
    """Take rows of these classes away where every class keeps one."""
    counts = Counter(codes)
    if any(left[code] <= count for code, count in counts.items()):
        return False
    for code, count in counts.items():
        left[code] -= count
    return True
