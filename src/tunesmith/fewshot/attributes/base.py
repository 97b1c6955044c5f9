"""What a way to unseen classes is: learned from seen classes and a table, it scores any class of the table."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.settings import Component, setting

_EDGE = 0.02  # probabilities of attributes stay so far from 0 and 1: no single one decides alone


class AttributeWay(Component):
    """Base of every way. Its file registers one subclass with `@register("attributes")`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    reads: ClassVar[Literal["measurements", "features", "parts"]]  # what `fit` takes of a row
    compares: ClassVar[bool] = False  # an attribute is learned from rows with it and rows without it

    table: str = setting("", "In a recipe: attribute table of all classes, a .csv or .yaml file; required there.")

    def check(self, attributes: tuple[str, ...]) -> None:
        """Refuse settings that do not fit a table; by default none.

        Args:
            attributes: of the table, in order.
        Raises:
            RecipeError: they do not fit.
        """

    def check_rows(self, rows: int, parts: int) -> None:
        """Refuse fewer rows than it can learn from; by default none.

        Args:
            rows: to learn from. [count]
            parts: of each, P. [count]
        Raises:
            DataError: too few.
        """

    def fit(self, rows: Array, codes: Codes, signatures: Array, seed: int = 0) -> Fitted:
        """Learn from rows of seen classes.

        Args:
            rows: measurements, (rows, M); features, (rows, D); or parts, (rows, P, D).
            codes: (rows,), which row of `signatures` each is of.
            signatures: (seen, A), attributes of the seen classes.
            seed: of what is drawn at random.
        Returns:
            What scores classes.
        Raises:
            DataError: the rows cannot be used.
        """
        raise NotImplementedError


class Fitted:
    """What was learned from seen classes."""

    def scores(self, rows: Array, signatures: Array) -> Array:
        """Score classes by their attributes alone, whether they were seen or not.

        Args:
            rows: as for `AttributeWay.fit`.
            signatures: (C, A), attributes of the classes.
        Returns:
            (rows, C), higher is more probable.
        """
        raise NotImplementedError


def likelihood(probabilities: Array, signatures: Array) -> Array:
    """Add up log p(a = s) over binary attributes: direct attribute prediction.

    Args:
        probabilities: (rows, A), that each attribute is 1.
        signatures: (C, A), 0 or 1; numbers between weigh both.
    Returns:
        (rows, C).
    Example:
        >>> likelihood(np.array([[0.9, 0.2]]), np.array([[1.0, 0.0], [0.0, 1.0]])).argmax(1).tolist()
        [0]

    Source: Lampert et al. 2014, TPAMI 36, section 3.1, with priors 1/2. Differs: probabilities are kept from 0 and 1.
    """
    sure = probabilities.clip(_EDGE, 1 - _EDGE)
    return np.log(sure) @ signatures.T + np.log(1 - sure) @ (1 - signatures).T


def learnable(codes: Codes, signatures: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which attributes differ among the classes that have rows: the others cannot be learned.

    Args:
        codes: (rows,), of the rows.
        signatures: (seen, A).
    Returns:
        (A,).
    """
    varies: np.ndarray[Any, np.dtype[np.bool_]] = np.ptp(signatures[np.unique(codes)], axis=0) > 0
    return varies
