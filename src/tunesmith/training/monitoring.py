"""What is measured layer by layer while a delta trains."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.models.backbone import Backbone
from tunesmith.models.placing import widest
from tunesmith.models.structure import stacks

if TYPE_CHECKING:
    from tunesmith.training.trial import Trial

_BLOCK = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
REST = "others"  # parameters outside the blocks


def block_of(name: str) -> str:
    """Say which block of a model a parameter belongs to.

    Args:
        name: dotted, of the parameter.
    Returns:
        The name up to the block's number; "others" outside the blocks.
    Example:
        >>> block_of("encoder.layer.3.attention.query.a"), block_of("embeddings.word")
        ('encoder.layer.3', 'others')
    """
    found = _BLOCK.search(name)
    return name[: found.end()] if found else REST


@torch.no_grad()
def gradient_norms(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, float]:
    """Measure the gradients of every block together.

    Args:
        named: parameters with their names, in the model's order.
    Returns:
        Euclidean norm by block, in that order; blocks without gradients are left out.
    """
    squares: defaultdict[str, float] = defaultdict(float)
    for name, parameter in named:
        if parameter.grad is not None:
            squares[block_of(name)] += float(parameter.grad.to(widest(parameter.device)).square().sum())
    return {block: total**0.5 for block, total in squares.items()}


class Monitor:
    """What is measured of one trial in the last step of an epoch."""

    def __init__(self) -> None:
        self._norms: dict[str, float] = {}
        self._sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0])  # of squares; and how many numbers
        self._zeros = [0, 0]  # of a delta's activations, and how many they are

    def gradients(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Measure the step's gradients.

        Args:
            named: parameters with their names, in the model's order.
        """
        self._norms = gradient_norms(named)

    @torch.no_grad()
    def activations(self, block: str, added: Tensor) -> None:
        """Take in what a block added to its input in one of the step's passes.

        Args:
            block: its name.
            added: output less input of the trial's tokens, (n, D).
        """
        sums = self._sums[block]
        sums[0] += float(added.to(widest(added.device)).square().sum())
        sums[1] += added.numel()

    def zeros(self, states: Tensor) -> None:
        """Take in activations inside the delta.

        Args:
            states: of any shape.
        """
        self._zeros[0] += int((states == 0).sum())
        self._zeros[1] += states.numel()

    def facts(self) -> dict[str, Any]:
        """Return the epoch's line of the history, and begin anew.

        Returns:
            "gradient norms" by block; "activations", the root of the mean square of what each block added; and "zero
            activations", the share of zeros inside the delta, where it has activations that may be zero.
        """
        zeros, count = self._zeros
        self._zeros = [0, 0]
        sizes = {block: (squares / count) ** 0.5 for block, (squares, count) in self._sums.items() if count}
        self._sums.clear()
        return {
            "gradient norms": self._norms,
            **({"activations": sizes} if sizes else {}),
            **({"zero activations": zeros / count} if count else {}),
        }


@contextmanager
def watching(backbone: Backbone, trials: Sequence[Trial]) -> Iterator[None]:
    """Measure what the blocks add in the pass inside the block, for trials whose epoch ends with its step.

    What they give says little where each ends in a norm. Not measured are blocks below all deltas whose states are kept
    from an earlier epoch, a last block that gives only the tokens that are read, and models that read padded rows.

    Args:
        backbone: that the trials share.
        trials: whose rows are in the pass.
    """
    watched = [trial for trial in trials if trial.epoch_ended] if backbone.proof.fast else []
    with ExitStack() as hooks:
        for trial in (trial for trial in trials if trial.epoch_ended):
            for module in _giving_zeros(trial):
                hooks.callback(module.register_forward_hook(_counting(trial)).remove)
        for path in (path for stack in stacks(backbone.body) for path in stack) if watched else ():
            block, hook = backbone.body.get_submodule(path), _measuring(backbone, path, watched, len(trials) == 1)
            hooks.callback(block.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _giving_zeros(trial: Trial) -> list[nn.Module]:
    inside = (module for delta in trial.deltas for patch in delta.patches.values() for module in patch.modules())
    return [module for module in inside if getattr(module, "gives_zeros", False)]


def _counting(trial: Trial) -> Any:
    return lambda module, given, output: trial.monitor.zeros(output.detach())


def _measuring(backbone: Backbone, path: str, trials: Sequence[Trial], alone: bool) -> Any:
    """Make the hook of one block; of several trials only rows whose trial is told are measured."""

    by_name = {trial.name: trial for trial in trials}

    def measure(module: nn.Module, given: Any, named: Any, output: Any) -> None:
        after = output[0] if isinstance(output, tuple) else output
        before = given[0] if given else named.get("hidden_states")
        layout = backbone.seams.routing.layout
        if layout is None or before is None or before.shape != after.shape or before[..., 0].numel() != layout.tokens:
            return
        added = (after - before).detach().reshape(layout.tokens, -1)
        if alone:
            trials[0].monitor.activations(path, added)
            return
        named = [] if layout.names is None else zip(layout.names, added.split(layout.lengths), strict=True)
        for name, part in named:
            if name in by_name:
                by_name[name].monitor.activations(path, part)

    return measure
