"""Self-training with pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.pseudo_labels import choose
from tunesmith.fewshot.schemes import (
    Beside,
    Given,
    MixedTrial,
    Scheme,
    SchemeTrial,
    counted,
    right_share,
    risen,
    soft_cross_entropy,
    to_tensor,
)
from tunesmith.models.layout import RaggedBatch
from tunesmith.tasks.heads.base import RowsHead
from tunesmith.training.corpus import Unlabelled


@register("semi_supervised")
class SelfTraining(Scheme):
    """Label the unlabelled rows with the best state so far, keep the sure labels, and train on them too; repeat.

    The first `training.epochs` epochs see the labelled rows only; every round has as many, or `epochs`. The loss of a
    step is the mean over its rows of w_i l_i, where w is 1 for labelled rows and `weight` for the others.

    Source: Lee 2013, "Pseudo-Label", ICML workshop; a student that starts anew: Xie et al. 2020, arXiv:1911.04252;
    labels by several models: Zhou and Li 2005, "Tri-training", IEEE TKDE 17. Differs: by the mean of all of them.
    """

    name: ClassVar[str] = "self-training"
    section: ClassVar[str] = "semi_supervised"
    paper: ClassVar[str] = "Lee 2013, ICML workshop; Xie et al. 2020, arXiv:1911.04252"

    rounds: int = setting(2, "How often the rows are labelled anew.", unit="count", ge=1)
    epochs: int | None = setting(None, "Epochs of a round; where empty, training.epochs.", unit="count", ge=1)
    threshold: float = setting(0.8, "Least probability of a pseudo-label.", unit="fraction", ge=0, le=1)
    balance: Literal["none", "count", "prior"] = setting(
        "prior", "No class gets more than per_class rows (count), or than its share of the labelled rows (prior)."
    )
    per_class: int = setting(16, "Most rows per class, with balance count.", unit="count", ge=1)
    labels: Literal["hard", "soft"] = setting("hard", "Learn the most probable class, or all probabilities.")
    weight: float = setting(1.0, "Weight of a pseudo-labelled row beside a labelled one.", gt=0)
    ramp_fraction: float = setting(
        0.2, "Share of a round's steps in which the weight rises from 0.", unit="fraction", ge=0, le=1
    )
    restart: bool = setting(True, "Every round starts from the first state again; else from the best so far.")
    together: bool = setting(
        False, "Candidates label the rows together, by the mean of their probabilities; else each for itself."
    )

    def trial(self, given: Given, facts: dict[str, Any]) -> SelfTrainingTrial:
        """Make the trial."""
        assert given.unlabelled is not None
        return SelfTrainingTrial(self, given.unlabelled, facts)


class SelfTrainingTrial(MixedTrial):
    """Rounds of training; between them the best state labels the unlabelled rows.

    Args:
        how: settings.
        unlabelled: the rows.
        facts: arguments of `Trial`.
    """

    def __init__(self, how: SelfTraining, unlabelled: Unlabelled, facts: dict[str, Any]) -> None:
        self.how, self.truth = how, unlabelled.truth
        self.chosen: np.ndarray[Any, np.dtype[np.int64]] = np.zeros(0, np.int64)
        self.probabilities: np.ndarray[Any, np.dtype[np.float64]] = np.zeros((0, 0))
        self.rounds: list[dict[str, Any]] = []
        self.peers: Sequence[SelfTrainingTrial] = [self]
        self._offered: np.ndarray[Any, np.dtype[np.float64]] | None = None  # its part of the next round's labels
        super().__init__(Beside.of(unlabelled.split, [unlabelled.split.tokens]), **facts)
        self._first = self.tuned.state()

    # Rows -----------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Labelled rows and those with a pseudo-label."""
        return len(self.split.tokens) + len(self.chosen)

    @property
    def row_labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(rows,), codes and pseudo-labels."""
        codes = self.probabilities.argmax(1) if self.rounds else np.zeros(0, np.int64)
        return np.concatenate([self.split.labels, codes[self.chosen]])

    @property
    def all_rows(self) -> int:
        """Nobody knows how many rows later rounds accept: as many as there are."""
        own, others = len(self.split.tokens), len(self.beside)
        epochs = self.settings.epochs
        return epochs * own + self.how.rounds * (self.how.epochs or epochs) * (own + others)

    @property
    def row_lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(numbers,), tokens per row; before the first round, of every row that could be chosen."""
        own = len(self.split.tokens)
        return np.concatenate([self._lengths[:own], self._lengths[own:][self.chosen]]) if self.rounds else self._lengths

    def other(self, number: int) -> int:
        """Count through the chosen rows only."""
        return int(self.chosen[super().other(number)])

    # Steps ----------------------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, batch: RaggedBatch) -> Tensor:
        """Compute the mean over the rows of their weighted losses."""
        assert batch.labels is not None
        own = (batch.labels >= 0).nonzero()[:, 0]
        (others,), rows = self.beside.places(batch.labels)
        if not len(others):
            return self.taught(outputs, batch, own, batch.labels[own])
        total = outputs.new_zeros(())
        if len(own):
            total = total + len(own) * self.taught(outputs, batch, own, batch.labels[own])
        step = self.trained.steps - self.stage[1]
        weight = self.how.weight * risen(step, self.optimizer.total, self.how.ramp_fraction)
        total = total + weight * len(others) * self._pseudo(outputs, batch, others, rows)
        return total / (len(own) + len(others))

    def _pseudo(self, outputs: Tensor, batch: RaggedBatch, places: Tensor, rows: Tensor) -> Tensor:
        found = self.probabilities[rows.numpy()]
        if self.how.labels == "hard" and not isinstance(self.head, RowsHead):
            labels = torch.from_numpy(found.argmax(1)).to(places.device)
            return self.taught(outputs, batch, places, labels)
        logits = self.head(outputs[places])  # a head that keeps rows does not keep these
        targets = np.eye(found.shape[1])[found.argmax(1)] if self.how.labels == "hard" else found
        return soft_cross_entropy(logits, to_tensor(targets, logits)).mean()

    @property
    def over(self) -> bool:
        """Whether the last round is over."""
        return self.trained.diverged > 0 or (len(self.rounds) >= self.how.rounds and self.stage_over)

    def close_epoch(self) -> None:
        """Score the state; after the last epoch of a round, begin the next one."""
        super().close_epoch()
        if self.trained.history:
            self.trained.history[-1]["round"] = len(self.rounds)
        if self.stage_over and not self.over:
            self._offered = self._labelled()
        self._label_together()

    def meet(self, others: Sequence[SchemeTrial]) -> None:
        """Label the rows together with the other candidates, where that is wanted.

        Args:
            others: of the same pass, itself among them.
        Raises:
            RecipeError: they end their rounds at other steps.
        """
        if not self.how.together:
            return
        peers = [one for one in others if isinstance(one, SelfTrainingTrial)]
        ends = [(one.settings.epochs, one.epoch_steps, one.settings.max_steps, one.settings.patience) for one in peers]
        if len(set(ends)) > 1 or self.settings.patience is not None:
            raise RecipeError(
                "semi_supervised.together: candidates wait for each other's labels, so training.epochs, batch_size and "
                "max_steps have to be the same for all, and training.patience empty."
            )
        self.peers = peers

    def _labelled(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return what the best state makes of the rows, (rows, C)."""
        self.finish()
        if isinstance(self.head, RowsHead):
            self.validate()  # it lets the head keep what the best state makes of the labelled rows
        found: np.ndarray[Any, np.dtype[np.float64]] = (
            replace(self.tuned, head=self.head).probabilities(self.beside.views[0].tokens).numpy()
        )
        return found

    def _label_together(self) -> None:
        """Begin the next round of all peers, once each of them that has not diverged has labelled the rows."""
        peers = [one for one in self.peers if not one.trained.diverged]
        offered = [one._offered for one in peers if one._offered is not None]
        if not offered or len(offered) < len(peers):
            return
        mean = offered[0] if len(offered) == 1 else np.mean(offered, axis=0)
        for one in peers:
            one._offered = None
            one._begin_round(mean)

    def _begin_round(self, probabilities: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Choose rows by their probabilities, (rows, C), and start again."""
        how, self.probabilities = self.how, probabilities
        prior = np.bincount(self.split.labels, minlength=self.probabilities.shape[1]) / len(self.split.labels)
        self.chosen = choose(self.probabilities, how.threshold, how.balance, how.per_class, prior)
        codes, confidence = self.probabilities.argmax(1), self.probabilities.max(1)
        self.rounds.append(
            {
                "labelled_by_epoch": self.trained.best_epoch,
                "accepted": len(self.chosen),
                "highest_confidence": float(confidence.max()),
                "codes": codes[self.chosen],
                "right_share": right_share(codes[self.chosen], None if self.truth is None else self.truth[self.chosen]),
            }
        )
        if how.restart:
            self.tuned.restore(self._first)
        self._prepare_round()
        self.stage = self.epoch, self.trained.steps

    def _prepare_round(self) -> None:
        self.stage_epochs = self.how.epochs or self.settings.epochs
        self.optimizer = self.new_optimizer()

    def state(self) -> dict[str, Any]:
        """Keep the round and its pseudo-labels."""
        own = {"chosen": self.chosen, "rounds": self.rounds, "probabilities": torch.from_numpy(self.probabilities)}
        return {**super().state(), "scheme": own}

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state."""
        own = state["scheme"]
        self.chosen, self.rounds, self.probabilities = own["chosen"], own["rounds"], own["probabilities"].numpy()
        if self.rounds:
            self._prepare_round()
        super().resume(state, where)

    def findings(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what each round accepted."""
        rounds = [
            {
                "round": number,
                "threshold": self.how.threshold,
                **{key: value for key, value in found.items() if key != "codes"},
                "labels": counted(found["codes"], names),
            }
            for number, found in enumerate(self.rounds, 1)
        ]
        return {"rounds": rounds}

    def notes(self) -> list[str]:
        """Say what each round accepted."""
        found = []
        for number, one in enumerate(self.rounds, 1):
            if not one["accepted"]:
                found.append(
                    f"semi_supervised: round {number} accepted none of {len(self.beside)} rows: the highest confidence "
                    f"seen is {one['highest_confidence']:.3f}, the threshold {self.how.threshold:g}. Lower "
                    "semi_supervised.threshold, or train longer."
                )
        return found
