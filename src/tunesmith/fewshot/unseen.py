"""Classes that were never seen: learn from seen ones, answer for the others, and measure it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Codes, Marks
from tunesmith.core.errors import DataError
from tunesmith.evaluation.statistics import Bootstrap, Estimate, wilson
from tunesmith.fewshot.attribute_table import AttributeTable
from tunesmith.fewshot.attributes.base import AttributeWay, learnable

_LEFT_OUT = 4  # classes from which on some can be left out of the training in turn


@dataclass(frozen=True)
class Unseen:
    """How rows of unseen classes, and of all classes, were told.

    Args:
        zero_shot: share of unseen classes' rows that are right among the unseen classes.
        chance: of the same, 1 / unseen classes. [fraction]
        seen: share of seen classes' rows that are right among all classes.
        unseen: share of unseen classes' rows that are right among all classes.
        harmonic: 2 seen unseen / (seen + unseen), generalised zero-shot.
        alike: unseen classes that differ from another one only in attributes which no seen class shows, or all do, so
            that the way cannot learn them.
    """

    zero_shot: Estimate
    chance: float
    seen: Estimate
    unseen: Estimate
    harmonic: Estimate
    alike: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        found = {name: getattr(self, name).plain() for name in ("zero_shot", "seen", "unseen", "harmonic")}
        return {**found, "chance": self.chance, "alike": list(self.alike)}


def measure_unseen(
    way: AttributeWay,
    table: AttributeTable,
    unseen: Sequence[str],
    taught: tuple[Array, Sequence[str]],
    tested: tuple[Array, Sequence[str]],
    bootstrap: Bootstrap | None = None,
) -> Unseen:
    """Learn attributes from seen classes and answer rows of all classes.

    In the generalised case, seen classes are favoured by everything that learned from them. Their scores are lowered by
    one number, found on rows of the training part alone: each seen class in turn is left out of the training, and the
    number is taken with which the harmonic mean over those left-out classes is best (calibrated stacking).

    Args:
        way: how attributes are found.
        table: of all classes.
        unseen: classes whose rows are not learned from.
        taught: rows as the way reads them, and their classes; rows of unseen classes are left aside.
        tested: rows of all classes, and their classes.
        bootstrap: behind the intervals.
    Returns:
        Shares with Wilson's intervals; the harmonic mean with the bootstrap's.
    Raises:
        DataError: the table does not fit, or the test rows lack the seen or the unseen classes.
    Source: calibrated stacking: Chao et al. 2016, arXiv:1605.04253; harmonic mean: Xian et al. 2017, arXiv:1703.04394.
    """
    bootstrap = bootstrap or Bootstrap()
    rows, names = taught
    classes = np.array(list(names))
    known = sorted(set(classes.tolist()) - set(unseen))
    table.check(known, list(unseen))
    own = np.flatnonzero(np.isin(classes, known))
    codes = np.searchsorted(known, classes[own])
    fitted = way.fit(rows[own], codes, table.signatures(known), bootstrap.seed)
    margin = _margin(way, table.signatures(known), rows[own], codes, bootstrap.seed)
    everyone = [*known, *unseen]
    scores = fitted.scores(tested[0], table.signatures(everyone))
    truth = np.array([everyone.index(name) for name in tested[1]])
    new = truth >= len(known)
    if new.all() or not new.any():
        raise DataError("the test rows need rows of seen classes and of unseen ones; one kind is missing.")
    zero = scores[new][:, len(known) :].argmax(1) + len(known) == truth[new]
    lowered = scores - margin * (np.arange(len(everyone)) < len(known))
    right = lowered.argmax(1) == truth
    return Unseen(
        zero_shot=_share(zero, bootstrap),
        chance=1 / len(unseen),
        seen=_share(right[~new], bootstrap),
        unseen=_share(right[new], bootstrap),
        harmonic=_mean_of_both(right, new, bootstrap),
        alike=_alike(table, known, unseen) if way.compares else (),
    )


def _alike(table: AttributeTable, known: Sequence[str], unseen: Sequence[str]) -> tuple[str, ...]:
    """Name unseen classes that what can be learned does not tell from another unseen class."""
    used = learnable(np.arange(len(known)), table.signatures(known))
    rows = [tuple(row) for row in table.signatures(unseen)[:, used].tolist()]
    return tuple(name for name, row in zip(unseen, rows, strict=True) if rows.count(row) > 1)


def _margin(way: AttributeWay, signatures: Array, rows: Array, codes: Codes, seed: int) -> float:
    """Find by how much scores of classes with rows are lowered, leaving seen classes out of the training in turn."""
    if len(signatures) < _LEFT_OUT:
        return 0.0
    gaps, right_old, right_new, new = [], [], [], []
    for left_out, held, taught in _left_out(codes, len(signatures), seed):
        judged = ~taught
        kept = np.setdiff1d(np.arange(len(signatures)), left_out)
        fitted = way.fit(rows[taught], np.searchsorted(kept, codes[taught]), signatures[kept], seed)
        scores, truth = fitted.scores(rows[judged], signatures), codes[judged]
        old, other = scores[:, kept], scores[:, left_out]
        gaps.append(old.max(1) - other.max(1))
        right_old.append(kept[old.argmax(1)] == truth)
        right_new.append(left_out[other.argmax(1)] == truth)
        new.append(held[judged])
    gap, old_right, new_right, is_new = (np.concatenate(part) for part in (gaps, right_old, right_new, new))
    if is_new.all():  # one row of every class: none is left to judge old ones on
        return 0.0
    tried = np.quantile(gap, np.linspace(0.01, 0.99, 99))
    means = [_harmonic(np.where(gap > one, old_right, new_right), is_new) for one in tried]
    return float(tried[int(np.argmax(means))])


def _left_out(codes: Codes, classes: int, seed: int) -> Iterator[tuple[Codes, Marks, Marks]]:
    """Yield classes that are left out of the training in turn, their rows, and the rows that are taught meanwhile."""
    half = _half(codes, seed)  # old rows are judged on others than those taught
    for left_out in np.array_split(np.random.default_rng(seed).permutation(classes), 3):
        held = np.isin(codes, left_out)
        yield left_out, held, ~held & half


def fewest_taught(names: Sequence[str], seed: int) -> int:
    """Say how many rows `measure_unseen` learns from where it has least.

    Args:
        names: classes of the rows that are learned from.
        seed: of the bootstrap.
    Returns:
        How many. [count]
    """
    known, codes = np.unique(np.array(list(names)), return_inverse=True)
    if len(known) < _LEFT_OUT:
        return len(codes)
    return min(int(taught.sum()) for _, _, taught in _left_out(codes, len(known), seed))


def _half(codes: Codes, seed: int) -> Any:
    """Draw half of the rows, of every class at least one, (rows,), bool."""
    found = np.random.default_rng(seed).random(len(codes)) < 0.5
    classes, first = np.unique(codes, return_index=True)
    found[first[~np.isin(classes, codes[found])]] = True
    return found


def _harmonic(right: Any, new: Any, weights: Array | None = None) -> float:
    counts = np.ones(len(right)) if weights is None else weights
    shares = [float((right * counts)[part].sum() / max(counts[part].sum(), 1e-12)) for part in (new, ~new)]
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def _share(right: Marks, bootstrap: Bootstrap) -> Estimate:
    value = float(right.mean())
    return Estimate(value, *wilson(value, len(right), bootstrap.confidence))


def _mean_of_both(right: Marks, new: Marks, bootstrap: Bootstrap) -> Estimate:
    drawn = np.array([_harmonic(right, new, weights) for weights in bootstrap.weights(len(right))])
    return Estimate(_harmonic(right, new), *bootstrap.interval(drawn))
