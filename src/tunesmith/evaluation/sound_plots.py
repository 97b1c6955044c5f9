"""Pictures of sounds: how far their samples swing, from beginning to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.data.sounds import Sound
from tunesmith.evaluation.plots import canvas, drawn, plain_name

_BLUE = "#2563eb"
_BESIDE = 4  # sounds in a row
_STRETCHES = 240  # of a sound, each drawn from its least to its most sample
_LONGEST = 22  # characters of a label
_QUIETEST = 1e-4  # below it a sound is drawn as silence, not as noise blown up
_MINUTE = 60  # seconds from which hundredths are left out


def waveforms(sounds: Sequence[tuple[str, Sound]]) -> str:
    """Draw sounds, each on its own scale: what it is called, how long it is, and its loudest sample above it.

    Args:
        sounds: label and sound of each.
    Returns:
        SVG elements, one for every four sounds; channels lie on each other.
    """
    rows = [sounds[start : start + _BESIDE] for start in range(0, len(sounds), _BESIDE)]
    return "".join(_row(row) for row in rows)


def _row(sounds: Sequence[tuple[str, Sound]]) -> str:
    figure, panels = canvas(9.2, 1.4, _BESIDE)
    for axes, (label, sound) in zip(panels, sounds, strict=False):
        _wave(axes, label, sound)
    for axes in panels[len(sounds) :]:
        axes.set_visible(False)
    return drawn(figure)


def _wave(axes: Any, label: str, sound: Sound) -> None:
    low, high = _swing(sound)
    most = float(max(high.max(), -low.min()))
    name = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
    axes.set_title(f"{plain_name(name)}\n{_seconds(sound.seconds)}, peak {100 * most:.0f} %", fontsize=9, loc="left")
    edges = np.linspace(0, sound.seconds, len(low) + 1)
    axes.stairs(high, edges, baseline=low, fill=True, color=_BLUE, linewidth=0.6, edgecolor=_BLUE)
    axes.set_xlim(0, sound.seconds)
    axes.set_ylim(*(np.array([-1.05, 1.05]) * max(most, _QUIETEST)))
    axes.set_axis_off()


def _seconds(length: float) -> str:
    return f"{length:.2f} s" if length < _MINUTE else f"{length:,.0f} s"


def _swing(sound: Sound) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the least and the most sample of every stretch, of all channels."""
    length = sound.samples.shape[1]
    starts = np.linspace(0, length, min(_STRETCHES, length), endpoint=False).astype(np.int64)
    least, most = sound.samples.min(0), sound.samples.max(0)
    return np.minimum.reduceat(least, starts), np.maximum.reduceat(most, starts)
