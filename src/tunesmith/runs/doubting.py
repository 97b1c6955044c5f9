"""Cleaning steps that read the frozen model's features, once the model is at hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from tunesmith.core.seeds import derived
from tunesmith.data.audit import class_counts
from tunesmith.data.cleaning.base import Filter, Rows, Verdict, build_steps
from tunesmith.data.splitting import Index
from tunesmith.recipe.loading import Checked
from tunesmith.runs.session import Session
from tunesmith.tasks.running import extract_features
from tunesmith.training.cleaning import check_left, cleaning_sentences
from tunesmith.training.corpus import Corpus, Split, check_coverage
from tunesmith.training.findings import list_findings


def clean_by_features(checked: Checked, session: Session, corpus: Corpus) -> Corpus:
    """Carry out the steps that need features, on the training rows that the other steps left.

    Args:
        checked: the recipe.
        session: its model, before any delta.
        corpus: its data.
    Returns:
        The data without the rows that were dropped, labels corrected.
    Raises:
        DataError: no row is left, or none of a label.
    """
    filters = [step for step in build_steps(checked.recipe.data.cleaning) if isinstance(step, Filter)]
    steps = [step for step in filters if step.needs_features]
    if not steps:
        return corpus
    features = extract_features(session.backbone, session.task, corpus.splits["train"].tokens).numpy()
    for step in steps:
        train = corpus.splits["train"]
        seed = derived(checked.recipe.split_seed, step.name)
        verdicts = step.judge(Rows([], train.labels, corpus.label_names, seed, partial(np.asarray, features)))
        findings = [*corpus.findings, *list_findings(step.name, verdicts, train.examples, train.index)]
        kept = _kept(verdicts, len(train.index))
        cleaned, features = _without(train, verdicts, kept, step.name, corpus.label_names), features[kept]
        check_left(len(cleaned.index), len(train.index), train.examples, findings)
        splits = {**corpus.splits, "train": cleaned}
        check_coverage(splits, corpus.label_names, train.examples.label_names)
        said = cleaning_sentences([step], [], findings)
        corpus = replace(corpus, splits=splits, findings=findings, warnings=[*corpus.warnings, *said])
    return corpus


def _kept(verdicts: dict[int, Verdict], rows: int) -> Index:
    """Return the rows that are not dropped."""
    gone = [row for row, verdict in verdicts.items() if verdict.what == "dropped"]
    return np.setdiff1d(np.arange(rows), gone)


def _without(split: Split, verdicts: dict[int, Verdict], kept: Index, step: str, names: list[str]) -> Split:
    """Drop rows, correct labels, and let rows weigh less."""
    labels, weights, soft = split.labels.copy(), split.weights, split.soft
    lighter = {row: verdict.weight for row, verdict in verdicts.items() if verdict.what == "weighted"}
    if lighter:
        weights = np.ones(len(labels)) if weights is None else weights.copy()
        weights[list(lighter)] *= list(lighter.values())
    corrected = {row: verdict.label for row, verdict in verdicts.items() if verdict.label is not None}
    if corrected:
        labels[list(corrected)] = list(corrected.values())
    if corrected and soft is not None:
        soft = soft.copy()
        soft[list(corrected)] = np.eye(len(names), dtype=soft.dtype)[list(corrected.values())]
    gone = len(labels) - len(kept)
    dropped = {**split.audit.dropped, **({step: gone} if gone else {})}
    facts = replace(split.audit, rows=len(kept), dropped=dropped)
    if len(kept):
        facts = replace(facts, classes=class_counts(labels[kept], names))
    return replace(
        split,
        index=split.index[kept],
        labels=labels[kept],
        tokens=split.tokens.take(kept),
        audit=facts,
        soft=None if soft is None else soft[kept],
        weights=None if weights is None else weights[kept],
    )
