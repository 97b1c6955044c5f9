"""Several processes that train one delta together, as torchrun starts them.

All read the same recipe and data and hold the same weights. The rows of a step are shared out by length; every
process computes the gradients of its own rows as parts of the whole step's mean, and the sums over all processes, which
are the step's gradients, take the place of its own. Only what trains is ever sent. The first process alone evaluates
and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from tunesmith.core.errors import CheckpointError, RecipeError, TunesmithError
from tunesmith.core.launch import Place, heed_again, launched, speak_first
from tunesmith.models.loading import choose_device
from tunesmith.models.sharding import Shards
from tunesmith.models.structure import stacks

_PATIENCE = timedelta(days=7)  # the others wait while the first one evaluates; one that dies is noticed at once
_MOMENT = timedelta(seconds=5)  # for the first process to say that it met the same error
_MESSAGE = "tunesmith ended"  # beginning of the key of what the first process to fail says
_turns = count()  # of work done together since this process began: each has a key of its own

T = TypeVar("T")


class Processes:
    """This process among those that train together.

    Args:
        place: of this process.
        store: where a process that fails leaves why; None for a process alone.
    """

    def __init__(self, place: Place | None = None, store: Any = None) -> None:
        self.place, self._store = place or Place(), store
        self._key = f"{_MESSAGE} {next(_turns)}"
        self.reduced_bytes = 0  # gradients that the last step gave to the sums
        self.reductions = 0  # buffers that they were sent in
        self.shards: Shards | None = None  # of the base, where its blocks are shared out

    @property
    def count(self) -> int:
        """How many there are. [count]"""
        return self.place.count

    @property
    def several(self) -> bool:
        """Whether there is more than this one."""
        return self.place.count > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that evaluates and writes."""
        return self.place.rank == 0

    @property
    def words(self) -> str:
        """Which one this is."""
        return f"process {self.place.rank} of {self.place.count}"

    def facts(self) -> dict[str, int]:
        """Return how many train together, and what each gave to the sums in the last step; nothing for one alone."""
        if not self.several:
            return {}
        return {
            "count": self.count,
            "reduced_bytes_per_step": self.reduced_bytes,
            "reductions_per_step": self.reductions,
            **({} if self.shards is None else _held(self.shards)),
        }

    # Sharing out ----------------------------------------------------------------------------------------------

    def share(self, lengths: Sequence[int], loads: list[int]) -> list[int]:
        """Choose this process's part of the rows of a step: the longest first, each to whom has fewest tokens yet.

        Args:
            lengths: of the rows. [tokens]
            loads: tokens that each process has already; the rows' are added. [tokens]
        Returns:
            Places of the rows, in their order; every row has exactly one process.
        """
        own = []
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            chosen = loads.index(min(loads))
            loads[chosen] += lengths[place]
            if chosen == self.place.rank:
                own.append(place)
        return sorted(own)

    def share_base(self, model: nn.Module, device: torch.device) -> None:
        """Share the blocks of a base out, so that each process holds its part of them.

        Args:
            model: loaded, on the CPU, and not yet opened at its seams.
            device: that computes.
        """
        blocks = [model.get_submodule(path) for stack in stacks(model) for path in stack]
        self.shards = Shards(model, blocks, device, self.count, self._lowest)

    def _lowest(self, value: int) -> int:
        given = torch.tensor([value])
        self._exchange(dist.all_reduce, given, op=dist.ReduceOp.MIN)
        return int(given)

    # Talking --------------------------------------------------------------------------------------------------

    def _talk(self, call: Callable[..., Any], *given: Any, **words: Any) -> None:
        """Exchange something with the others, once none of them needs a part of a block that this one holds."""
        if self.shards is not None:
            self.shards.rest()
        self._exchange(call, *given, **words)

    def _exchange(self, call: Callable[..., Any], *given: Any, **words: Any) -> None:
        """Exchange something with the others; one that is gone ends this one too."""
        try:
            call(*given, **words)
        except RuntimeError as error:
            raise self._ended() from error

    def _ended(self) -> Ended:
        told = ""
        with suppress(RuntimeError):  # the store may be gone with the process that kept it
            if self._store is not None and self._store.check([self._key]):
                told = self._store.get(self._key).decode()
        why = (
            f"it said: {told.rstrip('.')}"
            if told
            else "it left no message, as one that was killed or ran out of memory"
        )
        return Ended(
            f"{self.words}: another process ended, so this one ends too; {why}. A checkpoint that was written "
            "before is whole: with one, go on with the same command and --resume.",
            bool(told),
        )

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes, in one buffer for each of their types.

        Args:
            parameters: that train; a gradient that is None counts as zeros, and stays None where all have none, so that
                optimizers that pass over such parameters do so in all processes or in none.
        """
        if not self.several:
            return
        self.reduced_bytes = self.reductions = 0
        for dtype in dict.fromkeys(one.dtype for one in parameters):
            own = [one for one in parameters if one.dtype == dtype]
            given = [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in own]
            there = torch.tensor([one.grad is not None for one in own]).to(given[0])  # how many have a gradient
            flat = torch.cat([*given, there])
            self._talk(dist.all_reduce, flat)
            self.reduced_bytes += flat.nbytes - there.nbytes
            self.reductions += 1
            *totals, anywhere = flat.split([*(one.numel() for one in own), len(own)])
            for one, total, having in zip(own, totals, anywhere.tolist(), strict=True):
                if having:
                    one.grad = total.view_as(one)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Add numbers up over all processes.

        Args:
            values: as many in every process.
        Returns:
            Their sums, the same bits in every process.
        """
        if not self.several:
            return list(values)
        given = torch.tensor(values, dtype=torch.float64)
        self._talk(dist.all_reduce, given)
        return given.tolist()

    def highest(self, value: int) -> int:
        """Return the highest of all processes' numbers.

        Args:
            value: this one's.
        """
        if not self.several:
            return value
        given = torch.tensor([value])
        self._talk(dist.all_reduce, given, op=dist.ReduceOp.MAX)
        return int(given)

    def gathered(self, value: T) -> list[T]:
        """Return what every process gives, in their order.

        Args:
            value: this one's, plain.
        """
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.count
        self._talk(dist.all_gather_object, found, value)
        return found

    def of_first(self, make: Callable[[], T]) -> T:
        """Let the first process make something, and give it to all.

        Args:
            make: of plain values.
        Returns:
            What the first one made.
        """
        if not self.several:
            return make()
        found: list[Any] = [make() if self.first else None]
        self._talk(dist.broadcast_object_list, found, src=0)
        return found[0]

    @torch.no_grad()
    def start_alike(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's numbers.

        Args:
            tensors: the same ones in every process.
        """
        for tensor in tensors if self.several else ():
            self._talk(dist.broadcast, tensor.detach(), src=0)

    def check_alike(self, facts: Mapping[str, Any]) -> None:
        """Refuse to train together on what is not the same.

        Args:
            facts: plain values by key.
        Raises:
            CheckpointError: both values are shown.
        """
        for number, others in enumerate(self.gathered(dict(facts))):
            for key, there, here in _differences(others, facts):
                raise CheckpointError(
                    f"process {number} trains something else: {key} is {there!r} there and {here!r} here. Give all "
                    "processes the same recipe, files, model and versions."
                )

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Wait for the others at the end of the block; when one fails, tell the others why.

        Raises:
            SystemExit: another process says what went wrong.
        """
        try:
            yield
            self.gathered(True)
        except Ended as ended:
            speak_first()
            if ended.told and not self.first:
                raise SystemExit(2) from ended
            raise
        except TunesmithError as error:
            speak_first()
            if self._said_by_first(str(error)):
                raise SystemExit(2) from error
            if self.several and not self.first:
                error.args = (f"{self.words}: {error}",)
            raise

    def _said_by_first(self, message: str) -> bool:
        """Leave a message for the others, unless the first process left the same."""
        if self._store is None:
            return False
        with suppress(RuntimeError):
            if self.first:
                self._store.set(self._key, message)
                self._store.wait([self._heard(rank) for rank in range(1, self.count)], _MOMENT)
                return False
            with suppress(RuntimeError):
                self._store.wait([self._key], _MOMENT)
                same = bool(self._store.get(self._key).decode() == message)
                self._store.set(self._heard(self.place.rank), "")
                return same
            self._store.set(self._key, message)
        return False

    def _heard(self, rank: int) -> str:
        """Key of a process that met an error too: until it has heard the first one, who keeps the store, that stays."""
        return f"{self._key}, heard by {rank}"


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys that two nested mappings differ in, with both values."""
    for key, own in here.items():
        other = there.get(key)
        if isinstance(own, Mapping) and isinstance(other, Mapping):
            yield from _differences(other, own, f"{before}{key}.")
        elif other != own:
            yield f"{before}{key}", other, own
    yield from ((f"{before}{key}", there[key], None) for key in there if key not in here)


def _held(shards: Shards) -> dict[str, int]:
    """Say what of the base's blocks this process holds."""
    return {"block_bytes": shards.whole_bytes, "held_block_bytes": shards.held_bytes}


class Ended(TunesmithError):
    """Another process is gone.

    Args:
        message: for the user.
        told: whether it said why.
    """

    def __init__(self, message: str, told: bool) -> None:
        super().__init__(message)
        self.told = told


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that were started with this one, for the work inside the block.

    Returns:
        This process among them; a process alone joins nothing.
    """
    place = launched()
    if place.count == 1:
        yield ALONE
        return
    store, rank, size = next(iter(rendezvous("env://")))
    kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(kinds, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        processes = Processes(place, store)
        with processes.ending_together():
            yield processes
    finally:
        dist.destroy_process_group()
        heed_again()


def take_device(wanted: str, place: Place) -> None:
    """Let a process that is not alone compute on the GPU of its number.

    Args:
        wanted: model.device of the recipe.
        place: of the process.
    Raises:
        RecipeError: a device that several processes cannot use, or fewer GPUs than processes.
    """
    device = choose_device(wanted)
    if place.count == 1 or device.type == "cpu":
        return
    if device.type != "cuda" or device.index is not None:
        raise RecipeError(
            f"model.device={wanted}: {place.count} processes compute on a GPU of CUDA each, or on the CPU. Set it to "
            "cuda or cpu, or start one process."
        )
    if place.local_count > torch.cuda.device_count():
        raise RecipeError(
            f"{place.local_count} processes on a machine with {torch.cuda.device_count()} GPUs: each needs one of its "
            "own. Start fewer, or set model.device=cpu."
        )
    torch.cuda.set_device(place.local_rank)
