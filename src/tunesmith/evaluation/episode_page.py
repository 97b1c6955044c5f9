"""A run of meta-training for people: what it gained, how the loss fell, how episodes spread, which classes are hard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.evaluation.metrics.base import worded
from tunesmith.evaluation.page import page, pairs, safe, section, table
from tunesmith.evaluation.plots import canvas, drawn

_GRID, _SOFT, _BLUE = "#d9e2ec", "#9fb3c8", "#2563eb"
_HARDEST = 20  # classes that are listed
_PANELS = 3  # beside each other

Classes = Mapping[str, Mapping[str, tuple[float, float]]]  # by class and shape, the share right before and after


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what meta-training gained, by shape of episode.

    Args:
        found: summary of the run.
    Returns:
        Sentences.
    """
    said = []
    for shape, after in found["metrics"].items():
        gain, before = found["gain"][shape], found["before"][shape]
        points = [f"{100 * gain[key]:+.1f}" for key in ("value", "low", "high")]
        shown = "" if gain["low"] > 0 or gain["high"] < 0 else "; that may be chance"
        said.append(
            f"{shape}: {worded('accuracy', after['value'], after['low'], after['high'])} right, where class means on "
            f"the model as it came have {100 * before['value']:.1f} %: {points[0]} points ({points[1]} to {points[2]})"
            f"{shown}."
        )
    if found["interrupted"]:
        said.append(f"Training was interrupted after step {found['steps']}.")
    return said


def episodes_page(
    found: Mapping[str, Any],
    losses: Sequence[float],
    accuracies: Mapping[str, tuple[Array, Array]],
    classes: Classes,
    recipe: str,
) -> str:
    """Write the report of meta-training.

    Args:
        found: summary of the run.
        losses: of each step. [nats]
        accuracies: by shape, of every scored episode before training and after. [fraction]
        classes: what is right of each scored class.
        recipe: as YAML.
    Returns:
        HTML that opens offline.
    """
    title = f"Meta-training: {found['learner']}"
    told = "".join(f"<p>{safe(one)}</p>" for one in sentences(found))
    note = (
        f"<p class=soft>Intervals resample the {found['episodes']:,} episodes: they say how far the mean over such "
        "episodes is known, not how other classes would do.</p>"
    )
    body = [
        f"<h1>{safe(title)}</h1>{told}{note}",
        section("Accuracy on classes that were not learned from", _gains(found)),
        section("Loss of the training episodes", loss_curve(losses) if losses else ""),
        section("Accuracy of single episodes", _spreads(accuracies)),
        section("Hardest classes", _hardest(classes)),
        section("Cost", pairs(_cost(found))),
        section("Recipe", f"<pre>{safe(recipe)}</pre>"),
    ]
    return page(title, body)


def _gains(found: Mapping[str, Any]) -> str:
    figure, (axes,) = canvas(7.2, 1.0 + 0.36 * len(found["metrics"]))
    for place, (shape, after) in enumerate(found["metrics"].items()):
        value, low, high = (100 * after[key] for key in ("value", "low", "high"))
        before = 100 * found["before"][shape]["value"]
        axes.plot([before, value], [place, place], color=_SOFT, linewidth=1.2, zorder=1)
        axes.plot([low, high], [place, place], color=_BLUE, linewidth=2.2, zorder=2)
        named = ("class means, untrained", "after training") if place == 0 else ("", "")
        axes.plot(before, place, "s", color="white", mec=_SOFT, mew=1.6, label=named[0], zorder=3)
        axes.plot(value, place, "o", color=_BLUE, label=named[1], zorder=4)
    axes.set_yticks(range(len(found["metrics"])), list(found["metrics"]))
    axes.set_ylim(len(found["metrics"]) - 0.4, -0.6)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return drawn(figure)


def loss_curve(losses: Sequence[float]) -> str:
    """Draw the loss per step, and its running mean.

    Args:
        losses: of each step, one or more. [nats]
    Returns:
        An SVG element.
    """
    figure, (axes,) = canvas(7.2, 2.8)
    window = max(1, len(losses) // 30)
    steps, smooth = np.arange(1, len(losses) + 1), np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps, losses, color=_SOFT, linewidth=0.8, marker="." if len(losses) == 1 else "")
    axes.plot(steps[window - 1 :], smooth, color=_BLUE, linewidth=1.6, label=f"mean of {window} steps")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9)
    return drawn(figure)


def _spreads(accuracies: Mapping[str, tuple[Array, Array]]) -> str:
    names = list(accuracies)
    return "".join(
        spread({name: accuracies[name] for name in names[start : start + _PANELS]})
        for start in range(0, len(names), _PANELS)
    )


def spread(accuracies: Mapping[str, tuple[Array, Array]]) -> str:
    """Draw how many episodes have which accuracy, before training and after.

    Args:
        accuracies: by shape of episode, one panel each; of every episode. [fraction]
    Returns:
        An SVG element.
    """
    figure, panels = canvas(3.2 * len(accuracies) + 0.6, 2.8, len(accuracies))
    edges = np.linspace(0, 100, 11)
    for axes, (name, (before, after)) in zip(panels, accuracies.items(), strict=True):
        axes.hist(100 * before, edges, color=_SOFT, label="before")
        axes.hist(100 * after, edges, color=_BLUE, histtype="step", linewidth=1.6, label="after")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("accuracy, %")
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
    panels[0].set_ylabel("episodes")
    panels[0].legend(frameon=False, fontsize=9, loc="upper left")
    return drawn(figure)


def _hardest(classes: Classes) -> str:
    """List the classes of which least is right after training."""
    if not classes:
        return ""
    shapes = list(next(iter(classes.values())))
    order = sorted(classes, key=lambda name: float(np.mean([after for _, after in classes[name].values()])))
    rows = [
        f"<tr><td>{safe(name)}</td>"
        + "".join(f"<td class=n>{100 * classes[name][s][1]:.1f} ({100 * classes[name][s][0]:.1f})</td>" for s in shapes)
        + "</tr>"
        for name in order[:_HARDEST]
    ]
    left = len(order) - len(rows)
    said = f" {left:,} easier ones are not shown." if left else ""
    lead = f"<p class=soft>Of each class, % of its queries that are right after training (before).{said}</p>"
    return lead + table(["class", *shapes], rows)


def _cost(found: Mapping[str, Any]) -> dict[str, str]:
    return {
        "trainable parameters": f"{found['trainable_parameters']:,}",
        "steps": f"{found['steps']:,}, {found['episodes_trained']:,} episodes",
        "training": f"{found['training_seconds']:.1f} s",
        "all of it": f"{found['seconds']:.1f} s",
        **{
            f"rows to be {what}": f"{found['data'][name]['rows']:,} of {found['data'][name]['classes']:,} classes"
            for name, what in (("train", "learned from"), ("test", "scored on"))
        },
    }
