"""What a trial's synthetic rows are made of, and where the model mixes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.core.named import build_named
from tunesmith.core.seeds import seeded
from tunesmith.models.backbone import Backbone
from tunesmith.models.layout import Layout, RaggedBatch
from tunesmith.models.structure import stacks
from tunesmith.training.synthetic.base import Draw, MixingInside, Rows, Synthetic

if TYPE_CHECKING:
    from tunesmith.training.trial import Trial

_BANK = 256  # rows of a class whose features are remembered, at most
_Codes = np.ndarray[Any, np.dtype[np.int64]]


class Synthesizing:
    """Makes the rows that a trial's head learns of those that were sent.

    Args:
        written: the recipe's; None for none.
        labels: (rows,), a code per training row.
        seed: of what is drawn at random.
    """

    def __init__(self, written: Any, labels: _Codes, seed: int) -> None:
        self.how: Synthetic | None = None if written is None else build_named("synthetic", written)
        self._labels, self._seed = labels, seed
        self._slots: dict[int, int] = {}  # in the bank, by number of the row
        self._bank: Tensor | None = None
        self._seen = np.zeros(0, np.bool_)
        self._network: nn.Module | None = None
        self._learning: torch.optim.Optimizer | None = None
        if self.how is not None and self.how.remembers:
            kept = [number for code in np.unique(labels) for number in np.flatnonzero(labels == code)[:_BANK].tolist()]
            self._slots = {number: slot for slot, number in enumerate(kept)}
            self._seen = np.zeros(len(kept), np.bool_)

    @property
    def inside(self) -> MixingInside | None:
        """How rows are mixed inside the model, where they are."""
        return self.how if isinstance(self.how, MixingInside) else None

    def draw(self, step: int) -> Draw:
        """Begin a step's own stream of random numbers.

        Args:
            step: made so far. [count]
        Returns:
            The same stream for the same step.
        """
        return np.random.default_rng((self._seed, step))

    def made(self, outputs: Tensor, batch: RaggedBatch, classes: int, step: int) -> tuple[Tensor, RaggedBatch]:
        """Return what the head learns.

        Args:
            outputs: (R, D), of the rows sent.
            batch: theirs, with labels.
            classes: C. [count]
            step: made so far. [count]
        Returns:
            Features (M, D), and a batch with M rows' labels; what was given where nothing is made.
        """
        if self.how is None or batch.labels is None:
            return outputs, batch
        labels = batch.labels.to(outputs.device)
        soft = labels if labels.ndim == 2 else nn.functional.one_hot(labels, classes)
        index = batch.index.cpu().numpy()
        if self.how.remembers:
            self._remember(outputs.detach(), index)
        counts = np.bincount(self._labels, minlength=classes)
        draw = self.draw(step)
        rows = Rows(outputs, soft.to(outputs), counts, index, self._of_class, self._taught_network(outputs))
        self._learn(rows, draw)
        features, targets, origin = self.how.make(rows, draw)
        places = torch.from_numpy(origin)
        if labels.ndim == 1 and not self.how.mixes_labels:
            targets = labels[places.to(labels.device)]
        weights = None if batch.weights is None else batch.weights[places.to(batch.weights.device)]
        numbers = batch.index[places.to(batch.index.device)]
        return features, replace(batch, labels=targets, index=numbers, weights=weights)

    def _taught_network(self, like: Tensor) -> nn.Module | None:
        """Return the network that learns beside the delta, made at the first step; None where there is none."""
        if self._network is None and self.how is not None:
            with seeded(self._seed):
                made = self.how.network(like.shape[1])
            if made is not None:
                self._network, rate = made[0].to(like), made[1]
                self._learning = torch.optim.AdamW(self._network.parameters(), lr=rate)
        return self._network

    def _learn(self, rows: Rows, draw: Draw) -> None:
        """Make one step of the network."""
        if self.how is None or self._learning is None:
            return
        loss = self.how.learn(rows, draw)
        if loss is not None:
            self._learning.zero_grad()
            loss.backward()
            self._learning.step()

    def _remember(self, features: Tensor, index: _Codes) -> None:
        if self._bank is None:
            self._bank = features.new_zeros(len(self._slots), features.shape[1])
        for place, number in enumerate(index.tolist()):
            slot = self._slots.get(number)
            if slot is not None:
                self._bank[slot] = features[place]
                self._seen[slot] = True

    def _of_class(self, code: int) -> tuple[Tensor, _Codes]:
        """Return what was last seen of a class's rows."""
        assert self._bank is not None
        numbers = np.flatnonzero(self._labels == code)[:_BANK]
        slots = np.array([self._slots[number] for number in numbers.tolist()], np.int64)
        seen = self._seen[slots]
        return self._bank[torch.from_numpy(slots[seen]).to(self._bank.device)], numbers[seen]

    def state(self) -> dict[str, Any]:
        """Return what later steps depend on.

        Returns:
            A state for `resume`.
        """
        found: dict[str, Any] = {}
        if self._bank is not None:
            found = {"bank": self._bank, "seen": torch.from_numpy(self._seen)}
        if self._network is not None and self._learning is not None:
            found.update(network=self._network.state_dict(), learning=self._learning.state_dict()["state"])
        return found

    def resume(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a state.

        Args:
            state: from `state`, of the same rows.
            device: that the head computes on.
        """
        if state:
            self._bank, self._seen = state["bank"].to(device), state["seen"].numpy()
        if "network" in state:
            network = self._taught_network(state["bank"].to(device))
            assert network is not None and self._learning is not None
            network.load_state_dict(state["network"])
            self._learning.load_state_dict({**self._learning.state_dict(), "state": state["learning"]})


def check_inside(backbone: Backbone, trials: Sequence[Trial]) -> None:
    """Refuse mixing inside a model where it would not reach every token, or layers that the model does not have.

    Args:
        backbone: that the trials share.
        trials: that train.
    Raises:
        CompatibilityError: of a model that reads padded rows, has an encoder and a decoder, or too few blocks.
    """
    makers = [(trial, trial.synthesizing.inside) for trial in trials if trial.synthesizing.inside is not None]
    if not makers:
        return
    name, found, (first, way) = type(backbone.model).__name__, stacks(backbone.body), makers[0]
    if not backbone.proof.fast or len(found) != 1 or any(trial.tuned.delta.prompt is not None for trial, _ in makers):
        raise CompatibilityError(
            f"training.synthetic: {way.name} is for models of one stack of blocks that read rows without padding, "
            f"and for methods without a soft prompt; {name} with {first.method.name} is not. Take mixup."
        )
    highest, how = max(((max(how.layers), how) for _, how in makers), key=lambda pair: pair[0])
    if highest >= len(found[0]):
        raise CompatibilityError(
            f"training.synthetic: {how.name}.layers: {highest} is not allowed; {name} has {len(found[0])} blocks, "
            f"of which the last one is left to the head. Allowed: 0 to {len(found[0]) - 1}."
        )


@contextmanager
def mixing(backbone: Backbone, trials: Sequence[Trial]) -> Iterator[None]:
    """Mix every trial's own rows at a layer of the model in the pass inside the block.

    Args:
        backbone: that the trials share.
        trials: whose rows are in the pass.
    """
    with ExitStack() as hooks:
        for trial in trials:
            if (how := trial.synthesizing.inside) is not None:
                hooks.callback(_hook(backbone, trial, how).remove)
        yield


def _hook(backbone: Backbone, trial: Trial, how: MixingInside) -> Any:
    """Mix one trial's rows where its step wants it."""
    synthesizing, step = trial.synthesizing, trial.trained.steps
    layer = how.layer(synthesizing.draw(step))

    def mix(module: nn.Module, given: Any, output: Any) -> Any:
        layout = backbone.seams.routing.layout
        assert layout is not None
        hidden = output[0] if isinstance(output, tuple) else output
        own = [row for row in range(layout.rows) if layout.names is None or layout.names[row] == trial.name]
        again = synthesizing.draw(step)
        how.layer(again)
        pairs = how.pairs(len(own), again)
        partner = token_partners(layout, own, pairs.partners).to(hidden.device)
        mixed = pairs.lam * hidden + (1 - pairs.lam) * hidden[..., partner, :]
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    if layer == 0:
        return backbone.seams.reader.get_input_embeddings().register_forward_hook(mix)  # type: ignore[operator]
    return backbone.body.get_submodule(stacks(backbone.body)[0][layer - 1]).register_forward_hook(mix)


def token_partners(layout: Layout, rows: Sequence[int], partners: _Codes) -> Tensor:
    """Say which token every token is mixed with.

    Args:
        layout: of all rows.
        rows: (R,), that are mixed.
        partners: (R,), the place among `rows` of each one's partner.
    Returns:
        (N,), int64; a token's own number where its row's partner is shorter, and in other rows.
    """
    found, starts = torch.arange(layout.tokens), layout.starts
    for row, place in zip(rows, partners.tolist(), strict=True):
        other = rows[place]
        both = min(layout.lengths[row], layout.lengths[other])
        found[starts[row] : starts[row] + both] = torch.arange(starts[other], starts[other] + both)
    return found
