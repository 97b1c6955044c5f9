"""Two deltas on one base teach each other."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import register
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.core.settings import setting
from tunesmith.fewshot.schemes import Given, Scheme
from tunesmith.fewshot.several import SeveralTrial, divergence
from tunesmith.fewshot.views import HalvedRows
from tunesmith.models.delta import Delta
from tunesmith.models.layout import RaggedBatch
from tunesmith.tasks.rejecting import plain
from tunesmith.tasks.tuned import Tuned


@register("dual_learning")
class DualNetwork(Scheme):
    """Two deltas of the method train on one base in one pass; each learns the labels and the other's answers.

    loss_1 = mean over labelled rows of l_1 + weight * mean over all rows of KL(p_2 || p_1), p_2 without gradient;
    loss_2 likewise. With views `halves` neither network sees a token of a row that the other sees, its ends aside. The
    first network is the result.

    Source: Zhang et al. 2018, arXiv:1706.00384, eq. 6 and 7 (deep mutual learning); disjoint views: Blum and Mitchell
    1998, COLT (co-training). Differs: both networks update at once; soft answers in place of chosen labels.
    """

    name: ClassVar[str] = "dual-network"
    section: ClassVar[str] = "dual_learning"
    paper: ClassVar[str] = "Zhang et al. 2018, arXiv:1706.00384; Blum and Mitchell 1998, COLT"
    reads_unlabelled: ClassVar[Any] = "where given"

    views: Literal["same", "halves"] = setting("same", "Both read the whole row, or each one half of its tokens.")
    weight: float = setting(1.0, "Weight of the other network's answers.", gt=0)
    ratio: int = setting(1, "Unlabelled rows per labelled row of a step.", unit="count", ge=1)

    def trial(self, given: Given, facts: dict[str, Any]) -> DualNetworkTrial:
        """Make the trial."""
        return DualNetworkTrial(self, given, facts)


class DualNetworkTrial(SeveralTrial):
    """Steps of two deltas.

    Args:
        how: settings.
        given: of the run.
        facts: arguments of `Trial`.
    Raises:
        RecipeError: the method draws its start from data, which the second delta does not.
    """

    def __init__(self, how: DualNetwork, given: Given, facts: dict[str, Any]) -> None:
        method, tuned = facts["method"], facts["tuned"]
        if method.data_driven:
            raise RecipeError(
                f"dual_learning: the second delta of '{method.name}' would start otherwise than the first, which "
                "starts from data. Choose another method or start."
            )
        seed_everything(derived(facts["seed"], "peer's weights"))
        name, seed = f"{tuned.delta.name}-peer", derived(facts["seed"], "halves")
        head = copy.deepcopy(tuned.head)
        self.peer = Tuned(tuned.backbone, tuned.task, head, method.attach(tuned.backbone.seams, name))
        self.peer.head.train(True)
        self.peer.delta.train(True)

        def half(number: int) -> Any:
            return (lambda rows: HalvedRows(rows, number, seed)) if how.views == "halves" else (lambda rows: rows)

        super().__init__([(half(0), tuned.delta.name), (half(1), name)], given.unlabelled, how.ratio, facts)
        self.how = how

    @property
    def deltas(self) -> list[Delta]:
        """The trial's own and the peer's."""
        return [self.tuned.delta, self.peer.delta]

    def head_parameters(self) -> list[nn.Parameter]:
        """Of both networks."""
        return [*super().head_parameters(), *self.peer.head.parameters()]

    def seed_dropout(self, where: str = "") -> None:
        """Start the streams of both networks."""
        super().seed_dropout(where)
        self.tuned.backbone.seams.own_dropout(self.peer.delta.name).seed(derived(self.seed, f"peer's dropout{where}"))
        self.peer.seed_head(derived(self.seed, f"peer's head dropout{where}"))

    def loss(self, outputs: Tensor, batch: RaggedBatch) -> Tensor:
        """Compute the pass's part of both losses."""
        (mine, theirs), known, labels = self.places(batch)
        first, second = self.head(outputs[mine]), plain(self.peer.head)(outputs[theirs])
        apart = divergence(second.detach(), first) + divergence(first.detach(), second)
        taught = outputs.new_zeros(())
        if known.any():
            for tuned, rows in ((self.tuned, mine), (self.peer, theirs)):
                taught = taught + self.taught(outputs, batch, rows[known], labels[known], tuned)
        self.note(first, second, apart)
        return self.together(taught, apart, known, self.how.weight)

    def state(self) -> dict[str, Any]:
        """Keep the peer too."""
        found, peer = super().state(), self.peer
        found["scheme"] |= {
            "delta": dict(peer.delta.named_parameters()),
            "head": dict(peer.head.state_dict()),
            "method": self.method.training_state(peer.delta),
            "dropout": peer.streams(),
        }
        return found

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state."""
        own = state["scheme"]
        self.peer.delta.load(own["delta"], where)
        self.peer.head.load_state_dict(own["head"])
        self.method.resume(self.peer.delta, own["method"])
        self.peer.set_streams(own["dropout"])
        super().resume(state, where)
