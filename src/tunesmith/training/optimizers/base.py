"""What an optimizer is: settings, and the torch optimizer that they build."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tunesmith.core.settings import Component

# params, lr, weight_decay (0 for vectors and factors), matrices: whether they are, of two dimensions, and head: whether
# they are the task's head's
Group = dict[str, Any]


class Rule(Component):
    """Base of every optimizer. Its file registers one subclass with `@register("optimizers")`.

    Everything that later steps depend on stands in the torch optimizer's state, so that a checkpoint holds it.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    averages: ClassVar[bool] = False  # it answers with an average of its steps, in place of a falling learning rate

    def build(self, groups: list[Group]) -> torch.optim.Optimizer:
        """Make the optimizer.

        Args:
            groups: of parameters, at least one.
        Returns:
            An optimizer whose groups are these, in their order.
        Raises:
            CompatibilityError: these parameters are not for it.
        """
        raise NotImplementedError

    def answering(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> list[Tensor] | None:
        """Return what the model should answer with in the place of the parameters that train.

        Args:
            optimizer: from `build`.
            parameters: of it.
        Returns:
            One tensor per parameter; None where the parameters themselves answer.
        """
        return None


def may_fuse(groups: list[Group]) -> bool:
    """Say whether torch has fused kernels where the parameters are.

    Args:
        groups: of parameters.
    """
    return groups[0]["params"][0].device.type in ("cpu", "cuda")
