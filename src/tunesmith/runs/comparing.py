"""Measure baselines and the tuned model alike: scores with intervals, time, memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tunesmith.core.arrays import Array
from tunesmith.core.errors import CompatibilityError
from tunesmith.core.memory import peak_bytes, restart_peak
from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.data.tokens import tokenize
from tunesmith.evaluation.baselines.base import Material
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.report import Contender
from tunesmith.evaluation.statistics import Bootstrap, Difference, Estimate, Result, estimate, paired_difference
from tunesmith.runs.session import Session
from tunesmith.tasks.running import extract_features
from tunesmith.training.corpus import Corpus
from tunesmith.training.ranking import rankable


@dataclass
class Cost:
    """Time and memory of a stage.

    Args:
        seconds: of wall-clock time.
        peak_bytes: most memory the process (on a GPU, torch) held during it.
    """

    seconds: float = 0.0
    peak_bytes: int = 0

    def plus(self, other: Cost) -> Cost:
        """Put two stages together: times add, the higher peak stays.

        Args:
            other: another stage.
        Returns:
            The cost of both.
        """
        return Cost(self.seconds + other.seconds, max(self.peak_bytes, other.peak_bytes))


class Meter:
    """Measures stages and remembers the highest peak.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.peak_bytes = peak_bytes()

    @contextmanager
    def stage(self) -> Iterator[Cost]:
        """Measure one stage.

        Returns:
            A cost that is filled in when the block ends.
        """
        cost, began = Cost(), time.perf_counter()
        restart_peak()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            yield cost
        finally:
            cost.seconds = time.perf_counter() - began
            cost.peak_bytes = torch.cuda.max_memory_allocated() if self._cuda else peak_bytes()
            self.peak_bytes = max(self.peak_bytes, cost.peak_bytes)


@dataclass
class Scored:
    """A contender's predictions and scores on every evaluated split.

    Args:
        name: of the baseline or method.
        predictions: by split.
        scores: by split and metric.
        share: trainable over the model's parameters. [fraction]
        cost: of learning and predicting.
    """

    name: str
    predictions: dict[str, Result]
    share: float
    cost: Cost
    scores: dict[str, dict[str, Estimate]] = field(default_factory=dict)

    def contender(self, split: str) -> Contender:
        """Return the line of the report's table.

        Args:
            split: that is compared.
        Returns:
            The line.
        """
        return Contender(self.name, self.scores[split], self.share, self.cost.seconds, self.cost.peak_bytes)


@dataclass(frozen=True)
class Judge:
    """How everything is scored.

    Args:
        metrics: in order.
        bootstrap: behind the intervals.
        splits: that are evaluated.
    """

    metrics: Sequence[Metric]
    bootstrap: Bootstrap
    splits: list[str]

    def score(self, scored: Scored) -> Scored:
        """Fill in the scores.

        Args:
            scored: with predictions.
        Returns:
            The same object.
        """
        scored.scores = {
            split: estimate(found, self.metrics, self.bootstrap) for split, found in scored.predictions.items()
        }
        return scored

    def brief(self, found: Result) -> dict[str, dict[str, float]]:
        """Score by the first two metrics.

        Args:
            found: what a contender did.
        Returns:
            "value", "low" and "high" by metric.
        """
        return {name: one.plain() for name, one in estimate(found, self.metrics[:2], self.bootstrap).items()}

    def paired(self, ours: Result, theirs: Result) -> dict[str, dict[str, float]]:
        """Compare two contenders on the same rows.

        Args:
            ours: of one.
            theirs: of the other.
        Returns:
            How much better ours is, "value" with "low", "high" and "p_value", for each of the first two metrics.
        """
        found = [paired_difference(ours, theirs, metric, self.bootstrap) for metric in self.metrics[:2]]
        return {one.metric: {**one.estimate.plain(), "p_value": one.p_value} for one in found}

    def gain(self, ours: Scored, others: Sequence[Scored], split: str) -> list[Difference]:
        """Compare the tuned model with the best baseline, metric by metric.

        Args:
            ours: the tuned model.
            others: the baselines.
            split: to compare on.
        Returns:
            A difference for the first two metrics; none without baselines.
        """
        if not others:
            return []
        first = self.metrics[0]
        sign = -1 if first.higher_is_better else 1
        best = min(others, key=lambda other: rankable(sign * other.scores[split][first.name].value))
        return [
            paired_difference(ours.predictions[split], best.predictions[split], metric, self.bootstrap)
            for metric in self.metrics[:2]
        ]


@dataclass
class Frozen:
    """Features of the untuned model.

    Args:
        features: by split, (rows, D).
        costs: by split.
    """

    features: dict[str, torch.Tensor]
    costs: dict[str, Cost]


def frozen_features(
    session: Session, corpus: Corpus, splits: Sequence[str], meter: Meter, progress: Progress
) -> Frozen:
    """Run the untuned model once over the splits; baselines and the head's start share the pass.

    Args:
        session: no delta active.
        corpus: the splits.
        splits: which.
        meter: of cost.
        progress: for the user.
    Returns:
        The features.
    """
    found = Frozen({}, {})
    for name in splits:
        tokens = corpus.splits[name].tokens
        with meter.stage() as cost, progress.stage(f"features of {name}", len(tokens)) as bar:
            found.features[name] = extract_features(session.backbone, session.task, tokens, bar)
        found.costs[name] = cost
    return found


def _widened(probabilities: Array, classes: int) -> Array:
    """Give what is out of scope no share: baselines do not know it."""
    rows, known = probabilities.shape
    return np.concatenate([probabilities, np.zeros((rows, classes - known))], 1)


def embed(session: Session, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Compute the features of texts with the delta that is active.

    Args:
        session: the model.
        texts: any.
    Returns:
        (texts, D).
    Raises:
        CompatibilityError: the model does not read text.
    """
    if session.tokenizer is None:
        raise CompatibilityError(
            f"{session.source.wanted} reads no text, so labels' texts are nothing to it. Choose a head that starts "
            "from examples, and leave the baseline zero-shot out."
        )
    tokens = tokenize(session.tokenizer, texts, session.max_tokens)
    return extract_features(session.backbone, session.task, tokens).numpy()


def label_features(session: Session, corpus: Corpus) -> Array:
    """Compute what labels' texts look like to the model: the direction of a label's texts, their mean where several.

    Args:
        session: the model, with the delta that is active.
        corpus: with the texts.
    Returns:
        (C, D), of length one, float64.
    """
    owners = [code for code, texts in enumerate(corpus.label_texts) for _ in texts]
    found = embed(session, [text for texts in corpus.label_texts for text in texts]).astype(np.float64)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((len(corpus.label_texts), found.shape[1]))
    np.add.at(sums, owners, found)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def run_baselines(
    names: Sequence[str], session: Session, corpus: Corpus, frozen: Frozen, judge: Judge, meter: Meter, seed: int
) -> list[Scored]:
    """Carry out baselines.

    Args:
        names: which.
        session: no delta active.
        corpus: the splits.
        frozen: features of train and of the evaluated splits.
        judge: scores them.
        meter: of cost.
        seed: of the run.
    Returns:
        In the order of the names.
    """

    material = Material(
        features={name: features.numpy() for name, features in frozen.features.items()},
        labels={name: split.labels for name, split in corpus.splits.items()},
        label_names=corpus.label_names[: len(corpus.label_texts)],
        embed=lambda texts: embed(session, texts),
        label_features=lambda: label_features(session, corpus),
        width=session.backbone.width,
        seed=seed,
    )
    results = []
    for name in names:
        baseline = find("baselines", name)()
        with meter.stage() as cost:
            found = baseline.predict(material, judge.splits)
        learns = baseline.trainable(material)
        read = [*(["train"] if learns else []), *judge.splits] if baseline.needs_features else []
        for split in read:
            cost = cost.plus(frozen.costs[split])
        predictions: dict[str, Result] = {
            split: Predictions(_widened(found[split], len(corpus.label_names)), material.labels[split])
            for split in judge.splits
        }
        results.append(judge.score(Scored(name, predictions, learns / session.backbone.parameters, cost)))
    return results
