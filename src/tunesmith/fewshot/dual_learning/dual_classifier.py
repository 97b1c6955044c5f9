"""A classifier of classes and one of attributes share features and must agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.core.settings import setting
from tunesmith.fewshot.attribute_table import read_table
from tunesmith.fewshot.schemes import Given, Scheme
from tunesmith.fewshot.several import SeveralTrial, symmetric
from tunesmith.models.layout import RaggedBatch
from tunesmith.training.reading import resolve_path


@register("dual_learning")
class DualClassifier(Scheme):
    """A head of classes and a head of attributes read the same features; their answers must be right and alike.

    loss = mean over labelled rows of (l + b) + weight * mean over all rows of (KL(p || q) + KL(q || p)) / 2, where l is
    the task's loss, b the binary cross-entropy of the A attributes, its mean, p the class head's answer, and q_c ~
    prod_a q_a^{s_ca} (1 - q_a)^{1 - s_ca} what the attributes say of the classes with the table's values s. The class
    head is the result.

    Source: classes from attributes: Lampert et al. 2014, TPAMI 36, section 3.1; agreement of two answers: Zhang et al.
    2018, arXiv:1706.00384. Differs: both heads on shared features; divergence in both directions, as in R-Drop.
    """

    name: ClassVar[str] = "dual-classifier"
    section: ClassVar[str] = "dual_learning"
    paper: ClassVar[str] = "Lampert et al. 2014, TPAMI 36; Zhang et al. 2018, arXiv:1706.00384"
    reads_unlabelled: ClassVar[Any] = "where given"

    table: str = setting("", "Attribute table of the classes, a .csv or .yaml file of values from 0 to 1; required.")
    weight: float = setting(0.5, "Weight of the divergence.", gt=0)
    ratio: int = setting(1, "Unlabelled rows per labelled row of a step.", unit="count", ge=1)

    def trial(self, given: Given, facts: dict[str, Any]) -> DualClassifierTrial:
        """Make the trial."""
        return DualClassifierTrial(self, given, facts)


class DualClassifierTrial(SeveralTrial):
    """Steps of rows that two heads answer.

    Args:
        how: settings.
        given: of the run.
        facts: arguments of `Trial`.
    Raises:
        RecipeError: no table is named, or its values do not lie between 0 and 1.
        DataError: the table cannot be read, or does not fit the classes.
    """

    def __init__(self, how: DualClassifier, given: Given, facts: dict[str, Any]) -> None:
        if not how.table:
            raise RecipeError("dual_learning.table: required and not given: the file with the classes' attributes.")
        table = read_table(resolve_path(how.table, given.folder))
        table.check_classes(list(given.names))
        tuned = facts["tuned"]
        weight = next(tuned.head.parameters(), torch.zeros(()))
        signatures = torch.from_numpy(table.signatures(list(given.names)))
        if signatures.min() < 0 or signatures.max() > 1:
            raise RecipeError(f"dual_learning.table: {table.where} has values outside 0 to 1, which are no attributes.")
        self.signatures = signatures.to(tuned.backbone.device, weight.dtype)
        seed_everything(derived(facts["seed"], "attribute head"))
        self.attribute_head = nn.Linear(tuned.backbone.width, signatures.shape[1]).to(self.signatures)
        super().__init__([(lambda rows: rows, tuned.delta.name)], given.unlabelled, how.ratio, facts)
        self.how = how

    def head_parameters(self) -> list[nn.Parameter]:
        """Of the head of classes and that of attributes."""
        return [*super().head_parameters(), *self.attribute_head.parameters()]

    def loss(self, outputs: Tensor, batch: RaggedBatch) -> Tensor:
        """Compute the pass's part of the loss."""
        (places,), known, labels = self.places(batch)
        rows = outputs[places]
        classes, attributes = self.head(rows), self.attribute_head(nn.functional.normalize(rows, dim=-1) * 10.0)
        said = classes_of(attributes, self.signatures)
        taught = outputs.new_zeros(())
        if known.any():
            right = self.signatures[labels[known]]
            binary = nn.functional.binary_cross_entropy_with_logits(attributes[known], right)
            taught = binary + self.taught(outputs, batch, places[known], labels[known])
        apart = symmetric(classes, said)
        self.note(classes, said, apart)
        return self.together(taught, apart, known, self.how.weight)

    def state(self) -> dict[str, Any]:
        """Keep the attribute head too."""
        found = super().state()
        found["scheme"]["attribute head"] = dict(self.attribute_head.state_dict())
        return found

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state."""
        self.attribute_head.load_state_dict(state["scheme"]["attribute head"])
        super().resume(state, where)


def classes_of(attributes: Tensor, signatures: Tensor) -> Tensor:
    """Turn answers on attributes into logits of classes: sum_a s log q_a + (1 - s) log(1 - q_a).

    Args:
        attributes: (R, A), logits of q.
        signatures: (C, A), from 0 to 1.
    Returns:
        (R, C).
    """
    yes, no = nn.functional.logsigmoid(attributes), nn.functional.logsigmoid(-attributes)
    return yes @ signatures.T + no @ (1 - signatures).T
