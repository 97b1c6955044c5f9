"""Prompts ranked on held-out rows: scores with intervals, paired tests, ensembles, how much the prompts differ."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.files import write_json, write_text
from tunesmith.evaluation import plots
from tunesmith.evaluation.metrics.base import Metric, is_share, worded
from tunesmith.evaluation.page import page, section
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, Difference, Estimate, estimate, holm, paired_difference
from tunesmith.search.ensembles import average, diversity, vote, weighted

ENSEMBLES = ("vote", "average", "weighted")


@dataclass(frozen=True)
class Judged:
    """How rows are scored.

    Args:
        metric: that ranks.
        bootstrap: behind intervals and tests.
        split: the rows' name.
    """

    metric: Metric
    bootstrap: Bootstrap
    split: str = "validation"


@dataclass(frozen=True)
class Ranked:
    """One line of a ranking.

    Args:
        name: of the prompt, or of the ensemble.
        score: with its interval.
        to_best: gain over the best prompt, p-value corrected by Holm; None for the best itself.
        to_first: gain over the first prompt given, p-value corrected by Holm; None for the first itself.
        ensemble: whether it is one.
        note: tokens, weights and what else a reader wants.
    """

    name: str
    score: Estimate
    to_best: Difference | None
    to_first: Difference | None
    ensemble: bool
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return {
            "name": self.name,
            "ensemble": self.ensemble,
            **self.score.plain(),
            "gain_over_best": _plain(self.to_best),
            "gain_over_first": _plain(self.to_first),
            "note": self.note,
        }


@dataclass(frozen=True)
class Ranking:
    """A ranking of prompts.

    Args:
        lines: the best first; ensembles among them.
        metric: that ranks.
        split: of the rows.
        rows: how many. [count]
        diversity: of the prompts; empty for a single one.
        warnings: for the reader.
    """

    lines: list[Ranked]
    metric: str
    split: str
    rows: int
    diversity: dict[str, float]
    warnings: list[str]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        facts = {"metric": self.metric, "split": self.split, "rows": self.rows, "diversity": self.diversity}
        return {**facts, "prompts": [line.plain() for line in self.lines], "warnings": self.warnings}


def rank(
    found: Mapping[str, Predictions],
    judged: Judged,
    notes: Mapping[str, str],
    warnings: Sequence[str] = (),
    ensembles: bool = True,
) -> Ranking:
    """Rank prompts by what they predicted for the same rows.

    Args:
        found: predictions by prompt, the first one that of the prompt in use.
        judged: how rows are scored.
        notes: on prompts, by name.
        warnings: for the reader.
        ensembles: whether two or more prompts are also scored as one.
    Returns:
        The ranking.
    """
    members, extra = list(found.values()), dict[str, Predictions]()
    said = dict(notes)
    if ensembles and len(members) > 1:
        mixed, weights = weighted(members, judged.bootstrap.seed)
        extra = dict(zip(ENSEMBLES, (vote(members), average(members), mixed), strict=True))
        shares = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(found, weights, strict=True))
        said["weighted"] = f"each fifth of the rows with weights from the others; weights of all rows: {shares}"
    everyone = {**found, **extra}
    scores = {name: estimate(one, [judged.metric], judged.bootstrap)[judged.metric.name] for name, one in
              everyone.items()}  # fmt: skip
    sign = 1 if judged.metric.higher_is_better else -1
    order = sorted(everyone, key=lambda name: -sign * scores[name].value)
    best, first = next(name for name in order if name in found), next(iter(found))
    to_best, to_first = (_tests(everyone, other, judged) for other in (best, first))
    lines = [
        Ranked(name, scores[name], to_best.get(name), to_first.get(name), name in extra, said.get(name, ""))
        for name in order
    ]
    spread = diversity(members) if len(members) > 1 else {}
    return Ranking(lines, judged.metric.name, judged.split, members[0].rows, spread, list(warnings))


def _tests(everyone: Mapping[str, Predictions], other: str, judged: Judged) -> dict[str, Difference]:
    """Compare everyone with one, p-values corrected together."""
    raw = {
        name: paired_difference(one, everyone[other], judged.metric, judged.bootstrap)
        for name, one in everyone.items()
        if name != other
    }
    corrected = holm([one.p_value for one in raw.values()])
    return {
        name: Difference(one.metric, one.estimate, p) for (name, one), p in zip(raw.items(), corrected, strict=True)
    }


def _plain(found: Difference | None) -> dict[str, float] | None:
    return None if found is None else {**found.estimate.plain(), "p_value": found.p_value}


# Written ------------------------------------------------------------------------------------------------------


def rows_of(ranking: Ranking) -> list[list[str]]:
    """Word a ranking as the rows of a table.

    Args:
        ranking: it.
    Returns:
        Name, score, gain over the best and over the first, note.
    """
    share = is_share(ranking.metric)

    def gain(found: Difference | None) -> str:
        if found is None:
            return "-"
        scale, form = (100, "+.1f") if share else (1, "+.3f")
        ends = (found.estimate.value, found.estimate.low, found.estimate.high)
        value, low, high = (format(scale * end, form) for end in ends)
        return f"{value} ({low} to {high}), p {found.p_value:.3f}"

    return [
        [
            f"{line.name} (ensemble)" if line.ensemble else line.name,
            worded(ranking.metric, line.score.value, line.score.low, line.score.high),
            gain(line.to_best),
            gain(line.to_first),
            line.note,
        ]
        for line in ranking.lines
    ]


HEADS = ("prompt", "score", "to the best prompt", "to the first prompt", "note")


def sentences(ranking: Ranking) -> list[str]:
    """Say what a reader has to know beside the table.

    Args:
        ranking: it.
    Returns:
        Sentences.
    """
    said = [
        f"{ranking.metric} on {ranking.rows} rows of {ranking.split}, which no prompt was chosen on by this ranking; "
        "the best of many looks better there than it is. p-values of a column are corrected together (Holm)."
    ]
    if ranking.diversity:
        spread = ranking.diversity
        said.append(
            f"Two prompts differ on {100 * spread['disagreement']:.1f} % of the rows (kappa {spread['kappa']:.2f}); at "
            f"least one is right on {100 * spread['oracle']:.1f} %."
        )
    return [*said, *ranking.warnings]


def write_ranking(ranking: Ranking, folder: Path) -> None:
    """Write a ranking for programs, for people and for the browser.

    Args:
        ranking: it.
        folder: to write into; ranking.json, ranking.md and report.html.
    """
    write_json(folder / "ranking.json", ranking.plain())
    rows = rows_of(ranking)
    table = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    table += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    write_text(folder / "ranking.md", "\n".join([*sentences(ranking), "", *table, ""]))
    head = "".join(f"<th>{name}</th>" for name in HEADS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    told = "".join(f"<p>{html.escape(said)}</p>" for said in sentences(ranking))
    table_html = f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    write_text(
        folder / "report.html",
        page(
            "Prompts ranked",
            [section("Prompts ranked", told + table_html), section("Scores with intervals", _picture(ranking))],
        ),
    )


def _picture(ranking: Ranking) -> str:
    if not is_share(ranking.metric):
        return ""
    lines = [(line.name, line.score.value, line.score.low, line.score.high) for line in reversed(ranking.lines)]
    return plots.scores_with_intervals(lines, ranking.metric)
