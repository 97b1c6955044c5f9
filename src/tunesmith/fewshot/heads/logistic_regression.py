"""A linear head at the solution of a logistic regression."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.tasks.heads.base import Head, Start, unit
from tunesmith.tasks.heads.linear import LinearHead


class ScaledLinearHead(LinearHead):
    """logits = dropout(sqrt(D) x / |x|) W^T + b."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (R, D) to (R, C)."""
        return super().forward(unit(x) * x.shape[-1] ** 0.5)


@register("heads")
class LogisticRegression(Head):
    """A linear head on features of one length, started at a logistic regression on the training rows."""

    name: ClassVar[str] = "logistic-regression"
    has_vectors: ClassVar[bool] = True
    fits_rows: ClassVar[bool] = True

    regularisation: float = setting(1.0, "Inverse strength of the penalty, C.", gt=0)

    def build(self, width: int, classes: int, scale: float, dropout: float) -> nn.Module:
        """Make the module."""
        return ScaledLinearHead(width, classes, dropout)

    @torch.no_grad()
    def start(self, module: nn.Module, start: Start, scale: float) -> None:
        """Fit the rows; a class without rows keeps no chance."""
        from sklearn.linear_model import LogisticRegression as Fit

        rows = (unit(start.features.double()) * start.features.shape[1] ** 0.5).cpu().numpy()
        fitted = Fit(C=self.regularisation, max_iter=1000).fit(rows, start.labels.cpu().numpy())
        weight, bias = fitted.coef_, fitted.intercept_
        if len(fitted.classes_) == 2:  # one row of weights stands for both classes
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        assert isinstance(module, LinearHead)
        module.weight.zero_()
        module.bias.fill_(-1e4)
        known = torch.from_numpy(fitted.classes_).to(module.bias.device)
        module.weight[known] = torch.from_numpy(weight).to(module.weight)
        module.bias[known] = torch.from_numpy(bias).to(module.bias)
