"""How much memory training will take, and how a step is cut so that it fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.core.memory import available_bytes
from tunesmith.models.recomputing import Recomputing, recomputing
from tunesmith.training.preflight import Preflight
from tunesmith.training.processes import ALONE, Processes
from tunesmith.training.trial import Trial

_MIB = 2**20
# What a step takes beyond what it keeps, found on the cases of `benchmarks/memory.py`.
_SLACK = {"cpu": 1.3, "cuda": 1.15}  # times what is kept: temporaries, and holes between tensors on a CPU's heap
_FIXED = {"cpu": 32 * _MIB, "cuda": 32 * _MIB}  # kernels, their scratch space, logits of one chunk
_MARGIN = {"cpu": 48 * _MIB, "cuda": 0}  # below a limit: rows of ever other lengths leave more holes after many epochs
_STATE = 4 * 4  # bytes per trained parameter: its gradient, Adam's two moments, the best state so far
_EXACT = 4  # bytes more per trained parameter of 16 bits: the number of 32 that it is rounded from


@dataclass(frozen=True)
class Plan:
    """What a step will look like.

    Args:
        tokens: most that go through the model at once, per trial; None for the setting's own.
        again: whether blocks run again for their gradients.
        peak_bytes: predicted, of the process, or of what is allocated on a GPU.
        limit_bytes: that it has to stay below.
    """

    tokens: int | None
    again: bool
    peak_bytes: int
    limit_bytes: int

    def sentence(self) -> str:
        """Say what was planned."""
        parts = [f"predicted peak memory {self.peak_bytes / 1e6:,.0f} MB"]
        if self.tokens is not None or self.again:
            parts.append(f"to fit into {self.limit_bytes / 1e6:,.0f} MB")
        if self.tokens is not None:
            parts.append(f"at most {self.tokens} tokens go through the model at once")
        if self.again:
            parts.append("blocks run a second time for their gradients, about a third slower")
        return ", ".join(parts)


def plan(found: Sequence[tuple[Trial, Preflight]], processes: Processes = ALONE) -> Plan:
    """Cut the steps of a run so that it fits into training.memory_limit, or into what is free.

    Args:
        found: the trials of one pass, each with what its probing step found.
        processes: that train them together; they share what is free of a machine, and take the narrowest plan of all.
    Returns:
        The plan; the trials and their backbone follow it.
    Raises:
        RecipeError: the longest row does not fit into training.memory_limit.
    """
    step = _Step(found)
    backbone, settings = found[0][0].tuned.backbone, found[0][0].settings
    asked, margin = settings.memory_limit, step.margin
    sharers = processes.place.local_count if backbone.device.type == "cpu" else 1
    limit = step.held + available_bytes(backbone.device) // sharers if asked is None else asked * _MIB
    if not any(trial.method.trains for trial, _ in found):
        return Plan(None, False, step.held, limit)
    chosen = replace(_cut(step, limit - margin, recomputing(backbone.seams, backbone.body)), limit_bytes=limit)
    if chosen.peak_bytes + margin > limit and asked is not None:
        raise RecipeError(
            f"training.memory_limit={asked}: the model and this program hold {step.held / _MIB:,.0f} MiB, and with the "
            f"longest row of {step.longest} tokens training would take {(chosen.peak_bytes + margin) / _MIB:,.0f} MiB. "
            "Raise the limit, lower data.max_tokens, choose a smaller model or method, or set model.quantization."
        )
    found_plans = processes.gathered((chosen.again, -(chosen.tokens or step.usual), chosen.tokens))
    again, _, tokens = max(found_plans, key=lambda one: one[:2])
    chosen = replace(chosen, again=again, tokens=tokens)
    backbone.again = recomputing(backbone.seams, backbone.body) if chosen.again else None
    for trial, _ in found:
        trial.most_tokens = chosen.tokens
    return chosen


def _cut(step: _Step, limit: int, blocks: Recomputing | None) -> Plan:
    """Prefer the setting's own passes, then smaller ones, then blocks that run again."""
    whole = Plan(None, False, step.peak(step.usual, 0), limit)
    if whole.peak_bytes <= limit:
        return whole
    ways = [0] if blocks is None else [0, len(blocks.blocks)]
    for again in ways:
        tokens = step.room(limit, again)
        if tokens >= step.longest or again == ways[-1]:
            break
    if step.fixed_tokens:
        tokens = step.usual
    tokens = min(max(tokens, step.longest), step.usual)
    cut = None if tokens == step.usual else tokens
    return replace(whole, tokens=cut, again=again > 0, peak_bytes=step.peak(tokens, again))


class _Step:
    """What the trials of one pass take."""

    def __init__(self, found: Sequence[tuple[Trial, Preflight]]) -> None:
        trials = [trial for trial, _ in found]
        backbone = trials[0].tuned.backbone
        kind = "cuda" if backbone.device.type == "cuda" else "cpu"
        self.held, self.margin = min(facts.held_bytes for _, facts in found), _MARGIN[kind]
        halves = sum(p.numel() for trial in trials for p in trial.optimizer.parameters if p.dtype.itemsize == 2)
        self._own = _FIXED[kind] + _STATE * sum(facts.trainable for _, facts in found) + _EXACT * halves
        self._kept = _SLACK[kind] * sum(trial.token_bytes for trial in trials)
        self._state = _SLACK[kind] * len(trials) * backbone.width * next(backbone.model.parameters()).element_size()
        self.longest = max(int(trial.row_lengths.max()) for trial in trials)
        self.usual = max(_largest_pass(trial) for trial in trials)
        whole = not all(trial.divisible for trial in trials)
        self.fixed_tokens = whole or trials[0].settings.tokens_per_pass is not None

    def _per_token(self, again: int) -> float:
        """What a token takes; where blocks run again, a state for each of them and what one keeps. [bytes]"""
        return self._kept if not again else again * self._state + self._kept / again

    def peak(self, tokens: int, again: int) -> int:
        """Predict for passes of so many tokens per trial. [bytes]"""
        return int(self.held + self._own + tokens * self._per_token(again))

    def room(self, limit: int, again: int) -> int:
        """How many tokens of each trial fit. [count]"""
        return max(0, math.floor((limit - self.held - self._own) / self._per_token(again)))


def _largest_pass(trial: Trial) -> int:
    """How many tokens go through at once at most: of a step drawn at random, or of its largest pass."""
    lengths, size = np.sort(trial.row_lengths)[::-1], trial.step_rows
    most, mean = int(lengths[:size].sum()), lengths.mean() * size
    drawn = int(min(most, mean + 3 * lengths.std() * math.sqrt(size)))
    limit = trial.pass_tokens
    return min(drawn, max(limit, int(lengths[0]))) if limit else drawn
