"""How good plans will be: what was measured on the rows, and published results where they fit; else unknown."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived
from tunesmith.data.splitting import grouped_share
from tunesmith.evaluation.baselines.base import Material
from tunesmith.evaluation.learning_curve import power_law
from tunesmith.runs.comparing import label_features
from tunesmith.runs.labelling import Labelling
from tunesmith.search.guessing import Given
from tunesmith.search.proposals.base import Proposal
from tunesmith.training.corpus import row_hashes

_HELD = 0.25  # share of the rows that are held out of a probe
_DRAWS, _SIZES = 3, (0.25, 0.5, 1.0)  # repetitions, and shares of the rows that a probe learns from
_RESAMPLES, _ENDS = 1000, (2.5, 97.5)
_LEAST = 24  # rows below which nothing can be held out and counted
_ONE = 1e-12


@dataclass(frozen=True)
class Band:
    """A predicted accuracy.

    Args:
        low: end of the band. [fraction]
        value: the middle. [fraction]
        high: end. [fraction]
        evidence: what it was read off, in words.
    """

    low: float
    value: float
    high: float
    evidence: str

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"metric": "accuracy", **vars(self)}


@dataclass(frozen=True)
class Curve:
    """Errors of the probe on held-out rows, by rows that it learned from.

    Args:
        rows: of each size. [count]
        wrong: (sizes, answers), whether each held-out answer is wrong.
        held: (answers,), number of the row that each is to; one held out in several draws is answered several times,
            and copies are one row.
    """

    rows: Array
    wrong: Array
    held: Codes

    def at(self, rows: float, seed: int) -> tuple[float, float, float]:
        """Predict the accuracy with more rows: a power law through the errors, error = a rows^-b, with 0 <= b <= 1.

        Rows beyond the largest size may help half as much as the law says, or as much; the band holds both, and the
        chance of the draw of held-out rows. One right and one wrong row are added to those (Laplace's rule of
        succession): where none is wrong, drawing among them alone would leave no doubt.

        Args:
            rows: to learn from. [count]
            seed: of the resamples.
        Returns:
            Low end, middle and high end.
        Source: Cortes et al. 1994, Learning curves: asymptotic values and rate of convergence.
        """
        draw, places = np.random.default_rng(seed), np.unique([*self.held, -1, -2], return_inverse=True)[1]
        distinct = int(places.max()) + 1  # rows are drawn, not answers: those to one row are hardly independent
        weights = draw.multinomial(distinct, np.full(distinct, 1 / distinct), _RESAMPLES)[:, places]
        wrong = np.pad(self.wrong, ((0, 0), (0, 2)))
        wrong[:, -1] = 1
        errors = np.maximum(weights @ wrong.T / weights.sum(1, keepdims=True), 0.5 / len(places))
        steps = np.log(self.rows) - np.log(self.rows).mean()
        slopes = np.clip(-(np.log(errors) @ steps) / max(float(steps @ steps), _ONE), 0.0, 1.0)
        far = max(rows / self.rows[-1], 1e-3)
        ends = [power_law(far, 1.0, errors[:, -1], share * slopes) for share in (0.5, 1.0)]
        both = np.sort(np.stack(ends), 0)
        low, high = np.percentile(both[0], _ENDS[0]), np.percentile(both[1], _ENDS[1])
        return tuple(float(np.clip(one, 0.0, 1.0)) for one in (low, both.mean(), high))  # type: ignore[return-value]


class Scores:
    """What the sample's rows say about scores; test rows are not looked at.

    Args:
        given: what is planned for.
        family: model and rows, with features of the frozen model.
        rows: that will train. [count]
        seed: of what is drawn.
    """

    def __init__(self, given: Given, family: Labelling, rows: float, seed: int) -> None:
        self.given, self.rows, self.seed = given, rows, seed
        split, self._family = family.corpus.splits["train"], family
        self.labels = split.labels
        self.features = family.frozen.features["train"].numpy()
        hashes = row_hashes(family.session.reads, split.examples, split.index)
        self.copies = np.unique(hashes, return_inverse=True)[1]
        self.probe = self._probe()

    def _material(self, kept: Codes, held: Codes) -> Material:
        family = self._family
        return Material(
            features={"train": self.features[kept], "held": self.features[held]},
            labels={"train": self.labels[kept], "held": self.labels[held]},
            label_names=family.corpus.label_names[: len(family.corpus.label_texts)],
            embed=lambda texts: self.features[:0],
            label_features=lambda: label_features(family.session, family.corpus),
            width=self.features.shape[1],
            seed=self.seed,
        )

    def _probe(self) -> Band | None:
        """Fit probes to growing parts of the rows, score rows held out with their copies, and go on with the curve."""
        if len(self.labels) < _LEAST or np.unique(self.labels, return_counts=True)[1].min() < 2:
            return None
        sizes, wrong, answered = list[int](), [list[Array]() for _ in _SIZES], list[Codes]()
        for number in range(_DRAWS):
            kept, held = grouped_share(self.labels, self.copies, _HELD, derived(self.seed, f"plan {number}"))
            kept = np.random.default_rng(derived(self.seed, f"plan rows {number}")).permutation(kept)
            if not len(held):
                return None
            answered.append(self.copies[held])
            sizes = [max(2, int(len(kept) * share)) for share in _SIZES]
            for place, size in enumerate(sizes):
                found = self._answered(kept[:size], held)
                wrong[place].append((found.argmax(1) != self.labels[held]).astype(np.float64))
        table = np.stack([np.concatenate(one) for one in wrong])
        curve = Curve(np.array(sizes, dtype=np.float64), table, np.concatenate(answered))
        low, value, high = curve.at(self.rows, derived(self.seed, "plan resamples"))
        evidence = (
            f"linear probe on {sizes[-1]:,} of the rows, {curve.wrong.shape[1]:,} held-out answers, its learning curve "
            f"taken on to {self.rows:,.0f} rows"
        )
        return Band(low, value, high, evidence)

    def _answered(self, kept: Codes, held: Codes) -> Array:
        """Fit a probe to rows and answer others; that labels have few rows each is known."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
            return find("baselines", "linear-probe")().predict(self._material(kept, held), ["held"])["held"]

    def zero_shot(self) -> Band:
        """Count how often labels' names are nearest to the rows; nothing is learned from them.

        Returns:
            The band: chance of the draw of rows.
        """
        every = np.arange(len(self.labels))
        found = find("baselines", "zero-shot")().predict(self._material(every, every), ["held"])["held"]
        right = found.argmax(1) == self.labels
        draw = np.random.default_rng(derived(self.seed, "plan zero-shot"))
        means = draw.binomial(len(right), right.mean(), _RESAMPLES) / len(right)
        low, high = np.percentile(means, _ENDS)
        return Band(float(low), float(right.mean()), float(high), f"measured on {len(right):,} rows by labels' names")

    def of(self, proposal: Proposal) -> Band | None:
        """Return the score to expect of a proposal.

        Args:
            proposal: it.
        Returns:
            The band; None where nothing is known.
        """
        if proposal.score == "zero-shot":
            return self.zero_shot()
        if proposal.score == "probe" or self.probe is None:
            return self.probe if proposal.score == "probe" else None
        fitting = [one for one in proposal.published if one.fits(self.given, "linear-probe")]
        if not fitting:
            return None
        known, spared, probe = fitting[0], fitting[0].spared, self.probe
        low, high = (
            1 - (1 - end) * (1 - share) for end, share in ((probe.low, min(spared)), (probe.high, max(spared)))
        )
        middle = 1 - (1 - probe.value) * (1 - sum(spared) / len(spared))
        shares = f"{100 * min(spared):.0f} to {100 * max(spared):.0f} %"
        evidence = (
            f"transfer: it spared {shares} of the probe's errors on {known.data} ({known.where}, {len(spared)} seeds)"
        )
        return Band(low, middle, high, evidence)

    def standing(self, proposal: Proposal) -> float:
        """Return what orders plans: the band's middle, or where it is unknown, the probe and published errors spared.

        Args:
            proposal: it.
        Returns:
            An accuracy, for the order alone. [fraction]
        """
        band = self.of(proposal)
        if band is not None:
            return band.value
        base = 0.5 if self.probe is None else self.probe.value
        return 1 - (1 - base) * (1 - proposal.spared(self.given))
