"""The report: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.evaluation import plots
from tunesmith.evaluation.metrics.base import is_share, number, worded, worded_gain
from tunesmith.evaluation.page import OPENINGS, page, pairs, safe, section, table, texts
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Difference, Estimate, Result
from tunesmith.evaluation.written import Written

_SHOWN = 12  # rows in a list of examples


@dataclass(frozen=True)
class Contender:
    """One line of the table.

    Args:
        name: of the baseline or method.
        scores: by metric, on the split that is compared.
        share: trainable over the model's parameters. [fraction]
        seconds: it took.
        peak_bytes: most memory the process held during it.
    """

    name: str
    scores: dict[str, Estimate]
    share: float
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Content:
    """What the report tells.

    Args:
        title: of the page.
        summary: sentences at the top, plain text.
        contenders: baselines first, the tuned model last.
        split: which split the table and the examples are about.
        metrics: in the order of the table.
        differences: the tuned model against the best baseline.
        history: per epoch.
        losses: per step.
        best_epoch: that was kept.
        score: metric drawn beside the loss, or the loss.
        predictions: of the tuned model on the split.
        label_names: in the order of the codes.
        text: of a row of the split.
        audits: facts by split.
        warnings: for the reader.
        recipe: resolved, as YAML.
        facts: versions and measurements, by name.
        averaged: epochs whose states' mean was kept; empty where one epoch's state was.
        samples: what a language model was asked, with "right", "before" and "after"; empty for tasks with labels.
        ensemble: members that answer together, with their scores, gains and cost; empty for one delta.
        candidates: trained beside each other, each with `chosen`, `what`, `history` and `best_epoch`; empty for one.
    """

    title: str
    summary: list[str]
    contenders: list[Contender]
    split: str
    metrics: list[str]
    differences: list[Difference]
    history: list[dict[str, Any]]
    losses: list[float]
    best_epoch: int
    score: str
    predictions: Result
    label_names: list[str]
    text: Callable[[int], str]
    audits: dict[str, dict[str, Any]]
    warnings: list[str]
    recipe: str
    facts: dict[str, str] = field(default_factory=dict)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    averaged: list[int] = field(default_factory=list)
    ensemble: dict[str, Any] = field(default_factory=dict)


def render(content: Content) -> str:
    """Write the page.

    Args:
        content: what it tells.
    Returns:
        HTML without any outside reference.
    """
    sections = [
        _head(content),
        _comparison(content),
        section("Learning curves", _curves(content)),
        section("Layer by layer", _by_layer(content)),
        section("Ensemble", _ensemble(content)),
        section("Candidates", _candidates(content)),
        *_answers(content),
        section("Data", _data(content)),
        section("Recipe", f"<pre>{safe(content.recipe)}</pre>"),
        section("Versions and machine", pairs(content.facts)),
    ]
    return page(content.title, sections)


def _score(name: str, estimate: Estimate) -> str:
    return worded(name, estimate.value, estimate.low, estimate.high)


def size(count: float) -> str:
    """Word a number of bytes.

    Args:
        count: of bytes.
    Returns:
        In MB or GB.
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _head(content: Content) -> str:
    ours = content.contenders[-1]
    first = content.metrics[0]
    cards = [
        (_score(first, ours.scores[first]).split(" (")[0], f"{first} on {content.split}"),
        (f"{100 * ours.share:.2f} %", "of the model's parameters trained"),
        (f"{ours.seconds:.0f} s", "training"),
        (size(ours.peak_bytes), "peak memory"),
    ]
    shown = "".join(f"<div class=card><b>{safe(value)}</b><span>{safe(label)}</span></div>" for value, label in cards)
    lines = "".join(f"<p>{safe(sentence)}</p>" for sentence in content.summary)
    warnings = "".join(f"<p class=warn>{safe(warning)}</p>" for warning in content.warnings)
    return f"<h1>{safe(content.title)}</h1>{lines}{warnings}{OPENINGS}<div class=cards>{shown}</div>"


def _comparison(content: Content) -> str:
    main = [name for name in ("accuracy", "macro-f1") if name in content.metrics] or content.metrics[:2]
    heads = ["model", *main, "trained", "seconds", "peak memory"]
    rows = []
    for place, line in enumerate(content.contenders):
        ours = " class=ours" if place == len(content.contenders) - 1 else ""
        cells = [_score(name, line.scores[name]) for name in main]
        cells += [f"{100 * line.share:.2f} %", f"{line.seconds:.1f}", size(line.peak_bytes)]
        rows.append(f"<tr{ours}><td>{safe(line.name)}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    scores = table(heads, rows)
    bars = ""
    if is_share(main[0]):
        lines = [(line.name, *_triple(line.scores[main[0]])) for line in content.contenders]
        bars = plots.scores_with_intervals(lines, main[0])
    notes = "".join(f"<p>{safe(_gain(item))}</p>" for item in content.differences)
    others = [name for name in content.metrics if name not in main]
    more = "".join(
        f"<tr><td>{safe(name)}</td>"
        + "".join(f"<td class=n>{safe(_score(name, line.scores[name]))}</td>" for line in content.contenders)
        + "</tr>"
        for name in others
    )
    all_metrics = table(["metric", *(line.name for line in content.contenders)], [more]) if more else ""
    body = (
        f"<div class=scroll>{scores}</div>{notes}{bars}<details><summary>all metrics</summary>{all_metrics}</details>"
    )
    return section(f"Result on {content.split}, with intervals", body)


def _triple(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _gain(item: Difference) -> str:
    gain = item.estimate
    said = worded_gain(item.metric, gain.value, gain.low, gain.high, item.p_value)
    if not np.isfinite(gain.value):
        return f"{said}."
    sure = "the interval excludes zero" if gain.low > 0 or gain.high < 0 else "the interval includes zero"
    return f"{said}; {sure}."


def _curves(content: Content) -> str:
    if not content.history:
        return "<p class=soft>Training stopped before the end of the first epoch.</p>"
    which = f"mean of the states after epochs {', '.join(map(str, content.averaged))}" if content.averaged else ""
    which = which or f"state after epoch {content.best_epoch}"
    return f"<p class=soft>The {which} was kept.</p>" + plots.learning_curves(
        content.losses, content.history, content.score, content.best_epoch
    )


def _by_layer(content: Content) -> str:
    """Show where gradients or what the blocks add are large or vanish, where there is more than one block."""
    found = []
    for key, axis, said in (
        ("gradient norms", "norm", "Norm of the delta's gradients in the last step of an epoch, after clipping."),
        ("activations", "root mean square", "Size of what each block adds to its input in the last step of an epoch."),
    ):
        rows = [row for row in content.history if len(row.get(key, {})) > 1]
        if rows:
            curves = {f"epoch {row['epoch']}": row[key] for row in rows}
            found.append(f"<p class=soft>{said}</p>{plots.by_layer(curves, axis)}")
    return "".join(found)


def _candidates(content: Content) -> str:
    """Compare what was trained in one pass, by the validation score of each one's best epoch."""
    if not content.candidates:
        return ""
    rows = []
    for place, one in enumerate(content.candidates):
        best = one["best_epoch"]
        score = number(one["history"][best - 1].get(content.score), ".4f") if best else "diverged"
        name = f"<b>{place}: {safe(one['what'])}, kept</b>" if one["chosen"] else f"{place}: {safe(one['what'])}"
        cells = (f"{one['trainable_parameters']:,}", best or "-", score)
        rows.append(f"<tr><td>{name}</td>" + "".join(f"<td class=n>{cell}</td>" for cell in cells) + "</tr>")
    compared = table(["candidate", "trainable", "best epoch", f"validation {content.score}"], rows)
    if not any(content.score in row for one in content.candidates for row in one["history"]):
        return compared + "<p class=soft>There are no validation rows: no candidate was chosen over another.</p>"
    note = "" if content.ensemble else (
        f"<p class=soft>{len(content.candidates)} candidates were compared on validation, and the best of many looks "
        "better there than it is; only the kept one was scored on test.</p>"
    )  # fmt: skip
    return compared + note + plots.candidate_curves([one["history"] for one in content.candidates], content.score)


def _ensemble(content: Content) -> str:
    """Compare what answers together with each of its members and with the recipe alone."""
    found = content.ensemble
    if not found:
        return ""
    names = list(found["members"][0]["scores"][content.split])
    lines = [
        (f"{one['what']}{', best on validation' * (place == found['best_member'])}"
         f"{'' if one['taken'] else ', left out'}", one["scores"][content.split], one["weight"])
        for place, one in enumerate(found["members"])
    ]  # fmt: skip
    if found["alone"]:
        lines.append(("the recipe alone", found["alone"][content.split], None))
    rows = []
    for what, scores, weight in lines:
        cells = [_score(name, Estimate(**scores[name])) for name in names] + [f"{weight:.3f}" if weight else ""]
        rows.append(f"<tr><td>{safe(what)}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    said_of = [*found["sentences"], f"Cost: {found['cost']['sentence']}."]
    ours = [_score(name, content.contenders[-1].scores[name]) for name in names] + [""]
    rows.append(f"<tr class=ours><td>together</td>{''.join(f'<td class=n>{cell}</td>' for cell in ours)}</tr>")
    return table([content.split, *names, "weight"], rows) + "".join(f"<p>{safe(said)}</p>" for said in said_of)


def _answers(content: Content) -> list[str]:
    """Show what the model did on single rows."""
    found = content.predictions
    if isinstance(found, Written):
        return [
            section("Written before and after tuning", _samples(content.samples)),
            section(f"Answers ({content.split})", _answered(content, found)),
            section("Least probable rows", _improbable(content, found)),
        ]
    return [
        section(f"Confusions ({content.split})", _confusions(content, found)),
        section("Most confidently wrong", _wrong(content, found)),
        section("Hardest examples", _hardest(content, found)),
    ]


def _samples(samples: Sequence[dict[str, str]]) -> str:
    keys = ("asked", "right", "before", "after")
    rows = [[one[key] for key in keys] for one in samples]
    return texts(["asked", "held-out text", "before tuning", "after tuning"], rows) if rows else ""


def _answered(content: Content, found: Written) -> str:
    rows = [
        [found.right[place][0], found.answers[place], f"{found.row_loss[row]:.3f}"]
        for place, row in enumerate(found.answered[:_SHOWN])
    ]
    return texts(["reference", "answer", "nats per token of the reference"], rows) if rows else ""


def _improbable(content: Content, found: Written) -> str:
    order = np.argsort(-found.row_loss, kind="stable")[:_SHOWN]
    rows = [[content.text(int(row)), f"{found.row_loss[row]:.3f}"] for row in order]
    return texts(["row", "nats per token"], rows)


def _confusions(content: Content, found: Predictions) -> str:
    matrix = found.sample().confusion
    wrong = matrix - np.diag(np.diagonal(matrix))
    pairs = [
        (int(wrong[true, predicted]), content.label_names[true], content.label_names[predicted])
        for true, predicted in zip(*np.nonzero(wrong), strict=True)
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    rows = [
        f"<tr><td>{safe(true)}</td><td>{safe(predicted)}</td><td class=n>{count}</td></tr>"
        for count, true, predicted in pairs[:_SHOWN]
    ]
    table = (
        f"<table><thead><tr><th>true</th><th>predicted</th><th class=n>rows</th></tr></thead>{''.join(rows)}</table>"
    )
    return plots.confusion(matrix, content.label_names) + (table if rows else "<p>No row was confused.</p>")


def _examples(content: Content, found: Predictions, rows: Sequence[int]) -> str:
    lines = []
    for row in rows:
        probability = found.probabilities[row]
        true, predicted = int(found.references[row]), int(found.predicted[row])
        lines.append(
            f"<tr><td>{safe(content.text(row)[:400])}</td><td>{safe(content.label_names[true])} "
            f"<span class=soft>{100 * probability[true]:.0f} %</span></td>"
            f"<td>{safe(content.label_names[predicted])} "
            f"<span class=soft>{100 * probability[predicted]:.0f} %</span></td></tr>"
        )
    head = "<tr><th>text</th><th>true</th><th>predicted</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>" if lines else "<p>None.</p>"


def _wrong(content: Content, found: Predictions) -> str:
    wrong = np.flatnonzero(~found.correct)
    order = wrong[np.argsort(-found.confidence[wrong], kind="stable")][:_SHOWN]
    return _examples(content, found, order.tolist())


def _hardest(content: Content, found: Predictions) -> str:
    """Rows where the two best classes are nearly tied."""
    top = np.sort(found.probabilities, axis=1)
    margin = top[:, -1] - top[:, -2]
    return "<p class=soft>The two most probable classes are nearly tied.</p>" + _examples(
        content, found, np.argsort(margin, kind="stable")[:_SHOWN].tolist()
    )


def _data(content: Content) -> str:
    rows = []
    for name, facts in content.audits.items():
        counts = list(facts["classes"].values())
        lengths = facts["tokens"]
        cells = [
            f"{facts['rows']:,}",
            f"{len(counts)} ({min(counts)} – {max(counts)} rows)" if counts else f"{facts['learned']:,} tokens",
            f"{lengths['median']} / {lengths['p95']} / {lengths['longest']}",
            f"{facts['truncated']}",
            f"{facts['duplicates']}",
            f"{facts['in_train']}" if name != "train" else "",
            f"{sum(facts['dropped'].values())}",
        ]
        rows.append(f"<tr><td>{safe(name)}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    heads = [
        "split",
        "rows",
        "learned" if any(facts["learned"] for facts in content.audits.values()) else "classes",
        "tokens: median / p95 / longest",
        "truncated",
        "duplicates",
        "also in train",
        "dropped",
    ]
    return f"<div class=scroll>{table(heads, rows)}</div>"
