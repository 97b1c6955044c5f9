"""How far the answers of two models to the same rows are apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_LOST = 0.1  # part of the delta's effect that may differ where the precision does not explain it

Answers = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Agreement:
    """How far two answers to the same rows are apart.

    Args:
        what: "logits" or "features", what the largest difference is of.
        largest_difference: of one number.
        scale: the largest number before.
        features_relative: largest difference of the features over their largest number; None without features.
        mean_kl: mean Kullback-Leibler divergence from before to after. [nats]
        argmax_agreement: rows with the same most probable class. [fraction]
        flips: rows that change their class although it led by more than twice the tolerance. [count]
        effect: largest difference that the delta itself makes.
    """

    what: str
    largest_difference: float
    scale: float
    features_relative: float | None = None
    mean_kl: float | None = None
    argmax_agreement: float | None = None
    flips: int = 0
    effect: float = 0.0

    @property
    def relative(self) -> float:
        """The larger of the two relative differences."""
        own = self.largest_difference / self.scale if self.scale > 0 else self.largest_difference
        return max(own, self.features_relative or 0.0) if own == own else own

    @property
    def of_effect(self) -> float:
        """The largest difference over the one that the delta itself makes; a lost delta gives 1."""
        return self.largest_difference / self.effect if self.effect > 0 else 0.0

    def within(self, tolerance: float, rounding: float) -> bool:
        """Say whether the merged model answers as the tuned one.

        Args:
            tolerance: largest relative difference.
            rounding: relative difference that the precision alone may make.
        Returns:
            True when it does; never for numbers that are not finite, or where much of the delta's effect is gone.
        """
        lost = self.relative > rounding and self.of_effect > _LOST
        return self.relative <= tolerance and not self.flips and not lost


def agreement(before: Answers, after: Answers, tolerance: float, base: Answers = (None, None)) -> Agreement:
    """Compare answers.

    Args:
        before: features and logits, (rows, any), either may be None.
        after: the same of the merged model.
        base: the same of the model without the delta.
        tolerance: a class that leads by less than twice this part of the largest logit is a near-tie.
    Returns:
        The figures.
    """
    features = None
    if before[0] is not None and after[0] is not None:
        difference, scale = _difference(before[0], after[0])
        features = difference / max(scale, 1e-300)
    if before[1] is None or after[1] is None:
        effect = 0.0 if base[0] is None or before[0] is None else _difference(before[0], base[0])[0]
        return Agreement("features", difference, scale, features, effect=effect)
    one, two = before[1].double(), after[1].double()
    difference, scale = _difference(one, two)
    first, second = one.log_softmax(-1), two.log_softmax(-1)
    same = one.argmax(-1) == two.argmax(-1)
    leading = one.topk(min(2, one.shape[-1]), -1).values
    clear = leading[:, 0] - leading[:, -1] > 2 * tolerance * scale
    return Agreement(
        "logits",
        difference,
        scale,
        features,
        max(0.0, float((first.exp() * (first - second)).sum(-1).mean())),
        float(same.double().mean()),
        int((~same & clear).sum()),
        0.0 if base[1] is None else _difference(before[1], base[1])[0],
    )


def _difference(one: Tensor, two: Tensor) -> tuple[float, float]:
    return float((one.double() - two.double()).abs().max()), float(one.double().abs().max())
