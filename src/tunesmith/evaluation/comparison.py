"""What a comparison of several runs holds, and what follows from it without any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.evaluation.changes import Change
from tunesmith.evaluation.importance import importances
from tunesmith.evaluation.pairs import Pair, Seeds
from tunesmith.evaluation.statistics import Bootstrap, Estimate, cheapest_near_best

_FRONTS = ("training_seconds", "trainable_share")


@dataclass(frozen=True)
class Entry:
    """One run.

    Args:
        name: the shortest that tells it from the others.
        folder: of it.
        scores: by metric, on the split that is compared.
        baselines: the same by baseline.
        group: letters; runs that share one are not told apart.
        costs: seconds, bytes and numbers, by name.
        history: per epoch.
        settings: value by key of the recipe, of keys whose values differ among the runs.
    """

    name: str
    folder: str
    scores: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    group: str
    costs: dict[str, Any]
    history: list[dict[str, Any]]
    settings: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        scores = {name: value.plain() for name, value in self.scores.items()}
        before = {kind: {name: value.plain() for name, value in one.items()} for kind, one in self.baselines.items()}
        facts = {"run": self.folder, "name": self.name, "group": self.group, "metrics": scores, "baselines": before}
        return {**facts, "costs": self.costs, "settings": self.settings}


@dataclass(frozen=True)
class Comparison:
    """Several runs on the same rows.

    Args:
        entries: the best first.
        metric: that ranks and is tested.
        higher_is_better: its direction.
        split: that is compared.
        where: each row of it stands in its file.
        texts: of each row; empty where the file is not there any more.
        pairs: of all runs, by places in `entries`.
        changes: of the best run against others.
        seeds: of runs that differ in the seed alone: their places and score.
        bootstrap: behind intervals and tests.
        notes: for the reader.
    """

    entries: list[Entry]
    metric: str
    higher_is_better: bool
    split: str
    where: list[str]
    texts: list[str]
    pairs: list[Pair]
    changes: list[Change]
    seeds: list[tuple[list[int], Seeds]]
    bootstrap: Bootstrap
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Of the runs."""
        return [one.name for one in self.entries]

    @property
    def scores(self) -> list[Estimate]:
        """Of the runs, by the metric that ranks."""
        return [one.scores[self.metric] for one in self.entries]

    def text(self, row: int) -> str:
        """Return a row's text, or where it stands.

        Args:
            row: of the split.
        Returns:
            The text.
        """
        return self.texts[row] if self.texts else self.where[row]

    def plain(self) -> dict[str, Any]:
        """Return plain values, for programs."""
        names = self.names
        return {
            "metric": self.metric,
            "split": self.split,
            "rows": len(self.where),
            "confidence": self.bootstrap.confidence,
            "resamples": self.bootstrap.resamples,
            "runs": [one.plain() for one in self.entries],
            "pairs": [one.plain(names) for one in self.pairs],
            "one_standard_error": names[self.smallest()],
            "fronts": {key: [names[at] for at in self.front(key)] for key in _FRONTS if key in self.entries[0].costs},
            "seeds": [
                {"runs": [names[at] for at in places], **found.mean.plain(), "standard_deviation": found.deviation}
                for places, found in self.seeds
            ],
            "changes": [one.plain(names, lambda row: self.where[row]) for one in self.changes],
            "importance": self.importance(),
            "notes": self.notes,
        }

    def importance(self) -> dict[str, float]:
        """Say how much of the scores' spread each setting tells; nothing of few runs."""
        return importances([one.settings for one in self.entries], [one.value for one in self.scores])

    def smallest(self) -> int:
        """Find the run with the fewest trained numbers among those within one standard error of the best.

        Returns:
            Its place.
        """
        costs = [one.costs["trainable_parameters"] for one in self.entries]
        return cheapest_near_best(self.scores, costs, self.bootstrap.confidence)

    def front(self, cost: str) -> list[int]:
        """Find the runs that no other reaches at less or equal cost.

        Args:
            cost: key of it.
        Returns:
            Their places, the cheapest first.
        """
        values = [one.costs[cost] for one in self.entries]
        scores = [(1 if self.higher_is_better else -1) * one.value for one in self.scores]
        best, found = -np.inf, list[int]()
        for at in sorted(range(len(values)), key=lambda at: (values[at], -scores[at])):
            if scores[at] > best:
                best = scores[at]
                found.append(at)
        return found


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Write nested settings as one level of dotted keys.

    Args:
        values: settings.
        before: the key of them all.
    Returns:
        Value by dotted key; lists stay whole.
    Example:
        >>> flattened({"method": {"name": "lora", "rank": 8}, "seed": 0})
        {'method.name': 'lora', 'method.rank': 8, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{before}{key}"
        found |= flattened(value, f"{dotted}.") if isinstance(value, Mapping) and value else {dotted: value}
    return found


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the keys whose values are not the same in all that have them.

    Args:
        settings: of each run, flat.
    Returns:
        Keys in their order; what only one method has, and all runs of it alike, is none of them.
    Example:
        >>> differing([{"method.name": "lora", "method.rank": 8, "seed": 0}, {"method.name": "bitfit", "seed": 0}])
        ['method.name']
    """
    keys = list(dict.fromkeys(key for one in settings for key in one))
    values = {key: [one[key] for one in settings if key in one] for key in keys}
    return [key for key, found in values.items() if any(value != found[0] for value in found)]


def short_names(paths: Sequence[str]) -> list[str]:
    """Shorten paths to what tells them apart.

    Args:
        paths: all different.
    Returns:
        One per path.
    Example:
        >>> short_names(["/a/x/run", "/a/y/run"]), short_names(["/a/one", "/b/two"])
        (['x/run', 'y/run'], ['one', 'two'])
    """
    parts = [path.strip("/").split("/") for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)
