"""What a loop reads of a trial while its delta is attached: answers on validation, on rows that trained, and facts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from tunesmith.core.registry import find
from tunesmith.core.seeds import derived
from tunesmith.evaluation.metrics.base import Metric, is_share
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result
from tunesmith.runs.family import Family
from tunesmith.runs.labelling import Labelling
from tunesmith.search.errors_seen import Answers, Errors
from tunesmith.search.evidence import Known
from tunesmith.tasks.heads.base import RowsHead
from tunesmith.tasks.rejecting import plain
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.taking import taken
from tunesmith.training.trial import Trial

_SAMPLE = 512  # rows that trained on which is looked how well they are answered
_EACH = 50  # texts of a label that adjustments may read


def compared_by(metric: str, labelled: bool) -> Metric:
    """Find the metric that trials are compared by, row by row.

    Args:
        metric: that decides; "validation loss" too.
        labelled: whether rows have labels.
    Returns:
        The metric.
    """
    loss = "log-loss" if labelled else "nats-per-token"
    found: Metric = find("metrics", loss if metric == "validation loss" else metric)()
    return found


@torch.no_grad()
def _on_trained(family: Labelling, tuned: Tuned) -> Predictions:
    """Answer rows that trained; a head that keeps rows does not answer a row from itself."""
    split = family.corpus.splits["train"]
    draw = np.random.default_rng(derived(0, "rows that trained"))
    rows = np.sort(draw.permutation(len(split.labels))[:_SAMPLE])
    some, head = taken(split, rows), plain(tuned.head)
    if not isinstance(head, RowsHead):
        return Predictions(tuned.probabilities(some.tokens).numpy(), some.labels)
    device = tuned.backbone.device
    logits = head.eval().learn(tuned.features(some.tokens).to(device), torch.from_numpy(rows).to(device))
    return Predictions(logits.double().softmax(-1).cpu().numpy(), some.labels)


def errors_of(family: Family, trial: Trial, result: Result, metric: str) -> Errors:
    """Sum up what a trial gets wrong on validation.

    Args:
        family: its model and rows.
        trial: with the kept state.
        result: what it did on validation.
        metric: that decides.
    Returns:
        The errors.
    """
    history, split = trial.trained.history, family.corpus.splits["validation"]
    curve = [row[metric] for row in history if metric in row]
    facts: dict[str, Any] = {
        "curve": curve, "best_epoch": trial.trained.best_epoch, "epochs": trial.epoch,
    }  # fmt: skip
    if isinstance(family, Labelling):
        names, labels = family.corpus.label_names, family.corpus.splits["train"].labels
        counts = np.bincount(labels, minlength=len(names))
        trained = _on_trained(family, trial.tuned)
        answers = Answers(result, split, trained, compared_by(metric, True), names, counts)
        return answers.errors(**facts)
    by = compared_by(metric, False)
    found = Answers(result, split, result, by, [], np.zeros(0)).errors(**facts)
    return Errors.of({**found.plain(), "trained_score": _trained_likelihood(trial, by, found.score)})


def _trained_likelihood(trial: Trial, metric: Metric, score: float) -> float:
    """Read the likelihood of rows that trained off the last epoch's loss; the score itself where it says nothing."""
    losses = [row["train loss"] for row in trial.trained.history if "train loss" in row]
    if not losses or metric.name not in ("perplexity", "nats-per-token"):
        return score
    return math.exp(min(losses[-1], 50.0)) if metric.name == "perplexity" else float(losses[-1])


def known_of(family: Family, metric: str, higher_is_better: bool) -> Known:
    """Gather what starts and adjustments may read of a task; nothing of it comes from test.

    Args:
        family: model and rows.
        metric: that decides.
        higher_is_better: its direction.
    Returns:
        It.
    """
    split, session = family.corpus.splits["train"], family.session
    share = metric != "validation loss" and is_share(metric)
    config = getattr(session.backbone.model, "config", None)
    places = getattr(config, "max_position_embeddings", None) or session.max_tokens
    biases = bool(session.backbone.seams.biases())
    if not isinstance(family, Labelling):
        return Known([], [], len(split.index), metric, higher_is_better, share, {}, int(places), biases)
    names = family.corpus.label_names
    counts = np.bincount(split.labels, minlength=len(names))
    texts = {}
    if session.tokenizer is not None:
        texts = {
            name: [split.text(int(row)) for row in np.flatnonzero(split.labels == code)[:_EACH]]
            for code, name in enumerate(names)
        }
    return Known(names, counts.tolist(), len(split.index), metric, higher_is_better, share, texts, int(places), biases)
