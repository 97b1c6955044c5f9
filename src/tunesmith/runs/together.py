"""From trained members to what answers in their place, and what that gained and cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from tunesmith.core.arrays import Array
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Result
from tunesmith.recipe.loading import Checked
from tunesmith.runs.family import Family
from tunesmith.runs.members import out_of_fold
from tunesmith.runs.preparing import Prepared
from tunesmith.runs.schemes import worded_gain
from tunesmith.tasks.ensemble import Ensemble, answers
from tunesmith.tasks.heads.base import load_head
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.preflight import Preflight
from tunesmith.training.ranking import Key, mean_of, rankable


@dataclass
class Member:
    """One of those that answer together.

    Args:
        item: the training that it comes from.
        tuned: its delta and head.
        what: for the reader.
    """

    item: Prepared
    tuned: Tuned
    what: str


@dataclass
class Together:
    """What answers in the end.

    Args:
        tuned: an ensemble, or one delta.
        items: the training of each delta that is kept, in their order.
        answers: of the evaluated splits; empty where they are still to be given.
        facts: scores of members, gains and cost, as plain values; empty for the one best candidate.
    """

    tuned: Tuned
    items: list[Prepared]
    answers: dict[str, Result] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def trained(self, one: Preflight) -> Preflight:
        """Add up what trained of all that is kept.

        Args:
            one: of the best.
        Returns:
            The same with all parameters.
        """
        facts = [item.facts for item in self.items]
        return replace(one, trainable=sum(own.trainable for own in facts), share=sum(own.share for own in facts))


def put_together(checked: Checked, family: Family, prepared: Sequence[Prepared]) -> Together:
    """Put trained members together, and measure what that gains over the best of them and over the recipe alone.

    Args:
        checked: the recipe.
        family: its model and data.
        prepared: after training; at least one did not diverge.
    Returns:
        What answers.
    """
    joining = _Joining(checked, family, prepared)
    alone = joining.alone()  # answered before a mean of weights takes the first member's place
    tuned, found = joining.mean() if checked.combine.keeps == "mean" else joining.ensemble()
    items = [member.item for member in joining.members[: 1 if tuned is joining.members[0].tuned else None]]
    facts = joining.facts(found, alone)
    cost = facts["cost"] = {
        "trainable_parameters": sum(item.facts.trainable for item in items),
        "trainable_parameters_of_one": items[0].facts.trainable,
        **_trained(checked, prepared),
        "answer_seconds": joining.seconds,
        "answer_seconds_of_one": joining.seconds_of_one,
    }
    cost["sentence"] = _worded_cost(cost)
    facts["sentences"] = _sentences(checked, family, facts)
    return Together(tuned, items, found, facts)


class _Joining:
    """Members with their answers on the evaluated rows."""

    def __init__(self, checked: Checked, family: Family, prepared: Sequence[Prepared]) -> None:
        self.checked, self.family, self.prepared = checked, family, prepared
        self.members = _members(checked, prepared)
        self.tables: dict[str, Array] = {}
        self.seconds = 0.0  # of the evaluated split, all members together
        for split in family.judge.splits:
            began = time.perf_counter()
            self.tables[split] = answers([member.tuned for member in self.members], family.corpus.splits[split].tokens)
            self.seconds = time.perf_counter() - began
        self.keys = [self._own_key(place) for place in range(len(self.members))]
        self.best = min(range(len(self.members)), key=self.keys.__getitem__)
        began = time.perf_counter()
        family.answer(self.members[self.best].tuned, family.corpus.splits[family.judge.splits[-1]])
        self.seconds_of_one = time.perf_counter() - began
        self.learned: dict[str, Array] = {}
        self.chosen = list(range(len(self.members)))

    def answered(self, place: int) -> dict[str, Result]:
        """Return what one member answered, by split."""
        return {split: self._predictions(split, table[place]) for split, table in self.tables.items()}

    def _predictions(self, split: str, chances: Array) -> Predictions:
        return Predictions(chances, self.family.corpus.splits[split].labels)

    def _own_key(self, place: int) -> Key:
        """Rank a member by validation; by its training where there are no such rows."""
        if "validation" not in self.tables:
            return self.members[place].item.trial.key
        return self._key(self._predictions("validation", self.tables["validation"][place]))

    def _key(self, found: Result) -> Key:
        name, higher = self.family.best(self.checked.recipe.training.best)
        loss = float(found.row_loss.mean())
        metric = next((metric for metric in self.family.judge.metrics if metric.name == name), None)
        score = loss if metric is None else metric.compute(found.sample()) * (-1 if higher else 1)
        return rankable(score), loss

    def alone(self) -> dict[str, Result]:
        """Answer as the recipe alone does, by split; nothing where it did not train, or diverged."""
        plain, making = self.prepared[0].plain, self.checked.ensemble
        if plain is not None and (plain.trained.best_epoch or not plain.trained.diverged):
            self.family.settle(plain.tuned)
            splits = self.family.corpus.splits
            return {split: self.family.answer(plain.tuned, splits[split]) for split in self.tables}
        own = making is not None and making.alone and self.members[0].item is self.prepared[0]
        return self.answered(0) if own else {}

    def mean(self) -> tuple[Tuned, dict[str, Result]]:
        """Average weights; the first member's delta takes them."""
        tuned, splits = self.members[0].tuned, self.family.corpus.splits
        states = [member.tuned.state() for member in self.members]

        def put(numbers: Sequence[int]) -> None:
            tuned.restore(mean_of([states[number] for number in numbers]))
            self.family.settle(tuned)

        def scored(numbers: Sequence[int]) -> Key:
            put(numbers)
            return self._key(self.family.answer(tuned, splits["validation"]))

        self.chosen = self.checked.combine.choose(self.keys, scored)
        put(self.chosen)
        self.seconds = self.seconds_of_one
        return tuned, {split: self.family.answer(tuned, splits[split]) for split in self.tables}

    def ensemble(self) -> tuple[Tuned, dict[str, Result]]:
        """Learn what is to be learned, and answer together."""
        way, tuned = self.checked.combine, [member.tuned for member in self.members]
        if len(tuned) == 1:
            return tuned[0], self.answered(0)
        votes = [member.item.vote for member in self.members]
        known = [vote for vote in votes if vote is not None]
        weights = np.array(known) / sum(known) if len(known) == len(votes) else None
        rows: tuple[Any, Any] = (None, None)
        if way.learns_from == "validation":
            rows = self.tables["validation"], self.family.corpus.splits["validation"].labels
        elif way.learns_from == "out-of-fold":
            rows = out_of_fold([member.item for member in self.members], self.family)
        self.learned = way.learn(*rows, weights)
        found: dict[str, Result] = {
            split: self._predictions(split, way.answer(table, self.learned)) for split, table in self.tables.items()
        }
        return Ensemble.of(tuned, way, self.learned), found

    def facts(self, found: Mapping[str, Result], alone: Mapping[str, Result]) -> dict[str, Any]:
        """Describe members and gains as plain values."""
        making, way, judge = self.checked.ensemble, self.checked.combine, self.family.judge
        weights = self.learned.get("weights")
        others = {"best member": self.answered(self.best), "recipe alone": alone}
        fair = [split for split in judge.splits if (split, way.learns_from) != ("validation",) * 2]
        return {
            "ensemble": None if making is None else making.describe(),
            "combine": way.describe(),
            "learned_from": way.learns_from,
            "best_member": self.best,
            "members": [
                {
                    "what": member.what,
                    "taken": place in self.chosen,
                    "weight": None if weights is None else float(weights[place]),
                    "scores": {split: judge.brief(rows) for split, rows in self.answered(place).items()},
                }
                for place, member in enumerate(self.members)
            ],
            "alone": {split: judge.brief(rows) for split, rows in alone.items()},
            "gain": {
                who: {split: judge.paired(found[split], theirs[split]) for split in fair}
                for who, theirs in others.items()
                if theirs
            },
        }


def _members(checked: Checked, prepared: Sequence[Prepared]) -> list[Member]:
    """Take what did not diverge, each state of one training apart where they are members of their own."""
    making, found = checked.ensemble, list[Member]()
    for number, item in enumerate(prepared):
        states = () if making is None else making.states(item.trial)
        for place, state in enumerate(states):
            found.append(Member(item, _copied(item, state, place), f"snapshot {place}"))
        if not states and not item.trial.trained.diverged:
            found.append(Member(item, item.trial.tuned, f"member {number}"))
    for member in found:
        member.item.family.settle(member.tuned)
    return found


@torch.no_grad()
def _copied(item: Prepared, state: list[torch.Tensor], place: int) -> Tuned:
    """Give a state a delta and a head of its own; the first one takes the trial's."""
    old, session = item.trial.tuned, item.family.session
    if not place:
        old.restore(state)
        return old
    delta = item.checked.method.attach(session.backbone.seams, f"{old.delta.name}-{place:03d}")
    head = session.task.head(session.backbone.width, len(item.family.corpus.label_names))
    head = head.to(session.backbone.device, old.head_tensor().dtype)
    load_head(head, old.head.state_dict())
    new = Tuned(old.backbone, old.task, head, delta)
    for own, theirs in zip(new.tensors(), old.tensors(), strict=True):
        own.copy_(theirs)
    new.restore(state)
    return new


def _trained(checked: Checked, prepared: Sequence[Prepared]) -> dict[str, Any]:
    """Say what training took: of all members and folds, and of one; the pass's seconds hold the recipe alone too."""
    trials = [trial for item in prepared for trial in item.trials if trial is not item.plain]
    seconds = [item.trial.trained.seconds for item in prepared]
    in_turn = checked.ensemble is not None and checked.ensemble.in_turn
    return {
        "trained_rows": sum(trial.trained.examples for trial in trials),
        "trained_rows_of_one": (prepared[0].plain or prepared[0].trial).trained.examples,
        "training_seconds": sum(seconds) if in_turn else max(trial.trained.seconds for trial in trials),
    }


def _sentences(checked: Checked, family: Family, facts: Mapping[str, Any]) -> list[str]:
    """Say what was gained."""
    name, split = family.judge.metrics[0].name, family.judge.splits[-1]
    what = f"{type(checked.combine).name} of {sum(one['taken'] for one in facts['members'])}"
    few = "only one member is left, the others diverged or were not reached: this is no ensemble."
    found = [few] if len(facts["members"]) == 1 else []
    for who, gains in facts["gain"].items():
        if split in gains:
            found.append(f"{what} {worded_gain(name, split, gains[split][name])} over the {who}.")
    if split not in facts["gain"]["best member"]:
        found.append(
            f"{what}: {split} rows chose how members are put together, so its score there flatters and no gain is "
            "given. Name test rows (data.test)."
        )
    return found


def _worded_cost(cost: Mapping[str, Any]) -> str:
    """Say what it cost beside one run."""
    times = cost["answer_seconds"] / max(cost["answer_seconds_of_one"], 1e-9)
    rows = cost["trained_rows"] / max(cost["trained_rows_of_one"], 1)
    return (
        f"answers take {times:.2f} times as long as one member's, training read {rows:.2f} times the rows of one run, "
        f"{cost['trainable_parameters']:,} parameters are kept in the place of "
        f"{cost['trainable_parameters_of_one']:,}"
    )
