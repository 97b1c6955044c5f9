"""Cleaning steps that read the frozen model's features, once the model is at hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tunesmith.core.seeds import derived
from tunesmith.data.audit import class_counts
from tunesmith.data.cleaning.base import Filter, Rows, Verdict, build_steps
from tunesmith.recipe.loading import Checked
from tunesmith.runs.session import Session
from tunesmith.tasks.running import extract_features
from tunesmith.training.cleaning import check_left, cleaning_sentences, list_findings
from tunesmith.training.corpus import Corpus, Split, check_coverage


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
    steps = [step for step in build_steps(checked.recipe.data.cleaning) if isinstance(step, Filter)]
    for step in steps:
        if not step.needs_features:
            continue
        train = corpus.splits["train"]

        def features(tokens: object = train.tokens) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
            return extract_features(session.backbone, session.task, tokens).numpy()  # type: ignore[arg-type]

        seed = derived(checked.recipe.split_seed, step.name)
        verdicts = step.judge(Rows([], train.labels, corpus.label_names, seed, features))
        findings = [*corpus.findings, *list_findings(step.name, verdicts, train.examples, train.index)]
        cleaned = _without(train, verdicts, step.name, corpus.label_names)
        check_left(len(cleaned.index), len(train.index), train.examples, findings)
        splits = {**corpus.splits, "train": cleaned}
        check_coverage(splits, corpus.label_names, train.examples.label_names)
        said = cleaning_sentences([step], [], findings)
        corpus = replace(corpus, splits=splits, findings=findings, warnings=[*corpus.warnings, *said])
    return corpus


def _without(split: Split, verdicts: dict[int, Verdict], step: str, names: list[str]) -> Split:
    """Drop rows, correct labels, and let rows weigh less."""
    labels, weights, soft = split.labels.copy(), split.weights, split.soft
    lighter = {row: verdict.weight for row, verdict in verdicts.items() if verdict.what == "weighted"}
    if lighter:
        weights = np.ones(len(labels)) if weights is None else weights.copy()
        weights[list(lighter)] *= list(lighter.values())
    for row, verdict in verdicts.items():
        if verdict.label is not None:
            labels[row] = verdict.label
    gone = [row for row, verdict in verdicts.items() if verdict.what == "dropped"]
    kept = np.setdiff1d(np.arange(len(labels)), gone)
    dropped = {**split.audit.dropped, **({step: len(gone)} if gone else {})}
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
