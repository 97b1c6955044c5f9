"""Share trials out among workers, each of which trains its own in one pass; those of a worker that dies are given
out again."""

from __future__ import annotations

import math
import queue
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tunesmith.core.progress import Progress
from tunesmith.recipe.loading import Checked
from tunesmith.search.passes import OTHER_ROWS, Listen, Tick, shared_by
from tunesmith.search.pools.base import Line, Message, Pool
from tunesmith.search.trials import Outcome

_DEATHS = 2  # of a worker with the same trial, after which the trial has failed


@dataclass
class _Hand:
    """A worker, and the trials that it has claimed; none while it is idle."""

    line: Line
    claimed: list[int] = field(default_factory=list)


@dataclass
class Crew:
    """Workers that train trials side by side.

    A trial is claimed by one worker at a time and told to the study once, by the process that started the workers,
    which alone writes the database.

    Args:
        pool: where they run.
        count: of the workers.
        threads: of each.
        order: what all trials have in common: recipe, overrides, what Passes takes.
        progress: for the user.
        tick: told the share of a pass that is done.
        validation: what tells the rows that choose from others, once known.
    """

    pool: Pool
    count: int
    threads: int
    order: Message
    progress: Progress
    tick: Tick
    validation: str = ""
    _hands: dict[int, _Hand] = field(default_factory=dict)
    _said: queue.Queue[tuple[int, Message | None]] = field(default_factory=queue.Queue)
    _told: set[str] = field(default_factory=set)
    _started: int = 0

    def carry_out(
        self, wanted: Mapping[int, Checked], words: Mapping[int, Sequence[str]], listen: Listen
    ) -> dict[int, Outcome]:
        """Train candidates.

        Args:
            wanted: recipes by number.
            words: overrides that make each of them of the common recipe, by number.
            listen: told about scores, and ends trials.
        Returns:
            An outcome for each number.
        """
        todo = deque(portions(wanted, self.count))
        found: dict[int, Outcome] = {}
        deaths = Counter[int]()
        while todo or any(hand.claimed for hand in self._hands.values()):
            self._give(todo, words)
            number, message = self._said.get()
            hand = self._hands.get(number)
            if hand is None:
                continue
            if message is None:
                found |= self._buried(number, todo, deaths)
            else:
                found |= self._heard(hand, message, listen)
        return {number: found[number] for number in wanted}

    def close(self) -> None:
        """End all workers."""
        while self._hands:
            self._hands.popitem()[1].line.close()

    def _give(self, todo: deque[list[int]], words: Mapping[int, Sequence[str]]) -> None:
        """Give every idle worker trials; start workers where there are too few."""
        while todo:
            hand = next((one for one in self._hands.values() if not one.claimed), None)
            if hand is None and len(self._hands) == self.count:
                return
            hand = hand or self._start()
            hand.claimed = todo.popleft()
            trials = [[number, list(words[number])] for number in hand.claimed]
            hand.line.send({"trials": trials, "validation": self.validation})

    def _start(self) -> _Hand:
        number, self._started = self._started, self._started + 1
        hand = self._hands[number] = _Hand(self.pool.start(self.threads, partial(self._put, number)))
        hand.line.send(self.order)
        return hand

    def _put(self, number: int, message: Message | None) -> None:
        self._said.put((number, message))

    def _heard(self, hand: _Hand, message: Message, listen: Listen) -> dict[int, Outcome]:
        """Answer a message."""
        if "heard" in message:
            hand.line.send({"stop": listen(*message["heard"])})
        elif "share" in message:
            self.tick(message["share"])
        elif "said" in message and message["said"] not in self._told:
            self._told.add(message["said"])
            self.progress.say(message["said"])
        if "found" not in message:
            return {}
        hand.claimed = []
        found = {int(number): Outcome(**outcome) for number, outcome in message["found"]}
        self.validation = self.validation or message["validation"]
        if message["validation"] not in ("", self.validation):  # two of the first workers, each with rows of its own
            return dict.fromkeys(found, Outcome("failed", OTHER_ROWS))
        return found

    def _buried(self, number: int, todo: deque[list[int]], deaths: Counter[int]) -> dict[int, Outcome]:
        """Give the trials of a worker that ended out again, one by one; one that ends its worker again has failed."""
        hand = self._hands.pop(number)
        how, lost = hand.line.close() or "without a word", hand.claimed
        deaths.update(lost)
        if len(lost) == 1 and deaths[lost[0]] >= _DEATHS:
            return {lost[0]: Outcome("failed", f"its worker ended twice ({how}), perhaps for want of memory")}
        if lost:
            which = ", ".join(map(str, lost))
            self.progress.say(f"note: a worker ended ({how}); its trials are given out again: {which}")
        todo.extend([one] for one in lost)
        return {}


def portions(wanted: Mapping[int, Checked], count: int) -> list[list[int]]:
    """Share trials out, those that can train in one pass together.

    Args:
        wanted: recipes by number.
        count: of the workers.
    Returns:
        At most so many lists of numbers, of about equal length.
    """
    order = sorted(wanted, key=lambda number: (shared_by(wanted[number]), number))
    size = math.ceil(len(order) / count) if order else 1
    return [order[first : first + size] for first in range(0, len(order), size)]
