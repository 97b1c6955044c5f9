"""Carry out recipes whose rows have labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith.core.progress import Progress
from tunesmith.data.tokens import TokenRows, VariedRows, tokenize
from tunesmith.evaluation.predictions import Predictions
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Cost, Frozen, Meter, Scored, frozen_features, label_features, run_baselines
from tunesmith.runs.continuing import Earlier
from tunesmith.runs.family import Family
from tunesmith.runs.quantization import compare_with_full_precision, worded
from tunesmith.runs.session import Reading, Session
from tunesmith.tasks.heads.base import RowsHead
from tunesmith.tasks.running import extract_features
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, Split, load_corpus, load_labelled
from tunesmith.training.sampling import check_rows_per_label


@dataclass
class Labelling(Family):
    """Tasks with a label per row: a head on features of the frozen model.

    Args:
        session: the model.
        corpus: the data.
        judge: how all is scored.
        frozen: features of the untuned model.
    """

    frozen: Frozen = field(default_factory=lambda: Frozen({}, {}))

    @classmethod
    def read(cls, checked: Checked, session: Reading, known: Sequence[str] = ()) -> Corpus:
        """Read labelled rows."""
        recipe, template = checked.recipe, session.template
        return load_corpus(
            recipe.data, template, session.tokenizer, session.max_tokens, recipe.split_seed, checked.folder, known
        )

    @classmethod
    def read_file(cls, path: str, checked: Checked, session: Session, labels: Sequence[str] = ()) -> Split:
        """Read labelled rows; every label must be known."""
        data = checked.recipe.data
        return load_labelled(path, data, labels, session.template, session.tokenizer, session.max_tokens)

    @classmethod
    def encode(cls, session: Reading, rows: Iterable[Mapping[str, str]]) -> tuple[TokenRows, list[str]]:
        """Fill in the template and tokenise."""
        given = list(rows)
        tokens, *others = [
            tokenize(session.tokenizer, map(one.render, given), session.max_tokens) for one in session.template.wordings
        ]
        tokens = VariedRows([tokens, *others]) if others else tokens
        if not tokens.truncated:
            return tokens, []
        return tokens, [
            f"{tokens.truncated} of {len(tokens)} texts are longer than {session.max_tokens} tokens and were cut."
        ]

    def look(self, names: Sequence[str], meter: Meter, progress: Progress) -> None:
        """Compute the features that somebody reads; baselines and the head's start share the pass."""
        splits = ["train"] if self.session.task.starts_from_features else []
        if names or self.session.quantised is not None:
            splits = ["train", *self.judge.splits]
        self.frozen = frozen_features(self.session, self.corpus, splits, meter, progress)

    def baselines(self, names: Sequence[str], meter: Meter, progress: Progress, seed: int) -> list[Scored]:
        """Carry out baselines on the frozen features."""
        return run_baselines(names, self.session, self.corpus, self.frozen, self.judge, meter, seed)

    def start(self, head: nn.Module, checked: Checked, earlier: Earlier | None) -> None:
        """Start the head at prototypes, and at an earlier run's rows for its labels."""
        session, split = self.session, self.corpus.splits["train"]
        task, training = session.task, checked.recipe.training
        if training.rows_per_label is not None:
            names, size = self.corpus.label_names, training.batch_size
            check_rows_per_label(split.labels, names, training.rows_per_label, size)
        if task.starts_from_features:
            labels = torch.from_numpy(split.labels).to(session.backbone.device)
            texts = self._label_features() if task.reads_label_text else None
            task.start(head, self._first_features(checked, split, earlier), labels, texts)
        if earlier is not None:
            earlier.fill_head(head, self.corpus.label_names)

    def _first_features(self, checked: Checked, split: Split, earlier: Earlier | None) -> torch.Tensor:
        """Return what the head will read at the first step: a fresh delta may already change it."""
        backbone = self.session.backbone
        if checked.method.neutral and earlier is None:
            return self.frozen.features["train"].to(backbone.device)
        return extract_features(backbone, self.session.task, split.tokens).to(backbone.device)

    def _label_features(self) -> torch.Tensor:
        """Embed the labels' texts with the delta that is active."""
        session = self.session
        return torch.from_numpy(label_features(session, self.corpus)).to(session.backbone.device)

    def settle(self, tuned: Tuned) -> None:
        """Let a head that keeps rows keep what the tuned model makes of the training rows."""
        if isinstance(tuned.head, RowsHead):
            split = self.corpus.splits["train"]
            tuned.backbone.seams.use(tuned.delta.name)
            features = extract_features(tuned.backbone, tuned.task, split.tokens)
            tuned.head.keep(features.to(tuned.backbone.device), torch.from_numpy(split.labels))

    def validate(self, tuned: Tuned) -> dict[str, float]:
        """Answer the validation rows and compute every metric."""
        self.settle(tuned)
        found = self.answer(tuned, self.corpus.splits["validation"])
        sample = found.sample()
        scores = {metric.name: metric.compute(sample) for metric in self.judge.metrics}
        return {"validation loss": float(found.row_loss.mean()), **scores}

    def answer(self, tuned: Tuned, split: Split) -> Predictions:
        """Compute probabilities."""
        return Predictions(tuned.probabilities(split.tokens).numpy(), split.labels)

    def first_recall(self, earlier: Earlier, tuned: Tuned, split: Split) -> Predictions:
        """Answer with the earlier run's own head: it gives new labels no share."""
        labels, session = self.corpus.label_names, self.session
        head = earlier.old_head(session, session.backbone.width)
        known = Tuned(tuned.backbone, tuned.task, head, tuned.delta).probabilities(split.tokens).numpy()
        full = np.zeros((len(known), len(labels)))
        full[:, [labels.index(label) for label in earlier.labels]] = known
        return Predictions(full, split.labels)

    def learned(self, cost: Cost) -> Cost:
        """Add the pass that the head's start was read from."""
        return cost.plus(self.frozen.costs["train"]) if self.session.task.starts_from_features else cost

    def told(self) -> list[str]:
        """Say rows, labels and lengths."""
        found = []
        for name, split in self.corpus.splits.items():
            facts, lengths = split.audit, split.audit.tokens
            found.append(
                f"{name}: {facts.rows:,} rows, {len(facts.classes)} labels, tokens median {lengths['median']} / p95 "
                f"{lengths['p95']} / longest {lengths['longest']}, {facts.truncated} truncated, "
                f"{facts.duplicates} duplicates{split.origin}"
            )
        return found

    def on_base(self, progress: Progress) -> dict[str, Any]:
        """Compare the features, and a linear probe on them."""
        found = compare_with_full_precision(self.session, self.corpus, self.frozen, self.judge, progress)
        return {**found, "sentence": worded(found)} if found else {}
