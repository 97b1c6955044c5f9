"""Consistency training: two views of an unlabelled row get the same answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.seeds import derived
from tunesmith.core.settings import setting
from tunesmith.fewshot.schemes import Beside, Given, MixedTrial, Scheme, counted, right_share, risen, soft_cross_entropy
from tunesmith.fewshot.views import ThinnedRows
from tunesmith.models.layout import RaggedBatch
from tunesmith.training.corpus import Unlabelled


@register("semi_supervised")
class Consistency(Scheme):
    """Where the answer to one view of an unlabelled row is sure, it is the target of another view of that row.

    loss = mean over labelled rows of l + weight * mean over unlabelled rows of [max_c p_c >= threshold] H(q, p'),
    p the answer to the weak view, without gradient, p' to the strong view, q the most probable class of p or p
    sharpened, q_c ~ p_c^(1 / temperature). Labelled and unlabelled rows, both views, run in one pass.

    Source: Sohn et al. 2020, arXiv:2001.07685, eq. 3 and 4 (FixMatch); soft targets: Xie et al. 2019,
    arXiv:1904.12848 (UDA). Differs: views are dropout masks or left-out tokens; labelled rows see no augmentation.
    """

    name: ClassVar[str] = "consistency"
    section: ClassVar[str] = "semi_supervised"
    paper: ClassVar[str] = "Sohn et al. 2020, arXiv:2001.07685; Xie et al. 2019, arXiv:1904.12848"

    view: Literal["tokens", "dropout"] = setting(
        "tokens", "What makes the strong view: left-out tokens and dropout, or another draw of dropout alone."
    )
    left_out: float = setting(0.25, "Share of tokens that the strong view leaves out.", unit="fraction", gt=0, lt=1)
    ratio: int = setting(2, "Unlabelled rows per labelled row of a step.", unit="count", ge=1)
    threshold: float = setting(0.8, "Least probability of a target.", unit="fraction", ge=0, le=1)
    targets: Literal["hard", "soft"] = setting("hard", "Learn the most probable class, or sharpened probabilities.")
    temperature: float = setting(0.5, "Sharpness of soft targets.", gt=0, le=1)
    weight: float = setting(1.0, "Weight of the unlabelled rows' loss.", gt=0)
    ramp_fraction: float = setting(
        0.3, "Share of the steps in which the weight rises from 0.", unit="fraction", ge=0, le=1
    )

    def trial(self, given: Given, facts: dict[str, Any]) -> ConsistencyTrial:
        """Make the trial."""
        assert given.unlabelled is not None
        return ConsistencyTrial(self, given.unlabelled, facts)


class ConsistencyTrial(MixedTrial):
    """Steps of labelled rows and both views of unlabelled ones.

    Args:
        how: settings.
        unlabelled: the rows.
        facts: arguments of `Trial`.
    """

    def __init__(self, how: Consistency, unlabelled: Unlabelled, facts: dict[str, Any]) -> None:
        plain, seed = unlabelled.split.tokens, facts["seed"]
        strong = ThinnedRows(plain, how.left_out, derived(seed, "strong view")) if how.view == "tokens" else plain
        super().__init__(Beside.of(unlabelled.split, [plain, strong]), **facts)
        self.how, self.truth = how, unlabelled.truth
        self.epochs: list[dict[str, Any]] = []
        self._seen: list[tuple[np.ndarray[Any, Any], ...]] = []  # rows, codes and confidences of the epoch's passes

    @property
    def step_rows(self) -> int:
        """Labelled rows and their companions."""
        return self.settings.batch_size * (1 + self.how.ratio)

    @property
    def all_rows(self) -> int:
        """Of all epochs."""
        return super().all_rows * (1 + self.how.ratio)

    def _begin(self) -> None:
        """Go through the labelled rows once, and on through the others."""
        super()._begin()
        labelled, ratio = len(self.split.tokens), self.how.ratio
        others = self._companions((self.epoch - 1) * labelled * ratio)
        self._steps = [
            [*numbers, *(labelled + next(others) for _ in range(ratio * len(numbers)))] for numbers in self._steps
        ]

    def _companions(self, before: int) -> Iterator[int]:
        """Go on through the unlabelled rows, of which so many were taken; all come up before one comes again."""
        turn, taken = divmod(before, len(self.beside))
        while True:
            draw = torch.Generator().manual_seed(derived(self.seed, f"unlabelled rows, turn {turn}"))
            yield from torch.randperm(len(self.beside), generator=draw).tolist()[taken:]
            turn, taken = turn + 1, 0

    def loss(self, outputs: Tensor, batch: RaggedBatch) -> Tensor:
        """Compute the pass's part of the loss, as a mean over its rows; both views of a row count as one."""
        assert batch.labels is not None
        own = (batch.labels >= 0).nonzero()[:, 0]
        (weak, strong), rows = self.beside.places(batch.labels)
        ratio, count = self.how.ratio, len(own) + len(weak)
        total = outputs.new_zeros(())
        if len(own):  # of a step's rows one in 1 + ratio is labelled: the mean over these is (1 + ratio) / rows
            total = total + len(own) * (1 + ratio) * self.taught(outputs, batch, own, batch.labels[own])
        if len(weak):
            weight = self.how.weight * risen(self.trained.steps, self.optimizer.total, self.how.ramp_fraction)
            logits = self.head(torch.cat([outputs[weak].detach(), outputs[strong]]))
            first, second = logits.chunk(2)
            losses = self.disagreement(first, second, rows)
            total = total + weight * (1 + ratio) / ratio * losses.sum()
        return total / count

    def disagreement(self, weak: Tensor, strong: Tensor, rows: Tensor) -> Tensor:
        """Compute the losses of unlabelled rows, 0 where the answer to the weak view is not sure.

        Args:
            weak: (n, C), logits of the weak view; no gradient reaches them.
            strong: (n, C), logits of the strong view.
            rows: (n,), numbers of the rows.
        Returns:
            (n,).
        """
        self._check_views(weak, strong)
        weak = weak.detach()
        confidence, codes = weak.softmax(-1).max(-1)
        sure = confidence >= self.how.threshold
        if self.how.targets == "hard":
            targets = torch.nn.functional.one_hot(codes, weak.shape[-1]).to(strong)
        else:
            targets = (weak / self.how.temperature).softmax(-1)
        self._seen.append(tuple(found.cpu().numpy() for found in (rows, codes, confidence, sure)))
        return soft_cross_entropy(strong, targets) * sure

    def _check_views(self, weak: Tensor, strong: Tensor) -> None:
        """Refuse views that are one: nothing would be learned from them."""
        if self.how.view == "dropout" and torch.equal(weak, strong):
            raise RecipeError(
                "semi_supervised.view: with dropout as the only difference both views of a row are the same here, as "
                "nothing drops. Set training.dropout above 0, or view=tokens."
            )

    def close_epoch(self) -> None:
        """Score the state, and note which targets the epoch used."""
        super().close_epoch()
        rows, codes, confidence, sure = (np.concatenate(found) for found in zip(*self._seen, strict=True))
        self._seen = []
        self.epochs.append(
            {
                "seen": len(rows),
                "accepted": int(sure.sum()),
                "highest_confidence": float(confidence.max()),
                "codes": codes[sure],
                "right_share": right_share(codes[sure], None if self.truth is None else self.truth[rows[sure]]),
            }
        )

    def state(self) -> dict[str, Any]:
        """Keep what the report will say."""
        return {**super().state(), "scheme": {"epochs": self.epochs, "seen": self._seen}}

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state."""
        super().resume(state, where)
        self.epochs, self._seen = state["scheme"]["epochs"], state["scheme"]["seen"]

    def findings(self, names: Sequence[str]) -> dict[str, Any]:
        """Return how many targets each epoch used."""
        epochs = [
            {
                "epoch": number,
                "threshold": self.how.threshold,
                **{key: value for key, value in found.items() if key != "codes"},
                "labels": counted(found["codes"], names),
            }
            for number, found in enumerate(self.epochs, 1)
        ]
        return {"epochs": epochs}

    def notes(self) -> list[str]:
        """Say when no target was ever sure."""
        if not self.epochs or any(one["accepted"] for one in self.epochs):
            return []
        highest = max(one["highest_confidence"] for one in self.epochs)
        return [
            f"semi_supervised: no unlabelled row was ever learned from: the highest confidence seen is {highest:.3f}, "
            f"the threshold {self.how.threshold:g}. Lower semi_supervised.threshold, or train longer."
        ]
