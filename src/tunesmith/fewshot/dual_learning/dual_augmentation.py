"""Two augmentations of a row get the same answer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from tunesmith.core.registry import register
from tunesmith.core.seeds import derived
from tunesmith.core.settings import setting
from tunesmith.fewshot.schemes import Given, Scheme
from tunesmith.fewshot.several import SeveralTrial, symmetric
from tunesmith.fewshot.views import ThinnedRows
from tunesmith.models.layout import RaggedBatch


@register("dual_learning")
class DualAugmentation(Scheme):
    """Every row is read twice, whole and with tokens left out, and both answers must be right and alike.

    loss = mean over labelled rows of (l_1 + l_2) / 2 + weight * mean over all rows of d, where
    d = (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2

    Source: Liang et al. 2021, arXiv:2106.14448 (R-Drop), eq. 4. Differs: the second pass also leaves tokens out, and
    unlabelled rows take part in the second term.
    """

    name: ClassVar[str] = "dual-augmentation"
    section: ClassVar[str] = "dual_learning"
    paper: ClassVar[str] = "Liang et al. 2021, arXiv:2106.14448"
    reads_unlabelled: ClassVar[Any] = "where given"

    view: Literal["tokens", "dropout"] = setting(
        "tokens", "What makes the second view: left-out tokens and dropout, or another draw of dropout alone."
    )
    left_out: float = setting(0.15, "Share of tokens that the second view leaves out.", unit="fraction", gt=0, lt=1)
    weight: float = setting(1.0, "Weight of the divergence.", gt=0)
    ratio: int = setting(1, "Unlabelled rows per labelled row of a step.", unit="count", ge=1)

    def trial(self, given: Given, facts: dict[str, Any]) -> DualAugmentationTrial:
        """Make the trial."""
        return DualAugmentationTrial(self, given, facts)


class DualAugmentationTrial(SeveralTrial):
    """Steps of rows in two views.

    Args:
        how: settings.
        given: of the run.
        facts: arguments of `Trial`.
    """

    def __init__(self, how: DualAugmentation, given: Given, facts: dict[str, Any]) -> None:
        seed, name = derived(facts["seed"], "second view"), facts["tuned"].delta.name
        second = (lambda rows: ThinnedRows(rows, how.left_out, seed)) if how.view == "tokens" else (lambda rows: rows)
        super().__init__([(lambda rows: rows, name), (second, name)], given.unlabelled, how.ratio, facts)
        self.how = how

    def loss(self, outputs: Tensor, batch: RaggedBatch) -> Tensor:
        """Compute the pass's part of the loss."""
        places, known, labels = self.places(batch)
        taught = outputs.new_zeros(())
        if known.any():
            for view in places:
                taught = taught + self.taught(outputs, batch, view[known], labels[known]) / 2
        first, second = (self.head(outputs[view]) for view in places)
        apart = symmetric(first, second)
        self.note(first, second, apart)
        return self.together(taught, apart, known, self.how.weight)
