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


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "tunesmith", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text stays text: the browser has the fonts
        figure.savefig(text, format="svg", metadata=_BARE, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


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


def by_layer(curves: Mapping[str, Mapping[str, float]], most: int = 6) -> str:
    """Draw a number of every layer, a line for each of some times.

    Args:
        curves: by time, the number by layer, each in the model's order.
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
        axes.plot(
            range(len(layers)), values, "o-", color=_BLUE, alpha=(number + 1) / len(shown), label=name, markersize=3
        )
    if any(value > 0 for name in shown for value in curves[name].values()):
        axes.set_yscale("log")
    axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel("norm")
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
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 107)
    axes.set_xlabel(f"{label}, %")
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
        axes.set_xticks(range(classes), names, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(classes), names, fontsize=8)
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
    axes.set_yticks(range(len(items)), [name[:40] for name, _ in items], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    return _svg(figure)
