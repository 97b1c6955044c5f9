"""Incremental tuning: go on from an earlier run with new examples, extend its labels, measure what it forgot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.files import hash_of, read_json
from tunesmith.data.audit import align_labels
from tunesmith.data.tokens import TokenRows, tokenize
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import estimate, paired_difference
from tunesmith.methods.store import load_delta, read_tensors
from tunesmith.models.delta import Delta
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.comparing import Judge
from tunesmith.runs.folder import FINGERPRINT
from tunesmith.runs.session import Session
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import load_corpus, read_labelled

_INHERITED = ("model", "task", "prompt", "method")


@dataclass(frozen=True)
class Earlier:
    """The run that training goes on from.

    Args:
        folder: of the run.
        labels: it knows.
        checked: its recipe.
        base_model_hash: of the model it was trained on.
    """

    folder: Path
    labels: list[str]
    checked: Checked
    base_model_hash: str

    def attach(self, session: Session, name: str) -> Delta:
        """Attach the run's delta as the start of a new one.

        Args:
            session: with the same base model.
            name: of the new delta.
        Returns:
            The delta, active.
        """
        return load_delta(self.folder / "delta", session.backbone.seams, name)[1]

    @torch.no_grad()
    def fill_head(self, head: nn.Module, labels: Sequence[str]) -> None:
        """Give the old labels' rows of a head their old values; other rows stay as they are.

        Args:
            head: for the new labels.
            labels: in the order of the head's rows.
        """
        places = torch.tensor([labels.index(label) for label in self.labels])
        own = head.state_dict()
        for name, tensor in read_tensors(self.folder / "head.safetensors").items():
            if name not in own or own[name].shape[1:] != tensor.shape[1:]:
                raise CheckpointError(f"{self.folder / 'head.safetensors'}: '{name}' does not fit the task's head.")
            own[name][places.to(own[name].device)] = tensor.to(own[name])

    def old_head(self, session: Session, width: int) -> nn.Module:
        """Build the run's own head.

        Args:
            session: with its task.
            width: of the features.
        Returns:
            The head as it was saved.
        """
        head = session.task.head(width, len(self.labels))
        head.load_state_dict(read_tensors(self.folder / "head.safetensors"))
        return head.to(session.backbone.device)


@dataclass
class OldRows:
    """What the earlier run was tested on, and its answers before training goes on.

    Args:
        path: of the file.
        tokens: of its rows.
        before: the earlier run's predictions, over the new labels.
    """

    path: str
    tokens: TokenRows
    before: Predictions


def inherit(checked: Checked) -> tuple[Checked, Earlier | None]:
    """Take from the earlier run what the recipe leaves open, and refuse what contradicts it.

    Args:
        checked: the recipe.
    Returns:
        The recipe as it will be carried out, and the earlier run; None when the recipe starts anew.
    Raises:
        RecipeError: another method, task, model or prompt than the run's, or candidates besides.
        CheckpointError: no such run.
    """
    recipe = checked.recipe
    if recipe.start_from is None:
        return checked, None
    folder = Path(recipe.start_from).expanduser()
    folder = folder if folder.is_absolute() or not (checked.folder / folder).is_dir() else checked.folder / folder
    if not (folder / "recipe.yaml").is_file():
        raise CheckpointError(f"start_from: {folder} is no run folder. `tunesmith train` makes one.")
    if checked.candidates:
        raise RecipeError("start_from: candidates start from different deltas; leave one of the two out.")
    before = load_recipe(folder / "recipe.yaml")
    if before.task.opens != "body":
        raise RecipeError(
            f"start_from: {folder} is a run of the task {before.task.name}; going on is there for tasks with labels "
            "only. Merge the run (tunesmith merge) and tune the merged model."
        )
    labels, fingerprint = read_json(folder / "labels.json", list), read_json(folder / FINGERPRINT, dict)
    if hash_of(labels) != fingerprint.get("labels_hash") or "base_model_hash" not in fingerprint:
        raise CheckpointError(
            f"start_from: {folder / 'labels.json'} or {FINGERPRINT} was changed: not those that trained."
        )
    earlier = Earlier(folder, labels, before, fingerprint["base_model_hash"])
    given = recipe.model_fields_set
    if "prompt" in given and recipe.prompt != before.recipe.prompt:
        raise RecipeError(
            f"start_from: {folder} was made with the prompt {before.recipe.prompt.template!r}, the recipe says "
            f"{recipe.prompt.template!r}. Leave prompt out to go on with the run's."
        )
    for key, ours, theirs in (("method", checked.method, before.method), ("task", checked.task, before.task)):
        if key in given and ours.describe() != theirs.describe():
            raise RecipeError(
                f"start_from: {folder} was made with {key} {theirs.describe()}, the recipe says "
                f"{ours.describe()}. Leave {key} out to go on with the run's."
            )
    settled = {key: getattr(before.recipe, key) for key in _INHERITED if key not in given or key in ("method", "task")}
    return replace(checked, recipe=recipe.model_copy(update=settled), task=before.task, method=before.method), earlier


def check_base(earlier: Earlier, session: Session) -> None:
    """Refuse another base model than the run's.

    Args:
        earlier: the run.
        session: with the loaded model.
    Raises:
        CheckpointError: both hashes are shown.
    """
    if earlier.base_model_hash != session.model_hash:
        raise CheckpointError(
            f"start_from: {earlier.folder} was trained on another base: base_model_hash is {session.model_hash}, the "
            f"run recorded {earlier.base_model_hash}."
        )


def old_rows(earlier: Earlier, tuned: Tuned, session: Session, labels: list[str]) -> OldRows | None:
    """Read what the earlier run was tested on and let it answer once more.

    Args:
        earlier: the run.
        tuned: with its delta, before the first step.
        session: the model.
        labels: old and new, in the order of the codes.
    Returns:
        Rows and answers; None when the run had no test rows and no validation file, or they are gone.
    """
    found = _tested_on(earlier, session, labels)
    if found is None:
        return None
    where, tokens, references = found
    head = earlier.old_head(session, session.backbone.width)
    known = Tuned(tuned.backbone, tuned.task, head, tuned.delta).probabilities(tokens).numpy()
    full = np.zeros((len(known), len(labels)))
    full[:, [labels.index(label) for label in earlier.labels]] = known
    return OldRows(where, tokens, Predictions(full, references))


def _tested_on(
    earlier: Earlier, session: Session, labels: list[str]
) -> tuple[str, TokenRows, np.ndarray[Any, np.dtype[np.int64]]] | None:
    """Read the run's test rows, or its validation file: where they stand, their tokens, their labels' codes."""
    recipe = earlier.checked.recipe
    data = recipe.data
    if isinstance(data.test, float) and Path(data.train).is_file():
        corpus = load_corpus(data, session.template, session.tokenizer, session.max_tokens, recipe.split_seed,
                             earlier.folder, earlier.labels)  # fmt: skip
        split = corpus.splits["test"]
        codes = np.array([labels.index(name) for name in corpus.label_names])
        return f"{data.train} (the share held out for test)", split.tokens, codes[split.labels]
    files = [path for path in (data.test, data.validation) if isinstance(path, str) and Path(path).is_file()]
    if not files:
        return None
    examples = read_labelled(files[0], data, session.template, Path.cwd())
    tokens = tokenize(session.tokenizer, map(session.template.render, examples.rows()), session.max_tokens)
    return files[0], tokens, align_labels("old data", examples, labels)


def forgotten(old: OldRows | None, tuned: Tuned, judge: Judge) -> dict[str, Any]:
    """Compare the answers on old rows before and after training went on.

    Args:
        old: rows and earlier answers.
        tuned: the model after training.
        judge: metrics and bootstrap.
    Returns:
        Plain values; empty without old rows.
    """
    if old is None:
        return {}
    after = Predictions(tuned.probabilities(old.tokens).numpy(), old.before.references)
    scores = {"before": estimate(old.before, judge.metrics, judge.bootstrap)}
    scores["after"] = estimate(after, judge.metrics, judge.bootstrap)
    first = judge.metrics[0]
    change = paired_difference(after, old.before, first, judge.bootstrap)
    return {
        "data": old.path,
        "rows": old.before.rows,
        **{when: {name: value.plain() for name, value in found.items()} for when, found in scores.items()},
        "change": {"metric": first.name, **change.estimate.plain(), "p_value": change.p_value},
    }


def worded(found: dict[str, Any]) -> str:
    """Say in a sentence what was forgotten.

    Args:
        found: by `forgotten`.
    Returns:
        The sentence.
    """
    if not found:
        return (
            "start_from: the earlier run had no test rows or validation file that are still there, so what was "
            "forgotten is not known."
        )
    change = found["change"]
    name = change["metric"]
    return (
        f"on the earlier run's data ({found['rows']:,} rows of {found['data']}) {name} went from "
        f"{found['before'][name]['value']:.4f} to {found['after'][name]['value']:.4f} "
        f"({change['value']:+.4f}, {change['low']:+.4f} to {change['high']:+.4f})."
    )
