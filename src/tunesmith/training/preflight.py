"""Before the first step: proof that the run would do something, and how much memory it will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.core.memory import resident_bytes
from tunesmith.models.delta import Delta
from tunesmith.models.keeping import counted
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.batching import batch_of
from tunesmith.training.trial import Trial

_ROWS, _TOKENS = 4, 512  # most of the probing batch: the longest rows, at least one


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Args:
        layers: linear maps that the delta adapts. [count]
        trainable: parameters of delta and head. [count]
        share: trainable over the model's parameters. [fraction]
        held_bytes: before the probing step.
        notes: printed facts.
    """

    layers: int
    trainable: int
    share: float
    held_bytes: int
    notes: tuple[str, ...]


def check(trial: Trial) -> Preflight:
    """Run one probing step without an update and look at what it did.

    Args:
        trial: ready to fit.
    Returns:
        The facts.
    Raises:
        CompatibilityError: a parameter would not train.
        DataError: no row has a label.
    """
    if not len(trial.split.labels) or (trial.split.labels < 0).all():
        raise DataError(f"{trial.split.examples.path}: no training row has a label, so nothing could be learned.")
    if trial.settings.tokens_per_pass is not None and not trial.divisible:
        why = "training.synthetic mixes" if trial.tuned.task.separable else "the head or a loss of the task compares"
        raise RecipeError(
            f"training.tokens_per_pass: {why} all rows of a step, so a step is one pass. Leave it out, and lower "
            "training.batch_size where memory is short."
        )
    if not trial.method.trains:
        return _untrained(trial)
    _check_optimizer(trial)
    tuned, batch = trial.tuned, batch_of(trial.split, _longest(trial), trial.draw)
    held = _held(tuned.backbone.device)
    tuned.train(True)
    weights = [*tuned.backbone.model.parameters(), *trial.optimizer.parameters]
    with counted([weight for weight in weights if type(weight) is nn.Parameter]) as saved:  # quantised, shared out
        loss = tuned.loss(batch, trial.settings.label_smoothing)
    trial.optimizer.scale(loss).backward()  # as in a step: float16 may lose small gradients
    silent = _check_gradients(tuned.delta)
    for parameter in trial.optimizer.parameters:
        parameter.grad = None
    tuned.train(False)
    trial.token_bytes = saved.bytes / batch.layout.tokens
    trainable = sum(parameter.numel() for parameter in trial.optimizer.parameters)
    notes = [f"{len(silent)} parameters get a gradient of exactly zero, for example '{silent[0]}'"] if silent else []
    if trial.settings.precision != "float32" and not _any_frozen(tuned):
        notes.append(f"training.precision={trial.settings.precision} changes nothing: no linear map stays frozen")
    return Preflight(
        layers=len(tuned.delta.patches),
        trainable=trainable,
        share=trainable / tuned.backbone.parameters,
        held_bytes=held,
        notes=tuple(notes),
    )


def _untrained(trial: Trial) -> Preflight:
    """Refuse a head that would answer by chance, and say that nothing trains."""
    if not trial.tuned.task.answers_untrained:
        raise CompatibilityError(
            f"method {trial.method.name}: the head starts at random numbers and would answer by chance. Start it at "
            "class means (task.head_start=prototypes), or train it (method head-only)."
        )
    notes = (f"nothing trains (method {trial.method.name}): training settings are not read",)
    return Preflight(layers=0, trainable=0, share=0.0, held_bytes=_held(trial.tuned.backbone.device), notes=notes)


def _longest(trial: Trial) -> list[int]:
    """The longest rows; few, as the probing step should not take more memory than the others will."""
    lengths = trial.split.tokens.lengths
    if not trial.tuned.task.separable:
        return _comparable(trial.split.labels, lengths) * trial.tuned.task.copies
    order = np.argsort(-lengths, kind="stable")[:_ROWS]
    return order[: max(1, int((lengths[order].cumsum() <= _TOKENS).sum()))].tolist()


def _comparable(labels: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> list[int]:
    """A longest row, another one of its label and one of another label where there are such: what losses compare."""
    order = np.argsort(-lengths, kind="stable")
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several = order[counts[codes[order]] > 1]
    first = int((several if len(several) else order)[0])
    alike = [int(row) for row in order if labels[row] == labels[first] and row != first][:1]
    other = [int(row) for row in order if labels[row] != labels[first]][:1]
    return [first, *alike, *other]


def _any_frozen(tuned: Tuned) -> bool:
    """Say whether the model has a linear map, the output map aside, whose weight does not train."""
    maps = tuned.backbone.seams.linear.items()
    return any(f"{path}.weight" not in tuned.delta.copies for path, seam in maps if not seam.exact)


def _check_optimizer(trial: Trial) -> None:
    held = {id(parameter) for parameter in trial.optimizer.parameters}
    left_out = [name for name, parameter in trial.tuned.delta.named_parameters() if id(parameter) not in held]
    if left_out:
        raise CompatibilityError(f"{len(left_out)} delta parameters are not in the optimizer, e.g. '{left_out[0]}'.")


def _check_gradients(delta: Delta) -> list[str]:
    """Return names of parameters whose gradient is exactly zero; LoRA's A, which B = 0 hides at the start, aside."""
    missing = [name for name, parameter in delta.named_parameters() if parameter.grad is None]
    if missing:
        raise CompatibilityError(
            f"{len(missing)} delta parameters get no gradient, for example '{missing[0]}': that layer does not "
            "reach the loss, so its delta would never train. Leave it out of method.layers."
        )
    zero = [name for name, p in delta.named_parameters() if p.grad is not None and not p.grad.any()]
    silent_patches = [path for path, patch in delta.patches.items() if _all_zero(list(patch.parameters()))]
    return [name for name in zero if name in delta.copies] + silent_patches


def _all_zero(parameters: Sequence[Tensor]) -> bool:
    """A patch without parameters of its own, as one that follows a tied table, is not silent."""
    return bool(parameters) and all(p.grad is not None and not p.grad.any() for p in parameters)


def _held(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()
