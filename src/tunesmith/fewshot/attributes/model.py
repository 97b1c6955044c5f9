"""Attributes predicted by a model that was fitted on seen classes."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.fewshot.attributes.base import AttributeWay, Fitted, learnable


@register("attributes")
class Model(AttributeWay):
    """A model predicts the attributes from features; the class whose attributes are nearest is the answer.

    linear: ridge regression; network: one hidden layer with squared loss. With both a class scores
    - sum_a (f_a(x) - s_a)^2 / v_a, where v_a is the error of attribute a in seen classes that models were fitted
    without. The few seen classes are easily told by heart, so a network carries over to other classes worse than a
    linear model. bilinear: score x^T V s with V = (X X^T + gamma I)^-1 X Y S^T (S S^T + lambda I)^-1, closed form.
    Attributes that do not differ among seen classes are left out.

    Source: linear, network: Lampert et al. 2014, TPAMI 36, direct attribute prediction, for numbers instead of 0 and
    1; bilinear: Romera-Paredes and Torr 2015, ICML, "An embarrassingly simple approach to zero-shot learning", eq. 4.
    """

    name: ClassVar[str] = "model"
    paper: ClassVar[str] = "Lampert et al. 2014, TPAMI 36; Romera-Paredes and Torr 2015, ICML"
    reads: ClassVar[Any] = "features"
    compares: ClassVar[bool] = True

    kind: Literal["linear", "network", "bilinear"] = setting(
        "linear", "Regression or network to attributes, or a bilinear form of both."
    )
    hidden: int = setting(32, "Width of the hidden layer (network).", unit="count", ge=1)
    epochs: int = setting(10, "Passes over the rows (network).", unit="count", ge=1)
    rate: float = setting(3e-3, "Learning rate (network).", gt=0)
    decay: float = setting(1e-2, "Weight of the squared weights (network), and for every row (linear).", gt=0)
    gamma: float = setting(1e3, "Weight of the squared form on features (bilinear).", gt=0)
    smoothing: float = setting(1.0, "Weight of the squared form on attributes, lambda (bilinear).", gt=0)

    def fit(self, rows: Array, codes: Codes, signatures: Array, seed: int = 0) -> Fitted:
        """Fit the regression, train the network, or solve for the form."""
        features = np.asarray(rows, np.float64)
        used = learnable(codes, signatures)
        scale = StandardScaler().fit(features)
        scaled = scale.transform(features)
        if self.kind == "bilinear":
            return Bilinear(scale, used, self._solved(scaled, codes, signatures[:, used]))
        wanted = signatures[codes][:, used]
        errors = []
        for code in np.unique(codes):  # how far an attribute can be trusted in a class that was never seen
            others, own = codes != code, codes == code
            model = self._predicting(scaled[others], wanted[others], seed)
            errors.append(((_outputs(model, scaled[own]) - wanted[own]) ** 2).mean(0))
        return Direct(scale, used, self._predicting(scaled, wanted, seed), np.maximum(np.mean(errors, axis=0), 1e-3))

    def _predicting(self, scaled: Array, wanted: Array, seed: int) -> Any:
        if self.kind == "linear":
            return Ridge(alpha=self.decay * len(scaled)).fit(scaled, wanted)
        return self._trained(scaled, wanted, seed)

    def _trained(self, scaled: Array, wanted: Array, seed: int) -> MLPRegressor:
        network = MLPRegressor(
            hidden_layer_sizes=(self.hidden,), alpha=self.decay, batch_size=min(64, len(scaled)),
            learning_rate_init=self.rate, max_iter=self.epochs, n_iter_no_change=self.epochs, tol=0.0,
            random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the passes are what was asked for
            return network.fit(scaled, wanted if wanted.shape[1] > 1 else wanted[:, 0])

    def _solved(self, scaled: Array, codes: Codes, signatures: Array) -> Array:
        classes = len(signatures)
        wanted = np.where(codes[:, None] == np.arange(classes)[None, :], 1.0, -1.0)
        left = scaled.T @ scaled + self.gamma * np.eye(scaled.shape[1])
        right = signatures.T @ signatures + self.smoothing * np.eye(signatures.shape[1])
        inner = scaled.T @ wanted @ signatures
        form: Array = np.linalg.solve(left, inner) @ np.linalg.inv(right)
        return form


def _outputs(model: Any, rows: Array) -> Array:
    found: Array = model.predict(rows)
    return found[:, None] if found.ndim == 1 else found


class Direct(Fitted):
    """A model to attributes, and how far it errs.

    Args:
        scale: of the features.
        used: (A,), attributes that were learned.
        model: to those, with `predict`.
        errors: (used,), mean squares.
    """

    def __init__(
        self, scale: StandardScaler, used: np.ndarray[Any, np.dtype[np.bool_]], model: Any, errors: Array
    ) -> None:
        self.scale, self.used, self.model, self.errors = scale, used, model, errors

    def scores(self, rows: Array, signatures: Array) -> Array:
        """Minus the squared distances to the classes' attributes, each over its error."""
        found = _outputs(self.model, self.scale.transform(np.asarray(rows, np.float64)))
        gaps = found[:, None, :] - signatures[None, :, self.used]
        scored: Array = -(gaps**2 / self.errors).sum(-1)
        return scored


class Bilinear(Fitted):
    """A bilinear form of features and attributes.

    Args:
        scale: of the features.
        used: (A,), attributes that were learned.
        form: (D, used).
    """

    def __init__(self, scale: StandardScaler, used: np.ndarray[Any, np.dtype[np.bool_]], form: Array) -> None:
        self.scale, self.used, self.form = scale, used, form

    def scores(self, rows: Array, signatures: Array) -> Array:
        """Compute x^T V s."""
        scored: Array = self.scale.transform(np.asarray(rows, np.float64)) @ self.form @ signatures[:, self.used].T
        return scored
