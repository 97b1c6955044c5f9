"""Blocks of a frozen base that processes share out: each holds its part of every matrix.

A block is whole only while a process computes with it: its parts are gathered before the block runs, forward or
backward, and let go afterwards (torch's fully_shard). A gathering needs all processes, and these run as many passes as
their own rows need. So before each one they agree on which block it is of: on the wish that lies furthest behind in a
pass. Whoever wanted another block, or none, takes part all the same.

Source: Zhao et al. 2023, arXiv:2304.11277. Differs: nothing is gathered ahead of time, as the next one is agreed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError

_ATTRIBUTE = "_tunesmith_shards"  # on every module inside a block that is shared out

Agree = Callable[[int], int]  # this process's number to the lowest of all processes'


class Shards:
    """The blocks of a model, shared out among the processes that were joined.

    Vectors, as norms and biases, stay whole: they are small, and deltas may put copies in their places.

    Args:
        model: loaded, on the CPU, and not yet opened at its seams.
        blocks: of it, in the order in which they run.
        device: that computes.
        count: of the processes.
        agree: asks all processes.
    Raises:
        CompatibilityError: the model has no blocks.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[nn.Module], device: torch.device, count: int, agree: Agree
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.blocks: list[Any] = [block for block in blocks if _matrices(block)]
        if not self.blocks:
            raise CompatibilityError(
                f"training.shard_base: {type(model).__name__} is not made of blocks that could be shared out. Set it "
                "to false."
            )
        self._agree, self._nothing = agree, 2 * len(self.blocks)
        matrices = [_matrices(block) for block in self.blocks]
        wholes: list[Any] = [module._parameters[leaf] for own in matrices for module, leaf in own]
        self.whole_bytes = sum(whole.nbytes for whole in wholes)
        del wholes  # else they would stay beside their parts
        mesh = init_device_mesh(device.type, (count,))
        for number, block in enumerate(self.blocks):
            vectors = {one for one in block.parameters() if one.dim() < 2}
            fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=vectors)
            block.register_forward_pre_hook(self._before(number), prepend=True)  # before torch's own hooks
            block.register_forward_hook(self._after(number), prepend=True)
            for module in block.modules():
                module.__dict__[_ATTRIBUTE] = self, number
        self._samples = [own[0] for own in matrices]  # one matrix of each block tells whether it is whole
        parts: list[Any] = [module._parameters[leaf] for own in matrices for module, leaf in own]
        self.held_bytes = sum(part.to_local().nbytes for part in parts)
        model.to(device)

    def _before(self, number: int) -> Callable[..., None]:
        return lambda *_: self._gather(number)

    def _after(self, number: int) -> Callable[..., None]:
        def watch(module: nn.Module, given: Any, output: Any) -> None:
            for tensor in output if isinstance(output, tuple) else (output,):
                if isinstance(tensor, Tensor) and tensor.requires_grad and torch.is_grad_enabled():
                    tensor.register_hook(lambda _: self._gather(number, backward=True))

        return watch

    def is_whole(self, number: int) -> bool:
        """Say whether a block is gathered now.

        Args:
            number: of the block.
        """
        from torch.distributed.tensor import DTensor

        module, leaf = self._samples[number]
        return not isinstance(module._parameters[leaf], DTensor)

    def _gather(self, number: int, backward: bool = False) -> None:
        """Make a block whole; other processes' gatherings may come before."""
        if self.is_whole(number):
            return
        wish = self._nothing - 1 - number if backward else number
        while self._take_part(wish) != wish:
            pass

    def rest(self) -> None:
        """Take part in the other processes' gatherings until none of them wants one."""
        while self._take_part(self._nothing) != self._nothing:
            pass

    def _take_part(self, wish: int) -> int:
        """Agree on a gathering and take part in it; what was not wished for is let go again."""
        agreed = self._agree(wish)
        if agreed < self._nothing:
            number = min(agreed, self._nothing - 1 - agreed)
            block, whole = self.blocks[number], self.is_whole(number)
            if whole:  # torch would take no part
                block.reshard()
            block.unshard()
            if not whole and agreed != wish:
                block.reshard()
        return agreed

    @contextmanager
    def whole(self, number: int) -> Iterator[None]:
        """Keep a block whole inside.

        Args:
            number: of the block.
        """
        before = self.is_whole(number)
        self._gather(number)
        try:
            yield
        finally:
            if not before:
                self.blocks[number].reshard()


def _matrices(block: nn.Module) -> list[tuple[nn.Module, str]]:
    """Find a block's parameters that are shared out: the module and its name for them."""
    return [
        (module, leaf)
        for module in block.modules()
        for leaf, own in module._parameters.items()
        if own is not None and own.dim() > 1
    ]


def is_sharded(module: nn.Module) -> bool:
    """Say whether a module lies inside a block that processes share out.

    Args:
        module: of a model.
    """
    return _ATTRIBUTE in module.__dict__


def check_whole(model: nn.Module, parameters: Iterable[str]) -> None:
    """Refuse to train copies of matrices that lie in parts.

    Args:
        model: whose they are.
        parameters: their dotted names.
    Raises:
        CompatibilityError: one of them lies in parts.
    """
    for path in parameters:
        if model.get_parameter(path).dim() > 1 and is_sharded(model.get_submodule(path.rpartition(".")[0])):
            raise CompatibilityError(
                f"training.shard_base: the method trains '{path}' itself, a matrix of a block, and such blocks are "
                "shared out among the processes. Choose a method that adds to the matrices, as lora does, or set "
                "training.shard_base=false."
            )


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Make a module's parameters whole inside; all processes have to come here.

    Args:
        module: of a model that may be shared out.
    """
    found = module.__dict__.get(_ATTRIBUTE)
    if found is None:
        yield
        return
    shards, number = found
    with shards.whole(number):
        yield


def whole_weight(module: nn.Module) -> Tensor:
    """Return a module's weight: its own where it is whole, a copy outside the passes of a model that is shared out.

    Args:
        module: with a weight.
    """
    found = module.__dict__.get(_ATTRIBUTE)
    if found is None or found[0].is_whole(found[1]):
        return module.weight  # type: ignore[return-value]
    with gathered(module):
        return module.weight.detach().clone()  # type: ignore[operator]
