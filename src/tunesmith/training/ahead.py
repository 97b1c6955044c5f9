"""What lets a GPU go on without waiting for the CPU: the next step's rows sent early, losses read late."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tunesmith.models.layout import RaggedBatch
from tunesmith.training.batching import Sent, joined

if TYPE_CHECKING:
    from tunesmith.training.trial import Trial

Rows = Sequence[Sequence[Sent]]  # of each trial


class Together(NamedTuple):
    """Rows on their device.

    Args:
        batch: all of them.
        owns: each trial's own.
        name: of the only delta; None where there are several.
    """

    batch: RaggedBatch
    owns: list[RaggedBatch]
    name: str | None


class Ahead:
    """Puts rows on the model's device, some before they are asked for.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ready: tuple[Rows, Together] | None = None

    def look_ahead(self, trial: Trial) -> None:
        """Send the rows of the epoch's next step, where there is one, while the device is busy with this one.

        Args:
            trial: the only one.
        """
        numbers = trial.next_rows
        if numbers:
            rows = [trial.sent(trial.passes(numbers)[0])]
            self._ready = rows, self._put(rows)

    def of(self, rows: Rows) -> Together:
        """Return rows on the device.

        Args:
            rows: that a pass sends.
        Returns:
            They, with the delta that they go to.
        """
        ready, self._ready = self._ready, None
        return ready[1] if ready is not None and ready[0] == rows else self._put(rows)

    def _put(self, rows: Rows) -> Together:
        parts = [part for of_one in rows for part in of_one]
        names = [part.name for part in parts]
        name = names[0] if len(set(names)) == 1 else None
        batch = joined([part[:3] for part in parts], names if name is None else None)
        ends = list(accumulate((sum(len(part.numbers) for part in of_one) for of_one in rows), initial=0))
        whole = batch.to(self._device)
        owns = [batch.part(*span) for span in pairwise(ends)]
        return Together(whole, [whole if own is batch else own.to(self._device) for own in owns], name)


class Unread:
    """A loss that the GPU has not computed yet.

    Args:
        loss: a scalar on a GPU.
    """

    def __init__(self, loss: Tensor) -> None:
        self._copy = loss.detach().to("cpu", non_blocking=True)
        self._done = torch.cuda.Event()
        self._done.record(torch.cuda.current_stream(loss.device))  # which need not be the present device's

    def value(self) -> float:
        """Wait for the loss, not for what the GPU was given after it."""
        self._done.synchronize()
        return float(self._copy)
