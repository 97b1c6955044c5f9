"""The comparison of several runs for people: one HTML page that opens offline, and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.evaluation import comparison_plots as pictures
from tunesmith.evaluation.changes import Answer, Change
from tunesmith.evaluation.comparison import Comparison
from tunesmith.evaluation.importance import ENOUGH, axis
from tunesmith.evaluation.metrics.base import is_share, number, worded
from tunesmith.evaluation.page import page, safe, section, table, texts
from tunesmith.evaluation.pairs import Pair
from tunesmith.evaluation.plots import importances as bars
from tunesmith.evaluation.plots import parallel_coordinates
from tunesmith.evaluation.report import size
from tunesmith.evaluation.statistics import Estimate

_SHOWN = 12  # rows in a list of examples, and confusions in a picture
_MOST_PAIRS = 60  # lines of the page's table of pairs; all are in comparison.json
_SHORT = 200  # characters of a text in Markdown

Rows = list[list[str]]


def sentences(found: Comparison, what: str = "run") -> list[str]:
    """Say what was compared and what came out.

    Args:
        found: the comparison.
        what: is compared.
    Returns:
        Sentences.
    """
    best, level = found.entries[0], found.bootstrap.confidence
    alike = [pair.second for pair in found.pairs if pair.first == 0 and pair.p_value >= 1 - level]
    tied = [found.names[at] for at in alike]
    test = "McNemar's exact test" if found.pairs[0].mcnemar_p is not None else "the paired bootstrap"
    out = f"{best.name} scores best: {found.metric} {_score(found, best.scores[found.metric])}."
    small = found.entries[found.smallest()]
    share = found.pairs[0].mcnemar_p is not None
    resampled = f"{found.bootstrap.resamples:,} bootstrap resamples"
    how = f"Wilson's, of differences Bonett and Price's; of other metrics {resampled}" if share else resampled
    less = (
        f"Within one standard error of the best score, {small.name} trains the fewest numbers "
        f"({small.costs['trainable_parameters']:,})."
    )
    return [
        f"{len(found.entries)} {what}s on the same {len(found.where):,} rows of {found.split}.",
        f"{out} Not told apart from it: {', '.join(tied)}."
        if tied
        else f"{out} It is told apart from every other {what}.",
        *([] if small is best else [less]),
        f"{what.capitalize()}s that share a letter are not told apart: {test} on every pair, p-values corrected "
        f"together (Holm), {100 * level:g} %. Intervals: {how}; they say what other rows would change, not what "
        "another seed would.",
        _caution(found, what),
    ]


def _caution(found: Comparison, what: str) -> str:
    if found.split == "test":
        return (
            "Whoever picks the best of several runs by their test scores gets a score that is too good. Choose on "
            "validation (--split validation; all runs need the same validation rows, so one data.seed), and read off "
            "here what was chosen."
        )
    return (
        f"These rows chose the best epoch of every {what}, and the best of several looks better on them than it is: "
        "the score to report is that of rows which chose nothing."
    )


def _score(found: Comparison, score: Estimate) -> str:
    return worded(found.metric, score.value, score.low, score.high)


def result_rows(found: Comparison) -> tuple[list[str], Rows]:
    """Word the runs as a table.

    Args:
        found: the comparison.
    Returns:
        Heads and rows, the best run first.
    """
    others = [name for name in found.entries[0].scores if name != found.metric]
    costs = [(head, word) for head, key, word in _COSTS if key in found.entries[0].costs]
    heads = ["run", "group", found.metric, *others[:2], *(head for head, _ in costs)]
    rows = [
        [
            f"{place} {one.name}",
            one.group,
            *(worded(name, *_triple(one.scores[name])) for name in (found.metric, *others[:2])),
            *(word(one.costs) for _, word in costs),
        ]
        for place, one in enumerate(found.entries, 1)
    ]
    return heads, rows


_COSTS: list[tuple[str, str, Callable[[dict[str, Any]], str]]] = [
    ("trained", "trainable_share", lambda costs: f"{100 * costs['trainable_share']:.2f} %"),
    ("training", "training_seconds", lambda costs: f"{costs['training_seconds']:.1f} s"),
    ("peak memory", "peak_memory_bytes", lambda costs: size(costs["peak_memory_bytes"])),
]


_AXES = [
    ("training_seconds", 1, "seconds of training"),
    ("trainable_share", 100, "trained share of the model, %"),
]


def _triple(score: Estimate) -> tuple[float, float, float]:
    return score.value, score.low, score.high


def pair_rows(found: Comparison) -> tuple[list[str], Rows]:
    """Word the pairs as a table.

    Args:
        found: the comparison.
    Returns:
        Heads and rows.
    """
    counted = found.pairs[0].mcnemar_p is not None
    heads = ["runs", "gain of the first", *(["only one is right"] if counted else []), "p, bootstrap"]
    heads += [*(["p, McNemar"] if counted else []), "p, corrected", "told apart"]
    return heads, [_pair_row(found, pair) for pair in found.pairs]


def _pair_row(found: Comparison, pair: Pair) -> list[str]:
    names = found.names
    apart = "yes" if pair.p_value < 1 - found.bootstrap.confidence else "no"
    row = [f"{pair.first + 1} {names[pair.first]} – {pair.second + 1} {names[pair.second]}", gain(found, pair.gain)]
    if pair.mcnemar_p is None:
        return [*row, _p(pair.bootstrap_p), _p(pair.p_value), apart]
    rows = f"{pair.only_first} : {pair.only_second} rows"
    return [*row, rows, _p(pair.bootstrap_p), _p(pair.mcnemar_p), _p(pair.p_value), apart]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def gain(found: Comparison, score: Estimate) -> str:
    """Word a difference with its interval.

    Args:
        found: the comparison.
        score: the difference.
    Returns:
        For example "+1.1 points (+0.3 to +1.9)".
    """
    scale, unit, form = (100, " points", "+.1f") if is_share(found.metric) else (1, "", "+.3f")
    main, *ends = (number(scale * one, form) for one in _triple(score))
    return f"{main}{unit} ({' to '.join(ends)})"


def cost_rows(found: Comparison) -> tuple[list[str], Rows]:
    """Word what the runs cost as a table.

    Args:
        found: the comparison.
    Returns:
        Heads and rows.
    """
    heads = ["run", "whole run", "training", "examples/s", "peak memory", "trained numbers", "share", "best epoch",
             "steps", "looks at test"]  # fmt: skip
    rows = [
        [
            f"{place} {one.name}",
            f"{one.costs['seconds']:.1f} s",
            f"{one.costs['training_seconds']:.1f} s",
            number(one.costs["examples_per_second"], ".1f"),
            size(one.costs["peak_memory_bytes"]),
            f"{one.costs['trainable_parameters']:,}",
            f"{100 * one.costs['trainable_share']:.3f} %",
            str(one.costs["best_epoch"]),
            str(one.costs["steps"]),
            str(one.costs["test_looks"]),
        ]
        for place, one in enumerate(found.entries, 1)
    ]
    return heads, rows


def setting_rows(found: Comparison) -> tuple[list[str], Rows]:
    """Word the settings that differ as a table.

    Args:
        found: the comparison.
    Returns:
        Heads and rows; no rows where the runs differ in nothing.
    """
    keys = list(found.entries[0].settings)
    names = [f"{place} {name}" for place, name in enumerate(found.names, 1)]
    rows = [[key, *("-" if one.settings[key] is None else str(one.settings[key]) for one in found.entries)]
            for key in keys]  # fmt: skip
    return ["setting", *names], rows


def seed_rows(found: Comparison) -> tuple[list[str], Rows]:
    """Word scores over seeds as a table.

    Args:
        found: the comparison.
    Returns:
        Heads and rows; no rows where no two runs differ in the seed alone.
    """
    scale = 100 if is_share(found.metric) else 1
    rows = [
        [
            ", ".join(f"{at + 1} {found.names[at]}" for at in places),
            str(one.count),
            worded(found.metric, *_triple(one.mean)),
            f"{scale * one.deviation:.2f}",
        ]
        for places, one in found.seeds
    ]
    return ["runs that differ in the seed alone", "seeds", f"mean {found.metric}", "standard deviation"], rows


# Markdown -----------------------------------------------------------------------------------------------------


def markdown(found: Comparison) -> str:
    """Write the comparison as Markdown.

    Args:
        found: the comparison.
    Returns:
        The text.
    """
    parts = ["# Runs compared", *sentences(found), *(f"> {note}" for note in found.notes)]
    titled: list[tuple[str, Callable[[Comparison], tuple[list[str], Rows]]]] = [
        (f"Result on {found.split}", result_rows),
        ("Every pair", pair_rows),
        ("Over seeds", seed_rows),
        ("Settings that differ", setting_rows),
        ("Cost", cost_rows),
    ]
    for title, write in titled:
        heads, rows = write(found)
        if rows:
            parts += [f"## {title}", _table(heads, rows)]
    for change in found.changes:
        parts += _change_lines(found, change)
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Rows) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (list(heads), *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def _change_lines(found: Comparison, change: Change) -> list[str]:
    names, lines = found.names, list[str]()
    for title, some in _titled(found, change):
        heads = ["row", "right", names[change.first], names[change.second]]
        rows = [
            [cell[:_SHORT] for cell in (found.text(one.row), one.right, one.first, one.second)] for one in some[:_SHOWN]
        ]
        lines += [f"## {title}", _table(heads, rows)] if rows else [f"## {title}", "None."]
    return lines


def _titled(found: Comparison, change: Change) -> list[tuple[str, list[Answer]]]:
    one, two = (f"{at + 1} {found.names[at]}" for at in (change.first, change.second))
    words = "right" if change.confusions or found.pairs[0].mcnemar_p is not None else "better"
    return [
        (f"{_count(change.gained)} {words} with {one} and not with {two}", change.gained),
        (f"{_count(change.lost)} {words} with {two} and not with {one}", change.lost),
    ]


def _count(rows: Sequence[Answer]) -> str:
    return f"{len(rows):,} row{'s' if len(rows) != 1 else ''}"


# HTML ---------------------------------------------------------------------------------------------------------


def render(found: Comparison) -> str:
    """Write the page.

    Args:
        found: the comparison.
    Returns:
        HTML without any outside reference.
    """
    said = "".join(f"<p>{safe(one)}</p>" for one in sentences(found))
    warned = "".join(f"<p class=warn>{safe(one)}</p>" for one in found.notes)
    label, scores = _scaled(found)
    sections = [
        f"<h1>{len(found.entries)} runs compared</h1>{said}{warned}",
        section(f"Result on {found.split}, with intervals and groups", _result(found)),
        section("Every pair on the same rows", _pairs(found)),
        section("Over seeds", _html(seed_rows(found)) if found.seeds else ""),
        section("Before and after tuning", _before(found)),
        section("Score against cost", _costs(found, scores, label)),
        section("Settings that differ", _settings(found, [one[0] for one in scores], label)),
        section("What mattered", what_mattered(found.importance())),
        section("Learning curves", _curves(found)),
        *(part for change in found.changes for part in _change(found, change)),
        section("Cost", f"<div class=scroll>{_html(cost_rows(found))}</div>"),
    ]
    return page("Runs compared", sections)


def of_trials(found: Comparison) -> list[str]:
    """Write the sections of a study's page in which its best trials are compared.

    Args:
        found: the comparison.
    Returns:
        HTML of each.
    """
    said = "".join(f"<p>{safe(one)}</p>" for one in (*sentences(found, "trial"), *found.notes))
    return [
        section("The best trials on the same rows, with intervals and groups", said + _result(found)),
        section("Every pair of them", _pairs(found)),
        section("Before and after tuning", _before(found)),
        section("Learning curves of the best trials", _curves(found)),
        *(part for change in found.changes for part in _change(found, change)),
    ]


def of_attempts(found: Comparison) -> list[str]:
    """Write the sections of a closed loop's page in which its best attempts are compared.

    Args:
        found: the comparison.
    Returns:
        HTML of each.
    """
    said = "".join(f"<p>{safe(one)}</p>" for one in (*sentences(found, "attempt"), *found.notes))
    label, scores = _scaled(found)
    return [
        section("The best attempts on the same rows, with intervals and groups", said + _result(found)),
        section("Every pair of them", _pairs(found)),
        section("Score against cost", _costs(found, scores, label)),
        section("Settings that differ", _settings(found, [one[0] for one in scores], label)),
        section("Learning curves of the best attempts", _curves(found)),
        *(part for change in found.changes for part in _change(found, change)),
    ]


def _scaled(found: Comparison) -> tuple[str, list[tuple[float, float, float]]]:
    """Return the label of the score's axis, and value, low and high of each run on it."""
    scale = 100 if is_share(found.metric) else 1
    label = f"{found.metric} on {found.split}" + (", %" if scale == 100 else "")
    return label, [(scale * one.value, scale * one.low, scale * one.high) for one in found.scores]


def _result(found: Comparison) -> str:
    label, scores = _scaled(found)
    groups = [one.group for one in found.entries]
    return _html(result_rows(found)) + pictures.intervals(found.names, scores, groups, label)


def _html(found: tuple[Sequence[str], Rows]) -> str:
    heads, rows = found
    lines = [
        f"<tr><td>{safe(row[0])}</td>{''.join(f'<td class=n>{safe(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    ]
    return f"<div class=scroll>{table(heads, lines)}</div>"


def _pairs(found: Comparison) -> str:
    heads, rows = pair_rows(found)
    more = f"<p class=soft>{len(rows) - _MOST_PAIRS} more in comparison.json</p>" if len(rows) > _MOST_PAIRS else ""
    return _html((heads, rows[:_MOST_PAIRS])) + more


def _before(found: Comparison) -> str:
    (label, scores), scale = _scaled(found), 100 if is_share(found.metric) else 1
    before = [
        {kind: scale * one[found.metric].value for kind, one in entry.baselines.items() if found.metric in one}
        for entry in found.entries
    ]
    if not any(before):
        return "<p class=soft>No run measured baselines (evaluation.baselines).</p>"
    return pictures.before_and_after(found.names, scores, before, label)


def _costs(found: Comparison, scores: Sequence[tuple[float, float, float]], label: str) -> str:
    costs = [
        (said, [scale * one.costs[key] for one in found.entries], found.front(key))
        for key, scale, said in _AXES
        if all(key in one.costs for one in found.entries)
    ]
    note = "<p class=soft>Numbers are those of the table; what lies on the dotted line, nothing cheaper reaches.</p>"
    return pictures.against_costs(scores, costs, label) + note


def _settings(found: Comparison, values: Sequence[float], label: str) -> str:
    heads, rows = setting_rows(found)
    if not rows:
        return "<p class=soft>The runs' recipes differ in nothing but the output folder.</p>"
    axes = [axis([one.settings[key] for one in found.entries]) for key in found.entries[0].settings]
    names = [row[0] for row in rows]
    lines = [([places[at] for places, _ in axes], value) for at, value in enumerate(values)]
    drawn = parallel_coordinates(
        list(zip(names, [ticks for _, ticks in axes], strict=True)), lines, label, found.higher_is_better
    )
    note = "<p class=soft>A line is broken where a run has no such setting.</p>"
    return (drawn + note if len(names) > 1 else "") + _html((heads, rows))


def what_mattered(shares: Mapping[str, float], runs: str = "runs") -> str:
    """Draw how much of the scores' spread each setting tells, where there are enough runs.

    Args:
        shares: by setting, from `importances`; empty where there are too few runs.
        runs: what they are called.
    Returns:
        HTML.
    """
    if not shares:
        return f"<p class=soft>It takes at least {ENOUGH} {runs} with different scores.</p>"
    note = (
        "<p class=soft>A random forest's share of the variance that it explains, by setting (mean decrease in "
        "impurity). Of few it is a hint, not a proof; settings that change together share what they tell.</p>"
    )
    return bars(shares) + note


def _curves(found: Comparison) -> str:
    shown = found.metric if any(found.metric in row for one in found.entries for row in one.history) else None
    key = shown or "validation loss"
    scale = 100 if shown and is_share(shown) else 1
    curves = [
        [(row["epoch"], scale * row[key]) for row in one.history if isinstance(row.get(key), int | float)]
        for one in found.entries
    ]
    if not any(curves):
        return "<p class=soft>No run scored validation rows while it trained.</p>"
    label = f"validation {shown}{', %' if scale == 100 else ''}" if shown else "validation loss"
    return pictures.epochs(found.names, curves, label)


def _change(found: Comparison, change: Change) -> list[str]:
    names = (found.names[change.first], found.names[change.second])
    one, two = (f"{at + 1} {found.names[at]}" for at in (change.first, change.second))
    parts = []
    if change.confusions:
        changed = [pair for pair in change.confusions if pair[2] != pair[3]][:_SHOWN]
        drawn = pictures.confusion_changes(changed, names, (change.first, change.second)) if changed else ""
        parts.append(section(f"Confusions: {one} and {two}", drawn or "<p>Both confuse the same labels as often.</p>"))
    heads = ("row", "right", *names)
    for title, some in _titled(found, change):
        rows = [[found.text(row.row), row.right, row.first, row.second] for row in some[:_SHOWN]]
        more = f"<p class=soft>{len(some) - _SHOWN:,} more in comparison.json</p>" if len(some) > _SHOWN else ""
        parts.append(section(title, texts(heads, rows) + more if rows else ""))
    return parts
