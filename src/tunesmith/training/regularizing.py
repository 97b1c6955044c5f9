"""What a trial's regularizers do in its steps, and what they keep from step to step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, CompatibilityError
from tunesmith.core.named import build_named
from tunesmith.core.seeds import derived
from tunesmith.models.backbone import Backbone
from tunesmith.training.gates import Gates
from tunesmith.training.regularizers.base import Gating, OnParameters, Regularizer

if TYPE_CHECKING:
    from tunesmith.training.trial import Trial


class Regularizing:
    """The regularizers of one trial.

    Args:
        written: the recipe's.
        delta: parameters of the delta, at their start.
        head: parameters of the head, at their start.
        seed: of what is drawn at random.
    Raises:
        CompatibilityError: a regularizer acts on parameters that are not there.
    """

    def __init__(
        self, written: Sequence[Any], delta: Sequence[nn.Parameter], head: Sequence[nn.Parameter], seed: int
    ) -> None:
        chosen: list[Regularizer] = [build_named("regularizers", one) for one in written]
        parts = {"all": [*delta, *head], "delta": list(delta), "head": list(head)}
        self._noisy = [one for one in chosen if one.makes_noise]
        self._acting = [(one, parts[one.on]) for one in chosen if isinstance(one, OnParameters)]
        for one, own in self._acting:
            if not own:
                raise CompatibilityError(
                    f"training.regularizers: {one.name} is on {one.on}, which has no parameters here. Leave it out."
                )
        read = {id(p): p for one, own in self._acting if one.reads_start for p in own}
        self._start = {key: one.detach().clone() for key, one in read.items()}
        self._average = next(((one, own) for one, own in self._acting if one.averages), None)
        self._averaged = [_wide(one) for one in self._average[1]] if self._average else []
        gated = [(one, own) for one, own in self._acting if isinstance(one, Gating)]
        self.gates = Gates(*gated[0]) if gated else None
        self.sparsifies = any(one.sparsifies for one, _ in self._acting)
        ranks = torch.Generator().manual_seed(derived(seed, "ranks"))
        self._thinning = [
            (one, p, torch.rand(p.shape, generator=ranks).to(p.device))
            for one, own in self._acting
            if one.sparsifies and not one.gates
            for p in own
        ]
        self._draw = torch.Generator().manual_seed(seed)
        self._noise: torch.Generator | None = None  # where it is not drawn from the same stream
        self.thin(0, 1)
        self._aside: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # parameters, their values, derivatives

    @property
    def parts(self) -> list[tuple[list[nn.Parameter], float]]:
        """What trains besides delta and head, with its learning rate: the gates."""
        return [] if self.gates is None else [(list(self.gates.logs), self.gates.how.rate)]

    @property
    def makes_noise(self) -> bool:
        """Whether embeddings get noise."""
        return bool(self._noisy)

    def _starts(self, own: Sequence[nn.Parameter]) -> list[Tensor]:
        return [self._start.get(id(one), one) for one in own]

    def penalty(self) -> Tensor | None:
        """Return what is added to the loss of a step, or None."""
        found = [one.penalty(own, self._starts(own)) for one, own in self._acting]
        given = [one for one in [*found, None if self.gates is None else self.gates.penalty()] if one is not None]
        return torch.stack(given).sum() if given else None

    @torch.no_grad()
    def enter(self) -> None:
        """Before a step's passes: let others stand in the place of parameters, where a regularizer wants that."""
        for regularizer, own in self._acting:
            for one, start in zip(own, self._starts(own), strict=True):
                given = regularizer.stand_in(one, start, self._draw)
                if given is not None:
                    self._aside.append((one, one.detach().clone(), given[1]))
                    one.copy_(given[0])
        if self.gates is not None:
            self.gates.enter(self._draw)

    @torch.no_grad()
    def leave(self) -> None:
        """After a step's passes: put parameters back, and make the gradients theirs."""
        if self.gates is not None:
            self.gates.leave()
        for one, value, slope in reversed(self._aside):
            one.copy_(value)
            if one.grad is not None:
                one.grad.mul_(slope)
        self._aside.clear()

    @torch.no_grad()
    def average(self, step: int, total: int) -> None:
        """After an update: take the parameters into the average.

        Args:
            step: just made, 1 for the first.
            total: steps of the run. [count]
        """
        if self._average is not None:
            regularizer, own = self._average
            share = regularizer.share(step, total)
            for averaged, one in zip(self._averaged, own, strict=True):
                averaged.lerp_(one.detach().to(averaged), share)

    @torch.no_grad()
    def thin(self, step: int, total: int) -> None:
        """After an update: set numbers to zero where a regularizer wants that.

        Args:
            step: just made; 0 before the first.
            total: steps of the run. [count]
        """
        for regularizer, one, rank in self._thinning:
            regularizer.thin(one, rank, step / max(1, total))

    def answers(self) -> dict[int, Tensor]:
        """Return what the model should answer with in the place of parameters, by their ids."""
        if self.gates is not None:
            return self.gates.by_id()
        return dict(zip(map(id, self._average[1]), self._averaged, strict=True)) if self._average else {}

    def seed_noise(self, seed: int) -> None:
        """Draw noise on embeddings from a stream of its own from now on, as processes do that have rows of their own.

        Args:
            seed: of the stream.
        """
        self._noise = torch.Generator().manual_seed(seed)

    def noise(self, shape: torch.Size, lengths: Tensor) -> Tensor:
        """Draw what is added to embeddings.

        Args:
            shape: (N, D).
            lengths: (N,), of each token's row. [tokens]
        Returns:
            (N, D), float32, on the CPU.
        """
        return torch.stack([one.noise(shape, lengths, self._noise or self._draw) for one in self._noisy]).sum(0)

    def state(self) -> dict[str, Any]:
        """Return what later steps depend on.

        Returns:
            A state for `resume`.
        """
        gates = {} if self.gates is None else self.gates.state()
        return {"averaged": self._averaged, "draw": self._draw.get_state(), "gates": gates}

    def resume(self, state: Mapping[str, Any], where: str) -> None:
        """Go on from a state.

        Args:
            state: from `state`, of the same regularizers and parameters.
            where: what to call its source in an error.
        Raises:
            CheckpointError: it does not fit.
        """
        if [one.shape for one in state["averaged"]] != [one.shape for one in self._averaged]:
            raise CheckpointError(f"{where} holds an average of other parameters than the recipe trains.")
        self._averaged = [new.to(old) for new, old in zip(state["averaged"], self._averaged, strict=True)]
        self._draw.set_state(state["draw"])
        if self.gates is not None:
            self.gates.resume(state["gates"])


def _wide(one: Tensor) -> Tensor:
    """Copy a parameter, of 16 bits to 32: an average moves by less than their last digit."""
    return one.detach().to(torch.promote_types(one.dtype, torch.float32), copy=True)


def zero_share(parameters: Iterable[Tensor]) -> float:
    """Return the share of numbers that are exactly zero.

    Args:
        parameters: any.
    Returns:
        Between 0 and 1; 0 where there are none. [fraction]
    """
    counts = [(int((one == 0).sum()), one.numel()) for one in parameters]
    return sum(zeros for zeros, _ in counts) / max(1, sum(size for _, size in counts))


def check_noise(backbone: Backbone, trials: Sequence[Trial]) -> None:
    """Refuse noise on embeddings where it would not reach every token.

    Args:
        backbone: that the trials share.
        trials: that train.
    Raises:
        CompatibilityError: of a model that reads padded rows, or has an encoder and a decoder.
    """
    if not any(trial.regularizing.makes_noise for trial in trials):
        return
    if not backbone.proof.fast or backbone.seams.encoder is not None:
        why = "has an encoder and a decoder" if backbone.seams.encoder is not None else "reads padded rows"
        raise CompatibilityError(
            f"training.regularizers: embedding-noise is for models that read rows without padding, with one stack of "
            f"blocks; {type(backbone.model).__name__} {why}. Leave it out."
        )


@contextmanager
def whole_rows(backbone: Backbone, trials: Sequence[Trial]) -> Iterator[None]:
    """Let rows run whole in the steps inside the block where noise goes by their lengths, and is each row's own.

    Args:
        backbone: that the trials share.
        trials: that make the steps.
    """
    before, backbone.rows_whole = backbone.rows_whole, any(trial.regularizing.makes_noise for trial in trials)
    try:
        yield
    finally:
        backbone.rows_whole = before


@contextmanager
def noisy(backbone: Backbone, trials: Sequence[Trial]) -> Iterator[None]:
    """Add every trial's own noise to the embeddings of its rows in the passes inside the block.

    Args:
        backbone: that the trials share.
        trials: whose rows are in the passes.
    """
    makers = [trial for trial in trials if trial.regularizing.makes_noise]
    if not makers:
        yield
        return

    def add(module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
        layout = backbone.seams.routing.layout
        assert layout is not None and layout.tokens == embedded.shape[1]
        lengths = torch.tensor(layout.lengths)
        of_row, added = lengths.repeat_interleave(lengths), torch.zeros(embedded.shape[1:])
        names = layout.names or (makers[0].name,) * len(layout.lengths)
        for trial in makers:
            mine = torch.tensor([name == trial.name for name in names]).repeat_interleave(lengths)
            own = trial.regularizing.noise(torch.Size((int(mine.sum()), embedded.shape[2])), of_row[mine])
            added[mine] = own
        return embedded + added.to(embedded)

    table = backbone.seams.reader.get_input_embeddings()  # type: ignore[operator]
    handle = table.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
