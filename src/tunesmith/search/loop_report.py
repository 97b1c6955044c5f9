"""The report of a closed loop: every round, what was tried and why, what the tests said; HTML, Markdown, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from tunesmith.core.files import write_json, write_text
from tunesmith.evaluation import plots
from tunesmith.evaluation.comparison import Comparison
from tunesmith.evaluation.comparison_page import of_attempts, what_mattered
from tunesmith.evaluation.metrics.base import number, scale_of
from tunesmith.evaluation.page import page, safe, section, texts
from tunesmith.search.attempts import Attempt, Record, Round
from tunesmith.search.deciding import worded_test
from tunesmith.search.errors_seen import Errors
from tunesmith.search.study_report import shown

_WIDE = 60  # characters of a change's name in a picture
_SEARCHED = (
    "before round", "aimed at", "prompts", "training rows", "metric, untuned", "prompt before", "found", "changes",
    "took",
)  # fmt: skip
_HEADS = ("attempt", "what", "why it was tried", "score on validation", "against the best before", "seconds")


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Say what a loop found.

    Args:
        result: of it.
    Returns:
        Sentences.
    """
    counts, metric = result["attempts"], result["metric"]
    changed = " ".join(result["overrides"]) or "nothing: the recipe as written"
    return [
        f"{result['rounds']} rounds, {counts['all']} attempts in {result['seconds']:.0f} s "
        f"({result['trials_per_minute']:.1f} a minute), {counts['stopped']} left early, {counts['failed']} failed. "
        f"It ended because {result['ended']}.",
        f"The best recipe changes {changed}.",
        f"{metric} on validation: {shown(metric, result['start'])} as written, {shown(metric, result['chosen_by'])} "
        "for the best, which it chose.",
        *(f"{one['said'][0].upper()}{one['said'][1:]}." for one in result["designs"]),
        f"The last run carries it out: {result['final']['said']}.",
        f"{metric} on test: {shown(metric, result['score'])}.",
        result["note"],
    ]


def rows_of(ended: Round, metric: str) -> list[list[str]]:
    """Word the attempts of a round as rows of a table.

    Args:
        ended: the round.
        metric: that decides.
    Returns:
        In the order in which they were proposed.
    """
    return [
        [
            f"{one.number}{' (kept)' if one.number == ended.best else ''}",
            one.change.what + (f" ({one.by})" if one.by else ""),
            one.change.why,
            shown(metric, one.outcome.scores.get(metric, {"value": one.outcome.value})),
            worded_test(one, metric) or "-",
            f"{one.outcome.seconds:.1f}",
        ]
        for one in ended.attempts
    ]


def searches_of(record: Record) -> list[list[str]]:
    """Word the searches of prompts as rows of a table; those that were refused stand among the sentences.

    Args:
        record: of the loop.
    Returns:
        In their order.
    """
    return [
        [
            str(one.before),
            ", ".join(one.aimed),
            f"{one.tried}, in {one.folder}",
            f"{one.proposing} proposed, {one.choosing} chose",
            one.metric,
            number(one.start, ".4f"),
            number(one.found, ".4f"),
            ", ".join(one.values) or "-",
            f"{one.seconds:.1f} s, {one.trials:.2f} trials",
        ]
        for one in record.designs
        if not one.refused
    ]


def write_loop_report(
    folder: Path, result: Mapping[str, Any], record: Record, higher_is_better: bool, compared: Comparison | None
) -> None:
    """Write attempts.json, loop.md and report.html, and comparison.json of the best attempts.

    Args:
        folder: of the loop.
        result: of it.
        record: with its rounds.
        higher_is_better: of the deciding metric.
        compared: the best attempts, row by row; None where fewer than two were carried out.
    """
    if compared is not None:
        write_json(folder / "comparison.json", compared.plain())
    metric, rounds = result["metric"], record.rounds
    attempts = [one for ended in rounds for one in ended.attempts]
    write_json(folder / "attempts.json", [one.plain() for one in attempts])
    said = sentences(result)
    parts = ["# Closed loop", *said]
    if searched := searches_of(record):
        parts += ["## Searches of a prompt", _table(_SEARCHED, searched)]
    for ended in rounds:
        table = _table(_HEADS, rows_of(ended, metric))
        parts += [f"## Round {ended.number}, {ended.ended:.0f} s", ended.decision, table]
    write_text(folder / "loop.md", "\n\n".join(parts) + "\n")
    body = ["<h1>Closed loop</h1>" + "".join(f"<p>{safe(one)}</p>" for one in said)]
    body += _pictures(rounds, metric, higher_is_better)
    if searched:
        body.append(section("Searches of a prompt", texts(_SEARCHED, searched)))
    body += [
        section(
            f"Round {ended.number}, {ended.ended:.0f} s",
            f"<p>{safe(ended.decision)}</p>"
            + texts(_HEADS, rows_of(ended, metric))
            + errors_of(attempts[ended.best], metric),
        )
        for ended in rounds
    ]
    body += of_attempts(compared) if compared is not None else []
    body.append(section("What mattered, over all attempts", what_mattered(result["importance"], "attempts")))
    write_text(folder / "report.html", page("Closed loop", body))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in (heads, *cells)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def _pictures(rounds: Sequence[Round], metric: str, higher_is_better: bool) -> list[str]:
    scale, unit = scale_of(metric)
    label = f"validation {metric.removeprefix('validation ')}{unit}"
    points = [
        (ended.ended, scale * one.outcome.value, one.outcome.state)
        for ended in rounds
        for one in ended.attempts
        if one.outcome.value is not None
    ]
    gains = [
        (
            shorten(f"{one.number}: {one.change.what}", _WIDE, placeholder=" ..."),
            scale * one.test.gain,
            scale * one.test.low,
            scale * one.test.high,
        )
        for ended in rounds
        for one in ended.attempts
        if one.test is not None
    ]
    found = [section("Best so far against time", plots.best_so_far(points, label, higher_is_better))]
    if gains:
        picture = plots.gains_with_intervals(gains, f"gain over the best before{', points' if unit else ''}")
        found.append(section("Every change against the best before it", picture))
    return found


def errors_of(best: Attempt, metric: str) -> str:
    """Show what the best attempt after a round gets wrong: what the next round is planned from.

    Args:
        best: the attempt.
        metric: that decides.
    Returns:
        HTML; empty where it has no errors to show.
    """
    errors = best.errors
    if errors is None:
        return ""
    scale, unit = scale_of(metric)
    form = ".1f" if unit else ".3f"
    trained, held = (
        f"{number(scale * one, form)}{' %' if unit else ''}" for one in (errors.trained_score, errors.score)
    )
    said = (
        f"Attempt {best.number}: {metric} {trained} on rows that trained, {held} on validation; best epoch "
        f"{errors.best_epoch} of {errors.epochs}."
    )
    return f"<p>{safe(said)}</p>" + _tables(errors)


def _tables(errors: Errors) -> str:
    pairs = [[one.true, one.predicted, str(one.rows)] for one in errors.confused]
    labels = [[one.label, f"{one.wrong} of {one.rows}", str(one.trained)] for one in errors.labels[: len(pairs)]]
    form = ".1%" if errors.labelled else ".3f"
    lengths = [[f"up to {one.longest}", str(one.rows), f"{one.wrong:{form}}"] for one in errors.lengths]
    found = texts(("true label", "taken for", "rows"), pairs) if pairs else ""
    found += texts(("label", "wrong on validation", "rows that trained"), labels) if labels else ""
    return found + texts(("tokens", "rows", "wrong" if errors.labelled else "mean loss"), lengths)
