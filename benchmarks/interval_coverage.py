"""How often the nominal 95 % interval covers the true score: simulated cases with known truth.

    python benchmarks/interval_coverage.py [--cases 1000] [--resamples 1000]

A case is a test split of some rows, drawn from a population whose score is known; its interval is computed as
`tunesmith.evaluation.statistics` does, on counts instead of rows, for speed (a few cases go through both, and have to
agree). Beside the interval in use, others are measured on the same cases. Covered cases of 1,000 scatter by 0.7 points.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, added_rows, estimate, metrics_by_name, paired_difference

Values = np.ndarray[Any, np.dtype[np.float64]]

CONFIDENCE = 0.95
RESULTS = Path(__file__).parent / "results" / "interval_coverage.json"
ROWS = (30, 100, 300, 1000, 3000)
SCORES = (0.5, 0.8, 0.95, 0.99)
PAIRS = {"80 : 75 %, rows agree often": (0.10, 0.05), "95 : 93 %": (0.04, 0.02), "99 : 99 %": (0.005, 0.005),
         "80 : 60 %, rows agree seldom": (0.30, 0.10)}  # fmt: skip
CLASSES = 5
POPULATIONS = {"even classes, accuracy 80 %": (0.8, 1.0), "even classes, accuracy 95 %": (0.95, 1.0),
               "classes 1 : 16, accuracy 80 %": (0.8, 2.0), "classes 1 : 16, accuracy 95 %": (0.95, 2.0),
               "even classes, accuracy 99 %": (0.99, 1.0)}  # fmt: skip
# Shares of rows that the first has right, the second, and both; sizes of the classes as above.
MACRO_PAIRS = {"95 : 93 %, even classes": (0.95, 0.93, 0.91, 1.0), "99 : 99 %, even classes": (0.99, 0.99, 0.985, 1.0),
               "80 : 75 %, even classes": (0.80, 0.75, 0.70, 1.0), "95 : 93 %, classes 1 : 16": (0.95, 0.93, 0.91, 2.0),
               "80 : 75 %, classes 1 : 16": (0.80, 0.75, 0.70, 2.0)}  # fmt: skip


def percentile(values: Values) -> tuple[Values, Values]:
    """Take the percentile interval of each case, (cases, resamples)."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail], axis=1)
    return low, high


def wilson(hits: Values, rows: int) -> tuple[Values, Values]:
    """Compute Wilson's interval of each case."""
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), hits / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return centre - half, centre + half


def bonett_price(only_first: Values, only_second: Values, rows: int) -> tuple[Values, Values]:
    """Compute the adjusted Wald interval of the paired difference of shares of each case."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    one, two = (only_first + 1) / (rows + 2), (only_second + 1) / (rows + 2)
    half = z * np.sqrt((one + two - (one - two) ** 2) / (rows + 2))
    return one - two - half, one - two + half


def covered(ends: tuple[Values, Values], truth: float) -> dict[str, float]:
    """Count the cases whose interval holds the truth; an end may meet it up to rounding."""
    low, high = ends
    inside = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    return {"covered": float(inside.mean()), "width": float(np.mean(high - low))}


def of_accuracy(draw: np.random.Generator, rows: int, truth: float, cases: int, resamples: int) -> dict[str, Any]:
    hits = draw.binomial(rows, truth, cases).astype(float)
    resampled = draw.binomial(rows, (hits / rows)[:, None], (cases, resamples)) / rows
    low, high = percentile(resampled)
    flat = low == high  # every row right, or none: the percentile interval is a point
    ends = wilson(hits, rows)
    return {"percentile": covered((np.where(flat, ends[0], low), np.where(flat, ends[1], high)), truth),
            "wilson": covered(ends, truth)}  # fmt: skip


def of_difference(
    draw: np.random.Generator, rows: int, shares: tuple[float, float], cases: int, resamples: int
) -> dict[str, Any]:
    counts = draw.multinomial(rows, [*shares, 1 - sum(shares)], cases)
    resampled = draw.multinomial(rows, (counts / rows)[:, None], (cases, resamples))
    values = (resampled[..., 0] - resampled[..., 1]) / rows
    one, two = (counts[:, at].astype(float) for at in (0, 1))
    truth = shares[0] - shares[1]
    return {"percentile": covered(percentile(values), truth),
            "bonett-price": covered(bonett_price(one, two, rows), truth)}  # fmt: skip


def population(accuracy: float, ratio: float) -> Values:
    """Return the shares of true and predicted classes, (C, C): class k is `ratio` times as frequent as the next."""
    sizes = ratio ** -np.arange(CLASSES, dtype=float)
    wrong = np.random.default_rng(7).dirichlet(np.ones(CLASSES - 1), CLASSES)
    table = np.zeros((CLASSES, CLASSES))
    for true in range(CLASSES):
        table[true, np.arange(CLASSES) != true] = (1 - accuracy) * wrong[true]
        table[true, true] = accuracy
    found: Values = table * (sizes / sizes.sum())[:, None]
    return found


def macro_f1(counts: Values) -> Values:
    """Compute macro-F1 of confusion matrices, (..., C, C), as the metric does: absent classes are left out."""
    both = counts.sum(-1) + counts.sum(-2)
    scores = np.divide(2 * np.diagonal(counts, axis1=-2, axis2=-1), both, out=np.zeros_like(both), where=both > 0)
    found: Values = scores.sum(-1) / (both > 0).sum(-1)
    return found


def of_macro_f1(draw: np.random.Generator, rows: int, table: Values, cases: int, resamples: int) -> dict[str, Any]:
    flat = draw.multinomial(rows, table.ravel(), cases).astype(float)
    values, adjusted = np.empty((cases, resamples)), (np.empty(cases), np.empty(cases))
    wider = np.empty((cases, resamples))
    for case in range(cases):
        drawn = draw.multinomial(rows, flat[case] / rows, resamples).astype(float)
        values[case] = macro_f1(drawn.reshape(-1, CLASSES, CLASSES))
        for end, found in zip(adjusted, bca(values[case], flat[case]), strict=True):
            end[case] = found
        wider[case] = macro_f1(smoothed(draw, flat[case], resamples))
    truth, own = float(macro_f1(table)), macro_f1(flat.reshape(-1, CLASSES, CLASSES))
    low, high = percentile(wider)
    return {"percentile": covered(percentile(values), truth), "bca": covered(adjusted, truth),
            "a right and a wrong row more": covered((np.minimum(low, own), np.maximum(high, own)), truth)}  # fmt: skip


def smoothed(draw: np.random.Generator, counts: Values, resamples: int) -> Values:
    """Draw confusion matrices, (resamples, C, C), after a right and a wrong row were added to one."""
    mass = counts + added_rows(counts.reshape(CLASSES, CLASSES)).ravel()
    drawn = draw.multinomial(int(counts.sum()), mass / mass.sum(), resamples)
    return drawn.astype(float).reshape(-1, CLASSES, CLASSES)


def both_populations(first: float, second: float, both: float, ratio: float) -> Values:
    """Return the shares of true class and both models' answers, (C, C, C); where both are wrong, they answer alike."""
    sizes, found = ratio ** -np.arange(CLASSES, dtype=float), np.zeros((CLASSES, CLASSES, CLASSES))
    wrong = np.random.default_rng(7).dirichlet(np.ones(CLASSES - 1), CLASSES)
    for true in range(CLASSES):
        others = np.flatnonzero(np.arange(CLASSES) != true)
        found[true, true, true] = both
        found[true, true, others] = (first - both) * wrong[true]
        found[true, others, true] = (second - both) * wrong[true]
        found[true, others, others] = (1 - first - second + both) * wrong[true]
    scaled: Values = found * (sizes / sizes.sum())[:, None, None]
    return scaled


def macro_gain(counts: Values) -> Values:
    """Compute macro-F1 of the first model minus that of the second, (..., C, C, C)."""
    return macro_f1(counts.sum(-1)) - macro_f1(counts.sum(-2))


def differing(counts: Values) -> Values:
    """Spread the two added rows of a pair, (C, C, C), of sum 2, as the package draws them."""
    shares = counts.sum((1, 2)) / counts.sum()
    wrong = np.tile(shares + 1e-9, (CLASSES, 1)) * (1 - np.eye(CLASSES))
    mass = wrong / wrong.sum(1, keepdims=True) * shares[:, None]
    found = np.zeros((CLASSES, CLASSES, CLASSES))
    for true in range(CLASSES):
        found[true, true, :] += mass[true]
        found[true, :, true] += mass[true]
    return found


def of_macro_difference(
    draw: np.random.Generator, rows: int, table: Values, cases: int, resamples: int
) -> dict[str, Any]:
    flat, shape = draw.multinomial(rows, table.ravel(), cases).astype(float), (-1, *table.shape)
    values, wider = np.empty((cases, resamples)), np.empty((cases, resamples))
    for case, counts in enumerate(flat):
        values[case] = macro_gain(draw.multinomial(rows, counts / rows, resamples).reshape(shape).astype(float))
        mass = counts + differing(counts.reshape(table.shape)).ravel()
        wider[case] = macro_gain(draw.multinomial(rows, mass / mass.sum(), resamples).reshape(shape).astype(float))
    truth, own = float(macro_gain(table)), macro_gain(flat.reshape(shape))
    low, high = percentile(wider)
    return {"percentile": covered(percentile(values), truth),
            "two differing rows more": covered((np.minimum(low, own), np.maximum(high, own)), truth)}  # fmt: skip


def bca(values: Values, counts: Values) -> tuple[float, float]:
    """Compute Efron's bias-corrected and accelerated interval of macro-F1; rows of one cell leave alike."""
    normal, value = NormalDist(), float(macro_f1(counts.reshape(CLASSES, CLASSES)))
    below = (np.sum(values < value) + 0.5 * np.sum(values == value)) / len(values)
    bias = normal.inv_cdf(min(max(below, 1 / len(values)), 1 - 1 / len(values)))
    filled = np.flatnonzero(counts)
    without = np.repeat(counts[None], len(filled), 0)
    without[np.arange(len(filled)), filled] -= 1
    left, weights = macro_f1(without.reshape(-1, CLASSES, CLASSES)), counts[filled]
    gaps = np.average(left, weights=weights) - left
    spread = float((weights * gaps**2).sum())
    speed = float((weights * gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for tail in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        z = bias + normal.inv_cdf(tail)
        ends.append(float(np.percentile(values, 100 * normal.cdf(bias + z / (1 - speed * z)))))
    return ends[0], ends[1]


def agrees(resamples: int) -> dict[str, float]:
    """Compare intervals on counts with those of the package, on the same rows; differences are of drawing alone."""
    draw, found = np.random.default_rng(1), {}
    table, rows = population(0.8, 1.0), 300
    cells = draw.choice(CLASSES * CLASSES, rows, p=table.ravel())
    counts = np.bincount(cells, minlength=CLASSES * CLASSES)
    one = Predictions(np.eye(CLASSES)[cells % CLASSES], cells // CLASSES)
    other = Predictions(np.eye(CLASSES)[np.where(draw.random(rows) < 0.1, 0, cells % CLASSES)], cells // CLASSES)
    bootstrap = Bootstrap(20 * resamples, CONFIDENCE)
    macro, accuracy = (estimate(one, [metric], bootstrap)[metric.name] for metric in
                       metrics_by_name(["macro-f1", "accuracy"]))  # fmt: skip
    ends = percentile(macro_f1(smoothed(draw, counts.astype(float), 20 * resamples))[None])
    found["macro-f1"] = max(abs(macro.low - ends[0][0]), abs(macro.high - ends[1][0]))
    ends = wilson(np.array([float(one.correct.sum())]), rows)
    found["accuracy"] = max(abs(accuracy.low - ends[0][0]), abs(accuracy.high - ends[1][0]))
    gain = paired_difference(one, other, metrics_by_name(["accuracy"])[0], bootstrap).estimate
    first, second = (one.correct & ~other.correct).sum(), (other.correct & ~one.correct).sum()
    shares = np.array([first, second, rows - first - second]) / rows
    values = draw.multinomial(rows, shares, 20 * resamples)
    ends = percentile(((values[:, 0] - values[:, 1]) / rows)[None])
    found["difference"] = max(abs(gain.low - ends[0][0]), abs(gain.high - ends[1][0]))
    gain = paired_difference(one, other, metrics_by_name(["macro-f1"])[0], bootstrap).estimate
    joint = np.zeros((CLASSES, CLASSES, CLASSES))
    np.add.at(joint, (one.references, one.predicted, other.predicted), 1)
    mass = joint + differing(joint)
    drawn = draw.multinomial(rows, (mass / mass.sum()).ravel(), 20 * resamples).astype(float)
    ends = percentile(macro_gain(drawn.reshape(-1, *joint.shape))[None])
    found["difference of macro-f1"] = max(abs(gain.low - ends[0][0]), abs(gain.high - ends[1][0]))
    return {name: float(value) for name, value in found.items()}


def measure(cases: int, resamples: int) -> list[dict[str, Any]]:
    draw, lines = np.random.default_rng(0), []
    for rows in ROWS:
        for truth in SCORES:
            found = of_accuracy(draw, rows, truth, cases, resamples)
            lines.append({"score": "accuracy", "case": f"{100 * truth:g} %", "rows": rows, "intervals": found})
        for name, shares in PAIRS.items():
            found = of_difference(draw, rows, shares, cases, resamples)
            lines.append({"score": "difference of accuracy", "case": name, "rows": rows, "intervals": found})
        for name, facts in POPULATIONS.items():
            found = of_macro_f1(draw, rows, population(*facts), cases, resamples)
            lines.append({"score": "macro-f1", "case": name, "rows": rows, "intervals": found})
        for name, shares_and_ratio in MACRO_PAIRS.items():
            found = of_macro_difference(draw, rows, both_populations(*shares_and_ratio), cases, resamples)
            lines.append({"score": "difference of macro-f1", "case": name, "rows": rows, "intervals": found})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    lines = measure(given.cases, given.resamples)
    for line in lines:
        said = [f"{name} {100 * one['covered']:5.1f} % (width {one['width']:.3f})" for name, one in
                line["intervals"].items()]  # fmt: skip
        print(f"{line['score']:24}{line['case']:32}{line['rows']:6}   {'   '.join(said)}")
    facts = {"cases": given.cases, "resamples": given.resamples, "confidence": CONFIDENCE}
    RESULTS.write_text(json.dumps({**facts, "agreement": agrees(given.resamples), "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
