"""Batch norms of an opened model: the base's running statistics stay what they are."""

from __future__ import annotations

from torch import Tensor, nn


class FrozenStatistics:
    """Stands in for the forward of a batch norm, which normalises by its running statistics in training too.

    By a batch's own statistics a row would depend on its neighbours, and the running ones, which are the base's and
    which no delta saves, would drift.

    Args:
        module: the norm.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Say whether a module keeps running statistics of its batches."""
        return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: (B, channels, ...).
        Returns:
            The shape of x.
        """
        own = self.module
        scale, shift, mean, variance = own.weight, own.bias, own.running_mean, own.running_var
        y: Tensor = nn.functional.batch_norm(x, mean, variance, scale, shift, False, 0.0, own.eps)  # type: ignore[arg-type]
        return y
