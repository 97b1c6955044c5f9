"""Incremental tuning: go on from an earlier run with new examples, and with new labels where rows have labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.files import hash_of, read_json
from tunesmith.methods.store import load_delta, read_tensors
from tunesmith.models.delta import Delta
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.recipe.starting import find_run
from tunesmith.runs.folder import FINGERPRINT, check_single
from tunesmith.runs.session import Session
from tunesmith.tasks.heads.base import RowsHead, load_head
from tunesmith.tasks.rejecting import Rejecting, plain


@dataclass(frozen=True)
class Earlier:
    """The run that training goes on from.

    Args:
        folder: of the run.
        labels: it knows; none for tasks that write.
        checked: its recipe.
        fingerprint: what it was made of.
    """

    folder: Path
    labels: list[str]
    checked: Checked
    fingerprint: dict[str, Any]

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
        known = self.labels[:-1] if isinstance(head, Rejecting) else self.labels
        head = plain(head)
        if isinstance(head, RowsHead):
            raise RecipeError(
                f"start_from: the head of {self.folder} answers from rows it keeps, and its labels' rows are not among "
                "the new ones. Train anew on the old and new rows together."
            )
        places = torch.tensor([labels.index(label) for label in known])
        own = head.state_dict()
        for place, tensor in read_tensors(self.folder / "head.safetensors").items():
            name = place.removeprefix("inner.")
            if name == "threshold":
                continue
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
        load_head(head, read_tensors(self.folder / "head.safetensors"))
        return head.to(session.backbone.device)


def inherit(checked: Checked) -> tuple[Checked, Earlier | None]:
    """Find the earlier run, and refuse what contradicts it.

    Args:
        checked: the recipe; what it left open was taken from the run when it was read.
    Returns:
        The recipe as it will be carried out, and the earlier run; None when the recipe starts anew.
    Raises:
        RecipeError: another method, task or prompt than the run's, or candidates besides.
        CheckpointError: no such run.
    """
    recipe = checked.recipe
    if recipe.start_from is None:
        return checked, None
    folder = find_run(recipe.start_from, checked.folder)
    if not (folder / "recipe.yaml").is_file():
        raise CheckpointError(f"start_from: {folder} is no run folder. `tunesmith train` makes one.")
    if checked.candidates:
        raise RecipeError("start_from: candidates start from different deltas; leave one of the two out.")
    check_single(folder, "go on from")
    before = load_recipe(folder / "recipe.yaml")
    _check_same(checked, before, folder)
    labels, fingerprint = read_json(folder / "labels.json", list), read_json(folder / FINGERPRINT, dict)
    if hash_of(labels) != fingerprint.get("labels_hash") or "base_model_hash" not in fingerprint:
        raise CheckpointError(
            f"start_from: {folder / 'labels.json'} or {FINGERPRINT} was changed: not those that trained."
        )
    settled = recipe.model_copy(update={"start_from": str(folder)})
    return replace(checked, recipe=settled), Earlier(folder, labels, before, fingerprint)


def _check_same(checked: Checked, before: Checked, folder: Path) -> None:
    """Refuse another task, prompt or method than the run's."""
    if checked.task.name != before.task.name:
        raise RecipeError(
            f"start_from: {folder} is a run of the task {before.task.name}, the recipe's task is {checked.task.name}: "
            "a run goes on with its own task. Leave task out."
        )
    ours, theirs = checked.recipe.prompt.model_dump(), before.recipe.prompt.model_dump()
    for key, value in theirs.items():
        if ours[key] != value:
            raise RecipeError(
                f"start_from: {folder} was made with prompt.{key}={value!r}, the recipe says {ours[key]!r}. Leave "
                "prompt out to go on with the run's."
            )
    for key, mine, other in (("method", checked.method, before.method), ("task", checked.task, before.task)):
        if mine.describe() != other.describe():
            raise RecipeError(
                f"start_from: {folder} was made with {key} {other.describe()}, the recipe says {mine.describe()}. "
                f"Leave {key} out to go on with the run's."
            )


def check_base(earlier: Earlier, session: Session) -> None:
    """Refuse another base model or tokenizer than the run's.

    Args:
        earlier: the run.
        session: with the loaded model.
    Raises:
        CheckpointError: both hashes are shown.
    """
    for key, found in (("base_model_hash", session.model_hash), ("tokenizer_hash", session.tokenizer_hash)):
        recorded = earlier.fingerprint.get(key)
        if recorded != found:
            raise CheckpointError(
                f"start_from: {earlier.folder} was trained on another base: {key} is {found}, the run recorded "
                f"{recorded}."
            )
