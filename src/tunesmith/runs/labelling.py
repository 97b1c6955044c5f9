"""Carry out recipes whose rows have labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived
from tunesmith.data.descriptions import check_spelling, same_tokens, unknown_texts
from tunesmith.data.splitting import stratified_order
from tunesmith.data.tokens import TokenRows, VariedRows, tokenize
from tunesmith.evaluation.predictions import Predictions
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Cost, Frozen, Meter, Scored, frozen_features, label_features, run_baselines
from tunesmith.runs.continuing import Earlier
from tunesmith.runs.family import Family
from tunesmith.runs.quantization import compare_with_full_precision, worded
from tunesmith.runs.session import Reading, Session
from tunesmith.tasks.base import Task
from tunesmith.tasks.heads.base import RowsHead
from tunesmith.tasks.labelling import LabelTask
from tunesmith.tasks.rejecting import OUTSIDE, Rejecting, RejectSettings, choose_threshold, plain
from tunesmith.tasks.running import extract_features
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.augmenting import augmented
from tunesmith.training.balancing import classes_of
from tunesmith.training.corpus import Corpus, Split, load_corpus, load_labelled
from tunesmith.training.sampling import check_rows_per_label
from tunesmith.training.taking import taken
from tunesmith.training.unlabelled import load_unlabelled

_SEEN = 50_000  # training rows whose features class means and baselines are computed from, at most


def rows_seen(task: Task, rows: int) -> int:
    """Say how many training rows class means and baselines are computed from.

    Args:
        task: whose head starts from them.
        rows: that train. [count]
    Returns:
        All, unless there are very many and the head is not made of them.
    """
    return rows if isinstance(task, LabelTask) and task.starts_from_all_rows else min(rows, _SEEN)


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
        if getattr(checked.task, "reject", None) is not None:
            known = [label for label in known if label != OUTSIDE]
        recipe, template = checked.recipe, session.template
        reading = template, session.reads, session.max_tokens
        corpus = _with_outside(
            load_corpus(recipe.data, *reading, recipe.split_seed, checked.folder, known), session.task
        )
        if recipe.data.unlabelled is not None:
            audited = checked.scheme is not None and checked.scheme.audit
            corpus.unlabelled = load_unlabelled(recipe.data, corpus, *reading, checked.folder, audited)
            corpus.warnings.extend(corpus.unlabelled.remarks)
            corpus.content_hash += f"+{corpus.unlabelled.split.examples.content_hash[:32]}"
        return corpus

    @classmethod
    def read_file(cls, path: str, checked: Checked, session: Session, labels: Sequence[str] = ()) -> Split:
        """Read labelled rows; every label must be known."""
        data = checked.recipe.data
        return load_labelled(path, data, labels, session.template, session.reads, session.max_tokens)

    @classmethod
    def encode(cls, session: Reading, rows: Iterable[Mapping[str, str]]) -> tuple[TokenRows, list[str]]:
        """Fill in the template and tokenise."""
        given = list(rows)
        tokens, *others = [
            tokenize(session.reads, map(one.render, given), session.max_tokens) for one in session.template.wordings
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
        if any(find("baselines", name).needs_label_text for name in names):
            self._note_unknown()
        seen, train = self._seen, self.corpus.splits["train"]
        if splits and seen is not train:
            self._say_seen(progress, len(seen.index), len(train.index))
        self.frozen = frozen_features(self.session, self._as_seen(), splits, meter, progress)

    @property
    def _texts_read(self) -> tuple[Sequence[str], Sequence[Sequence[str]], Any]:
        """Labels, their texts, and what reads them."""
        texts = self.corpus.label_texts
        return self.corpus.label_names[: len(texts)], texts, self.session.tokenizer

    def _note_unknown(self) -> None:
        """Remark on labels that zero-shot cannot tell apart."""
        if self.session.tokenizer is not None:
            said = same_tokens(*self._texts_read) or unknown_texts(*self._texts_read)
            self.corpus.warnings.extend([f"{said}, so zero-shot does not tell what is meant"] if said else [])

    def check_label_texts(self, task: Task) -> None:
        """Refuse labels' texts that are one to the model, where texts alone tell labels apart.

        Args:
            task: whose head starts there.
        Raises:
            DataError: labels that are the same words.
            CompatibilityError: labels whose texts are the same tokens.
        """
        if getattr(task, "head_start", None) == "label-text" and self.session.tokenizer is not None:
            check_spelling(self.corpus.label_names)
            said = same_tokens(*self._texts_read)
            if said is not None:
                raise CompatibilityError(
                    f"task.head_start=label-text: {said} to the model. Describe the labels in words that it knows "
                    "(data.label_descriptions), or choose a model of their language, or another head_start."
                )

    @cached_property
    def _seen(self) -> Split:
        """The training rows that are read before training; a stratified draw where there are very many."""
        train, task = self.corpus.splits["train"], self.session.task
        count = rows_seen(task, len(train.index))
        if count == len(train.index):
            return train
        order = stratified_order(train.labels, derived(0, "rows seen before training"))
        return taken(train, np.sort(order[: max(count, len(np.unique(train.labels)))]))

    def _as_seen(self) -> Corpus:
        return replace(self.corpus, splits={**self.corpus.splits, "train": self._seen})

    def _say_seen(self, progress: Progress, seen: int, rows: int) -> None:
        said = f"class means and baselines are computed from {seen:,} of {rows:,} training rows, drawn by label"
        if said not in self.corpus.warnings:
            self.corpus.warnings.append(said)
            progress.say(f"note: {said}")

    def baselines(self, names: Sequence[str], meter: Meter, progress: Progress, seed: int) -> list[Scored]:
        """Carry out baselines on the frozen features."""
        return run_baselines(names, self.session, self._as_seen(), self.frozen, self.judge, meter, seed)

    def training_rows(self, checked: Checked) -> Split:
        """Add labels' texts, and hide tokens."""
        training, task = checked.recipe.training, self.session.task
        if training.label_rows and isinstance(task, LabelTask) and task.compares_rows:
            raise RecipeError(
                f"training.label_rows: the head {task.head_component.name} compares rows with those it keeps, and "
                "labels' texts are not among them. Leave it out, or take the head proxies-and-matching."
            )
        if training.label_rows:
            check_spelling(self.corpus.label_names)
        return augmented(self.corpus.splits["train"], training, self.corpus.label_texts, self.session)

    def on(self, train: Split, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Family:
        """Take the frozen features of the rows too."""
        found = super().on(train, rows)
        assert isinstance(found, Labelling)
        features = dict(self.frozen.features)
        if "train" in features and self._seen is self.corpus.splits["train"]:
            features["train"] = features["train"][torch.from_numpy(rows)]
        else:
            features.pop("train", None)
        return replace(found, frozen=Frozen(features, self.frozen.costs))

    def start(self, head: nn.Module, checked: Checked, earlier: Earlier | None) -> None:
        """Start the head at prototypes, and at an earlier run's rows for its labels."""
        session, split = self.session, self.corpus.splits["train"]
        task, training = session.task, checked.recipe.training
        if training.rows_per_label is not None:
            names, size = self.corpus.label_names, training.batch_size
            check_rows_per_label(split.labels, names, training.rows_per_label, size)
        plain(head).known_classes = classes_of(  # type: ignore[assignment]
            split.labels, self.corpus.taught_names, training, split.weights
        )
        if task.starts_from_features:
            labels = torch.from_numpy(self._seen.labels).to(session.backbone.device)
            texts = self._label_features() if task.reads_label_text else None
            task.start(head, self._first_features(checked, earlier), labels, texts)
        if earlier is not None:
            earlier.fill_head(head, self.corpus.label_names)

    def _first_features(self, checked: Checked, earlier: Earlier | None) -> torch.Tensor:
        """Return what the head will read at the first step: a fresh delta may already change it."""
        backbone = self.session.backbone
        if checked.method.neutral and earlier is None and "train" in self.frozen.features:
            return self.frozen.features["train"].to(backbone.device)
        return extract_features(backbone, self.session.task, self._seen.tokens).to(backbone.device)

    def _label_features(self) -> torch.Tensor:
        """Embed the labels' texts with the delta that is active."""
        session = self.session
        check_spelling(self.corpus.label_names)
        self.check_label_texts(session.task)
        return torch.from_numpy(label_features(session, self.corpus)).to(session.backbone.device)

    def settle(self, tuned: Tuned) -> None:
        """Let a head that keeps rows keep what the tuned model makes of them; choose what is rejected."""
        head, device = plain(tuned.head), tuned.backbone.device
        if isinstance(head, RowsHead):
            labels = torch.from_numpy(self.corpus.splits["train"].labels)
            head.keep(tuned.features(self.corpus.splits["train"].tokens).to(device), labels.to(device))
        if isinstance(tuned.head, Rejecting):
            self._set_threshold(tuned, tuned.head)

    @torch.no_grad()
    def _set_threshold(self, tuned: Tuned, head: Rejecting) -> None:
        """Choose the threshold of what is out of scope on validation."""
        split, outside = self.corpus.splits["validation"], len(self.corpus.label_names) - 1
        inner, device = head.inner.eval(), tuned.backbone.device
        each = [inner(tuned.features(rows).to(device)).cpu() for rows in split.tokens.wordings]
        logits = torch.stack(each).double()  # (W, rows, C)
        scores = head.scores(logits).numpy()
        right = logits.softmax(-1).mean(0).argmax(1).numpy() == split.labels
        head.threshold.fill_(choose_threshold(scores, right, split.labels == outside, head.share))

    def best(self, wanted: str) -> tuple[str, bool]:
        """Keep the last epoch where there are no validation rows."""
        return super().best(wanted if "validation" in self.corpus.splits else "last")

    def validate(self, tuned: Tuned) -> dict[str, float]:
        """Answer the validation rows and compute every metric; a head that trains beside kept rows gets new ones."""
        validated, task = "validation" in self.corpus.splits, self.session.task
        if validated or (isinstance(task, LabelTask) and task.compares_rows):
            self.settle(tuned)
        if not validated:
            return {}
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
        if self.corpus.unlabelled is not None:
            more = self.corpus.unlabelled.split.audit
            found.append(
                f"unlabelled: {more.rows:,} rows, tokens median {more.tokens['median']} / longest "
                f"{more.tokens['longest']}"
            )
        return found

    def on_base(self, progress: Progress) -> dict[str, Any]:
        """Compare the features, and a linear probe on them."""
        found = compare_with_full_precision(self.session, self._as_seen(), self.frozen, self.judge, progress)
        return {**found, "sentence": worded(found)} if found else {}


def _with_outside(corpus: Corpus, task: Task) -> Corpus:
    """Add what is out of scope as the last label where rows are rejected and the data name none."""
    if getattr(task, "reject", None) is not None and len(corpus.label_names) == len(corpus.label_texts):
        if OUTSIDE in corpus.label_names:
            raise DataError(
                f"a label is called '{OUTSIDE}', which is what rejected rows are called. Name it in data.out_of_scope "
                "and leave its rows out of train, or leave task.reject out to learn it as a label like others."
            )
        corpus.label_names.append(OUTSIDE)
    if getattr(task, "reject", None) is not None and "validation" in corpus.splits:
        _check_validated(corpus, task.reject)  # type: ignore[attr-defined]
    return corpus


def _check_validated(corpus: Corpus, reject: RejectSettings) -> None:
    """Refuse validation rows that cannot choose a threshold; say what is not read."""
    outside = corpus.splits["validation"].labels == len(corpus.label_names) - 1
    if outside.all():
        raise DataError(
            f"validation: all {len(outside)} rows are out of scope, and a threshold chosen by them alone would reject "
            "everything. Add rows with labels (data.validation)."
        )
    if outside.any() and reject.share != RejectSettings().share:
        corpus.warnings.append(
            f"task.reject.share={reject.share:g} is not read: the threshold is chosen by the {int(outside.sum())} rows "
            "of validation that are out of scope"
        )
