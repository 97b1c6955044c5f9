"""What a proposal is: the keys of a recipe, when it is one, and what is published about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.core.settings import Component
from tunesmith.search.guessing import Given

_LARGE = 20_000  # rows from which fewer epochs do


@dataclass(frozen=True)
class Evidence:
    """A published result: accuracies of one data set without and with tuning, seed by seed.

    Args:
        data: the data set.
        model: the base model.
        rows_per_label: it was trained on. [count]
        frozen: test accuracies of what learns on the frozen model's features. [fraction]
        tuned: of the proposal, the same seeds. [fraction]
        anchor: what learned on the frozen features: linear-probe or head-only.
        where: the figures stand.
    """

    data: str
    model: str
    rows_per_label: int
    frozen: tuple[float, ...]
    tuned: tuple[float, ...]
    anchor: str
    where: str

    @property
    def spared(self) -> tuple[float, ...]:
        """Share of the frozen model's errors that tuning took away, seed by seed. [fraction]"""
        return tuple(1 - (1 - after) / (1 - before) for before, after in zip(self.frozen, self.tuned, strict=True))

    def fits(self, given: Given, anchor: str) -> bool:
        """Say whether a score may be read off it: the same model and base, and rows per label of the same size.

        Args:
            given: what is planned for.
            anchor: what was measured there.
        Returns:
            Whether it does.
        """
        near = given.rows_per_label and abs(math.log(given.rows_per_label / self.rows_per_label)) <= math.log(3)
        return bool(near) and given.model == self.model and anchor == self.anchor


class Proposal(Component):
    """Base of every proposal. Its file registers one subclass with `@register("proposals")`."""

    name: ClassVar[str]
    families: ClassVar[tuple[str, ...]] = ("labelling",)  # of tasks that it is for
    reads_text: ClassVar[bool] = False  # of the labels
    only_few: ClassVar[bool] = False  # it is made for few rows per label
    score: ClassVar[str] = "transfer"  # where its score comes from: zero-shot, probe, or published results
    published: ClassVar[tuple[Evidence, ...]] = ()
    why: ClassVar[str]  # one sentence, without a full stop
    order: ClassVar[int] = 9  # among tasks that write, whose scores nothing tells: what is usually taken first
    rate: ClassVar[tuple[float, float]] = (1e-3, 5e-4)  # learning rate of tasks with labels, and of those that write

    def suits(self, given: Given) -> bool:
        """Say whether it is one for a task.

        Args:
            given: what is planned for.
        Returns:
            Whether it is.
        """
        family = given.family in self.families
        return family and not (self.reads_text and given.reads_images) and (given.few or not self.only_few)

    def changes(self, given: Given) -> dict[str, Any]:
        """Return its keys of a recipe.

        Args:
            given: what is planned for.
        Returns:
            A mapping; what is not in it stays at its default.
        """
        raise NotImplementedError

    def trained(self, given: Given, **own: Any) -> dict[str, Any]:
        """Return training settings that fit many tasks.

        Args:
            given: what is planned for.
            **own: settings that the proposal wants otherwise.
        Returns:
            Keys of a recipe's training.
        """
        writes = given.family == "generating"
        epochs = 3 if given.rows > _LARGE or writes else 10 if given.few else 6
        rate = self.rate[1 if writes else 0]
        best = {"best": "last", "score_every": epochs} if given.few else {}
        return {"epochs": epochs, "batch_size": 16 if writes else 32, "learning_rate": rate, **best, **own}

    def spared(self, given: Given) -> float:
        """Return the share of errors that published results took away, nearest in rows per label; for the order alone.

        Args:
            given: what is planned for.
        Returns:
            0 where nothing is published. [fraction]
        """
        if not self.published:
            return 0.0
        own = given.rows_per_label or 1.0
        near = min(self.published, key=lambda one: abs(math.log(own / one.rows_per_label)))
        return sum(near.spared) / len(near.spared)
