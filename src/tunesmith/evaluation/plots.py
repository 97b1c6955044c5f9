"""Pictures of the report, as SVG that stands inside the page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_BARE = {"Date": None, "Creator": None, "Format": None, "Type": None}  # no metadata block in the SVG
_INK, _GRID = "#1f2933", "#d9e2ec"
_BLUE, _ORANGE, _GREEN = "#2563eb", "#ea7317", "#0f9d76"
_DECADE = 10.0  # numbers further apart are drawn on a logarithmic axis


def canvas(width: float, height: float, panels: int = 1) -> tuple[Any, list[Any]]:
    """Make an empty picture.

    Args:
        width: of it. [inches]
        height: of it. [inches]
        panels: beside each other. [count]
    Returns:
        The figure and the axes of its panels.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(colors=_INK, labelsize=9)
    return figure, axes


def drawn(figure: Any) -> str:
    """Write a picture down.

    Args:
        figure: from `canvas`.
    Returns:
        An SVG element.
    """
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure, (axes,) = canvas(width, height)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "tunesmith", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text stays text: the browser has the fonts
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)  # or savefig lays it out by drawing all of it once more
        figure.savefig(text, format="svg", metadata=_BARE, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def plain_name(name: str) -> str:
    """Keep dollar signs of a name from being read as the bounds of a formula.

    Args:
        name: any.
    Returns:
        For a picture's texts.
    """
    return name.replace("$", r"\$")


def candidate_curves(histories: Sequence[Sequence[dict[str, Any]]], score: str) -> str:
    """Draw the validation score of several candidates per epoch.

    Args:
        histories: per candidate, its epochs with `score`.
        score: a metric's name.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(7.2, 3.1)
    for number, history in enumerate(histories):
        if history:
            epochs = [row["epoch"] for row in history]
            scores = [row.get(score, np.nan) for row in history]
            axes.plot(epochs, scores, "o-", markersize=3, linewidth=1.2, label=str(number))
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {score}")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, ncols=8, loc="lower center", bbox_to_anchor=(0.5, 1), title="candidate")
    return _svg(figure)


def learning_curves(losses: Sequence[float], history: Sequence[dict[str, Any]], score: str, best: int) -> str:
    """Draw the training loss per step and the validation loss and score per epoch.

    Args:
        losses: per step.
        history: per epoch, with "validation loss" and `score`.
        score: a metric's name.
        best: the epoch that was kept.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(7.2, 3.1)
    steps = np.arange(1, len(losses) + 1)
    window = max(1, len(losses) // 60)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid") if losses else np.zeros(0)
    axes.plot(steps, losses, color=_BLUE, alpha=0.18, linewidth=0.8)
    axes.plot(steps[window - 1 :], smooth, color=_BLUE, linewidth=1.6, label="training loss")
    per_epoch = len(losses) / max(1, len(history))
    ends = [per_epoch * row["epoch"] for row in history]
    axes.plot(
        ends, [row.get("validation loss", np.nan) for row in history], "o-", color=_ORANGE, label="validation loss"
    )
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    right = axes.twinx()
    right.spines[["top"]].set_visible(False)
    right.plot(ends, [row.get(score, np.nan) for row in history], "s--", color=_GREEN, label=f"validation {score}")
    right.set_ylabel(score)
    if 0 < best <= len(ends):
        axes.axvline(ends[best - 1], color=_INK, linewidth=0.8, linestyle=":")
    lines = [*axes.get_lines()[1:3], *right.get_lines()]
    axes.legend(
        lines,
        [line.get_label() for line in lines],
        frameon=False,
        fontsize=9,
        ncols=3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
    )
    return _svg(figure)


def by_layer(curves: Mapping[str, Mapping[str, float]], axis: str = "norm", most: int = 6) -> str:
    """Draw a number of every layer, a line for each of some times.

    Args:
        curves: by time, the number by layer, each in the model's order.
        axis: what the number is.
        most: so many lines at most: the first, the last and some between.
    Returns:
        An SVG element.
    """
    names = list(curves)
    shown = [names[round(place)] for place in np.linspace(0, len(names) - 1, min(most, len(names)))]
    layers = list(dict.fromkeys(layer for name in shown for layer in curves[name]))
    figure, axes = _figure(7.2, 2.8)
    for number, name in enumerate(shown):
        values = [curves[name].get(layer, np.nan) or np.nan for layer in layers]  # zero has no logarithm
        shade = 0.15 + 0.85 * (number + 1) / len(shown)
        last = number == len(shown) - 1
        axes.plot(
            range(len(layers)), values, "o-" if last else ".-", color=_BLUE, alpha=shade, label=name, markersize=4
        )
    positive = [value for name in shown for value in curves[name].values() if value > 0]
    if positive and max(positive) > _DECADE * min(positive):
        axes.set_yscale("log")
    axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel(axis)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, ncols=3)
    return _svg(figure)


def scores_with_intervals(rows: Sequence[tuple[str, float, float, float]], label: str) -> str:
    """Draw one bar per model with its interval.

    Args:
        rows: (name, value, low, high), the last one is ours.
        label: of the axis.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(7.2, 0.55 + 0.42 * len(rows))
    for place, (_name, value, low, high) in enumerate(rows):
        colour = _BLUE if place == len(rows) - 1 else "#9fb3c8"
        axes.barh(place, 100 * value, color=colour, height=0.62)
        axes.plot([100 * low, 100 * high], [place, place], color=_INK, linewidth=1.4)
        axes.text(100 * high + 1, place, f"{100 * value:.1f}", va="center", fontsize=9, color=_INK)
    axes.set_yticks(range(len(rows)), [plain_name(row[0]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 107)
    axes.set_xlabel(f"{label}, %")
    return _svg(figure)


def gains_with_intervals(rows: Sequence[tuple[str, float, float, float]], label: str) -> str:
    """Draw one point per change with its interval, beside a line where nothing is gained.

    Args:
        rows: (name, gain, low, high).
        label: of the axis, with its unit.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(8.4, 1.0 + 0.26 * len(rows))
    for place, (_name, gain, low, high) in enumerate(rows):
        colour = _BLUE if low > 0 else "#9fb3c8"
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
        axes.plot([gain], [place], "o", color=colour, markersize=4)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [plain_name(row[0]) for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_xlabel(label)
    return _svg(figure)


def confusion(matrix: np.ndarray[Any, Any], names: Sequence[str]) -> str:
    """Draw a confusion matrix, rows normalised by the true class.

    Args:
        matrix: (C, C), counts by true and predicted class.
        names: of the classes.
    Returns:
        An SVG element.
    """
    classes = len(names)
    size = min(9.5, 2.6 + 0.36 * classes) if classes <= 40 else 7.5
    figure, axes = _figure(size, size * 0.88)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if classes <= 40:
        shown = [plain_name(name) for name in names]
        axes.set_xticks(range(classes), shown, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(classes), shown, fontsize=8)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if classes <= 25:
        for true, predicted in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[true, predicted] > 0.55 else _INK
            count = int(matrix[true, predicted])
            axes.text(predicted, true, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return _svg(figure)


def rate_curve(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float | None
) -> tuple[str, bytes]:
    """Draw the loss over a learning rate that rises from step to step.

    Args:
        rates: one per step.
        losses: one per step.
        smoothed: the same, smoothed.
        suggestion: marked; None for no mark.
    Returns:
        An SVG element, and the same picture as PNG.
    """
    figure, axes = _figure(7.2, 3.4)
    axes.semilogx(rates, losses, color=_GRID, linewidth=1, label="loss of a step")
    axes.semilogx(rates, smoothed, color=_BLUE, linewidth=1.6, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color=_ORANGE, linewidth=1.2, label=f"suggested: {suggestion:.2g}")
    usual = sorted(smoothed)
    axes.set_ylim(min(losses, default=0) * 0.95, max([2 * usual[len(usual) // 2], *losses[:5]]) if usual else 1)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure), _png(figure)


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


def lengths(counts: Sequence[int], edges: Sequence[float], label: str) -> str:
    """Draw how many rows have which length.

    Args:
        counts: of rows per bar.
        edges: of the bars, one more.
        label: of the axis.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(7.2, 2.4)
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=_BLUE, edgecolor="white", linewidth=0.6)
    axes.set_xlabel(label)
    axes.set_ylabel("rows")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    return _svg(figure)


def shares(counts: Mapping[str, int], most: int = 40) -> str:
    """Draw how many rows each of some names has, the most frequent first.

    Args:
        counts: rows by name.
        most: so many bars at most; the last one is of all others.
    Returns:
        An SVG element.
    """
    items = sorted(counts.items(), key=lambda item: -item[1])
    if len(items) > most:
        rest = items[most - 1 :]
        items = [*items[: most - 1], (f"{len(rest):,} others", sum(count for _, count in rest))]
    figure, axes = _figure(7.2, 0.5 + 0.24 * len(items))
    axes.barh(range(len(items)), [count for _, count in items], color=_BLUE, height=0.7)
    axes.set_yticks(range(len(items)), [plain_name(name[:40]) for name, _ in items], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    return _svg(figure)


_STATES = {"complete": _BLUE, "stopped": _ORANGE}


def _by_state(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    for state, colour in _STATES.items():
        own = [(x, y) for x, y, found in points if found == state]
        if own:
            axes.plot(*zip(*own, strict=True), "o", color=colour, markersize=4, alpha=0.75, label=state)


def best_so_far(points: Sequence[tuple[float, float, str]], label: str, higher_is_better: bool) -> str:
    """Draw the scores of a study's trials, and the best complete one so far, against time.

    Args:
        points: (seconds, score, "complete" or "stopped") of each trial, in order.
        label: of the score.
        higher_is_better: its direction.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(7.2, 3.1)
    _by_state(axes, points)
    done = [(seconds, score) for seconds, score, state in points if state == "complete"]
    if done:
        pick = np.maximum if higher_is_better else np.minimum
        best = pick.accumulate([score for _, score in done])
        ends = [*(seconds for seconds, _ in done), max(seconds for seconds, _, _ in points)]
        axes.step(ends, [*best, best[-1]], where="post", color=_INK, linewidth=1.2, label="best so far")
    axes.set_xlabel("seconds of searching")
    axes.set_ylabel(label)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return _svg(figure)


def score_against_cost(
    points: Sequence[tuple[float, float, str]], front: Sequence[int], names: Sequence[str], axis: str, label: str
) -> str:
    """Draw scores against what they cost, and the front of those that nothing cheaper reaches.

    Args:
        points: (cost, score, "complete" or "stopped") of each trial.
        front: places of the front's trials among the points, the cheapest first.
        names: of the points.
        axis: what the cost is.
        label: of the score.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(7.2, 3.1)
    _by_state(axes, points)
    axes.step(
        [points[place][0] for place in front], [points[place][1] for place in front], where="post", color=_GREEN,
        linewidth=1.4, label="front",
    )  # fmt: skip
    for place in front:
        axes.annotate(names[place], points[place][:2], xytext=(4, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel(axis)
    axes.set_ylabel(label)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return _svg(figure)


def score_against_rows(points: Sequence[Sequence[float]], law: tuple[Any, Any], label: str) -> str:
    """Draw scores against the number of training rows, and a law through them with its band, beyond the last too.

    Args:
        points: (rows, score, low, high) of each size.
        law: numbers of rows, and (3, numbers): score, low and high.
        label: of the score.
    Returns:
        An SVG element.
    """
    figure, axes = _figure(7.2, 3.4)
    at, (value, low, high) = law
    rows, scores, ends = [one[0] for one in points], [one[1] for one in points], [one[2:] for one in points]
    measured = at <= rows[-1] * 1.001
    axes.fill_between(at, low, high, color=_BLUE, alpha=0.12, linewidth=0, label="band of the law")
    axes.plot(at[measured], value[measured], color=_BLUE, linewidth=1.6, label="power law")
    axes.plot(at[~measured], value[~measured], color=_BLUE, linewidth=1.6, linestyle="--", label="looked ahead")
    axes.vlines(rows, *zip(*ends, strict=True), color=_ORANGE, linewidth=1.4)
    axes.plot(rows, scores, "o", color=_ORANGE, markersize=5, label="measured, with interval")
    axes.set_xscale("log")
    ticks = [*rows, float(at[-1])]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training rows")
    axes.set_ylabel(label)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return _svg(figure)


def importances(found: Mapping[str, float]) -> str:
    """Draw what share of the scores' variance each field explains.

    Args:
        found: share by field.
    Returns:
        An SVG element.
    """
    items = sorted(found.items(), key=lambda item: -item[1])
    figure, axes = _figure(7.2, 0.7 + 0.3 * len(items))
    axes.barh(range(len(items)), [100 * share for _, share in items], color=_BLUE, height=0.6)
    axes.set_yticks(range(len(items)), [name for name, _ in items])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the variance of scores, %")
    return _svg(figure)


def parallel_coordinates(
    heads: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    lines: Sequence[tuple[Sequence[float], float]],
    label: str,
    higher_is_better: bool,
) -> str:
    """Draw each trial as a line through its settings, coloured by its score.

    Args:
        heads: of each axis its name, and its ticks: place from 0 to 1 and text.
        lines: of each trial its place on every axis (not a number where it has none) and its score.
        label: of the score.
        higher_is_better: its direction; better trials are drawn darker and on top.
    Returns:
        An SVG element.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = _figure(max(7.2, 1.5 * len(heads)), 4.0)
    scores = [score if np.isfinite(score) else np.nan for _, score in lines]
    shades = ScalarMappable(
        Normalize(min(scores), max(scores)), colormaps["viridis_r" if higher_is_better else "viridis"]
    )
    colours = shades.to_rgba(np.asarray(scores))
    for at in sorted(range(len(lines)), key=scores.__getitem__, reverse=not higher_is_better):
        axes.plot(range(len(heads)), lines[at][0], "o-", markersize=3, linewidth=1.1, alpha=0.8, color=colours[at])
    for number, (_, ticks) in enumerate(heads):
        axes.axvline(number, color=_GRID, linewidth=1, zorder=0)
        for place, text in ticks:
            said = axes.text(number + 0.03, place + 0.015, plain_name(text[:24]), fontsize=8, color=_INK)
            said.set_in_layout(False)  # long words must not squeeze the axes
    axes.set_xticks(range(len(heads)), [plain_name(name) for name, _ in heads], rotation=12, ha="right", fontsize=8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(-0.1, len(heads) - 1 + 0.5)
    figure.colorbar(shades, ax=axes, label=label, pad=0.01)
    return _svg(figure)
