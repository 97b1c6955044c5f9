"""Choose how to learn from a few examples by cross-validation on the examples themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.arrays import Codes, Marks
from tunesmith.core.errors import DataError
from tunesmith.core.registry import components, register
from tunesmith.core.settings import Component, setting
from tunesmith.data.splitting import every_label_early
from tunesmith.fewshot.ways.base import Way


@register("choosers")
class Auto(Component):
    """Cross-validate every way to learn from few examples on the training rows, and take the best."""

    name: ClassVar[str] = "auto"
    chooses: ClassVar[bool] = True

    folds: int = setting(3, "Parts of the training rows; each is held out once.", unit="count", ge=2, le=20)
    seconds: float = setting(
        300.0, "Longest time for choosing; a way that trains and has not answered all folds by then is left out.", gt=0
    )

    rows: int = setting(
        2000,
        "Most training rows that are looked at for choosing: a draw with every label where there are more; all of them "
        "train.",
        unit="count",
        ge=20,
    )

    def some(self, labels: Codes, seed: int) -> Codes:
        """Draw the rows that the choice is made on.

        Args:
            labels: (rows,), a code per row.
            seed: of the draw.
        Returns:
            Their numbers, rising; all where there are no more than `rows`.
        """
        if len(labels) <= self.rows:
            return np.arange(len(labels))
        most = max(self.rows, 2 * len(np.unique(labels)))
        return np.sort(every_label_early(labels, seed)[:most])

    def ways(self, reads_text: bool) -> list[Way]:
        """Return the ways that a model can go, the one of least effort first.

        Args:
            reads_text: whether the model reads text.
        Returns:
            At least one.
        """
        unfit = "reads_images" if reads_text else "reads_text"
        found = [kind() for kind in components("ways").values() if not getattr(kind, unfit)]
        return sorted(found, key=lambda way: (way.effort, way.name))

    def parts(self, labels: Codes, copies: Codes, names: Sequence[str], seed: int) -> Codes:
        """Draw the folds, every label spread over them; copies of a row stay together.

        Args:
            labels: (rows,), a code per row.
            copies: (rows,), a number per row, the same for rows that are copies of each other.
            names: of the codes.
            seed: of the draw.
        Returns:
            (rows,), the fold that holds each row out.
        Raises:
            DataError: a label has one row, which cannot be held out and learned from; fewer rows than folds. Copies
                count as one row.
        """
        texts, numbers = np.unique(copies, return_inverse=True)
        if len(texts) < self.folds:
            raise DataError(f"method.folds={self.folds}: there are {len(texts)} training rows, copies counted once, "
                            "and every fold needs one. Lower it.")  # fmt: skip
        draw, fold, begin = np.random.default_rng(seed), np.full(len(texts), -1), 0
        for code in np.unique(labels):
            own = dict.fromkeys(numbers[draw.permutation(np.flatnonzero(labels == code))].tolist())
            fresh = [text for text in own if fold[text] < 0]  # a text may stand under several labels
            fold[fresh] = (begin + np.arange(len(fresh))) % self.folds
            begin += len(fresh)  # labels with fewer rows than folds take turns
            if len(np.unique(fold[list(own)])) < 2:
                raise DataError(_held_out_at_once(names[int(code)], len(own)))
        return fold[numbers]

    def decide(self, right: Mapping[str, Marks], left_out: Mapping[str, str]) -> dict[str, Any]:
        """Take the way that answers most rows; among equals the one of least effort.

        Args:
            right: by way, least effort first, (rows,), whether each held-out answer is right.
            left_out: why ways were not tried to the end.
        Returns:
            "way", "sentence" and "table" of the ways with their accuracy and its standard error.
        """
        table = [
            {"way": name, "accuracy": float(marks.mean()), "standard_error": float(marks.std() / len(marks) ** 0.5)}
            for name, marks in right.items()
        ]
        table.sort(key=lambda row: -row["accuracy"])  # type: ignore[operator]
        best, rows = table[0], len(next(iter(right.values())))
        others = ", ".join(f"{row['way']} {100 * row['accuracy']:.1f} %" for row in table[1:])  # type: ignore[operator]
        missing = "".join(f"; {name} was left out: {why}" for name, why in left_out.items())
        sentence = (
            f"method auto took {best['way']}: it answers {100 * best['accuracy']:.1f} % of the {rows:,} training rows "  # type: ignore[operator]
            f"right when they are held out ({self.folds} folds), against {others}{missing}."
        )
        return {"way": best["way"], "sentence": sentence, "table": table, "left_out": dict(left_out)}


def _held_out_at_once(label: str, texts: int) -> str:
    """Say why a label cannot be cross-validated."""
    if texts > 1:
        return (
            f"method auto: all {texts} texts of the label '{label}' are held out at once, as they stand under other "
            "labels too. Correct those labels."
        )
    return (
        f"method auto: the label '{label}' has one training row, copies counted once, and cross-validation needs two "
        "of each. Add a row, or choose a method yourself, for example with recipes/few-shot.yaml."
    )
