"""Labels that are probably wrong."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.cleaning.base import Filter, Rows, Verdict
from tunesmith.data.label_errors import out_of_fold, suspicious


@register("cleaning")
class LabelErrors(Filter):
    """Find training rows whose label a probe that never saw them contradicts: drop, correct, weigh or list them."""

    name: ClassVar[str] = "label-errors"
    where: ClassVar[str] = "drops, relabels or weighs training rows; reads the frozen model's features"
    paper: ClassVar[str] = "Northcutt et al. 2021, arXiv:1911.00068"
    needs_features: ClassVar[bool] = True
    of: ClassVar[str] = "rows"
    do: Literal["drop", "correct", "weight", "list"] = setting(
        "drop",
        "Drop the rows, give them the label that the probe suggests, let them weigh less (by the given label's "
        "probability over the suggested one's), or list them only.",
    )
    odds: float = setting(
        5.0, "How many times as far above its usual probability the suggested label is than the given one.", ge=1
    )
    folds: int = setting(5, "Parts of which each is judged by a probe on the others.", unit="count", ge=2)

    def judge(self, rows: Rows) -> dict[int, Verdict]:
        """Fit the probes and compare."""
        assert rows.features is not None
        table = out_of_fold(rows.features(), rows.labels, len(rows.label_names), self.folds, rows.seed)
        found = suspicious(table, rows.labels, self.odds)
        what = {"drop": "dropped", "correct": "relabelled", "weight": "weighted", "list": "listed"}[self.do]
        return {
            row: Verdict(
                f"given {rows.label_names[rows.labels[row]]}, suggested {rows.label_names[code]}, "
                f"p {table[row, rows.labels[row]]:.2g} against {table[row, code]:.2g}",
                what,
                int(code) if self.do == "correct" else None,
                weight=float(table[row, rows.labels[row]] / table[row, code]) if self.do == "weight" else 1.0,
            )
            for row, code in enumerate(found.tolist())
            if code >= 0
        }
